//! Forgetting a mirror, and deleting its topic when that is asked for as well:
//! `DELETE /kafka/v3/clusters/{cluster}/links/{link}/mirrors/{topic}`.
//!
//! First the mirror is forgotten, which stops it; then, when nothing of ours is written any more, the
//! topic is deleted, by its id. A topic that can't be deleted stays, and the answer says so.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use catalog::{Action, Catalog, Link, MirrorTopic};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiPath, ApiQuery, MirrorPath};
use super::mirrors::{find_mirror, row};
use super::types::{DeletedMirror, Resource};
use super::{Api, rows};

/// Above what a lane waits for the answer to its last request.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Delete the destination topic with all its records as well.
    delete_topic: bool,
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
}

/// Forgets a mirror, and deletes its topic when asked for.
#[utoipa::path(
    delete,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors/{topic}",
    operation_id = "deleteMirror",
    tag = "mirrors",
    params(MirrorPath, DeleteQuery),
    responses((status = 200, description = "forgotten; error_code says why its topic stays although its deletion was asked for", body = Resource<DeletedMirror>))
)]
pub async fn delete(
    State(api): State<Api>,
    ApiPath(MirrorPath { cluster, link, topic }): ApiPath<MirrorPath>,
    ApiQuery(query): ApiQuery<DeleteQuery>,
) -> ApiResult<Json<Resource<DeletedMirror>>> {
    let applied = api.catalog();
    let (link, mirror) = find_mirror(&applied.catalog, &cluster, &link, &topic)?;
    if query.delete_topic && mirror.destination_topic_id.is_none() {
        let message = "the mirror has no topic of its own yet, so none is deleted; delete the mirror alone";
        return Err(ApiError::invalid("delete_topic", message));
    }
    api.submit(Action::DeleteMirror { mirror: link.key(&mirror.name) }, query.validate_only).await?;
    let shown = row(&api, &applied.catalog, link, mirror).await.body;
    let deletion = match query.delete_topic && !query.validate_only {
        true => Some(delete_topic(&api, &applied.catalog, link, mirror).await),
        false => None,
    };
    let topic_deleted = matches!(deletion, Some(Ok(())));
    let error = deletion.and_then(Result::err);
    let body = DeletedMirror {
        mirror: shown,
        topic_deleted,
        error_code: error.as_ref().map(|error| error.code),
        error_message: error.map(|error| error.message),
    };
    Ok(Json(rows::resource("KafkaMirrorData", rows::mirror_path(link, &mirror.name), body)))
}

async fn delete_topic(api: &Api, catalog: &Catalog, link: &Link, mirror: &MirrorTopic) -> ApiResult<()> {
    if tokio::time::timeout(STOP_LIMIT, stopped(api, catalog, link, mirror)).await.is_err() {
        let message = format!(
            "topic '{}' stays: not every node that wrote to it said within {} s that it has stopped; delete it \
             with Kafka's tools",
            mirror.name,
            STOP_LIMIT.as_secs()
        );
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    Ok(api.preflight.delete_topic(catalog, link, &mirror.name, mirror.destination_topic_id).await?)
}

/// Waits until each node that owned a partition of a forgotten mirror has said that none runs there.
async fn stopped(api: &Api, catalog: &Catalog, link: &Link, mirror: &MirrorTopic) {
    loop {
        let seen = api.fleet.mirrors(catalog, &[(link, mirror)]).await;
        let by_node = seen.mirrors.get(&link.key(&mirror.name));
        let runs = by_node.is_some_and(|nodes| nodes.values().any(|node| !node.partitions.is_empty()));
        if seen.silent.is_empty() && !runs {
            return;
        }
        tokio::time::sleep(STOP_POLL).await;
    }
}

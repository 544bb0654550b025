//! Registered Kafka clusters: `/lockstep/v1/clusters`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use catalog::{Action, Cluster};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, ClusterPath, NoParameters};
use super::names::check_name;
use super::paging::{self, PageQuery};
use super::types::{ClusterRow, CreateCluster, Page, Resource, UpdateCluster};
use super::{Api, alter, find_cluster, keys, rows};

/// A cluster that answers later than this is shown as unavailable.
const STATE_LIMIT: Duration = Duration::from_secs(3);
/// Each is a connection or two.
const PROBES_AT_ONCE: usize = 32;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ChangeQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
    /// Whether the brokers are asked; true unless told otherwise.
    validate_cluster: Option<bool>,
}

/// Registers a Kafka cluster.
#[utoipa::path(
    post,
    path = "/lockstep/v1/clusters",
    operation_id = "createCluster",
    tag = "clusters",
    params(ChangeQuery),
    request_body = CreateCluster,
    responses((status = 201, description = "registered", body = Resource<ClusterRow>), (status = 200, description = "it could be registered", body = Resource<ClusterRow>))
)]
pub async fn create(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<ChangeQuery>,
    ApiJson(body): ApiJson<CreateCluster>,
) -> ApiResult<Response> {
    check_name("name", &body.name)?;
    let checked = keys::check_cluster(&body.configs)?;
    let asks = query.validate_cluster.unwrap_or(true);
    let cluster_id = if asks {
        let facts = api.preflight.probe(&body.name, &checked.configs).await.map_err(ApiError::from_probe)?;
        guard_cluster_id("cluster_id", body.cluster_id.as_deref(), &facts.cluster_id)?;
        facts.cluster_id
    } else {
        let missing = || ApiError::invalid("cluster_id", "required when the brokers aren't asked");
        let given = body.cluster_id.ok_or_else(missing)?;
        check_name("cluster_id", &given)?;
        given
    };
    let cluster = Cluster { name: body.name.into(), cluster_id: cluster_id.into(), configs: checked.configs };
    let Cluster { name, cluster_id, configs } = cluster.clone();
    api.submit(Action::CreateCluster { name, cluster_id, configs }, query.validate_only).await?;
    let mut row = rows::cluster(&cluster, state_now(asks), None);
    row.body.warnings = checked.warnings;
    let status = if query.validate_only { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(row)).into_response())
}

/// The state of a cluster whose brokers have just answered, or weren't asked.
fn state_now(asked: bool) -> &'static str {
    if asked { "ACTIVE" } else { "UNKNOWN" }
}

/// A cluster id that was given is a guard.
pub fn guard_cluster_id(field: &str, given: Option<&str>, found: &str) -> ApiResult<()> {
    match given {
        Some(given) if given != found => {
            let message = format!("the brokers answer as Kafka cluster '{found}', not '{given}'");
            Err(ApiError::invalid(field, message))
        }
        _ => Ok(()),
    }
}

/// Registered clusters.
#[utoipa::path(
    get,
    path = "/lockstep/v1/clusters",
    operation_id = "listClusters",
    tag = "clusters",
    params(PageQuery),
    responses((status = 200, description = "registered clusters, each asked for its state", body = Page<ClusterRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> ApiResult<Json<Page<ClusterRow>>> {
    let applied = api.catalog();
    let clusters = applied.catalog.clusters.iter().map(|(name, cluster)| (name.to_string(), cluster));
    let page = paging::select(clusters, query.page_size, query.page_token.as_deref())?;
    let mut rows = with_states(&api, page.items.iter().map(|cluster| (*cluster).clone())).await;
    Ok(Json(page.into_page("LockstepCluster", &uri, |cluster| {
        rows.remove(&cluster.name).unwrap_or_else(|| rows::cluster(cluster, "UNKNOWN", None))
    })))
}

async fn with_states(
    api: &Api,
    clusters: impl Iterator<Item = Arc<Cluster>>,
) -> BTreeMap<Arc<str>, Resource<ClusterRow>> {
    let turns = Arc::new(Semaphore::new(PROBES_AT_ONCE));
    let mut asked = JoinSet::new();
    for cluster in clusters {
        let (api, turns) = (api.clone(), turns.clone());
        asked.spawn(async move {
            let row = with_state(&api, &cluster, &turns).await;
            (cluster.name.clone(), row)
        });
    }
    let mut rows = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        rows.extend(answer.ok());
    }
    rows
}

/// One registered cluster.
#[utoipa::path(
    get,
    path = "/lockstep/v1/clusters/{cluster}",
    operation_id = "showCluster",
    tag = "clusters",
    params(ClusterPath),
    responses((status = 200, description = "the cluster", body = Resource<ClusterRow>))
)]
pub async fn show(
    State(api): State<Api>,
    ApiPath(ClusterPath { cluster: name }): ApiPath<ClusterPath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Resource<ClusterRow>>> {
    let applied = api.catalog();
    let cluster = find_cluster(&applied.catalog, &name)?;
    Ok(Json(with_state(&api, cluster, &Semaphore::new(1)).await))
}

async fn with_state(api: &Api, cluster: &Cluster, turns: &Semaphore) -> Resource<ClusterRow> {
    let probe = async {
        let _turn = turns.acquire().await;
        api.preflight.probe(&cluster.name, &cluster.configs).await
    };
    let (state, message) = match tokio::time::timeout(STATE_LIMIT, probe).await {
        Ok(Ok(facts)) if facts.cluster_id == *cluster.cluster_id => ("ACTIVE", None),
        Ok(Ok(facts)) => {
            ("FAILED", Some(format!("the brokers answer as Kafka cluster '{}'", facts.cluster_id)))
        }
        Ok(Err(error)) => ("UNAVAILABLE", Some(error.to_string())),
        Err(_) => ("UNAVAILABLE", Some(format!("no answer within {} s", STATE_LIMIT.as_secs()))),
    };
    rows::cluster(cluster, state, message)
}

/// Changes client keys. Links that use the cluster go on with them at once.
#[utoipa::path(
    patch,
    path = "/lockstep/v1/clusters/{cluster}",
    operation_id = "updateCluster",
    tag = "clusters",
    params(ClusterPath, ChangeQuery),
    request_body = UpdateCluster,
    responses((status = 200, description = "the cluster as it is now", body = Resource<ClusterRow>))
)]
pub async fn update(
    State(api): State<Api>,
    ApiPath(ClusterPath { cluster: name }): ApiPath<ClusterPath>,
    ApiQuery(query): ApiQuery<ChangeQuery>,
    ApiJson(body): ApiJson<UpdateCluster>,
) -> ApiResult<Json<Resource<ClusterRow>>> {
    let applied = api.catalog();
    let cluster = find_cluster(&applied.catalog, &name)?;
    let checked = alter::cluster(cluster, &body.configs)?;
    let asks = query.validate_cluster.unwrap_or(true);
    if asks {
        let facts =
            api.preflight.probe(&cluster.name, &checked.configs).await.map_err(ApiError::from_probe)?;
        guard_cluster_id("bootstrap.servers", Some(&cluster.cluster_id), &facts.cluster_id)?;
    }
    let action = Action::UpdateCluster {
        name: cluster.name.clone(),
        expected: cluster.configs.clone(),
        configs: checked.configs.clone(),
    };
    api.submit(action, query.validate_only).await?;
    let updated = Cluster { configs: checked.configs, ..Cluster::clone(cluster) };
    let mut row = rows::cluster(&updated, state_now(asks), None);
    row.body.warnings = checked.warnings;
    Ok(Json(row))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
}

/// Forgets a cluster that no link uses.
#[utoipa::path(
    delete,
    path = "/lockstep/v1/clusters/{cluster}",
    operation_id = "deleteCluster",
    tag = "clusters",
    params(ClusterPath, DeleteQuery),
    responses((status = 200, description = "what was forgotten", body = Resource<ClusterRow>))
)]
pub async fn delete(
    State(api): State<Api>,
    ApiPath(ClusterPath { cluster: name }): ApiPath<ClusterPath>,
    ApiQuery(query): ApiQuery<DeleteQuery>,
) -> ApiResult<Json<Resource<ClusterRow>>> {
    let applied = api.catalog();
    let cluster = find_cluster(&applied.catalog, &name)?;
    api.submit(Action::DeleteCluster { name: cluster.name.clone() }, query.validate_only).await?;
    Ok(Json(rows::cluster(cluster, "UNKNOWN", None)))
}

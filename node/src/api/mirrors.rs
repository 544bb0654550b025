//! Mirror topics: `/kafka/v3/clusters/{cluster}/links/{link}/mirrors`.

use std::collections::BTreeMap;

use actors::preflight::{MirrorPlan, MirrorRequest};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use catalog::command::NewMirror;
use catalog::{Action, Catalog, Link, MirrorTopic, TopicId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, LinkPath, MirrorPath};
use super::names::check_topic;
use super::types::{CreateMirror, MirrorPlanBody, MirrorRow, Page, PlannedPartition, Resource};
use super::{ALL, Api, events, find_link, keys, links_on, paging, rows};
use crate::status::Seen;

/// Every status that a filter may name (SPEC section 4).
pub const STATUSES: [&str; 12] = [
    "ACTIVE",
    "PAUSED",
    "LINK_PAUSED",
    "LINK_FAILED",
    "SOURCE_UNAVAILABLE",
    "PENDING_STOPPED",
    "STOPPED",
    "FAILED",
    "PENDING_MIRROR",
    "PENDING_SYNCHRONIZE",
    "PENDING_SETUP_FOR_RESTORE",
    "PENDING_RESTORE",
];

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CreateQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
}

/// Mirrors a topic.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors",
    operation_id = "createMirror",
    tag = "mirrors",
    params(LinkPath, CreateQuery),
    request_body = CreateMirror,
    responses((status = 201, description = "created", body = Resource<MirrorRow>), (status = 200, description = "what would be created", body = MirrorPlanBody), (status = 204, description = "created, and deleted by somebody else since"))
)]
pub async fn create(
    State(api): State<Api>,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(query): ApiQuery<CreateQuery>,
    ApiJson(body): ApiJson<CreateMirror>,
) -> ApiResult<Response> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    let request = read_request(link, body)?;
    // The catalog's own refusals first: they say more than a topic that happens to exist.
    api.would_apply(&applied.catalog, Action::CreateMirror(draft(link, &request)))?;
    let plan = api.preflight.plan(&applied.catalog, link, &request).await?;
    if query.validate_only {
        api.would_apply(&applied.catalog, Action::CreateMirror(plan.clone().into_new(link)))?;
        return Ok(Json(plan_body(link, plan)).into_response());
    }
    let new = plan.into_new(link);
    let key = new.mirror.clone();
    api.submit(Action::CreateMirror(new), false).await?;
    let applied = api.catalog();
    match applied.catalog.links.get(&key.link).zip(applied.catalog.mirror(&key)) {
        Some((link, mirror)) => {
            Ok((StatusCode::CREATED, Json(row(&api, &applied.catalog, link, mirror).await)).into_response())
        }
        // Created, and deleted by somebody else since.
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

fn read_request(link: &Link, body: CreateMirror) -> ApiResult<MirrorRequest> {
    check_topic("source_topic_name", &body.source_topic_name)?;
    let mirror_topic = body.mirror_topic_name.unwrap_or_else(|| link.mirror_name(&body.source_topic_name));
    check_topic("mirror_topic_name", &mirror_topic)?;
    if !mirror_topic.starts_with(link.prefix()) {
        let message = format!(
            "mirrors of link '{}' begin with '{}' (its {}); leave the name out for '{}'",
            link.name,
            link.prefix(),
            Link::PREFIX_KEY,
            link.mirror_name(&body.source_topic_name)
        );
        return Err(ApiError::invalid("mirror_topic_name", message));
    }
    if body.replication_factor.is_some_and(|factor| factor < 1) {
        let message = "must be at least 1; leave it out for the destination's default";
        return Err(ApiError::invalid("replication_factor", message));
    }
    Ok(MirrorRequest {
        source_topic: body.source_topic_name,
        mirror_topic,
        replication_factor: body.replication_factor,
        configs: keys::to_map(&body.configs)?,
    })
}

/// Only to ask the catalog whether name and link are free.
fn draft(link: &Link, request: &MirrorRequest) -> NewMirror {
    NewMirror {
        mirror: link.key(&request.mirror_topic.as_str().into()),
        source_topic: request.source_topic.as_str().into(),
        source_topic_id: TopicId::NONE,
        partitions: 1,
        replication_factor: request.replication_factor,
        configs: BTreeMap::new(),
    }
}

fn plan_body(link: &Link, plan: MirrorPlan) -> MirrorPlanBody {
    let partitions = (0..).zip(&plan.source_offsets).map(|(partition, (start, end))| PlannedPartition {
        partition,
        source_start_offset: *start,
        source_end_offset: *end,
    });
    MirrorPlanBody {
        link_name: link.name.to_string(),
        destination_cluster: link.destination.to_string(),
        source_topic_name: plan.source_topic,
        mirror_topic_name: plan.mirror_topic,
        num_partitions: plan.partitions,
        replication_factor: plan.replication_factor,
        configs: rows::shown_configs(&plan.topic_configs),
        partitions: partitions.collect(),
        offsets_to_fill: plan.source_offsets.iter().map(|(start, _)| start).sum(),
        offsets_to_mirror: plan.source_offsets.iter().map(|(start, end)| end - start).sum(),
        adopts_existing: plan.adopts_existing,
    }
}

pub async fn row(api: &Api, catalog: &Catalog, link: &Link, mirror: &MirrorTopic) -> Resource<MirrorRow> {
    let seen = api.fleet.mirrors(catalog, &[(link, mirror)]).await;
    rows::mirror(catalog, link, mirror, &seen)
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only mirrors in this status.
    mirror_status: Option<String>,
    /// Rows in an answer, 1 to 1000; 200 by default.
    page_size: Option<usize>,
    /// As `metadata.next` has it.
    page_token: Option<String>,
}

/// Mirror topics of a link.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors",
    operation_id = "listMirrors",
    tag = "mirrors",
    params(LinkPath, ListQuery),
    responses((status = 200, description = "mirror topics of the link, or of all", body = Page<MirrorRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> ApiResult<Json<Page<MirrorRow>>> {
    let status = query.mirror_status.map(|status| status.to_ascii_uppercase());
    if let Some(status) = status.as_deref().filter(|status| !STATUSES.contains(status)) {
        let message = format!("'{status}' is not a mirror status; one of {}", STATUSES.join(", "));
        return Err(ApiError::invalid("mirror_status", message));
    }
    let applied = api.catalog();
    let links = if link == ALL {
        links_on(&applied.catalog, &cluster)?
    } else {
        vec![find_link(&applied.catalog, &cluster, &link)?]
    };
    // A mirror's status depends on its link's.
    let seen = match status {
        Some(_) => api.fleet.links(&applied.catalog, links.iter().copied()).await,
        None => Seen::default(),
    };
    let mirrors = links.into_iter().flat_map(|link| {
        let view = seen.link(&link.id);
        link.mirrors.values().map(move |mirror| (link, mirror, rows::status(link, view, mirror)))
    });
    let wanted = mirrors.filter(|(_, _, shown)| status.as_deref().is_none_or(|wanted| wanted == *shown));
    let keyed = wanted.map(|(link, mirror, _)| {
        (format!("{} {} {}", link.name, link.destination, mirror.name), (&**link, &**mirror))
    });
    let page = paging::select(keyed, query.page_size, query.page_token.as_deref())?;
    let seen = api.fleet.mirrors(&applied.catalog, page.items()).await;
    Ok(Json(page.into_page("KafkaMirrorData", &uri, |(link, mirror)| {
        rows::mirror(&applied.catalog, link, mirror, &seen)
    })))
}

pub fn find_mirror<'a>(
    catalog: &'a Catalog,
    cluster: &str,
    link: &str,
    topic: &str,
) -> ApiResult<(&'a Link, &'a MirrorTopic)> {
    let link = find_link(catalog, cluster, link)?;
    let mirror = link.mirrors.get(topic).ok_or_else(|| ApiError::no_mirror(topic, &link.name))?;
    Ok((link, mirror))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// Show the failures that are remembered as well.
    include_state_transition_errors: bool,
}

/// One mirror topic with each of its partitions.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors/{topic}",
    operation_id = "showMirror",
    tag = "mirrors",
    params(MirrorPath, ShowQuery),
    responses((status = 200, description = "the mirror topic", body = Resource<MirrorRow>))
)]
pub async fn show(
    State(api): State<Api>,
    ApiPath(MirrorPath { cluster, link, topic }): ApiPath<MirrorPath>,
    ApiQuery(query): ApiQuery<ShowQuery>,
) -> ApiResult<Json<Resource<MirrorRow>>> {
    let applied = api.catalog();
    let (link, mirror) = find_mirror(&applied.catalog, &cluster, &link, &topic)?;
    let mut shown = row(&api, &applied.catalog, link, mirror).await;
    if query.include_state_transition_errors {
        shown.body.mirror_state_transition_errors.extend(events::failures(&mirror.history));
    }
    Ok(Json(shown))
}

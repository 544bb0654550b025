//! Links: `/kafka/v3/clusters/{cluster}/links`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::command::NewLink;
use catalog::{Action, Catalog, Link, LinkId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::clusters::guard_cluster_id;
use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, DestinationPath, LinkPath};
use super::names::check_name;
use super::paging::{self, PageQuery};
use super::types::{CreateLink, LinkRow, Page, Resource};
use super::{Api, find_cluster, find_link, keys, links_on, rows};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CreateQuery {
    /// The new link's name; required.
    link_name: Option<String>,
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
    /// Whether the source is asked; true unless told otherwise.
    validate_link: Option<bool>,
}

/// Creates a link.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links",
    operation_id = "createLink",
    tag = "links",
    params(DestinationPath, CreateQuery),
    request_body = CreateLink,
    responses((status = 201, description = "created", body = Resource<LinkRow>), (status = 200, description = "it could be created", body = Resource<LinkRow>))
)]
pub async fn create(
    State(api): State<Api>,
    ApiPath(DestinationPath { cluster }): ApiPath<DestinationPath>,
    ApiQuery(query): ApiQuery<CreateQuery>,
    ApiJson(body): ApiJson<CreateLink>,
) -> ApiResult<Response> {
    let missing = || ApiError::invalid("link_name", "required: the new link's name, as a query parameter");
    let name = query.link_name.ok_or_else(missing)?;
    check_name("link_name", &name)?;
    let applied = api.catalog();
    let destination = find_cluster(&applied.catalog, &cluster)?;
    let (checked, source) = keys::check_link(&body.configs)?;
    let (source_cluster_id, source) = {
        let asks = query.validate_link.unwrap_or(true);
        let given = body.source_cluster_id.as_deref();
        match source {
            Some(name) => registered_source(&api, &applied.catalog, &name, given, asks).await?,
            None => (described_source(&api, &checked.configs, given, asks).await?, None),
        }
    };
    let new = NewLink {
        id: fresh_id(&api),
        name: name.into(),
        destination: destination.name.clone(),
        source,
        source_cluster_id: source_cluster_id.into(),
        configs: checked.configs,
    };
    let link = Link {
        id: new.id.clone(),
        name: new.name.clone(),
        destination: new.destination.clone(),
        source: new.source.clone(),
        source_cluster_id: new.source_cluster_id.clone(),
        destination_cluster_id: destination.cluster_id.clone(),
        configs: new.configs.clone(),
        mirrors: BTreeMap::new(),
    };
    api.submit(Action::CreateLink(new), query.validate_only).await?;
    let mut row = rows::link(&link, None, false);
    row.body.warnings = checked.warnings;
    let status = if query.validate_only { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(row)).into_response())
}

/// Kafka cluster id and registered name of a source that `source.cluster` names.
async fn registered_source(
    api: &Api,
    catalog: &Catalog,
    name: &str,
    given: Option<&str>,
    asks: bool,
) -> ApiResult<(String, Option<Arc<str>>)> {
    let unknown = || {
        ApiError::invalid(
            keys::SOURCE_CLUSTER,
            format!("cluster '{name}' isn't registered; register it first"),
        )
    };
    let source = catalog.cluster(name).ok_or_else(unknown)?;
    guard_cluster_id("source_cluster_id", given, &source.cluster_id)?;
    if asks {
        let facts = api.preflight.probe(&source.name, &source.configs).await;
        let facts = facts.map_err(|e| ApiError::invalid(keys::SOURCE_CLUSTER, e))?;
        guard_cluster_id(keys::SOURCE_CLUSTER, Some(&source.cluster_id), &facts.cluster_id)?;
    }
    Ok((source.cluster_id.to_string(), Some(source.name.clone())))
}

/// Kafka cluster id of a source that the link's own configs describe.
async fn described_source(
    api: &Api,
    configs: &BTreeMap<String, String>,
    given: Option<&str>,
    asks: bool,
) -> ApiResult<String> {
    if asks {
        let facts = api.preflight.probe("source", configs).await.map_err(ApiError::from_probe)?;
        guard_cluster_id("source_cluster_id", given, &facts.cluster_id)?;
        return Ok(facts.cluster_id);
    }
    let missing = || ApiError::invalid("source_cluster_id", "required when the source isn't asked");
    let given = given.ok_or_else(missing)?;
    check_name("source_cluster_id", given)?;
    Ok(given.to_owned())
}

/// 16 random bytes, as Kafka writes its ids.
fn fresh_id(api: &Api) -> LinkId {
    LinkId(URL_SAFE_NO_PAD.encode(api.entropy.bytes::<16>()).into())
}

/// Links on a cluster.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links",
    operation_id = "listLinks",
    tag = "links",
    params(DestinationPath, PageQuery),
    responses((status = 200, description = "links on the cluster, or on all", body = Page<LinkRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiPath(DestinationPath { cluster }): ApiPath<DestinationPath>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> ApiResult<Json<Page<LinkRow>>> {
    let applied = api.catalog();
    let links = links_on(&applied.catalog, &cluster)?.into_iter();
    let links = links.map(|link| (format!("{} {}", link.name, link.destination), link));
    let page = paging::select(links, query.page_size, query.page_token.as_deref())?;
    let seen = api.fleet.links(&applied.catalog, page.items().iter().copied()).await;
    Ok(Json(page.into_page("KafkaLinkData", &uri, |link| rows::link(link, seen.link(&link.id), false))))
}

pub async fn row(api: &Api, catalog: &Catalog, link: &Arc<Link>, include_tasks: bool) -> Resource<LinkRow> {
    let seen = api.fleet.links(catalog, std::iter::once(link)).await;
    rows::link(link, seen.link(&link.id), include_tasks)
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ShowQuery {
    /// Show the link's tasks as well.
    include_tasks: bool,
}

/// One link.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links/{link}",
    operation_id = "showLink",
    tag = "links",
    params(LinkPath, ShowQuery),
    responses((status = 200, description = "the link", body = Resource<LinkRow>))
)]
pub async fn show(
    State(api): State<Api>,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(query): ApiQuery<ShowQuery>,
) -> ApiResult<Json<Resource<LinkRow>>> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    Ok(Json(row(&api, &applied.catalog, link, query.include_tasks).await))
}

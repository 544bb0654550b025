//! A link's configuration: `/kafka/v3/clusters/{cluster}/links/{link}/configs`. Changes apply live.

use std::collections::BTreeMap;

use actors::sync::acls::settings as acls;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use catalog::{Action, Link};
use serde::Deserialize;
use utoipa::IntoParams;

use super::clusters::guard_cluster_id;
use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, LinkConfigPath, LinkPath, NoParameters};
use super::keys::{self, Checked};
use super::types::{
    AlterConfigs, AlteredConfigs, ConfigChange, ConfigOperation, LinkConfigRow, Page, PageMetadata, Resource,
    SetConfig,
};
use super::{Api, alter, find_link, paging, rows, secrets};

const KIND: &str = "KafkaLinkConfigData";

/// What was set, and the defaults of what works and wasn't.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/configs",
    operation_id = "listLinkConfigs",
    tag = "link configuration",
    params(LinkPath),
    responses((status = 200, description = "all keys with a value", body = Page<LinkConfigRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Page<LinkConfigRow>>> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    let rows = rows_of(link).into_iter().map(|row| (row.body.name.clone(), row));
    // A few dozen keys at most: one page holds them.
    Ok(Json(paging::select(rows, None, None)?.into_page(KIND, &uri, |row| row)))
}

/// One key.
#[utoipa::path(
    get,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    operation_id = "showLinkConfig",
    tag = "link configuration",
    params(LinkConfigPath),
    responses((status = 200, description = "the key", body = Resource<LinkConfigRow>))
)]
pub async fn show(
    State(api): State<Api>,
    ApiPath(LinkConfigPath { cluster, link, name }): ApiPath<LinkConfigPath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Resource<LinkConfigRow>>> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    if let Some(row) = rows_of(link).into_iter().find(|row| row.body.name == name) {
        return Ok(Json(row));
    }
    let unknown = |error: ApiError| ApiError::new(StatusCode::NOT_FOUND, error.message);
    keys::link_key(&name).map_err(unknown)?;
    let message = format!("link '{}' doesn't set '{name}', which has no default", link.name);
    Err(ApiError::new(StatusCode::NOT_FOUND, message))
}

fn rows_of(link: &Link) -> Vec<Resource<LinkConfigRow>> {
    let mut values: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
    for key in &keys::LINK_KEYS {
        values.extend(key.default.map(|default| (key.name, (default, false))));
    }
    values.extend(link.source.as_deref().map(|source| (keys::SOURCE_CLUSTER, (source, true))));
    values.extend(link.configs.iter().map(|(key, value)| (key.as_str(), (value.as_str(), true))));
    let row = |(name, (value, was_set)): (&str, (&str, bool))| {
        let row = LinkConfigRow {
            cluster_id: link.destination_cluster_id.to_string(),
            link_name: link.name.to_string(),
            name: name.to_owned(),
            value: secrets::shown(name, value),
            read_only: keys::is_immutable(name),
            sensitive: secrets::is_sensitive(name),
            source: if was_set { "DYNAMIC_CLUSTER_LINK_CONFIG" } else { "DEFAULT_CONFIG" }.to_owned(),
            synonyms: Vec::new(),
        };
        rows::resource(KIND, format!("{}/configs/{name}", rows::link_path(link)), row)
    };
    values.into_iter().map(row).collect()
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ChangeQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
    /// Whether the source is asked when its client keys change; true unless told otherwise.
    validate_link: Option<bool>,
}

/// Several keys, all together or none.
#[utoipa::path(
    put,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/configs:alter",
    operation_id = "alterLinkConfigs",
    tag = "link configuration",
    params(LinkPath, ChangeQuery),
    request_body = AlterConfigs,
    responses((status = 200, description = "the altered keys as they are now", body = AlteredConfigs))
)]
pub async fn alter(
    State(api): State<Api>,
    uri: Uri,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(query): ApiQuery<ChangeQuery>,
    ApiJson(body): ApiJson<AlterConfigs>,
) -> ApiResult<Json<AlteredConfigs>> {
    let (link, checked) = change(&api, (&cluster, &link), &query, &body.data).await?;
    let altered = Link { configs: checked.configs, ..link };
    let named = |row: &Resource<LinkConfigRow>| body.data.iter().any(|change| change.name == row.body.name);
    Ok(Json(AlteredConfigs {
        kind: format!("{KIND}List"),
        metadata: PageMetadata { path: uri.to_string(), next: None },
        data: rows_of(&altered).into_iter().filter(named).collect(),
        warnings: checked.warnings,
    }))
}

/// Sets one key.
#[utoipa::path(
    put,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    operation_id = "setLinkConfig",
    tag = "link configuration",
    params(LinkConfigPath, ChangeQuery),
    request_body = SetConfig,
    responses((status = 204, description = "set"))
)]
pub async fn set(
    State(api): State<Api>,
    ApiPath(LinkConfigPath { cluster, link, name }): ApiPath<LinkConfigPath>,
    ApiQuery(query): ApiQuery<ChangeQuery>,
    ApiJson(body): ApiJson<SetConfig>,
) -> ApiResult<StatusCode> {
    let change = ConfigChange { name, value: Some(body.value), operation: ConfigOperation::Set };
    change_one(&api, (&cluster, &link), &query, change).await
}

/// Back to the default.
#[utoipa::path(
    delete,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/configs/{name}",
    operation_id = "deleteLinkConfig",
    tag = "link configuration",
    params(LinkConfigPath, ChangeQuery),
    responses((status = 204, description = "the default again"))
)]
pub async fn delete(
    State(api): State<Api>,
    ApiPath(LinkConfigPath { cluster, link, name }): ApiPath<LinkConfigPath>,
    ApiQuery(query): ApiQuery<ChangeQuery>,
) -> ApiResult<StatusCode> {
    let change = ConfigChange { name, value: None, operation: ConfigOperation::Delete };
    change_one(&api, (&cluster, &link), &query, change).await
}

async fn change_one(
    api: &Api,
    target: (&str, &str),
    query: &ChangeQuery,
    change: ConfigChange,
) -> ApiResult<StatusCode> {
    if keys::link_key(&change.name)?.is_none() {
        return Err(ApiError::invalid(&change.name, "has no effect here"));
    }
    self::change(api, target, query, &[change]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The link as it was, and its configs as they are now.
async fn change(
    api: &Api,
    (cluster, link): (&str, &str),
    query: &ChangeQuery,
    changes: &[ConfigChange],
) -> ApiResult<(Link, Checked)> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, cluster, link)?;
    let mut checked = alter::link(link, changes)?;
    let reaches_anew = changes.iter().any(|change| keys::is_client_key(&change.name));
    if reaches_anew && query.validate_link.unwrap_or(true) {
        let facts = api.preflight.probe("source", &checked.configs).await.map_err(ApiError::from_probe)?;
        guard_cluster_id("bootstrap.servers", Some(&link.source_cluster_id), &facts.cluster_id)?;
    }
    let action = Action::AlterLinkConfigs {
        link: link.id.clone(),
        expected: link.configs.clone(),
        configs: checked.configs.clone(),
    };
    api.submit(action, query.validate_only).await?;
    if query.validate_only && changes.iter().any(|change| acls::KEYS.contains(&&*change.name)) {
        let altered = Link { configs: checked.configs.clone(), ..Link::clone(link) };
        checked.warnings.extend(api.preflight.acls(&applied.catalog, &altered).await);
    }
    Ok((Link::clone(link), checked))
}

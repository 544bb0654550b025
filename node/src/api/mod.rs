//! The HTTP API: routes, and what every handler shares.
//!
//! - [`types`]: bodies, shared with the CLI. [`error`]: every answer that isn't a success.
//! - [`extract`], [`names`], [`keys`], [`alter`], [`paging`]: what a request may say. [`secrets`]: what an
//!   answer may show.
//! - [`clusters`], [`links`], [`link_configs`], [`mirrors`], [`mirror_actions`], [`mirror_deletion`], [`fleet`], [`health`]: one file a
//!   resource. [`rows`]: catalog and observed state as rows.
//!
//! It checks and translates. What may happen is decided by the catalog: a handler proposes a
//! command and passes the refusal on. It never talks to a broker but through [`preflight`].

pub mod alter;
pub mod clusters;
pub mod error;
pub mod extract;
pub mod fleet;
pub mod gauges;
pub mod health;
pub mod keys;
pub mod link_configs;
pub mod links;
pub mod mirror_actions;
pub mod mirror_deletion;
pub mod mirrors;
pub mod names;
pub mod paging;
pub mod preflight;
pub mod rows;
pub mod secrets;
#[cfg(test)]
mod tests;
pub mod types;

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use actors::observe::Observatory;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};
use catalog::{Action, Catalog, Cluster, Command, Link};
use consensus::Consensus;
use metrics_exporter_prometheus::PrometheusHandle;

use error::{ApiError, ApiResult};
use preflight::Preflight;

/// Stands for all clusters or all links in a path.
pub const ALL: &str = "-";

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub consensus: Consensus,
    pub preflight: Arc<dyn Preflight>,
    pub metrics: PrometheusHandle,
    /// Set when the data plane has started; until then nothing is known of it.
    pub observatory: Arc<OnceLock<Arc<Observatory>>>,
}

impl Api {
    /// The catalog as applied here: it holds every change that was acknowledged here.
    fn catalog(&self) -> Arc<consensus::Applied> {
        self.consensus.watch().borrow().clone()
    }

    fn observatory(&self) -> Option<&Observatory> {
        self.observatory.get().map(|observatory| &**observatory)
    }

    /// Proposes a change; with `validate_only` asks a copy of the catalog instead.
    async fn submit(&self, action: Action, validate_only: bool) -> ApiResult<()> {
        if validate_only {
            return would_apply(&self.catalog().catalog, action);
        }
        self.consensus.submit(action).await?;
        Ok(())
    }
}

/// Whether the catalog would take this; changes nothing.
fn would_apply(catalog: &Catalog, action: Action) -> ApiResult<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    // Copies maps of pointers, not what they point to.
    catalog.clone().apply(Command { at_ms, action })?;
    Ok(())
}

fn find_cluster<'a>(catalog: &'a Catalog, name_or_id: &str) -> ApiResult<&'a Arc<Cluster>> {
    catalog.cluster(name_or_id).ok_or_else(|| ApiError::no_cluster(name_or_id))
}

/// A link on a destination given by registered name or Kafka cluster id.
fn find_link<'a>(catalog: &'a Catalog, cluster: &str, link: &str) -> ApiResult<&'a Arc<Link>> {
    let cluster = find_cluster(catalog, cluster)?;
    catalog.link_on(&cluster.name, link).ok_or_else(|| ApiError::no_link(link, &cluster.name))
}

/// Links on one cluster, or on all of them.
fn links_on<'a>(catalog: &'a Catalog, cluster: &str) -> ApiResult<Vec<&'a Arc<Link>>> {
    if cluster == ALL {
        return Ok(catalog.links.values().collect());
    }
    let cluster = find_cluster(catalog, cluster)?;
    Ok(catalog.links.values().filter(|link| link.destination == cluster.name).collect())
}

/// Probes only: safe to show where the API must not be reached.
pub fn probes(api: Api) -> Router {
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics));
    finish(routes, api)
}

pub fn router(api: Api) -> Router {
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/lockstep/v1/fleet", get(fleet::show))
        .route("/lockstep/v1/clusters", get(clusters::list).post(clusters::create))
        .route(
            "/lockstep/v1/clusters/{cluster}",
            get(clusters::show).patch(clusters::update).delete(clusters::delete),
        )
        .merge(link_routes());
    finish(routes, api)
}

fn link_routes() -> Router<Api> {
    // Not nested: handlers would see paths without this part.
    let on_cluster = |path: &str| format!("/kafka/v3/clusters/{{cluster}}{path}");
    Router::new()
        .route(&on_cluster("/links"), get(links::list).post(links::create))
        .route(&on_cluster("/links/{link}"), get(links::show).delete(links::delete))
        .route(&on_cluster("/links/{link}/configs"), get(link_configs::list))
        .route(
            &on_cluster("/links/{link}/configs/{name}"),
            get(link_configs::show).put(link_configs::set).delete(link_configs::delete),
        )
        .route(&on_cluster("/links/{link}/configs:alter"), put(link_configs::alter))
        .route(&on_cluster("/links/{link}/mirrors"), get(mirrors::list).post(mirrors::create))
        .route(
            &on_cluster("/links/{link}/mirrors/{topic}"),
            get(mirrors::show).delete(mirror_deletion::delete),
        )
        .route(&on_cluster("/links/{link}/mirrors:pause"), post(mirror_actions::pause))
        .route(&on_cluster("/links/{link}/mirrors:resume"), post(mirror_actions::resume))
}

fn finish(routes: Router<Api>, api: Api) -> Router {
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(extract::BODY_BYTES_MAX))
        .with_state(api)
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("nothing is at {}; check the path against the API's description", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{method} is not a method of {}; the Allow header lists them", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

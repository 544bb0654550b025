//! The HTTP API: routes, and what every handler shares.
//!
//! - [`types`]: bodies, shared with the CLI. [`error`]: every answer that isn't a success. [`entropy`]: chance, as
//!   a seam.
//! - [`extract`], [`names`], [`keys`], [`alter`], [`paging`]: what a request may say. [`secrets`]: what an
//!   answer may show.
//! - [`clusters`], [`links`], [`link_configs`], [`link_deletion`], [`mirrors`], [`mirror_actions`], [`mirror_deletion`], [`fleet`], [`events`], [`nodes`], [`authorities`], [`health`]: one file a
//!   resource. [`rows`]: catalog and observed state as rows. [`openapi`]: the description of it all.
//!
//! It checks and translates. What may happen is decided by the catalog: a handler proposes a
//! command and passes the refusal on. It never talks to a broker but through [`preflight`].

// Simulation runs this: chance and time come through its seams.
#![warn(clippy::disallowed_methods)]

pub(crate) mod alter;
pub(crate) mod authorities;
pub(crate) mod clusters;
pub mod entropy;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod extract;
pub(crate) mod fleet;
pub(crate) mod gauges;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod link_configs;
pub(crate) mod link_deletion;
pub(crate) mod links;
pub(crate) mod mirror_actions;
pub(crate) mod mirror_deletion;
pub(crate) mod mirrors;
pub(crate) mod names;
pub(crate) mod nodes;
pub(crate) mod openapi;
pub(crate) mod paging;
pub mod preflight;
pub(crate) mod rows;
pub(crate) mod secrets;
#[cfg(test)]
mod tests;
pub(crate) mod types;

use std::fmt::Debug;
use std::sync::Arc;

use actors::clock::WallClock;
use actors::observe::Observatory;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::serve::Listener;
use catalog::{Action, Catalog, Cluster, Command, Link, Outcome};
use consensus::{Consensus, SubmitError};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use entropy::Entropy;
use error::{ApiError, ApiResult};
use preflight::Preflight;

use crate::status::Fleet;

/// Stands for all clusters or all links in a path.
pub(crate) const ALL: &str = "-";

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub consensus: Consensus,
    pub preflight: Arc<dyn Preflight>,
    pub metrics: PrometheusHandle,
    /// Every node's view of what it runs.
    pub fleet: Fleet,
    pub clock: WallClock,
    pub entropy: Entropy,
}

impl Api {
    /// The catalog as applied here: it holds every change that was acknowledged here.
    fn catalog(&self) -> Arc<consensus::Applied> {
        self.consensus.watch().borrow().clone()
    }

    /// What runs on this node alone.
    fn observatory(&self) -> Option<&Observatory> {
        self.fleet.observatory.get().map(|observatory| &**observatory)
    }

    /// Proposes a change; with `validate_only` asks a copy of the catalog instead.
    async fn submit(&self, action: Action, validate_only: bool) -> ApiResult<()> {
        // A Raft leader of an older build doesn't know what it lets pass.
        self.catalog().catalog.may_propose(&action)?;
        if validate_only {
            return self.would_apply(&self.catalog().catalog, action);
        }
        self.propose(action).await?;
        Ok(())
    }

    /// Proposes a change, with the word that a person asked for it here.
    async fn propose(&self, action: Action) -> Result<Outcome, SubmitError> {
        let action = self.catalog().catalog.asked(self.consensus.node_id(), action);
        self.consensus.submit(action).await
    }

    /// Whether this catalog would take it; changes nothing.
    fn would_apply(&self, catalog: &Catalog, action: Action) -> ApiResult<()> {
        would_apply(catalog, self.clock.now_ms(), action)
    }
}

fn would_apply(catalog: &Catalog, at_ms: i64, action: Action) -> ApiResult<()> {
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
pub(crate) fn probes(api: Api) -> Router {
    finish(probe_routes().into(), api)
}

pub fn router(api: Api) -> Router {
    finish(routes().into(), api)
}

/// Serves until `stopping` is true, and then what is under way.
pub async fn serve<L>(listener: L, router: Router, mut stopping: watch::Receiver<bool>)
where
    L: Listener,
    L::Addr: Debug,
{
    let stopped = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the API stopped");
    }
}

fn probe_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// Every route with its description: what isn't described isn't routed.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::general())
        .merge(probe_routes())
        .routes(routes!(openapi::show))
        .routes(routes!(fleet::show))
        .routes(routes!(events::list))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::show, nodes::change, nodes::remove))
        .routes(routes!(nodes::create_token))
        .routes(routes!(authorities::list, authorities::rotate))
        .routes(routes!(authorities::remove))
        .routes(routes!(clusters::list, clusters::create))
        .routes(routes!(clusters::show, clusters::update, clusters::delete))
        .routes(routes!(links::list, links::create))
        .routes(routes!(links::show, link_deletion::delete))
        .routes(routes!(link_configs::list))
        .routes(routes!(link_configs::show, link_configs::set, link_configs::delete))
        .routes(routes!(link_configs::alter))
        .routes(routes!(mirrors::list, mirrors::create))
        .routes(routes!(mirrors::show, mirror_deletion::delete))
        .routes(routes!(mirror_actions::pause))
        .routes(routes!(mirror_actions::resume))
        .routes(routes!(mirror_actions::promote))
        .routes(routes!(mirror_actions::failover))
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

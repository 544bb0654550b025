//! Probes: `/healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::error::ApiError;
use super::{Api, gauges};

/// The process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "probes",
    responses((status = 200, description = "alive", body = String))
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Store open and catalog loaded, with or without a Raft leader: both are so before the first
/// request is answered.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "probes",
    responses((status = 200, description = "ready", body = String))
)]
pub async fn readyz(State(api): State<Api>) -> Result<&'static str, ApiError> {
    match api.consensus.status().stopped {
        None => Ok("ready\n"),
        Some(reason) => {
            let message = format!("consensus on this node no longer runs: {reason}; restart the node");
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// Counters of the data plane, then gauges of the state as it is now.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "probes",
    responses((status = 200, description = "Prometheus' text format", body = String))
)]
pub async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let mut text = api.metrics.render();
    let applied = api.catalog();
    gauges::render(&mut text, &applied.catalog, &api.consensus.status(), api.observatory());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

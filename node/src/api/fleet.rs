//! The fleet as this node sees it: `/lockstep/v1/fleet`.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::{ApiQuery, NoParameters};
use super::nodes;
use super::types::FleetBody;

/// The fleet as this node sees it.
#[utoipa::path(
    get,
    path = "/lockstep/v1/fleet",
    operation_id = "showFleet",
    tag = "fleet",
    responses((status = 200, description = "the fleet", body = FleetBody))
)]
pub async fn show(
    State(api): State<Api>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> Json<FleetBody> {
    let status = api.consensus.status();
    let applied = api.catalog();
    let catalog = &applied.catalog;
    let mirrors = || catalog.links.values().flat_map(|link| link.mirrors.values());
    let name_of = |id| catalog.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    Json(FleetBody {
        node_id: status.node_id.to_string(),
        node_name: status.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_raft_leader: status.is_leader,
        raft_leader: status.leader.map(name_of),
        raft_term: status.term,
        applied_index: applied.index,
        quorum_ack_age_ms: status.millis_since_quorum_ack,
        stopped: status.stopped.clone(),
        nodes: nodes::rows_of(&api).await,
        clusters: catalog.clusters.len() as u64,
        links: catalog.links.len() as u64,
        mirror_topics: mirrors().count() as u64,
        mirror_partitions: mirrors().map(|m| m.partitions.len() as u64).sum(),
    })
}

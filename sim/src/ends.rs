//! How a node's process comes to its end, as the binary does (`node/src/server.rs`, `node/src/peering/trust.rs`).

use std::time::Duration;

use actors::engine::Engine;
use consensus::Consensus;
use peers::Transport;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// As the binary has them.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(5);
const YIELD_MAX: Duration = Duration::from_secs(1);
const HTTP_STOP_MAX: Duration = Duration::from_millis(500);
const CONSENSUS_STOP_MAX: Duration = Duration::from_secs(2);

/// As the binary has it (`node/src/peering/trust.rs`): so long a removed voter waits for its vote to be taken.
const VOTE_MAX: Duration = Duration::from_secs(10);
const VOTE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// As the binary has it.
const STOPPED_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Returns when this node is no longer a member: by its own catalog, or by another's word.
pub async fn removed(consensus: &Consensus, transport: &Transport) {
    let me = consensus.node_id();
    let (mut applied, mut refusals) = (consensus.watch(), transport.refusals());
    let here = applied.wait_for(|now| now.catalog.fleet.removed.contains_key(&me));
    let said = refusals.wait_for(|all| all.values().any(|r| matches!(r, peers::Refusal::Removed(_))));
    let is_removed = tokio::select! {
        biased;
        found = here => found.is_ok(),
        found = said => found.is_ok(),
    };
    if !is_removed {
        std::future::pending::<()>().await;
    }
    let gone = consensus.watch().borrow().catalog.fleet.removed.contains_key(&me);
    if gone && tokio::time::timeout(VOTE_MAX, no_longer_votes(consensus)).await.is_err() {
        tracing::info!("node: goes though its vote wasn't taken");
    }
}

/// Returns when its store has failed.
pub async fn stopped(consensus: &Consensus) -> String {
    loop {
        if let Some(why) = consensus.status().stopped {
            return why;
        }
        tokio::time::sleep(STOPPED_LOOK_EVERY).await;
    }
}

/// Until then a majority may need it.
async fn no_longer_votes(consensus: &Consensus) {
    while consensus.status().voters.contains(&consensus.node_id()) {
        tokio::time::sleep(VOTE_LOOK_EVERY).await;
    }
}

/// Hands everything over and stops, data plane first.
pub async fn finish(
    engine: Option<&Engine>,
    consensus: &Consensus,
    stop: &watch::Sender<bool>,
    server: JoinHandle<()>,
) {
    if let Some(engine) = engine
        && !engine.leave(ENGINE_STOP_MAX).await
    {
        tracing::info!("node: not everything was handed over or stopped");
    }
    if let Ok(Some(to)) = tokio::time::timeout(YIELD_MAX, consensus.yield_leadership()).await {
        tracing::info!("node: the Raft leadership goes to {to}");
    }
    stop.send_replace(true);
    let _ = tokio::time::timeout(HTTP_STOP_MAX, server).await;
    let _ = tokio::time::timeout(CONSENSUS_STOP_MAX, consensus.shutdown()).await;
}

//! Placement: while this node is Raft leader, every mirror partition without an owner gets one.
//!
//! Where to put it is decided by [`catalog::placement`]; a plan made on an old catalog is refused
//! by the catalog and made anew. It never moves a partition that has an owner.

use std::time::Duration;

use catalog::placement::{self, Plan, Presence, Situation};
use catalog::{Catalog, Refusal};
use consensus::{Consensus, Status, SubmitError};

/// A leader that was cut off still says that it leads; a quorum confirms it several times a second.
const QUORUM_ACK_AGE_MAX_MS: u64 = 1_000;
/// Leadership can change without anything being applied.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Runs until consensus stops.
pub async fn run(consensus: Consensus) {
    let mut applied = consensus.watch();
    loop {
        let current = applied.borrow_and_update().clone();
        let leads = leads(&consensus.status());
        let plan = if leads { plan(&current.catalog) } else { Plan::default() };
        // The next plan must not wait for the old catalog to be copied.
        drop(current);
        if !plan.is_empty() {
            tracing::info!("placement: {plan}");
        }
        for action in plan.into_actions() {
            match consensus.submit(action).await {
                Ok(_) | Err(SubmitError::Refused(Refusal::Stale(_))) => {}
                Err(SubmitError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(%error, "placement: the plan was not taken; making a new one");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

fn leads(status: &Status) -> bool {
    status.is_leader && status.millis_since_quorum_ack.is_some_and(|age| age <= QUORUM_ACK_AGE_MAX_MS)
}

/// One node is a whole fleet: whoever is in the catalog is there.
fn plan(catalog: &Catalog) -> Plan {
    let live = Presence::Live { since: Duration::ZERO };
    let nodes = catalog.nodes.keys().map(|id| (*id, live)).collect();
    placement::plan(catalog, &Situation { nodes, ..Situation::default() })
}

//! The running side of one node: makes what runs equal to what the applied catalog asks for.
//!
//! [`record_start`], then [`Engine::start`], then one day [`Engine::stop`]; beside it
//! [`coordinator`](crate::coordinator) places partitions. A node and a simulated node start alike.

use std::sync::Arc;
use std::time::Duration;

use catalog::Action;
use consensus::{Consensus, SubmitError};
use kafka::client::Dial;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::clock::WallClock;
use crate::credit::CreditLimits;
use crate::link::Surroundings;
use crate::observe::Observatory;
use crate::reconciler::{Reconciler, ReconcilerMessage};

/// Between two tries to record a start.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Records that this process runs the node from now on. The record raises the epoch of whatever the
/// process before may still have under way, so nothing may run ahead of it. Tries until it is taken.
///
/// # Errors
/// When consensus no longer runs, or refuses: neither passes by itself.
pub async fn record_start(consensus: &Consensus, name: &str) -> Result<(), SubmitError> {
    let (node, mut told) = (consensus.node_id(), false);
    loop {
        match consensus.submit(Action::StartNode { node, name: name.into() }).await {
            Ok(_) => return Ok(()),
            Err(error @ (SubmitError::Stopped | SubmitError::Refused(_))) => return Err(error),
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(%error, "this start can't be recorded yet; nothing is mirrored until it is");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// Handle to the actors of one node.
#[derive(Clone)]
pub struct Engine {
    observatory: Arc<Observatory>,
    reconciler: ActorRef<ReconcilerMessage>,
}

impl Engine {
    /// Starts the reconciler, which starts everything else. Call once per process start, on the
    /// data plane's runtime, after the catalog is loaded and this start is recorded in it. `clock` and
    /// `dial` are the way to the world outside, `credit` is what each link may hold in memory.
    ///
    /// # Errors
    /// When the root actor can't be spawned.
    pub async fn start(
        consensus: Consensus,
        clock: WallClock,
        dial: Arc<dyn Dial>,
        credit: CreditLimits,
    ) -> Result<Self, ractor::SpawnErr> {
        let observatory = Arc::new(Observatory::new(clock.clone()));
        let surroundings = Surroundings {
            node: consensus.node_id(),
            catalog: Arc::new(consensus.clone()),
            observatory: observatory.clone(),
            clock,
            dial,
            credit,
        };
        let (reconciler, _) = Actor::spawn(None, Reconciler, surroundings).await?;
        let mut applied = consensus.watch();
        let inbox = reconciler.clone();
        tokio::spawn(async move {
            loop {
                let current = applied.borrow_and_update().clone();
                if inbox.cast(ReconcilerMessage::Applied(current)).is_err()
                    || applied.changed().await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { observatory, reconciler })
    }

    /// What runs here, as API, metrics and tests read it.
    pub fn observatory(&self) -> &Arc<Observatory> {
        &self.observatory
    }

    /// Stops every actor: no new requests, waits for those under way up to `within`.
    /// True when everything stopped in time.
    pub async fn stop(&self, within: Duration) -> bool {
        let (answer, stopped) = oneshot::channel();
        if self.reconciler.cast(ReconcilerMessage::Stop(answer)).is_err() {
            return true;
        }
        matches!(tokio::time::timeout(within, stopped).await, Ok(Ok(())))
    }
}

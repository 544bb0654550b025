//! The running side of one node: makes what runs equal to what the applied catalog asks for.

use std::sync::Arc;
use std::time::Duration;

use consensus::Consensus;
use kafka::client::TcpDial;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::clock::WallClock;
use crate::link::Surroundings;
use crate::observe::Observatory;
use crate::reconciler::{Reconciler, ReconcilerMessage};

/// Handle to the actors of one node.
#[derive(Clone)]
pub struct Engine {
    observatory: Arc<Observatory>,
    reconciler: ActorRef<ReconcilerMessage>,
}

impl Engine {
    /// Starts the reconciler, which starts everything else. Call once per process start, on the
    /// data plane's runtime, after the catalog is loaded and this start is recorded in it.
    ///
    /// # Errors
    /// When the root actor can't be spawned.
    pub async fn start(consensus: Consensus) -> Result<Self, ractor::SpawnErr> {
        let clock = WallClock::system();
        let observatory = Arc::new(Observatory::new(clock.clone()));
        let surroundings = Surroundings {
            node: consensus.node_id(),
            catalog: Arc::new(consensus.clone()),
            observatory: observatory.clone(),
            clock,
            dial: Arc::new(TcpDial),
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

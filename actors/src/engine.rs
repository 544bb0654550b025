//! The running side of one node: makes what runs equal to what the applied catalog asks for.
//!
//! [`record_start`], then [`Engine::start`] and [`Engine::member`]'s `run`, then one day [`Engine::leave`]
//! or [`Engine::stop`]. A node and a simulated node start alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::command::NodeDescription;
use catalog::{Action, Catalog, Duty, NodeId};
use consensus::{Consensus, SubmitError};
use kafka::client::Dial;
use peers::Call;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::catalog_port::CatalogPort;
use crate::clock::Clocks;
use crate::credit::CreditLimits;
use crate::fleet::Member;
use crate::fleet::lease::LeaseKeeper;
use crate::fleet::release::Releases;
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
pub async fn record_start(consensus: &Consensus, description: &NodeDescription) -> Result<(), SubmitError> {
    let (node, mut told) = (consensus.node_id(), false);
    loop {
        match consensus.submit(Action::RecordStart { node, description: description.clone() }).await {
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

/// Stopping is given so long however long the handing over took: what is under way is awaited.
const STOP_MIN: Duration = Duration::from_secs(1);

/// Handle to the actors of one node.
#[derive(Clone)]
pub struct Engine {
    port: Arc<dyn CatalogPort>,
    member: Member,
    observatory: Arc<Observatory>,
    reconciler: ActorRef<ReconcilerMessage>,
}

impl Engine {
    /// Starts the reconciler, which starts everything else. Call once per process start, on the
    /// data plane's runtime, after the catalog is loaded and this start is recorded in it. `clocks`,
    /// `dial` and `peers` are the way to the world outside, `credit` is what each link may hold in
    /// memory. The caller runs [`Engine::member`].
    ///
    /// # Errors
    /// When the root actor can't be spawned.
    pub async fn start(
        consensus: Consensus,
        clocks: Clocks,
        dial: Arc<dyn Dial>,
        peers: Arc<dyn Call>,
        credit: CreditLimits,
    ) -> Result<Self, ractor::SpawnErr> {
        Self::start_on(Arc::new(consensus), clocks, dial, peers, credit).await
    }

    /// [`start`](Self::start) on whatever stands for consensus.
    ///
    /// # Errors
    /// When the root actor can't be spawned.
    pub async fn start_on(
        port: Arc<dyn CatalogPort>,
        clocks: Clocks,
        dial: Arc<dyn Dial>,
        peers: Arc<dyn Call>,
        credit: CreditLimits,
    ) -> Result<Self, ractor::SpawnErr> {
        let Clocks { wall, uptime } = clocks;
        let lease = LeaseKeeper::new(uptime.clone());
        let observatory = Arc::new(Observatory::new(wall.clone(), lease.clone()));
        let member = Member::new(port.clone(), uptime, peers, lease.clone(), observatory.clone());
        let releases = Arc::new(Releases::default());
        let surroundings = Surroundings {
            node: port.node(),
            catalog: port.clone(),
            observatory: observatory.clone(),
            clock: wall,
            dial,
            lease,
            releases: releases.clone(),
            credit,
            governors: Arc::default(),
        };
        let (reconciler, _) = Actor::spawn(None, Reconciler, surroundings).await?;
        tokio::spawn(releases.run(port.clone()));
        let mut applied = port.watch();
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
        Ok(Self { port, member, observatory, reconciler })
    }

    /// This node among the others. Its [`Member::run`] belongs on a runtime that the data plane can't
    /// saturate.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Answers a call that another member made to [`peers::Service::Fleet`].
    pub fn serve(&self, from: NodeId, request: Bytes) -> Bytes {
        self.member.serve(from, &request)
    }

    /// What runs here, as API, metrics and tests read it.
    pub fn observatory(&self) -> &Arc<Observatory> {
        &self.observatory
    }

    /// Hands everything over to other members, if any is there, and then stops; what isn't handed over
    /// after `within` is stopped where it is. True when nothing was left. [`Member::run`] goes on
    /// meanwhile.
    pub async fn leave(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let node = self.port.node();
        let owns_none = |catalog: &Catalog| catalog.owned_by(node) == 0;
        let handed_over = async {
            if owns_none(&self.port.applied().catalog) {
                return true;
            }
            let has_company = self.port.applied().catalog.nodes.len() > 1 && self.member.has_company().await;
            if !has_company {
                return false;
            }
            tracing::info!("leaving: this node's mirror partitions go to others first");
            if let Err(error) = self.port.submit(Action::SetDuty { node, duty: Duty::Stops }).await {
                tracing::warn!(%error, "leaving without handing over");
                return false;
            }
            self.port.watch().wait_for(|applied| owns_none(&applied.catalog)).await.is_ok()
        };
        let handed_over = timeout_at(deadline, handed_over).await.unwrap_or(false);
        self.stop(deadline.saturating_duration_since(Instant::now()).max(STOP_MIN)).await && handed_over
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

//! What a node says of its consensus at once, without asking anybody.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use catalog::NodeId;
use openraft::error::Fatal;
use openraft::{BasicNode, RaftMetrics, ServerState};
use tokio::time::Instant;

use crate::handle::{Consensus, Inner};
use crate::raft::LogId;

/// What this node can say about the group at once, without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node_id: NodeId,
    pub node_name: String,
    /// This node believes that it leads. A leader that was cut off believes it too: trust it only
    /// with a recent [`Status::millis_since_quorum_ack`].
    pub is_leader: bool,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub last_applied: u64,
    /// Since a majority last confirmed this node as leader; none on the others. A group of one
    /// confirms itself.
    pub millis_since_quorum_ack: Option<u64>,
    pub voters: Vec<NodeId>,
    /// Why consensus on this node no longer runs.
    pub stopped: Option<String>,
    /// A member refuses this node as one that was removed from the fleet: its id never comes back.
    pub removed: bool,
}

/// What this node knows of its own leadership.
#[derive(Default)]
pub(crate) struct Leading {
    /// When a majority last confirmed this node as Raft leader, as far as it has noticed.
    acknowledged: Option<Instant>,
    /// It is handing the Raft leadership over and proposes nothing more.
    yields: bool,
}

impl Consensus {
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let me = self.node_id();
        let stopped = self.inner.stopped();
        let running = stopped.is_none();
        let is_leader = running && metrics.state == ServerState::Leader;
        let voters = voters(&metrics);
        let since_ack =
            self.inner.quorum_ack_age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        // A group of one is quiet.
        let since_ack = if voters == [me] { Some(0) } else { since_ack };
        Status {
            node_id: me,
            node_name: self.inner.identity.node_name.clone(),
            is_leader,
            leader: metrics.current_leader.filter(|_| running).map(NodeId),
            term: metrics.current_term,
            last_applied: self.inner.applied.borrow().index,
            millis_since_quorum_ack: since_ack.filter(|_| is_leader),
            voters,
            stopped,
            removed: self.inner.calls.removed(),
        }
    }
}

impl Inner {
    /// Why consensus no longer runs here.
    pub(crate) fn stopped(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let why = match metrics.borrow().running_state.clone() {
            // openraft says nothing of a panic; it is only silent from then on.
            Ok(()) if metrics.has_changed().is_err() => Some(Fatal::Panicked),
            Ok(()) => None,
            Err(fatal) => Some(fatal),
        };
        let why = why.or_else(|| self.closing.borrow().then_some(Fatal::Stopped))?;
        Some(self.failure.text().unwrap_or_else(|| match why {
            Fatal::Stopped => "shut down".to_owned(),
            other => format!(
                "consensus on {} failed ({other}): the log says more; start again, and if it fails again let the node join again as a new one",
                self.path.display()
            ),
        }))
    }

    /// The last entry that this node holds.
    pub(crate) fn last_log(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow().last_log
    }

    /// Since a majority confirmed this node as Raft leader; goes on growing when openraft hangs.
    pub(crate) fn quorum_ack_age(&self) -> Option<Duration> {
        self.leading().acknowledged.map(|at| at.elapsed())
    }

    /// Called every heartbeat while this node leads. Looks at what openraft last said, which is at most
    /// a heartbeat old.
    pub(crate) fn note_quorum(&self, since: Option<Duration>) {
        self.leading().acknowledged = since.map(|since| Instant::now() - since);
    }

    pub(crate) fn yields(&self) -> bool {
        self.leading().yields
    }

    pub(crate) fn set_yields(&self, yields: bool) {
        self.leading().yields = yields;
    }

    fn leading(&self) -> MutexGuard<'_, Leading> {
        // Nothing panics while it is held, and both fields are plain values.
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn voters(metrics: &RaftMetrics<u64, BasicNode>) -> Vec<NodeId> {
    metrics.membership_config.membership().voter_ids().map(NodeId).collect()
}

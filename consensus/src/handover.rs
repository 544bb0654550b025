//! Handing the Raft leadership over before a planned stop: milliseconds instead of an election timeout.
//!
//! The Raft leader proposes nothing more, waits until the most advanced live voter holds its whole
//! log, and tells that one to stand for election; the voters then don't wait for the Raft leader's
//! lease ([`crate::network`]). If that comes to nothing it goes on leading.

use std::time::Duration;

use catalog::{Duty, NodeId};
use openraft::{LogIdOptionExt, ServerState};
use tokio::time::timeout;

use crate::handle::{Consensus, Inner};
use crate::network::wire::{Answer, Request};

/// A live voter lacks a few entries; it gets them within a round trip.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// From the word to the new Raft leader's first sign: two round trips and two durable commits.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(1);

impl Consensus {
    /// If this node is the Raft leader, another voter becomes it, which is returned; none if no
    /// other can be. Takes 2 s at most.
    pub async fn yield_leadership(&self) -> Option<NodeId> {
        let inner = &self.inner;
        let successor = inner.successor()?;
        let _yielding = Yielding::begin(inner);
        inner.hand_over_to(successor).await
    }
}

/// Nothing is proposed while it lives, also if whoever waits for the outcome is gone.
struct Yielding<'a>(&'a Inner);

impl<'a> Yielding<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.set_yields(true);
        Self(inner)
    }
}

impl Drop for Yielding<'_> {
    fn drop(&mut self) {
        self.0.set_yields(false);
    }
}

impl Inner {
    /// Which live voter holds most of the log; rather one that isn't about to stop, too.
    fn successor(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let held = metrics.replication.as_ref()?;
        metrics
            .membership_config
            .voter_ids()
            .filter(|id| *id != self.identity.node_id && self.calls.heard_within(*id, self.lease))
            .max_by_key(|id| (self.staying(NodeId(*id)), held.get(id).copied().flatten()))
    }

    /// The more the longer the node is to stay. Whoever was removed would only hand over again.
    fn staying(&self, node: NodeId) -> u8 {
        match self.applied.borrow().catalog.nodes.get(&node).map(|node| node.duty) {
            Some(Duty::Mirrors) => 2,
            Some(Duty::Drains | Duty::Stops) => 1,
            None => 0,
        }
    }

    async fn hand_over_to(&self, successor: u64) -> Option<NodeId> {
        let mut metrics = self.raft.metrics();
        let caught_up = metrics.wait_for(|m| {
            let held = m.replication.as_ref().and_then(|held| held.get(&successor)).copied().flatten();
            m.state != ServerState::Leader || held.index() >= m.last_log_index
        });
        let vote = match timeout(CATCH_UP_TIMEOUT, caught_up).await {
            Ok(Ok(state)) if state.state == ServerState::Leader => state.vote,
            _ => return None,
        };
        let word = Request::TakeOver { vote };
        match self.calls.call(successor, &word, TAKE_OVER_TIMEOUT).await {
            Ok(Answer::TakesOver(true)) => {}
            _ => return None,
        }
        let me = self.identity.node_id;
        let led = metrics.wait_for(|m| m.current_leader.is_some_and(|leader| leader != me));
        let state = timeout(TAKE_OVER_TIMEOUT, led).await.ok()?.ok()?;
        state.current_leader.map(NodeId)
    }
}

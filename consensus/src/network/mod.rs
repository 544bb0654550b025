//! Calls between the members of the group.
//!
//! - `wire`: what is sent, as values of our own: openraft's errors never travel.
//! - `way`: openraft's calls to one member, over [`peers::Call`].
//! - `serve`: the other side of them.
//!
//! It knows no address and no connection (that is `peers`), and never retries: openraft does.

mod alone;
mod serve;
mod way;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use catalog::codec;
use peers::{Call, CallError, Service};
use tokio::time::Instant;

use crate::raft::Vote;
use wire::{Answer, Failure, Request};

pub(crate) use alone::Alone;
pub(crate) use serve::Assembly;
pub(crate) use way::Ways;

/// One call's bytes, at most: the transport carries 8 MiB, and entries must pass within
/// [`crate::Options::append_timeout`] even where a link carries 10 Mbit/s.
pub(crate) const CALL_BYTES_MAX: usize = 512 * 1024;

/// The calls of this node, and what they showed of the others.
#[derive(Clone)]
pub(crate) struct Calls {
    peers: Arc<dyn Call>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// When a member last answered or called.
    heard: BTreeMap<u64, Instant>,
    /// A member says that this node was removed from the fleet.
    removed: bool,
    /// The Raft leader of that vote told this node to take over.
    handed_over: Option<Vote>,
}

/// Why a call has no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("node {0} answered in a way that this build doesn't understand")]
    Unreadable(NodeId, #[source] Option<codec::CodecError>),
    #[error("node {0}: {1}")]
    Failed(NodeId, Failure),
}

impl Calls {
    pub(crate) fn new(peers: Arc<dyn Call>) -> Self {
        Self { peers, seen: Arc::default() }
    }

    pub(crate) async fn call(
        &self,
        to: u64,
        request: &Request,
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.send(to, codec::encode(request).into(), within).await
    }

    /// Whom an address is known of.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.peers.members()
    }

    async fn send(&self, to: u64, request: Bytes, within: Duration) -> Result<Answer, NoAnswer> {
        let node = NodeId(to);
        let answer = self.peers.call(node, Service::Raft, request, within).await?;
        self.hear(to);
        match codec::decode(&answer) {
            Ok(Answer::Failed(failure)) => {
                if failure == Failure::Removed {
                    self.seen().removed = true;
                }
                Err(NoAnswer::Failed(node, failure))
            }
            Ok(answer) => Ok(answer),
            Err(e) => Err(NoAnswer::Unreadable(node, Some(e))),
        }
    }

    pub(crate) fn hear(&self, from: u64) {
        self.seen().heard.insert(from, Instant::now());
    }

    pub(crate) fn heard_within(&self, node: u64, age: Duration) -> bool {
        self.seen().heard.get(&node).is_some_and(|at| at.elapsed() <= age)
    }

    pub(crate) fn removed(&self) -> bool {
        self.seen().removed
    }

    pub(crate) fn hand_over(&self, by: Option<Vote>) {
        self.seen().handed_over = by;
    }

    /// The Raft leader that wished for the campaign of that vote, if one did.
    fn handed_over_for(&self, campaign: &Vote) -> Option<Vote> {
        let term = campaign.leader_id().term;
        self.seen().handed_over.filter(|by| by.leader_id().term + 1 == term)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it is held, and all fields are plain values.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

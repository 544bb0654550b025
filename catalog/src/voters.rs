//! Who votes in Raft, as the next single change.
//!
//! Pure, as [`crate::placement`]. An odd number of members votes, up to five; the others are learners:
//! they hold the catalog and run mirrors. It never asks for a set of voters without a live majority.

use std::collections::BTreeSet;

use crate::model::{Catalog, NodeId};
use crate::placement::Situation;

/// Raft's membership as the Raft leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who plans: the Raft leader itself.
    pub raft_leader: Option<NodeId>,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Who holds nearly all that is committed: fit to vote.
    pub caught_up: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddLearner(NodeId),
    /// In one (joint) change; who isn't named goes on as a learner.
    SetVoters(BTreeSet<NodeId>),
    /// A learner that is no member of the fleet any more.
    Remove(NodeId),
}

/// The next change, one at a time.
pub fn plan(catalog: &Catalog, _situation: &Situation, members: &Members) -> Option<Change> {
    let known = |id: &NodeId| members.voters.contains(id) || members.learners.contains(id);
    catalog.nodes.keys().find(|id| !known(id)).map(|id| Change::AddLearner(*id))
}

//! Who votes in Raft, as the next single change.
//!
//! Pure, as [`crate::placement`]. An odd number of members votes, up to five; the others are learners:
//! they hold the catalog and run mirrors. It never asks for a set of voters without a live majority, and
//! never for fewer because some are lost: only an operator makes a fleet smaller.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::fleet::Duty;
use crate::model::{Catalog, NodeId};
use crate::placement::{Presence, Situation};

/// A voter that is lost so long gives its place up: a machine that restarts is back before.
pub const LOST_FOR_GOOD: Duration = Duration::from_secs(60);

/// More voters make each command wait for more answers, and five bear the loss of two.
pub const VOTERS_MAX: usize = 5;

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
    /// In one (joint) change; who isn't named any more goes on as a learner.
    SetVoters(BTreeSet<NodeId>),
    /// A learner that was removed from the fleet.
    Remove(NodeId),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner(node) => write!(f, "{node} becomes a learner"),
            Self::SetVoters(voters) => {
                let names: Vec<String> = voters.iter().map(ToString::to_string).collect();
                write!(f, "{} vote", names.join(", "))
            }
            Self::Remove(node) => write!(f, "{node} is left out"),
        }
    }
}

/// The next change, one at a time. What keeps the quorum comes first; nodes that may not answer are
/// added last, so that they hold nothing else up.
pub fn plan(catalog: &Catalog, situation: &Situation, members: &Members) -> Option<Change> {
    let ballot = Ballot { catalog, situation, members };
    ballot.set_voters().or_else(|| ballot.remove()).or_else(|| ballot.add_learner())
}

/// How many of so many members should vote: an even one more would only be a machine that must not fail.
pub fn wanted(members: usize) -> usize {
    odd(members.clamp(1, VOTERS_MAX))
}

fn odd(number: usize) -> usize {
    if number.is_multiple_of(2) { number.saturating_sub(1) } else { number }
}

/// How fit a node is to vote, the fittest first. Within one fitness whoever is the Raft leader stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Votes,
    Learns,
    VotesAndDrains,
    LearnsAndDrains,
    /// Or isn't known as a member.
    VotesAndIsLost,
}

struct Ballot<'a> {
    catalog: &'a Catalog,
    situation: &'a Situation,
    members: &'a Members,
}

impl Ballot<'_> {
    fn set_voters(&self) -> Option<Change> {
        let voters = &self.members.voters;
        let mut fit: Vec<(Fitness, bool, NodeId)> = voters
            .union(&self.members.learners)
            .filter_map(|id| Some((self.fitness(*id)?, Some(*id) != self.members.raft_leader, *id)))
            .collect();
        fit.sort_unstable();
        let wanted = wanted(self.catalog.nodes.len());
        let size = odd(wanted.min(fit.len()));
        // Whoever is removed keeps a place warm for one that is about to be fit for it.
        if size < wanted.min(voters.len()) && self.somebody_catches_up() {
            return None;
        }
        let mut chosen: BTreeSet<NodeId> = fit.into_iter().take(size).map(|(_, _, id)| id).collect();
        if let Some(leads) = self.members.raft_leader
            && !chosen.contains(&leads)
            && !chosen.iter().any(|id| voters.contains(id) && self.is_live(*id))
        {
            // Only a voter can lead after it: for a moment it votes beside those that come.
            chosen.insert(leads);
        }
        (chosen != *voters && self.has_live_majority(&chosen)).then_some(Change::SetVoters(chosen))
    }

    /// None: it can't vote, or can't be asked to begin with it.
    fn fitness(&self, id: NodeId) -> Option<Fitness> {
        if self.is_removed(id) {
            return None;
        }
        let votes = self.members.voters.contains(&id);
        let duty = self.catalog.nodes.get(&id).map(|node| node.duty);
        let lost = match self.situation.presence(id) {
            Presence::Lost { since } if !self.is_live(id) => {
                self.situation.now.saturating_sub(since) >= LOST_FOR_GOOD
            }
            Presence::Lost { .. } | Presence::Live { .. } | Presence::Unknown => false,
        };
        match duty {
            // A founder leads before the catalog knows it.
            None if self.members.raft_leader == Some(id) => Some(Fitness::Votes),
            None => votes.then_some(Fitness::VotesAndIsLost),
            _ if votes && lost => Some(Fitness::VotesAndIsLost),
            Some(Duty::Drains) if votes => Some(Fitness::VotesAndDrains),
            // It stops for a moment and is back.
            Some(Duty::Mirrors | Duty::Stops) if votes => Some(Fitness::Votes),
            _ if !self.is_live(id) || !self.members.caught_up.contains(&id) => None,
            Some(Duty::Mirrors) => Some(Fitness::Learns),
            Some(Duty::Drains) => Some(Fitness::LearnsAndDrains),
            Some(Duty::Stops) => None,
        }
    }

    fn somebody_catches_up(&self) -> bool {
        let knows_all = |id: &NodeId| self.members.voters.contains(id) || self.members.caught_up.contains(id);
        self.catalog.nodes.keys().any(|id| self.is_live(*id) && !knows_all(id))
    }

    fn remove(&self) -> Option<Change> {
        self.members.learners.iter().find(|id| self.is_removed(**id)).map(|id| Change::Remove(*id))
    }

    fn add_learner(&self) -> Option<Change> {
        let known = |id: &NodeId| self.members.voters.contains(id) || self.members.learners.contains(id);
        let missing = self.catalog.nodes.keys().filter(|id| !known(id));
        let rank = |id: &&NodeId| match self.situation.presence(**id) {
            Presence::Live { .. } => 0,
            Presence::Unknown => 1,
            Presence::Lost { .. } => 2,
        };
        missing.min_by_key(rank).map(|id| Change::AddLearner(*id))
    }

    /// Not "is no member": Raft's membership may be newer than the catalog applied here.
    fn is_removed(&self, id: NodeId) -> bool {
        self.catalog.fleet.removed.contains_key(&id)
    }

    fn is_live(&self, id: NodeId) -> bool {
        self.members.raft_leader == Some(id) || self.situation.is_live(id)
    }

    fn has_live_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.iter().filter(|id| self.is_live(**id)).count() > voters.len() / 2
    }
}

//! Who votes and who learns, as the coordinator orders it.
//!
//! Each call is one change, made by the Raft leader only, with a deadline. A change of voters passes
//! through a joint set; one that was interrupted there is finished by [`Inner::finish_change`]. It
//! never decides who should vote: that is [`catalog::voters`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use catalog::voters::Members;
use catalog::{Action, NodeId, Refusal};
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, RaftMetrics, ServerState};
use tokio::time::timeout;

use crate::error::MemberError;
use crate::handle::{Consensus, Inner};
use crate::raft::Raft;

/// One change: two commits and, at worst, an election between them.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries that a member may lack and still count as caught up: a moment's worth of commands.
const CAUGHT_UP_ENTRIES: u64 = 100;

impl Consensus {
    /// Who is in the Raft group, as this node knows it. Nobody counts as caught up unless this node is
    /// the Raft leader.
    pub fn members(&self) -> Members {
        self.inner.members()
    }

    /// Begins to send the log to a node; [`Members::caught_up`] tells when it has it.
    ///
    /// # Errors
    /// Unless this node leads and no other change is under way; for a node that was removed.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MemberError> {
        let inner = &self.inner;
        if inner.applied.borrow().catalog.fleet.removed.contains_key(&node) {
            return Err(MemberError::Removed(node));
        }
        let members = inner.members();
        if members.voters.contains(&node) || members.learners.contains(&node) {
            return Ok(());
        }
        inner.change(|raft| async move { raft.add_learner(node.0, BasicNode::default(), false).await }).await
    }

    /// Gives these nodes, and no others, a vote. Who loses it goes on as a learner.
    ///
    /// # Errors
    /// Unless this node leads, keeps its vote, and the new voters are caught up.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MemberError> {
        let members = self.inner.members();
        if voters.is_empty() {
            return Err(MemberError::NoVoters);
        }
        if !voters.contains(&self.node_id()) {
            return Err(self.inner.leads_itself());
        }
        if let Some(behind) = voters.difference(&members.voters).find(|id| !members.caught_up.contains(id)) {
            return Err(self.inner.unless_leader(MemberError::NotCaughtUp(*behind)));
        }
        let voters = voters.iter().map(|id| id.0).collect();
        self.inner
            .change(|raft| async move {
                raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await
            })
            .await
    }

    /// Takes a node out of the group, whatever it was. Does nothing for one that isn't in it.
    ///
    /// # Errors
    /// Unless this node leads; for the Raft leader itself and for the only voter.
    pub async fn remove(&self, node: NodeId) -> Result<(), MemberError> {
        let members = self.inner.members();
        if node == self.node_id() {
            return Err(self.inner.leads_itself());
        }
        let change = if members.voters.contains(&node) {
            ChangeMembers::RemoveVoters([node.0].into())
        } else if members.learners.contains(&node) {
            ChangeMembers::RemoveNodes([node.0].into())
        } else {
            return Ok(());
        };
        self.inner.change(|raft| async move { raft.change_membership(change, false).await }).await
    }
}

impl Inner {
    fn members(&self) -> Members {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        // While voters change these are the new ones.
        let voters: BTreeSet<NodeId> =
            membership.get_joint_config().last().into_iter().flatten().map(|id| NodeId(*id)).collect();
        let nodes: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| NodeId(*id)).collect();
        let learners = nodes.difference(&voters).copied().collect();
        let caught_up = nodes.iter().copied().filter(|id| self.caught_up(&metrics, *id)).collect();
        let raft_leader = metrics.current_leader.map(NodeId);
        Members { raft_leader, voters, learners, caught_up }
    }

    fn caught_up(&self, metrics: &RaftMetrics<u64, BasicNode>, node: NodeId) -> bool {
        if metrics.state != ServerState::Leader {
            return false;
        }
        if node.0 == self.identity.node_id {
            return true;
        }
        let held = metrics.replication.as_ref().and_then(|held| held.get(&node.0)).copied().flatten();
        let held = held.map_or(0, |log_id| log_id.index + 1);
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        held > 0 && held + CAUGHT_UP_ENTRIES >= last && self.calls.heard_within(node.0, self.lease)
    }

    async fn change<F, T>(&self, change: impl FnOnce(Raft) -> F) -> Result<(), MemberError>
    where
        F: Future<Output = Result<T, RaftError<u64, ClientWriteError<u64, BasicNode>>>>,
    {
        let _only = self.changes.try_acquire().map_err(|_| MemberError::InProgress)?;
        match timeout(CHANGE_TIMEOUT, self.unless_closing(change(self.raft.clone()))).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(Some(Err(RaftError::APIError(e)))) => Err(refused(e)),
            Ok(Some(Err(RaftError::Fatal(_))) | None) => Err(MemberError::Stopped),
            Err(_) => Err(MemberError::Deadline),
        }
    }

    /// Completes a change of voters whose Raft leader didn't come to its end.
    pub(crate) async fn finish_change(self: Arc<Self>) {
        let (in_between, goal) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let sets = metrics.membership_config.membership().get_joint_config();
            (sets.len() > 1, sets.last().cloned().unwrap_or_default())
        };
        if in_between {
            let finish = |raft: Raft| async move {
                raft.change_membership(ChangeMembers::ReplaceAllVoters(goal), true).await
            };
            match self.change(finish).await {
                Ok(()) => tracing::info!("consensus: finished a change of voters that was interrupted"),
                Err(error) => tracing::debug!(%error, "consensus: the change of voters isn't finished yet"),
            }
        }
    }

    /// Members that have applied a removal answer the removed node no more: if its vote is needed then,
    /// nobody can ever commit that another gets it.
    pub(crate) fn keeps_quorum(&self, action: &Action) -> Result<(), Refusal> {
        let Action::RemoveNode { node, .. } = action.itself() else { return Ok(()) };
        let applied = self.applied.borrow();
        if applied.catalog.nodes.len() == 1 {
            // The last of its fleet, of which the catalog says more.
            return Ok(());
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        // Whoever is removed already is about to go.
        let stays = |id: u64| !applied.catalog.fleet.removed.contains_key(&NodeId(id));
        let is_heard = |id: u64| id == self.identity.node_id || self.calls.heard_within(id, self.lease);
        let does_without = |voters: &BTreeSet<u64>| {
            let others = voters.iter().filter(|id| **id != node.0 && stays(**id) && is_heard(**id));
            !voters.contains(&node.0) || others.count() > voters.len() / 2
        };
        if metrics.membership_config.membership().get_joint_config().iter().all(does_without) {
            return Ok(());
        }
        let name = applied.catalog.nodes.get(node).map_or("?", |node| &node.name);
        Err(Refusal::Illegal(format!(
            "node '{name}' votes, and without its vote the fleet has no majority of live voters: drain it and wait \
             until others vote ('lockstep node list' shows who does), or until those that are away are back"
        )))
    }

    /// What is wrong with a change on this node, whoever leads.
    fn unless_leader(&self, otherwise: MemberError) -> MemberError {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.state == ServerState::Leader {
            return otherwise;
        }
        MemberError::NotLeader { leader: metrics.current_leader.map(NodeId) }
    }

    fn leads_itself(&self) -> MemberError {
        self.unless_leader(MemberError::Leads)
    }
}

fn refused(error: ClientWriteError<u64, BasicNode>) -> MemberError {
    match error {
        ClientWriteError::ForwardToLeader(to) => MemberError::NotLeader { leader: to.leader_id.map(NodeId) },
        ClientWriteError::ChangeMembershipError(e) => match e {
            ChangeMembershipError::InProgress(_) => MemberError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => MemberError::NoVoters,
            ChangeMembershipError::LearnerNotFound(e) => MemberError::Unknown(NodeId(e.node_id)),
        },
    }
}

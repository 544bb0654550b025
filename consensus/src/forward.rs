//! Submitting and reading on any node: the Raft leader is asked, then what it did is waited for here.
//!
//! - A command reaches the log at most once: it is sent again only if it surely wasn't proposed.
//! - The Raft leader checks that every member understands it, and stamps it.
//! - Whoever asked reads their own write afterwards on the same node.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, Command, Outcome, Refusal, codec};
use openraft::ServerState;
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use peers::CallError;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::SubmitError;
use crate::handle::Inner;
use crate::network::NoAnswer;
use crate::network::wire::{Answer, Failure, Request, Submitted};
use crate::store::Applied;

/// Encoded command, at most: far above the largest sensible one (100,000 partitions assigned at
/// once are some 8 MB), far below what the codec reads back.
pub(crate) const COMMAND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the transport carries in one call.
const FORWARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Before the Raft leader is looked for again: an election takes longer, an answer less.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An outcome is on its way back while the caller's time ends.
const ANSWER_TIME: Duration = Duration::from_millis(50);

impl Inner {
    pub(crate) async fn submit(&self, action: Action) -> Result<Outcome, SubmitError> {
        let deadline = Instant::now() + self.submit_timeout;
        loop {
            let leader = self.leader_known(deadline).await?;
            let submitted = if leader == self.identity.node_id {
                self.submit_here(action.clone(), deadline).await
            } else {
                self.submit_there(leader, &action, deadline).await?
            };
            match submitted {
                Submitted::Applied { index, reply } => {
                    // Applied there: not known here in time is as good as no answer.
                    self.applied_here(index, deadline).await?;
                    return Ok(reply?);
                }
                Submitted::Refused(refusal) => return Err(refusal.into()),
                Submitted::NotProposed(_) => self.look_again(deadline).await?,
                Submitted::InDoubt if self.stopped().is_some() => return Err(SubmitError::Stopped),
                Submitted::InDoubt => return Err(SubmitError::Deadline),
            }
        }
    }

    /// Proposes, if this node leads.
    pub(crate) async fn submit_here(&self, action: Action, deadline: Instant) -> Submitted {
        let Ok(Ok(_turn)) = timeout_at(deadline, self.submits.acquire()).await else {
            return Submitted::NotProposed(None);
        };
        let (leads, leader) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.state == ServerState::Leader, metrics.current_leader)
        };
        if !leads || self.yields() {
            return Submitted::NotProposed(leader.filter(|id| *id != self.identity.node_id));
        }
        let may = self.applied.borrow().catalog.may_propose(&action);
        if let Err(refusal) = may.and_then(|()| self.keeps_quorum(&action)) {
            return Submitted::Refused(refusal);
        }
        let command = Command { at_ms: (self.clock)(), action };
        if let Err(refusal) = within_size(codec::encode(&command).len(), COMMAND_BYTES_MAX) {
            return Submitted::Refused(refusal);
        }
        let proposed = self.unless_closing(self.raft.client_write(command));
        match timeout_at(deadline, proposed).await.ok().flatten() {
            Some(Ok(response)) => Submitted::applied(response.log_id.index, response.data),
            // A Raft leader that loses its place answers like this both when it didn't propose the
            // command and when its successor took it out of this node's log; another node may still
            // hold it then.
            Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Submitted::InDoubt,
            // The first answers membership changes only.
            Some(Err(
                RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) | RaftError::Fatal(_),
            ))
            | None => Submitted::InDoubt,
        }
    }

    async fn submit_there(
        &self,
        leader: u64,
        action: &Action,
        deadline: Instant,
    ) -> Result<Submitted, SubmitError> {
        within_size(codec::encode(action).len(), FORWARD_BYTES_MAX)?;
        // A Raft leader that died leaves its name behind. What is sent to it would be in doubt.
        if !self.calls.heard_within(leader, self.lease) {
            return Ok(Submitted::NotProposed(None));
        }
        let within = deadline.saturating_duration_since(Instant::now());
        let within_ms = u64::try_from(within.saturating_sub(ANSWER_TIME).as_millis()).unwrap_or(u64::MAX);
        let request = Request::Submit { action: action.clone(), within_ms };
        Ok(submitted(self.calls.call(leader, &request, within).await))
    }

    pub(crate) async fn read(&self) -> Result<Arc<Applied>, SubmitError> {
        let deadline = Instant::now() + self.submit_timeout;
        loop {
            let leader = self.leader_known(deadline).await?;
            let answer = if leader == self.identity.node_id {
                let answer = timeout_at(deadline, self.read_index()).await;
                answer.unwrap_or(Answer::Failed(Failure::NoQuorum))
            } else {
                let within = deadline.saturating_duration_since(Instant::now());
                let answer = self.calls.call(leader, &Request::ReadIndex, within).await;
                answer.unwrap_or(Answer::NotLeader(None))
            };
            match answer {
                Answer::ReadIndex(index) => return self.applied_here(index, deadline).await,
                Answer::Failed(Failure::Stopped(_)) if self.stopped().is_some() => {
                    return Err(SubmitError::Stopped);
                }
                _ => self.look_again(deadline).await?,
            }
        }
    }

    /// Up to where a reader must have applied to see all that was acknowledged. A Raft leader that starts
    /// again goes on as one (openraft 0.9) without an entry of that start: what was acknowledged before is
    /// in its log, and may not be among what it knows to be committed.
    pub(crate) async fn read_index(&self) -> Answer {
        match self.unless_closing(self.raft.get_read_log_id()).await {
            Some(Ok((read, _))) => Answer::ReadIndex(read.max(self.last_log()).map_or(0, |id| id.index)),
            Some(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Answer::NotLeader(to.leader_id)
            }
            Some(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Answer::Failed(Failure::NoQuorum)
            }
            Some(Err(RaftError::Fatal(_))) | None => {
                Answer::Failed(Failure::Stopped(self.stopped().unwrap_or_default()))
            }
        }
    }

    /// Waits until somebody leads, as far as this node knows.
    async fn leader_known(&self, deadline: Instant) -> Result<u64, SubmitError> {
        let mut metrics = self.raft.metrics();
        let led = metrics.wait_for(|m| m.current_leader.is_some() || m.running_state.is_err());
        let state = timeout_at(deadline, led)
            .await
            .map_err(|_| SubmitError::NoLeader { leader: None })?
            .map_err(|_| SubmitError::Stopped)?;
        match state.current_leader {
            Some(leader) if state.running_state.is_ok() => Ok(leader),
            _ => Err(SubmitError::Stopped),
        }
    }

    async fn look_again(&self, deadline: Instant) -> Result<(), SubmitError> {
        if Instant::now() + LOOK_AGAIN >= deadline {
            let leader = self.raft.metrics().borrow().current_leader;
            let other = leader.filter(|id| *id != self.identity.node_id);
            return Err(SubmitError::NoLeader { leader: other.map(catalog::NodeId) });
        }
        sleep(LOOK_AGAIN).await;
        Ok(())
    }

    async fn applied_here(&self, index: u64, deadline: Instant) -> Result<Arc<Applied>, SubmitError> {
        let mut applied = self.applied.clone();
        let there = timeout_at(deadline, applied.wait_for(|applied| applied.index >= index)).await;
        match there {
            Ok(Ok(applied)) => Ok(applied.clone()),
            Ok(Err(_)) => Err(SubmitError::Stopped),
            Err(_) => Err(SubmitError::Deadline),
        }
    }
}

/// What became of a command that another node was to propose.
fn submitted(answer: Result<Answer, NoAnswer>) -> Submitted {
    match answer {
        Ok(Answer::Submitted(submitted)) => submitted,
        Err(NoAnswer::Failed(node, Failure::Unreadable(_))) => Submitted::Refused(unknown_to(node)),
        Err(e) if surely_not_done(&e) => Submitted::NotProposed(None),
        Ok(_) | Err(_) => Submitted::InDoubt,
    }
}

/// Whether the member surely didn't do what it was asked.
fn surely_not_done(error: &NoAnswer) -> bool {
    match error {
        NoAnswer::Call(e) => {
            matches!(e, CallError::NoAddress(_) | CallError::Refused { .. } | CallError::TooLarge { .. })
        }
        NoAnswer::Failed(_, failure) => match failure {
            Failure::Removed | Failure::Unreadable(_) | Failure::NoQuorum => true,
            // It may have stopped on the way.
            Failure::Stopped(_) | Failure::Deadline => false,
        },
        NoAnswer::Unreadable(..) => false,
    }
}

/// Asked again it would say the same.
fn unknown_to(leader: catalog::NodeId) -> Refusal {
    Refusal::Illegal(format!(
        "node {leader} is the Raft leader and runs a version of lockstep that doesn't know this yet: upgrade it first"
    ))
}

fn within_size(bytes: usize, max: usize) -> Result<(), Refusal> {
    if bytes <= max {
        return Ok(());
    }
    Err(Refusal::Invalid {
        field: "command".to_owned(),
        message: format!("{bytes} bytes, {max} at most: split it"),
    })
}

#[cfg(test)]
mod tests {
    use catalog::NodeId;

    use super::*;

    #[test]
    fn what_an_older_raft_leader_cant_read_is_refused_and_not_tried_again() {
        let failed = |failure| submitted(Err(NoAnswer::Failed(NodeId(7), failure)));
        let refused = failed(Failure::Unreadable("a kind that isn't known".into()));
        let Submitted::Refused(refusal) = refused else { panic!("{refused:?}") };
        let words = refusal.to_string();
        assert!(words.contains("node 0000000000000007") && words.contains("upgrade it first"), "{words}");
        assert!(matches!(failed(Failure::Removed), Submitted::NotProposed(None)));
        assert!(matches!(failed(Failure::Deadline), Submitted::InDoubt));
    }
}

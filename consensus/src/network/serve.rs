//! What this node answers the others.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::{NodeId, codec};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest};
use openraft::{ServerState, Snapshot};
use tokio::time::{Instant, timeout};

use super::wire::{Answer, Append, Blob, Failure, Request};
use crate::handle::Inner;
use crate::raft::{LogId, SnapshotMeta, Vote};

/// No answer takes longer; the caller's own deadline is shorter for all but the last chunk of a snapshot.
const SERVE_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest command with what a call adds to it.
const PARTS_BYTES_MAX: u64 = crate::forward::COMMAND_BYTES_MAX as u64 + 4096;

/// What a snapshot may hold: the codec reads no more.
const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// An append that arrives in pieces. One at a time: there is one Raft leader.
#[derive(Default)]
pub(crate) struct Assembly {
    from: Option<(NodeId, Vote, u64)>,
    data: Vec<u8>,
}

impl Assembly {
    /// All of it, when the last piece has come; else how much is there.
    fn take(&mut self, from: (NodeId, Vote, u64), offset: u64, piece: &[u8]) -> Result<Vec<u8>, u64> {
        if offset == 0 {
            *self = Self { from: Some(from), data: Vec::new() };
        }
        if self.from != Some(from) {
            return Err(0);
        }
        let (_, _, total) = from;
        let held = self.data.len() as u64;
        if offset == held && held + piece.len() as u64 <= total {
            self.data.extend_from_slice(piece);
        }
        if self.data.len() as u64 == total {
            return Ok(std::mem::take(self).data);
        }
        Err(self.data.len() as u64)
    }
}

impl Inner {
    pub(crate) async fn serve(self: Arc<Self>, from: NodeId, request: Bytes) -> Bytes {
        let answer = match self.admit(from, &request) {
            Ok(request) => {
                match timeout(SERVE_TIMEOUT, self.unless_closing(self.answer(from, request))).await {
                    Ok(answer) => answer.unwrap_or_else(|| self.has_stopped()),
                    Err(_) => Answer::Failed(Failure::Deadline),
                }
            }
            Err(failure) => Answer::Failed(failure),
        };
        codec::encode(&answer).into()
    }

    fn admit(&self, from: NodeId, request: &[u8]) -> Result<Request, Failure> {
        if self.applied.borrow().catalog.fleet.removed.contains_key(&from) {
            return Err(Failure::Removed);
        }
        if let Some(why) = self.stopped() {
            return Err(Failure::Stopped(why));
        }
        let request = codec::decode(request).map_err(|e| Failure::Unreadable(e.to_string()))?;
        self.calls.hear(from.0);
        Ok(request)
    }

    async fn answer(&self, from: NodeId, request: Request) -> Answer {
        match request {
            Request::Append(append) => self.append(append).await,
            Request::Part { vote, offset, total, data } => self.part(from, vote, offset, total, data).await,
            Request::Vote { vote, last, handed_over } => self.vote(vote, last, handed_over).await,
            Request::Snapshot { vote, meta, offset, data, done } => {
                self.snapshot(vote, meta, offset, data, done).await
            }
            Request::WouldVote { last } => self.would_vote(last).await,
            Request::TakeOver { vote } => self.take_over(vote).await,
            Request::Submit { action, within_ms } => {
                let within = Duration::from_millis(within_ms).min(SERVE_TIMEOUT);
                Answer::Submitted(self.submit_here(action, Instant::now() + within).await)
            }
            Request::ReadIndex => self.read_index().await,
        }
    }

    async fn append(&self, append: Append) -> Answer {
        let Append { vote, prev, commit, entries } = append;
        let request = AppendEntriesRequest { vote, prev_log_id: prev, leader_commit: commit, entries };
        match self.raft.append_entries(request).await {
            Ok(AppendEntriesResponse::Success) => Answer::Appended,
            Ok(AppendEntriesResponse::PartialSuccess(log_id)) => Answer::AppendedUpTo(log_id),
            Ok(AppendEntriesResponse::Conflict) => Answer::Conflict,
            Ok(AppendEntriesResponse::HigherVote(vote)) => Answer::HigherVote(vote),
            Err(RaftError::Fatal(_) | RaftError::APIError(_)) => self.has_stopped(),
        }
    }

    async fn part(&self, from: NodeId, vote: Vote, offset: u64, total: u64, data: Blob) -> Answer {
        if total > PARTS_BYTES_MAX {
            return Answer::Failed(Failure::Unreadable(format!("{total} bytes are too many")));
        }
        let taken = {
            // Nothing panics while it is held.
            let mut assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner);
            assembly.take((from, vote, total), offset, &data.0)
        };
        match taken {
            Ok(whole) => match codec::decode(&whole) {
                Ok(Request::Append(append)) => self.append(append).await,
                Ok(_) => Answer::Failed(Failure::Unreadable("pieces of another kind".to_owned())),
                Err(e) => Answer::Failed(Failure::Unreadable(e.to_string())),
            },
            // The Raft leader is heard by each piece: it sends no heartbeat meanwhile.
            Err(held) => {
                match self.append(Append { vote, prev: None, commit: None, entries: vec![] }).await {
                    Answer::Appended => Answer::PartsUpTo(held),
                    other => other,
                }
            }
        }
    }

    async fn vote(&self, vote: Vote, last: Option<LogId>, handed_over: Option<Vote>) -> Answer {
        if let Some(by) = handed_over
            && self.forget_leader(by).await.is_err()
        {
            return self.has_stopped();
        }
        match self.raft.vote(VoteRequest::new(vote, last)).await {
            Ok(response) => Answer::Voted {
                vote: response.vote,
                last: response.last_log_id,
                granted: response.vote_granted,
            },
            Err(_) => self.has_stopped(),
        }
    }

    /// Voters stay for a while with a Raft leader that they heard, unless that one wishes another.
    /// Raises the term without a vote for anybody, which is always safe; whether the candidate gets
    /// the vote is then judged as ever.
    async fn forget_leader(&self, by: Vote) -> Result<(), ()> {
        let followed = self.raft.with_raft_state(move |state| *state.vote_ref() == by).await;
        if !followed.map_err(|_| ())? {
            return Ok(());
        }
        // Below every candidate of that term: no node has id 0.
        let higher = Vote::new(by.leader_id().term + 1, 0);
        let nothing = Snapshot { meta: SnapshotMeta::default(), snapshot: Box::default() };
        self.raft.install_full_snapshot(higher, nothing).await.map(drop).map_err(|_| ())
    }

    async fn snapshot(&self, vote: Vote, meta: SnapshotMeta, offset: u64, data: Blob, done: bool) -> Answer {
        if offset.saturating_add(data.0.len() as u64) > SNAPSHOT_BYTES_MAX {
            return Answer::Failed(Failure::Unreadable(format!(
                "a snapshot beyond {SNAPSHOT_BYTES_MAX} bytes"
            )));
        }
        // What can't be read after all would count as a failure of the store, and end this node's consensus.
        if offset == 0
            && let Err(error) = codec::check_catalog_version(&data.0)
        {
            self.told_newer.call_once(|| {
                tracing::error!("the Raft leader's snapshot can't be read, this node stays behind: {error}");
            });
            return Answer::Failed(Failure::Unreadable(format!("the snapshot: {error}")));
        }
        let request = InstallSnapshotRequest { vote, meta, offset, data: data.0, done };
        match self.raft.install_snapshot(request).await {
            Ok(response) => Answer::SnapshotUpTo { vote: response.vote },
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(_))) => Answer::SnapshotAgain,
            Err(RaftError::Fatal(_)) => self.has_stopped(),
        }
    }

    async fn would_vote(&self, last: Option<LogId>) -> Answer {
        let lease = self.lease;
        // A Raft leader without a quorum holds nobody back.
        let quorum = self.quorum_ack_age().is_some_and(|age| age <= lease);
        let held = self.last_log();
        let would = self.raft.with_raft_state(move |state| {
            if state.server_state == ServerState::Leader {
                return !quorum;
            }
            let heard = state.vote_last_modified().is_some_and(|at| at.elapsed() <= lease);
            let follows = state.vote_ref().is_committed() && heard;
            !follows && last >= held
        });
        would.await.map_or_else(|_| self.has_stopped(), Answer::WouldVote)
    }

    async fn take_over(&self, vote: Vote) -> Answer {
        let me = self.identity.node_id;
        let may = self.raft.with_raft_state(move |state| {
            let members = state.membership_state.effective().membership();
            *state.vote_ref() == vote && members.voter_ids().any(|id| id == me)
        });
        match may.await {
            Ok(true) => {
                self.calls.hand_over(Some(vote));
                match self.raft.trigger().elect().await {
                    Ok(()) => Answer::TakesOver(true),
                    Err(_) => self.has_stopped(),
                }
            }
            Ok(false) => Answer::TakesOver(false),
            Err(_) => self.has_stopped(),
        }
    }

    fn has_stopped(&self) -> Answer {
        let why = self.stopped().unwrap_or_else(|| "no reason was given".to_owned());
        Answer::Failed(Failure::Stopped(why))
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Action, Catalog};

    use super::*;
    use crate::{Consensus, Options};

    const LEADER: NodeId = NodeId(9);

    /// In a rolling upgrade: it lags, and the Raft leader's build is newer.
    #[tokio::test]
    async fn a_snapshot_of_a_newer_build_is_refused_in_words_and_stops_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let node = Consensus::bootstrap(Options::new(directory.path(), "a")).await.expect("founded");
        let sent = async |first: u8| {
            let mut data = codec::encode_catalog(&Catalog::default());
            data[0] = first;
            let meta = SnapshotMeta {
                last_log_id: Some(LogId::new(openraft::CommittedLeaderId::new(5, LEADER.0), 1_000)),
                ..SnapshotMeta::default()
            };
            let vote = Vote::new_committed(5, LEADER.0);
            let request = Request::Snapshot { vote, meta, offset: 0, data: Blob(data), done: true };
            codec::decode(&node.serve(LEADER, codec::encode(&request).into()).await).expect("an answer")
        };
        let Answer::Failed(Failure::Unreadable(words)) = sent(codec::CATALOG_VERSION + 1).await else {
            panic!("not refused")
        };
        assert!(words.ends_with("use a newer lockstep"), "{words}");
        assert_eq!(node.status().stopped, None);
        let create =
            Action::CreateCluster { name: "c".into(), cluster_id: "c".into(), configs: Default::default() };
        node.submit(create).await.expect("it goes on");
        let written = codec::encode_catalog(&Catalog::default())[0];
        assert!(matches!(sent(written).await, Answer::SnapshotUpTo { .. }));
        node.shutdown().await;
    }
}

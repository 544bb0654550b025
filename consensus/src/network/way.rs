//! openraft's calls to one member.

use std::iter;
use std::time::Duration;

use catalog::{NodeId, codec};
use openraft::error::{
    InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, SnapshotMismatch,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotSegmentId};

use super::wire::{Answer, Append, Blob, Request};
use super::{CALL_BYTES_MAX, Calls, NoAnswer};
use crate::raft::{Entry, LogId, Types, Vote};

/// Between two calls to a member that can't be reached: a restart takes about this long.
const UNREACHABLE_WAIT: Duration = Duration::from_millis(200);

/// Room for what a call carries beside entries.
const CALL_HEAD_BYTES: usize = 1024;

type Failed<E> = RPCError<u64, BasicNode, E>;

pub(crate) struct Ways(pub(crate) Calls);

/// The way to one member.
pub(crate) struct Way {
    calls: Calls,
    to: u64,
    /// How much of an entry too large for one call is there already: openraft gives each attempt
    /// less time than the whole may take.
    parts: Option<(LogId, usize)>,
}

impl RaftNetworkFactory<Types> for Ways {
    type Network = Way;

    async fn new_client(&mut self, to: u64, _node: &BasicNode) -> Way {
        Way { calls: self.0.clone(), to, parts: None }
    }
}

impl Way {
    /// Sends what doesn't fit into one call piece by piece.
    async fn in_parts(
        &mut self,
        vote: Vote,
        last: LogId,
        whole: &[u8],
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        loop {
            let offset = match self.parts {
                Some((of, offset)) if of == last && offset < whole.len() => offset,
                _ => 0,
            };
            let end = whole.len().min(offset + CALL_BYTES_MAX);
            let part = Request::Part {
                vote,
                offset: offset as u64,
                total: whole.len() as u64,
                data: Blob(whole[offset..end].to_vec()),
            };
            match self.calls.call(self.to, &part, within).await? {
                Answer::PartsUpTo(held) => {
                    self.parts = Some((last, usize::try_from(held).unwrap_or(0)));
                }
                answer => {
                    self.parts = None;
                    return Ok(answer);
                }
            }
        }
    }

    fn strange<E: std::error::Error>(&self) -> Failed<E> {
        failed(NoAnswer::Unreadable(NodeId(self.to), None))
    }
}

fn failed<E: std::error::Error>(error: NoAnswer) -> Failed<E> {
    match error {
        // openraft then waits before the next attempt.
        NoAnswer::Call(e) => RPCError::Unreachable(Unreachable::new(&e)),
        e @ (NoAnswer::Failed(..) | NoAnswer::Unreadable(..)) => {
            RPCError::Unreachable(Unreachable::new(&e))
        }
    }
}

/// How many of the entries fit into one call; none if not even the first does.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = CALL_HEAD_BYTES;
    entries
        .iter()
        .take_while(|entry| {
            bytes = bytes.saturating_add(codec::encode(entry).len());
            bytes <= CALL_BYTES_MAX
        })
        .count()
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        let AppendEntriesRequest { vote, prev_log_id: prev, leader_commit: commit, entries } = request;
        let last = entries.last().map(|entry| entry.log_id);
        let request = Request::Append(Append { vote, prev, commit, entries });
        let bytes = codec::encode(&request);
        let answer = match (request, last) {
            (Request::Append(Append { entries, .. }), Some(last)) if bytes.len() > CALL_BYTES_MAX => {
                if entries.len() > 1 {
                    let hint = fitting(&entries).max(1) as u64;
                    return Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(hint)));
                }
                self.in_parts(vote, last, &bytes, option.hard_ttl()).await
            }
            _ => self.calls.send(self.to, bytes.into(), option.hard_ttl()).await,
        };
        match answer.map_err(failed)? {
            Answer::Appended => Ok(AppendEntriesResponse::Success),
            Answer::AppendedUpTo(log_id) => Ok(AppendEntriesResponse::PartialSuccess(log_id)),
            Answer::Conflict => Ok(AppendEntriesResponse::Conflict),
            Answer::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote)),
            _ => Err(self.strange()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<RaftError<u64, InstallSnapshotError>>> {
        let InstallSnapshotRequest { vote, meta, offset, data, done } = request;
        let id = meta.snapshot_id.clone();
        let request = Request::Snapshot { vote, meta, offset, data: Blob(data), done };
        match self.calls.call(self.to, &request, option.hard_ttl()).await.map_err(failed)? {
            Answer::SnapshotUpTo { vote } => Ok(InstallSnapshotResponse { vote }),
            Answer::SnapshotAgain => {
                let segment = |offset| SnapshotSegmentId { id: id.clone(), offset };
                let mismatch = SnapshotMismatch { expect: segment(0), got: segment(offset) };
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.to, error)))
            }
            _ => Err(RPCError::Network(NetworkError::new(&NoAnswer::Unreadable(NodeId(self.to), None)))),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        let VoteRequest { vote, last_log_id: last } = request;
        let handed_over = self.calls.handed_over_for(&vote);
        let request = Request::Vote { vote, last, handed_over };
        match self.calls.call(self.to, &request, option.hard_ttl()).await.map_err(failed)? {
            Answer::Voted { vote, last, granted } => Ok(VoteResponse::new(vote, last, granted)),
            _ => Err(self.strange()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(iter::repeat(UNREACHABLE_WAIT))
    }
}

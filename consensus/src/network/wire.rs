//! What members say to each other.
//!
//! Encoded by [`catalog::codec`]: positional, so new kinds go to the end and a kind's fields never
//! change. Whoever doesn't know a kind answers [`Failure::Unreadable`].

use std::fmt;

use catalog::{Action, Outcome, Refusal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::raft::{Entry, LogId, Reply, SnapshotMeta, Vote};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(Append),
    /// A piece of an [`Append`] too large for one call, from `offset` of `total` bytes on. The last
    /// one is answered as the whole.
    Part {
        vote: Vote,
        offset: u64,
        total: u64,
        data: Blob,
    },
    Vote {
        vote: Vote,
        last: Option<LogId>,
        /// The Raft leader of that vote wishes the candidate to take over.
        handed_over: Option<Vote>,
    },
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        offset: u64,
        data: Blob,
        done: bool,
    },
    /// Whether a vote for a node with that log would be granted. Changes nothing.
    WouldVote {
        last: Option<LogId>,
    },
    /// The Raft leader of that vote wishes the called node to take over.
    TakeOver {
        vote: Vote,
    },
    /// Asks the Raft leader to propose this, and to wait for at most `within_ms`.
    Submit {
        action: Action,
        within_ms: u64,
    },
    /// Asks the Raft leader up to where a reader must have applied.
    ReadIndex,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) prev: Option<LogId>,
    pub(crate) commit: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Failed(Failure),
    Appended,
    AppendedUpTo(Option<LogId>),
    Conflict,
    HigherVote(Vote),
    /// How many bytes of the pieces are there.
    PartsUpTo(u64),
    Voted {
        vote: Vote,
        last: Option<LogId>,
        granted: bool,
    },
    SnapshotUpTo {
        vote: Vote,
    },
    /// The pieces don't follow those that arrived: begin again.
    SnapshotAgain,
    WouldVote(bool),
    TakesOver(bool),
    Submitted(Submitted),
    ReadIndex(u64),
    /// And who leads, if that is known. Nothing was done.
    NotLeader(Option<u64>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Submitted {
    Applied {
        index: u64,
        reply: Result<Outcome, Refusal>,
    },
    /// Before it was proposed.
    Refused(Refusal),
    /// Surely not proposed.
    NotProposed(Option<u64>),
    InDoubt,
}

impl Submitted {
    pub(crate) fn applied(index: u64, reply: Reply) -> Self {
        Self::Applied { index, reply }
    }
}

/// Why a member didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Failure {
    #[error("consensus has stopped there: {0}")]
    Stopped(String),
    #[error("this node was removed from the fleet")]
    Removed,
    #[error("the request was not understood: {0}")]
    Unreadable(String),
    #[error("no quorum confirms it as Raft leader")]
    NoQuorum,
    #[error("no answer in time from consensus there")]
    Deadline,
}

/// Bytes that are copied as a whole.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// The bytes between nodes of different builds. A change here is one that they can't talk through.
#[cfg(test)]
mod tests {
    use catalog::codec;
    use openraft::CommittedLeaderId;

    use super::*;

    fn check(value: &(impl Serialize + fmt::Debug), bytes: &[u8]) {
        assert_eq!(codec::encode(value), bytes, "{value:?}");
    }

    fn log_id() -> LogId {
        LogId::new(CommittedLeaderId::new(3, 7), 9)
    }

    #[test]
    fn requests_keep_their_bytes() {
        let vote = Vote::new_committed(3, 7);
        let append = Append { vote, prev: Some(log_id()), commit: None, entries: vec![] };
        check(&Request::Append(append), &[1, 0, 3, 7, 1, 1, 3, 7, 9, 0, 0]);
        let data = || Blob(vec![5, 6]);
        check(&Request::Part { vote, offset: 1, total: 3, data: data() }, &[1, 1, 3, 7, 1, 1, 3, 2, 5, 6]);
        let last = Some(log_id());
        check(&Request::Vote { vote, last, handed_over: None }, &[1, 2, 3, 7, 1, 1, 3, 7, 9, 0]);
        let snapshot =
            Request::Snapshot { vote, meta: SnapshotMeta::default(), offset: 0, data: data(), done: true };
        check(&snapshot, &[1, 3, 3, 7, 1, 0, 0, 0, 0, 0, 0, 2, 5, 6, 1]);
        check(&Request::WouldVote { last }, &[1, 4, 1, 3, 7, 9]);
        check(&Request::TakeOver { vote }, &[1, 5, 3, 7, 1]);
        let action = Action::DeleteCluster { name: "c".into() };
        check(&Request::Submit { action, within_ms: 9 }, &[1, 6, 3, 1, b'c', 9]);
        check(&Request::ReadIndex, &[1, 7]);
    }

    #[test]
    fn answers_keep_their_bytes() {
        let vote = Vote::new(3, 7);
        check(&Answer::Failed(Failure::Stopped("s".into())), &[1, 0, 0, 1, b's']);
        check(&Answer::Failed(Failure::Removed), &[1, 0, 1]);
        check(&Answer::Failed(Failure::Unreadable("u".into())), &[1, 0, 2, 1, b'u']);
        check(&Answer::Failed(Failure::NoQuorum), &[1, 0, 3]);
        check(&Answer::Failed(Failure::Deadline), &[1, 0, 4]);
        check(&Answer::Appended, &[1, 1]);
        check(&Answer::AppendedUpTo(Some(log_id())), &[1, 2, 1, 3, 7, 9]);
        check(&Answer::Conflict, &[1, 3]);
        check(&Answer::HigherVote(vote), &[1, 4, 3, 7, 0]);
        check(&Answer::PartsUpTo(9), &[1, 5, 9]);
        check(&Answer::Voted { vote, last: None, granted: true }, &[1, 6, 3, 7, 0, 0, 1]);
        check(&Answer::SnapshotUpTo { vote }, &[1, 7, 3, 7, 0]);
        check(&Answer::SnapshotAgain, &[1, 8]);
        check(&Answer::WouldVote(true), &[1, 9, 1]);
        check(&Answer::TakesOver(false), &[1, 10, 0]);
        let done = Submitted::Applied { index: 9, reply: Ok(Outcome::Done) };
        check(&Answer::Submitted(done), &[1, 11, 0, 9, 0, 0]);
        let refusal = || Refusal::Stale("s".into());
        check(&Answer::Submitted(Submitted::Refused(refusal())), &[1, 11, 1, 3, 1, b's']);
        check(&Answer::Submitted(Submitted::NotProposed(Some(7))), &[1, 11, 2, 1, 7]);
        check(&Answer::Submitted(Submitted::InDoubt), &[1, 11, 3]);
        check(&Answer::ReadIndex(9), &[1, 12, 9]);
        check(&Answer::NotLeader(None), &[1, 13, 0]);
    }

    #[test]
    fn what_is_not_known_is_told_apart_from_what_is() {
        assert!(codec::decode::<Request>(&[1, 200]).is_err());
        assert!(codec::decode::<Request>(&[2, 7]).is_err(), "another version of the codec");
        let Ok(Request::Part { data, .. }) = codec::decode(&[1, 1, 3, 7, 1, 1, 3, 2, 5, 6]) else {
            panic!("not a piece")
        };
        assert_eq!(data, Blob(vec![5, 6]));
    }
}

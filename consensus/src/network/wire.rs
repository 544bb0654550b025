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

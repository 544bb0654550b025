//! openraft, fitted to the catalog: the one place that names its type parameters.

use std::io::Cursor;

use catalog::{Command, Outcome, Refusal};
use openraft::BasicNode;

use crate::runtime::Runtime;

/// What applying an entry answered. Entries of Raft's own (blank, membership) answer `Done`.
pub(crate) type Reply = Result<Outcome, Refusal>;

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::StoredMembership<u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;

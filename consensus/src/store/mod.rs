//! Log, vote and snapshots of one node, in one redb database.
//!
//! openraft is the only caller, through `log` (the Raft log and vote) and `machine` (the catalog
//! and its snapshots); `load` reads and checks everything once, when the node starts.
//!
//! - Vote, append, truncate, purge and snapshot are each one durable commit: when the call
//!   returns, a power cut doesn't take it back. The catalog itself is kept in memory only and
//!   rebuilt at start: last snapshot, then the log.
//! - How far the log is committed is a hint and costs no commit of its own: it is written along
//!   with whatever is written next. What it misses, the next leader commits again.
//! - redb is called directly, not through `spawn_blocking`: a commit takes some tenths of a ms, consensus has
//!   a runtime of its own, and the simulator must see no real threads.
//!
//! It never interprets a command, and never deletes an entry that no snapshot holds.

#[cfg(test)]
mod format_tests;
mod held;
mod load;
mod log;
mod machine;
mod seal;
#[cfg(test)]
mod suite_tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use catalog::Catalog;
use catalog::codec::{self, CodecError};
use openraft::AnyError;
use redb::{
    Database, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition, TableError,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::directory::DataDir;
use crate::error::OpenError;
use crate::options::Pace;
use crate::raft::LogId;

pub(crate) use held::Held;
pub use machine::Applied;
pub(crate) use machine::Machine;

/// Layout of the tables below. Their values have a version of their own ([`codec::VERSION`]).
const FORMAT: u32 = 1;

/// The whole store is a few MB; redb's default is a GiB.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// `format` (four bytes, little endian, readable by any version) and `identity`.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const IDENTITY_KEY: &str = "identity";
/// There, and empty, in a store that was made to be added to a group.
const WAITING_KEY: &str = "waiting";

/// `vote`, `committed` and `purged`.
const RAFT: TableDefinition<&str, &[u8]> = TableDefinition::new("raft");
const VOTE_KEY: &str = "vote";
const COMMITTED_KEY: &str = "committed";
const PURGED_KEY: &str = "purged";

/// Entries by index.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// The last snapshot: `meta` and `catalog`, both or neither.
const SNAPSHOT: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshot");
const SNAPSHOT_META_KEY: &str = "meta";
const SNAPSHOT_CATALOG_KEY: &str = "catalog";

/// Who the node of this store is. Written once; a lost store is a lost node, whose id must never
/// vote again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node_id: u64,
    pub(crate) node_name: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store can't be read or written")]
    Redb(#[source] Box<redb::Error>),
    #[error("{what} can't be decoded")]
    Codec { what: String, source: CodecError },
    #[error("{0}")]
    Inconsistent(String),
    #[error("the store is in format {found}, this build reads up to {reads}")]
    NewerFormat { found: u32, reads: u32 },
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(
    redb::CommitError,
    redb::DatabaseError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

/// Why the store can't be used any more: which file, the cause, the way out. Outlives the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    pub(crate) fn text(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// A cheap handle; the database closes with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Inner>);

/// Fields are dropped in this order: the database first, then the directory's lock, then the
/// signal that both are free.
#[derive(Debug)]
struct Inner {
    db: Database,
    /// For messages.
    path: PathBuf,
    failure: Failure,
    committed: Mutex<Committed>,
    /// The last entry that a durable snapshot holds.
    held: watch::Sender<Option<u64>>,
    pace: Pace,
    _dir: Option<DataDir>,
    _closed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Committed {
    last: Option<LogId>,
    /// What the database holds.
    saved: Option<LogId>,
}

/// Opens what the backend holds, or makes an empty database of an empty backend. Every page's
/// checksum is verified: redb may panic later on a page that it trusted.
pub(crate) fn database(backend: impl StorageBackend) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(backend)?)
}

/// In two phases: with one, redb can't tell a commit that a power cut tore from one that the disk damaged
/// since, and takes both back. What was acknowledged would be gone, and nobody told.
fn begin(db: &Database) -> Result<WriteTransaction, redb::TransactionError> {
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(true);
    Ok(txn)
}

/// What a new store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Founding {
    /// A group of its own.
    Group,
    /// Waiting to be added to a group that exists.
    Waiting,
}

/// Makes an empty database the store of a new node, in one durable commit.
pub(crate) fn found(db: &Database, identity: &Identity, founding: Founding) -> Result<(), StoreError> {
    let txn = begin(db)?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
        meta.insert(IDENTITY_KEY, codec::encode(identity).as_slice())?;
        if founding == Founding::Waiting {
            meta.insert(WAITING_KEY, [].as_slice())?;
        }
        txn.open_table(RAFT)?;
        txn.open_table(LOG)?;
        txn.open_table(SNAPSHOT)?;
    }
    Ok(txn.commit()?)
}

/// None in a database in which no node was founded.
pub(crate) fn identity(db: &Database) -> Result<Option<Identity>, StoreError> {
    let txn = db.begin_read()?;
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let format = meta.get(FORMAT_KEY)?.ok_or_else(|| missing("the format version"))?;
    let format: [u8; 4] = format.value().try_into().map_err(|_| missing("the format version"))?;
    let found = u32::from_le_bytes(format);
    if found > FORMAT {
        return Err(StoreError::NewerFormat { found, reads: FORMAT });
    }
    let identity = meta.get(IDENTITY_KEY)?.ok_or_else(|| missing("the node's identity"))?;
    decode("the node's identity", identity.value()).map(Some)
}

/// Whether the store was made for a node that waits to be added to a group.
pub(crate) fn waiting(db: &Database) -> Result<bool, StoreError> {
    let txn = db.begin_read()?;
    Ok(txn.open_table(META)?.get(WAITING_KEY)?.is_some())
}

/// The name is a label that may change between starts.
pub(crate) fn rename(db: &Database, identity: &Identity) -> Result<(), StoreError> {
    let txn = begin(db)?;
    txn.open_table(META)?.insert(IDENTITY_KEY, codec::encode(identity).as_slice())?;
    Ok(txn.commit()?)
}

impl Store {
    /// The receiver's channel closes when the database is closed and the directory is free.
    pub(crate) fn new(
        db: Database,
        dir: Option<DataDir>,
        path: &Path,
        pace: Pace,
    ) -> Result<(Self, watch::Receiver<()>), StoreError> {
        let (closed, receiver) = watch::channel(());
        let (path, failure, committed) = (path.to_owned(), Failure::default(), Mutex::default());
        let held = watch::Sender::default();
        let store =
            Self(Arc::new(Inner { db, path, failure, committed, held, pace, _dir: dir, _closed: closed }));
        // One that can't be read is told of by `load`.
        let snapshot = store.snapshot().ok().flatten();
        store.0.held.send_replace(snapshot.and_then(|(meta, _)| meta.last_log_id).map(|id| id.index));
        let saved = store.read_raft(COMMITTED_KEY)?.flatten();
        *store.committed() = Committed { last: saved, saved };
        Ok((store, receiver))
    }

    /// What stopped the node, if its store did.
    pub(crate) fn failure(&self) -> Failure {
        self.0.failure.clone()
    }

    /// Remembers the first error, which openraft then stops at; what follows is its echo.
    fn failed(&self, error: StoreError) -> AnyError {
        let error = OpenError::store(&self.0.path, error);
        let any = AnyError::new(&error);
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        tracing::error!("consensus: {text}");
        let _ = self.0.failure.0.set(text);
        any
    }

    /// One durable commit, or nothing. Takes an unsaved committed position along.
    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let committed = self.committed().last;
        let save_committed = committed != self.committed().saved;
        let value = without_panic(|| {
            let txn = begin(&self.0.db)?;
            let value = change(&txn)?;
            if save_committed {
                txn.open_table(RAFT)?.insert(COMMITTED_KEY, codec::encode(&committed).as_slice())?;
            }
            txn.commit()?;
            Ok(value)
        })?;
        self.committed().saved = committed;
        Ok(value)
    }

    fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        without_panic(|| look(&self.0.db.begin_read()?))
    }

    fn read_raft<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, StoreError> {
        self.read(|txn| {
            let value = txn.open_table(RAFT)?.get(key)?;
            value.map(|v| decode(key, v.value())).transpose()
        })
    }

    fn committed(&self) -> MutexGuard<'_, Committed> {
        // Nothing panics while it is held, and both fields are plain values.
        self.0.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// redb panics on a page that isn't what it wrote. openraft would lose the task that the panic ends, and
/// go on without it; an error stops it.
fn without_panic<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // What redb leaves behind half done is locked and stays so: each later use is an error, too.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Inconsistent("a page isn't what was written".to_owned())))
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|source| StoreError::Codec { what: what.to_owned(), source })
}

fn decode_catalog(what: &str, bytes: &[u8]) -> Result<Catalog, StoreError> {
    codec::decode_catalog(bytes).map_err(|source| StoreError::Codec { what: what.to_owned(), source })
}

fn missing(what: &str) -> StoreError {
    StoreError::Inconsistent(format!("{what} is missing"))
}

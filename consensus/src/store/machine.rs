//! The applied catalog and its snapshots, as openraft asks for them.
//!
//! It never writes while applying: what a restart needs is the last snapshot and the log behind it.

use std::io::Cursor;
use std::sync::Arc;

use catalog::{Catalog, Outcome, codec};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use redb::ReadableTable;
use tokio::sync::watch;

use super::{
    SNAPSHOT, SNAPSHOT_CATALOG_KEY, SNAPSHOT_META_KEY, Store, StoreError, decode, decode_catalog, missing,
    seal,
};
use crate::raft::{
    Entry, LogId, Membership, Reply, Snapshot, SnapshotMeta, StorageError, StorageIoError, Types,
};

/// The catalog after the entry of that index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// 0 before anything was applied.
    pub index: u64,
    pub catalog: Catalog,
}

pub(crate) struct Machine {
    store: Store,
    last: Option<LogId>,
    membership: Membership,
    applied: watch::Sender<Arc<Applied>>,
}

/// The catalog as it was when the snapshot was ordered; later entries don't change it.
pub(crate) struct Builder {
    store: Store,
    last: Option<LogId>,
    membership: Membership,
    applied: Arc<Applied>,
}

impl Machine {
    /// Starts from the snapshot, if there is one; openraft then replays the log.
    pub(crate) fn new(store: Store, snapshot: Option<(SnapshotMeta, Catalog)>) -> Self {
        let (meta, catalog) = snapshot.unwrap_or_default();
        let applied = watch::Sender::new(Arc::new(Applied { index: index(meta.last_log_id), catalog }));
        Self { store, last: meta.last_log_id, membership: meta.last_membership, applied }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    fn install(&mut self, meta: &SnapshotMeta, bytes: &[u8]) -> Result<(), StoreError> {
        // Decoded first: bytes that this build can't read must not replace a snapshot that it can.
        let catalog = decode_catalog("the received snapshot", bytes)?;
        self.store.save_snapshot(meta, bytes)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.applied.send_replace(Arc::new(Applied { index: index(self.last), catalog }));
        Ok(())
    }
}

impl Builder {
    fn build(&self) -> Result<(SnapshotMeta, Vec<u8>), StoreError> {
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: self.last.map_or_else(|| "empty".to_owned(), |id| id.to_string()),
        };
        let bytes = codec::encode_catalog(&self.applied.catalog);
        self.store.save_snapshot(&meta, &bytes)?;
        Ok((meta, bytes))
    }
}

impl Store {
    /// Replaces the snapshot unless it is the newer one: a builder may be overtaken by a snapshot
    /// that arrives from the leader.
    fn save_snapshot(&self, meta: &SnapshotMeta, catalog: &[u8]) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut table = txn.open_table(SNAPSHOT)?;
            let held = table.get(SNAPSHOT_META_KEY)?.map(|v| decode_meta(v.value())).transpose()?;
            if held.is_some_and(|held| held.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            table.insert(SNAPSHOT_META_KEY, seal::seal(codec::encode(meta)).as_slice())?;
            table.insert(SNAPSHOT_CATALOG_KEY, seal::seal(catalog.to_vec()).as_slice())?;
            Ok(())
        })?;
        let last = meta.last_log_id.map(|id| id.index);
        self.0.held.send_modify(|held| *held = last.max(*held));
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        self.read(|txn| {
            let table = txn.open_table(SNAPSHOT)?;
            let Some(meta) = table.get(SNAPSHOT_META_KEY)? else { return Ok(None) };
            let meta = decode_meta(meta.value())?;
            let catalog =
                table.get(SNAPSHOT_CATALOG_KEY)?.ok_or_else(|| missing("the snapshot's catalog"))?;
            let catalog = seal::open("the snapshot's catalog", catalog.value())?;
            Ok(Some((meta, catalog.to_vec())))
        })
    }
}

fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, StoreError> {
    let what = "the snapshot's description";
    decode(what, seal::open(what, bytes)?)
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |id| id.index)
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        let Self { last, membership, applied, .. } = self;
        // In place: the catalog is copied (its pointers, not its contents) only while a reader
        // holds the one before.
        applied.send_modify(|applied| {
            let applied = Arc::make_mut(applied);
            for entry in entries {
                *last = Some(entry.log_id);
                applied.index = entry.log_id.index;
                replies.push(match entry.payload {
                    EntryPayload::Normal(command) => applied.catalog.apply(command),
                    EntryPayload::Blank => Ok(Outcome::Done),
                    EntryPayload::Membership(members) => {
                        *membership = Membership::new(Some(entry.log_id), members);
                        Ok(Outcome::Done)
                    }
                });
            }
        });
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
            last: self.last,
            membership: self.membership.clone(),
            applied: self.applied.borrow().clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        self.store.0.pace.wait().await;
        self.install(meta, snapshot.get_ref())
            .map_err(|e| StorageIoError::write_snapshot(Some(meta.signature()), self.store.failed(e)).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshot =
            self.store.snapshot().map_err(|e| StorageIoError::read_snapshot(None, self.store.failed(e)))?;
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        self.store.0.pace.wait().await;
        let (meta, bytes) =
            self.build().map_err(|e| StorageIoError::write_snapshot(None, self.store.failed(e)))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

//! The Raft log and vote, as openraft asks for them.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::time::Duration;

use catalog::codec;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::ReadableTable;

use super::{LOG, PURGED_KEY, RAFT, Store, StoreError, VOTE_KEY, decode, seal};
use crate::raft::{Entry, LogId, StorageError, StorageIoError, Types, Vote};

/// A snapshot is a few MB and saved in one commit; a disk that is slower than this has failed.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30);

impl Store {
    pub(super) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, StoreError> {
        self.read(|txn| txn.open_table(LOG)?.range(range)?.map(|row| entry(row?)).collect())
    }

    fn log_state(&self) -> Result<LogState<Types>, StoreError> {
        let purged: Option<LogId> = self.read_raft(PURGED_KEY)?;
        let last = self.read(|txn| txn.open_table(LOG)?.last()?.map(entry).transpose())?;
        let last = last.map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    fn append_entries(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut log = txn.open_table(LOG)?;
            for entry in entries {
                log.insert(entry.log_id.index, bytes(&entry).as_slice())?;
            }
            Ok(())
        })
    }

    fn truncate_from(&self, index: u64) -> Result<(), StoreError> {
        self.write(|txn| Ok(txn.open_table(LOG)?.retain_in(index.., |_, _| false)?))
    }

    fn purge_to(&self, log_id: LogId) -> Result<(), StoreError> {
        self.write(|txn| {
            txn.open_table(RAFT)?.insert(PURGED_KEY, codec::encode(&log_id).as_slice())?;
            Ok(txn.open_table(LOG)?.retain_in(..=log_id.index, |_, _| false)?)
        })
    }

    fn write_vote(&self, vote: &Vote) -> Result<(), StoreError> {
        self.write(|txn| {
            txn.open_table(RAFT)?.insert(VOTE_KEY, codec::encode(vote).as_slice())?;
            Ok(())
        })
    }
}

pub(super) fn bytes(entry: &Entry) -> Vec<u8> {
    seal::seal(codec::encode(entry))
}

pub(super) fn entry(
    (index, value): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>),
) -> Result<Entry, StoreError> {
    let index = index.value();
    let what = || format!("log entry {index}");
    let entry: Entry = decode(&what(), seal::open(&what(), value.value())?)?;
    if entry.log_id.index != index {
        let found = entry.log_id.index;
        return Err(StoreError::Inconsistent(format!("log entry {index} says that it is entry {found}")));
    }
    Ok(entry)
}

impl Store {
    fn read_failed(&self, error: StoreError) -> StorageError {
        StorageIoError::read_logs(self.failed(error)).into()
    }

    fn write_failed(&self, error: StoreError) -> StorageError {
        StorageIoError::write_logs(self.failed(error)).into()
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range).map_err(|e| self.read_failed(e))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        self.log_state().map_err(|e| self.read_failed(e))
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.0.pace.wait().await;
        self.write_vote(vote).map_err(|e| StorageIoError::write_vote(self.failed(e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.read_raft(VOTE_KEY).map_err(|e| StorageIoError::read_vote(self.failed(e)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.committed().last = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed().last)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.pace.wait().await;
        self.append_entries(entries).map_err(|e| self.write_failed(e))?;
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.0.pace.wait().await;
        self.truncate_from(log_id.index).map_err(|e| self.write_failed(e))
    }

    /// openraft lets its state machine install a snapshot while it purges what that holds: whichever comes
    /// first must not leave a hole after a crash.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let mut held = self.0.held.subscribe();
        let is_held = held.wait_for(|held| *held >= Some(log_id.index));
        if tokio::time::timeout(SNAPSHOT_MAX, is_held).await.is_err() {
            let message = format!("no snapshot that holds entry {log_id} was saved within {SNAPSHOT_MAX:?}");
            return Err(self.write_failed(StoreError::Inconsistent(message)));
        }
        self.0.pace.wait().await;
        self.purge_to(log_id).map_err(|e| self.write_failed(e))
    }
}

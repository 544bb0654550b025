//! Reads everything once when a node starts, and refuses a store that contradicts itself.
//!
//! openraft trusts its store and panics or loops on one that doesn't hold together. Whatever it
//! will rely on is looked at here, where it can be said in words. It never repairs.

use catalog::Catalog;
use redb::{ReadableDatabase, ReadableTable};

use super::{LOG, PURGED_KEY, Store, StoreError, VOTE_KEY, decode_catalog, log};
use crate::raft::{LogId, SnapshotMeta, Vote};

impl Store {
    /// Checks everything; returns the snapshot to start from.
    pub(crate) fn load(&self) -> Result<Option<(SnapshotMeta, Catalog)>, StoreError> {
        let _vote: Option<Vote> = self.read_raft(VOTE_KEY)?;
        let purged: Option<LogId> = self.read_raft(PURGED_KEY)?;
        let snapshot = match self.snapshot()? {
            Some((meta, bytes)) => Some((meta, decode_catalog("the snapshot's catalog", &bytes)?)),
            None => None,
        };
        let held = snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if purged > held {
            return inconsistent("entries", purged, "were purged, but the snapshot ends at", held);
        }
        let last = self.check_log(purged)?;
        let committed = self.committed().last;
        if committed > last.max(held) {
            return inconsistent("entries", committed, "were committed, but the log ends at", last.max(held));
        }
        Ok(snapshot)
    }

    /// Entries follow each other without a hole from the purged ones on. Returns the last one.
    fn check_log(&self, purged: Option<LogId>) -> Result<Option<LogId>, StoreError> {
        let mut last = purged;
        let txn = self.0.db.begin_read()?;
        for row in txn.open_table(LOG)?.iter()? {
            let entry = log::entry(row?)?;
            let next = last.map_or(0, |id| id.index + 1);
            if entry.log_id.index != next || Some(entry.log_id) <= last {
                return inconsistent("entry", Some(entry.log_id), "follows", last);
            }
            last = Some(entry.log_id);
        }
        Ok(last)
    }
}

fn inconsistent<T>(what: &str, a: Option<LogId>, relation: &str, b: Option<LogId>) -> Result<T, StoreError> {
    let show = |id: Option<LogId>| id.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    Err(StoreError::Inconsistent(format!("{what} up to {} {relation} {}", show(a), show(b))))
}

//! All that a stopped node holds, for whoever takes it up again by hand.

use catalog::{Catalog, Command};
use openraft::EntryPayload;

use super::{LOG, RAFT, Store, StoreError, VOTE_KEY, log};
use crate::raft::{Entry, LogId, Membership, Vote};

/// As if every entry of the log were committed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) vote: Option<Vote>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) membership: Membership,
    pub(crate) catalog: Catalog,
    /// None if the last command isn't in the log any more.
    pub(crate) last_command_ms: Option<i64>,
}

impl Store {
    pub(crate) fn held(&self) -> Result<Held, StoreError> {
        let (meta, catalog) = self.load()?.unwrap_or_default();
        let vote = self.read_raft(VOTE_KEY)?;
        let mut held = Held {
            vote,
            last: meta.last_log_id,
            committed: self.committed().last.max(meta.last_log_id),
            membership: meta.last_membership,
            catalog,
            last_command_ms: None,
        };
        let behind_snapshot = held.last.map_or(0, |id| id.index + 1);
        for entry in self.entries(0..)? {
            if let EntryPayload::Normal(Command { at_ms, .. }) = &entry.payload {
                held.last_command_ms = Some(*at_ms);
            }
            if entry.log_id.index < behind_snapshot {
                continue;
            }
            held.last = Some(entry.log_id);
            match entry.payload {
                // A command that is refused changes nothing.
                EntryPayload::Normal(command) => drop(held.catalog.apply(command)),
                EntryPayload::Membership(members) => {
                    held.membership = Membership::new(Some(entry.log_id), members);
                }
                EntryPayload::Blank => {}
            }
        }
        Ok(held)
    }

    /// Adds to the log and raises the vote, in one durable commit.
    pub(crate) fn recover(&self, vote: &Vote, entries: &[Entry]) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut log = txn.open_table(LOG)?;
            for entry in entries {
                log.insert(entry.log_id.index, log::bytes(entry).as_slice())?;
            }
            txn.open_table(RAFT)?.insert(VOTE_KEY, catalog::codec::encode(vote).as_slice())?;
            Ok(())
        })
    }
}

//! After a majority is lost for good: the node at hand becomes the only voter of its fleet.
//!
//! It works on a data directory that no process uses. Everything that the node holds stays, also
//! entries of which it doesn't know whether a majority had them. What only the lost nodes held is
//! lost with them: an acknowledged command can be missing afterwards (CT-6 is given up here).
//!
//! All other nodes are removed from the fleet in the same breath, so that none of them, nor all of
//! them together, can come back and go on as if nothing had happened: whoever was recovered refuses
//! them.

use std::collections::BTreeSet;

use catalog::{Action, Catalog, Command, NodeId};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use redb::StorageBackend;

use crate::directory::DataDir;
use crate::error::{OpenError, RecoverError};
use crate::options::Options;
use crate::raft::{Entry, LogId, Vote};
use crate::store::{self, Held, Store};

/// What a recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub node_id: NodeId,
    pub node_name: String,
    /// False: the node was the only one of its fleet already, and nothing was written.
    pub changed: bool,
    /// False: it was a learner, which may have been further behind than a voter.
    pub voted: bool,
    /// Entries that it holds.
    pub last_index: u64,
    /// Entries at the end of its log of which it doesn't know that a majority had them, at most.
    /// They count from now on.
    pub not_known_committed: u64,
    /// When the last command that it holds was issued, milliseconds since 1970; none: that one is in
    /// a snapshot. What was acknowledged later is lost.
    pub last_command_ms: Option<i64>,
    /// Nodes that are no members any more, by id and name.
    pub removed: Vec<(NodeId, String)>,
}

/// What a recovery would do, and whom it would give up.
#[derive(Clone, Debug)]
pub struct Prospect {
    pub recovered: Recovered,
    /// As if everything that the node holds counted.
    pub catalog: Catalog,
}

/// What [`recover`] would do; writes nothing.
///
/// # Errors
/// As [`recover`].
pub fn would_recover(options: &Options) -> Result<Prospect, RecoverError> {
    let dir = DataDir::open(&options.data_dir)?;
    let path = dir.store_path();
    let db = dir.database()?;
    let Found { held, recovered, .. } = find(db, Some(dir), &path, options)?;
    Ok(Prospect { recovered, catalog: held.catalog })
}

/// Makes the node in the data directory the only voter of its fleet, and the other nodes strangers.
/// May be repeated.
///
/// # Errors
/// While the directory is in use, for a store that can't be read, and for a node that never held its
/// fleet's catalog or was removed.
pub fn recover(options: &Options) -> Result<Recovered, RecoverError> {
    let dir = DataDir::open(&options.data_dir)?;
    let path = dir.store_path();
    let db = dir.database()?;
    recover_store(db, Some(dir), &path, options)
}

/// As [`recover`], on storage that the caller brings: for simulation.
///
/// # Errors
/// As [`recover`].
pub fn recover_on(backend: impl StorageBackend, options: &Options) -> Result<Recovered, RecoverError> {
    let path = &options.data_dir;
    let db = store::database(backend).map_err(|e| OpenError::store(path, e))?;
    recover_store(db, None, path, options)
}

struct Found {
    store: Store,
    held: Held,
    recovered: Recovered,
    /// What is to be added to the log.
    entries: Vec<Entry>,
}

fn recover_store(
    db: redb::Database,
    dir: Option<DataDir>,
    path: &std::path::Path,
    options: &Options,
) -> Result<Recovered, RecoverError> {
    let Found { store, recovered, entries, .. } = find(db, dir, path, options)?;
    if let Some(first) = entries.first() {
        // Not committed: the node elects itself when it starts, in a term above this one.
        let vote = Vote::new(first.log_id.leader_id.term, recovered.node_id.0);
        store.recover(&vote, &entries).map_err(|e| OpenError::store(path, e))?;
    }
    Ok(recovered)
}

fn find(
    db: redb::Database,
    dir: Option<DataDir>,
    path: &std::path::Path,
    options: &Options,
) -> Result<Found, RecoverError> {
    let failed = |e| OpenError::store(path, e);
    let identity = store::identity(&db)
        .map_err(failed)?
        .ok_or_else(|| OpenError::NotBootstrapped { data_dir: options.data_dir.clone() })?;
    let (store, _closed) = Store::new(db, dir, path).map_err(failed)?;
    let held = store.held().map_err(failed)?;
    let me = NodeId(identity.node_id);
    let last = fit(&held, me)?;
    let others: Vec<(NodeId, String)> = held
        .catalog
        .nodes
        .iter()
        .filter(|(id, _)| **id != me)
        .map(|(id, node)| (*id, node.name.to_string()))
        .collect();
    let entries = entries(&held, me, last, &others, (options.clock)());
    let recovered = Recovered {
        node_id: me,
        node_name: identity.node_name,
        changed: !entries.is_empty(),
        voted: held.membership.voter_ids().any(|id| id == me.0),
        last_index: last.index,
        not_known_committed: last.index - held.committed.map_or(0, |id| id.index.min(last.index)),
        last_command_ms: held.last_command_ms,
        removed: others,
    };
    Ok(Found { store, held, recovered, entries })
}

/// The last entry of a node that may go on alone.
fn fit(held: &Held, me: NodeId) -> Result<LogId, RecoverError> {
    let Catalog { nodes, fleet, .. } = &held.catalog;
    if fleet.removed.contains_key(&me) {
        return Err(RecoverError::Removed(me));
    }
    held.last.filter(|_| nodes.contains_key(&me)).ok_or(RecoverError::NoCatalog(me))
}

/// What the node adds to its log: itself as the only voter, and the end of the other memberships.
fn entries(held: &Held, me: NodeId, last: LogId, others: &[(NodeId, String)], at_ms: i64) -> Vec<Entry> {
    let alone = openraft::Membership::new(
        vec![BTreeSet::from([me.0])],
        [(me.0, BasicNode::default())].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    );
    let is_alone = held.membership.membership().nodes().map(|(id, _)| *id).eq([me.0])
        && held.membership.voter_ids().eq([me.0]);
    if is_alone && others.is_empty() {
        return Vec::new();
    }
    let term = held.vote.map_or(0, |vote| vote.leader_id().term).max(last.leader_id.term) + 1;
    let removals = others.iter().map(|(id, _)| {
        EntryPayload::Normal(Command { at_ms, action: Action::RemoveNode { node: *id, lost: true } })
    });
    let payloads = std::iter::once(EntryPayload::Membership(alone)).chain(removals);
    (last.index + 1..)
        .zip(payloads)
        .map(|(index, payload)| Entry {
            log_id: LogId::new(CommittedLeaderId::new(term, me.0), index),
            payload,
        })
        .collect()
}

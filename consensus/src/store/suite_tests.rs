//! openraft's own conformance suite, on memory and on files.

use std::path::Path;
use std::time::Duration;

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use redb::backends::{FileBackend, InMemoryBackend};
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::{Founding, Identity, Machine, Store, database, found};
use crate::options::Pace;
use crate::raft::{StorageError, Types, Vote};

fn fresh(backend: impl redb::StorageBackend) -> (Store, Machine) {
    paced(backend, Pace::default())
}

fn paced(backend: impl redb::StorageBackend, pace: Pace) -> (Store, Machine) {
    let db = database(backend).expect("an empty database");
    found(&db, &Identity { node_id: 7, node_name: "a".into() }, Founding::Group).expect("found");
    let (store, _closed) = Store::new(db, None, Path::new("memory"), pace).expect("a store");
    // The suite purges what no snapshot holds.
    store.0.held.send_replace(Some(u64::MAX));
    let machine = Machine::new(store.clone(), None);
    (store, machine)
}

struct InMemory;

impl StoreBuilder<Types, Store, Machine> for InMemory {
    async fn build(&self) -> Result<((), Store, Machine), StorageError> {
        let (store, machine) = fresh(InMemoryBackend::new());
        Ok(((), store, machine))
    }
}

struct OnDisk;

impl StoreBuilder<Types, Store, Machine, NamedTempFile> for OnDisk {
    async fn build(&self) -> Result<(NamedTempFile, Store, Machine), StorageError> {
        let file = NamedTempFile::new().expect("a temporary file");
        let backend = FileBackend::new(file.reopen().expect("reopen")).expect("a backend");
        let (store, machine) = fresh(backend);
        Ok((file, store, machine))
    }
}

#[test]
fn store_in_memory_passes_openrafts_suite() {
    Suite::test_all(InMemory).expect("conformance");
}

#[test]
fn store_on_disk_passes_openrafts_suite() {
    Suite::test_all(OnDisk).expect("conformance");
}

/// As openraft does it when a snapshot arrives: its state machine installs it in a task of its own.
#[tokio::test]
async fn entries_are_purged_once_a_snapshot_that_holds_them_is_durable() {
    let (mut store, mut machine) = fresh(InMemoryBackend::new());
    store.0.held.send_replace(None);
    let at = |index| openraft::LogId::new(openraft::CommittedLeaderId::new(1, 7), index);
    let mut purging = store.clone();
    let purge = tokio::spawn(async move { purging.purge(at(5)).await });
    tokio::task::yield_now().await;
    assert_eq!(store.get_log_state().await.expect("a state").last_purged_log_id, None, "not yet");
    let bytes = catalog::codec::encode_catalog(&catalog::Catalog::default());
    let meta = crate::raft::SnapshotMeta { last_log_id: Some(at(5)), ..Default::default() };
    machine.install_snapshot(&meta, Box::new(std::io::Cursor::new(bytes))).await.expect("installed");
    purge.await.expect("no panic").expect("purged");
    assert_eq!(store.get_log_state().await.expect("a state").last_purged_log_id, Some(at(5)));
}

#[tokio::test(start_paused = true)]
async fn each_durable_commit_waits_for_a_disk_that_is_slow() {
    const SLOW: Duration = Duration::from_secs(1);
    let (mut store, mut machine) = paced(InMemoryBackend::new(), Pace::new(|| tokio::time::sleep(SLOW)));
    let begun = Instant::now();
    store.save_vote(&Vote::new(1, 7)).await.expect("saved");
    store.truncate(openraft::LogId::new(openraft::CommittedLeaderId::new(1, 7), 5)).await.expect("cut off");
    machine.get_snapshot_builder().await.build_snapshot().await.expect("built");
    assert_eq!(begun.elapsed(), 3 * SLOW);
    store.read_vote().await.expect("a vote");
    assert_eq!(begun.elapsed(), 3 * SLOW, "what is read waits for nothing");
}

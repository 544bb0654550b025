//! openraft's own conformance suite, on memory and on files.

use std::path::Path;

use openraft::testing::{StoreBuilder, Suite};
use redb::backends::{FileBackend, InMemoryBackend};
use tempfile::NamedTempFile;

use super::{Founding, Identity, Machine, Store, database, found};
use crate::raft::{StorageError, Types};

fn fresh(backend: impl redb::StorageBackend) -> (Store, Machine) {
    let db = database(backend).expect("an empty database");
    found(&db, &Identity { node_id: 7, node_name: "a".into() }, Founding::Group).expect("found");
    let (store, _closed) = Store::new(db, None, Path::new("memory")).expect("a store");
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

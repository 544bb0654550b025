//! Every way in which a data directory can't be opened has its own error, which names the way out.

mod support;

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use consensus::{Consensus, OpenError, Options, SubmitError};
use redb::{Database, TableDefinition};
use support::disk::Disk;
use support::{SECOND, action, catalog, held, options, submit_range};
use tempfile::TempDir;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const RAFT: TableDefinition<&str, &[u8]> = TableDefinition::new("raft");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// A node with some commands behind it, stopped.
async fn stopped_node() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    let consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    submit_range(&consensus, 0..50).await;
    consensus.shutdown().await;
    dir
}

fn store(dir: &TempDir) -> PathBuf {
    dir.path().join("raft.redb")
}

async fn refusal(dir: &Path) -> OpenError {
    Consensus::open(options(dir)).await.err().expect("refused")
}

fn alter(dir: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open(store(dir)).expect("the store");
    let txn = db.begin_write().expect("a transaction");
    change(&txn);
    txn.commit().expect("commit");
}

#[tokio::test]
async fn an_empty_or_missing_directory_asks_for_bootstrap() {
    let dir = TempDir::new().expect("a directory");
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = refusal(&path).await;
        assert!(matches!(error, OpenError::NotBootstrapped { .. }), "{error:?}");
        assert!(error.to_string().contains("--bootstrap"), "{error}");
        assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0, "open creates nothing");
}

#[tokio::test]
async fn bootstrap_opens_what_is_there() {
    let dir = stopped_node().await;
    let first = Consensus::open(options(dir.path())).await.expect("open");
    let id = first.node_id();
    first.shutdown().await;
    let renamed = Options { node_name: "node-b".into(), ..options(dir.path()) };
    let again = Consensus::bootstrap(renamed).await.expect("bootstrap");
    assert_eq!((again.node_id(), again.status().node_name.as_str()), (id, "node-b"));
    assert_eq!(held(&catalog(&again)), 50);
    again.shutdown().await;
    let unnamed = Options { node_name: "host".into(), renames: false, ..options(dir.path()) };
    let again = Consensus::open(unnamed).await.expect("open");
    assert_eq!(again.status().node_name, "node-b");
}

#[tokio::test]
async fn a_founding_that_was_interrupted_is_done_again() {
    let dir = TempDir::new().expect("a directory");
    fs::write(dir.path().join("raft.redb.new"), "half").expect("written");
    assert!(matches!(refusal(dir.path()).await, OpenError::NotBootstrapped { .. }));
    let consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    submit_range(&consensus, 0..1).await;
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("listed").map(|f| f.expect("file").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn the_directory_and_its_files_are_the_owners_alone() {
    let parent = TempDir::new().expect("a directory");
    let dir = parent.path().join("data");
    let _consensus = Consensus::bootstrap(options(&dir)).await.expect("bootstrap");
    for (path, mode) in [(dir.clone(), 0o700), (dir.join("raft.redb"), 0o600), (dir.join("lock"), 0o600)] {
        let found = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{} is {found:o}", path.display());
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_the_holder_named() {
    let dir = TempDir::new().expect("a directory");
    let holder = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    for error in
        [refusal(dir.path()).await, Consensus::bootstrap(options(dir.path())).await.err().expect("refused")]
    {
        assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    }
    holder.submit(action(0)).await.expect("the holder is not disturbed");
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused() {
    let dir = stopped_node().await;
    alter(&dir, |txn| {
        txn.open_table(META).expect("meta").insert("format", 2_u32.to_le_bytes().as_slice()).expect("set");
    });
    let error = refusal(dir.path()).await;
    assert!(matches!(error, OpenError::NewerFormat { found: 2, reads: 1, .. }), "{error:?}");
    assert!(
        error.to_string().contains("raft.redb is in format 2") && error.to_string().contains("newer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_value_of_a_newer_codec_is_refused_as_newer_not_as_damage() {
    let dir = stopped_node().await;
    alter(&dir, |txn| {
        txn.open_table(RAFT).expect("raft").insert("vote", [9_u8, 1, 1].as_slice()).expect("set");
    });
    let error = refusal(dir.path()).await;
    assert!(matches!(error, OpenError::NewerFormat { found: 9, .. }), "{error:?}");
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_named() {
    type Damage = fn(&TempDir);
    let damages: [(&str, Damage); 7] = [
        ("emptied", |d| fs::write(store(d), "").expect("written")),
        ("text", |d| fs::write(store(d), "not a database").expect("written")),
        ("truncated", |d| {
            let file = fs::OpenOptions::new().write(true).open(store(d)).expect("open");
            let len = file.metadata().expect("len").len();
            file.set_len(len / 2).expect("truncated");
        }),
        ("another program's redb", |d| {
            fs::remove_file(store(d)).expect("removed");
            Database::create(store(d)).expect("a database");
        }),
        ("undecodable vote", |d| {
            alter(d, |txn| {
                txn.open_table(RAFT).expect("raft").insert("vote", [1_u8].as_slice()).expect("set");
            });
        }),
        ("hole in the log", |d| {
            alter(d, |txn| {
                let mut log = txn.open_table(LOG).expect("log");
                let last = redb::ReadableTable::last(&log).expect("read").expect("entries").0.value();
                log.remove(last - 1).expect("removed");
            });
        }),
        ("entries lost", |d| {
            alter(d, |txn| txn.open_table(LOG).expect("log").retain(|_, _| false).expect("removed"));
        }),
    ];
    for (name, damage) in damages {
        let dir = stopped_node().await;
        damage(&dir);
        let before = fs::read(store(&dir)).expect("readable");
        let error = refusal(dir.path()).await;
        assert!(matches!(error, OpenError::Corrupt { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("raft.redb is damaged"), "{name}: {error}");
        let refused = Consensus::bootstrap(options(dir.path())).await.err();
        assert!(matches!(refused, Some(OpenError::Corrupt { .. })), "{name}: bootstrap: {refused:?}");
        if before.len() < 100 {
            assert_eq!(fs::read(store(&dir)).expect("readable"), before, "{name}: overwritten");
        }
    }
}

/// Any byte may rot: the answer is an error or the right catalog, never a panic or another one.
#[tokio::test]
async fn a_store_with_rotten_bytes_never_opens_with_a_wrong_catalog() {
    let dir = stopped_node().await;
    let sound = fs::read(store(&dir)).expect("readable");
    let mut refused = 0;
    for round in 0..60_u64 {
        let mut image = sound.clone();
        let at =
            usize::try_from(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % sound.len() as u64).expect("fits");
        let end = (at + 64).min(image.len());
        image[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(store(&dir), &image).expect("written");
        match Consensus::open(options(dir.path())).await {
            Ok(consensus) => {
                assert_eq!(held(&catalog(&consensus)), 50, "rot at {at}");
                consensus.shutdown().await;
            }
            Err(OpenError::Corrupt { .. }) => refused += 1,
            Err(e) => panic!("rot at {at}: {e:?}"),
        }
    }
    println!("{refused} of 60 refused");
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_an_io_error_with_its_path() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    for error in [refusal(&file).await, Consensus::bootstrap(options(&file)).await.err().expect("refused")] {
        assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
        assert!(
            error.to_string().contains(file.to_str().expect("text")) && error.source().is_some(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_full_disk_and_a_forbidden_file_are_told_apart() {
    let full = Disk::default();
    full.fail(Some(ErrorKind::StorageFull));
    let error = Consensus::bootstrap_on(full, options(Path::new("d"))).await.err().expect("refused");
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");

    let forbidden = Disk::default();
    forbidden.fail(Some(ErrorKind::PermissionDenied));
    let error = Consensus::bootstrap_on(forbidden, options(Path::new("d"))).await.err().expect("refused");
    assert!(matches!(error, OpenError::Permission { .. }), "{error:?}");
    assert!(error.to_string().contains("no permission"), "{error}");
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_consensus_and_status_says_why() {
    let disk = Disk::default();
    let consensus = Consensus::bootstrap_on(disk.clone(), options(Path::new("d"))).await.expect("bootstrap");
    submit_range(&consensus, 0..3).await;
    disk.fail(Some(ErrorKind::StorageFull));
    let answer = consensus.submit(action(3)).await;
    assert!(matches!(answer, Err(SubmitError::Stopped)), "{answer:?}");
    let status = consensus.status();
    assert!(!status.is_leader);
    let why = status.stopped.expect("a reason");
    assert!(why.contains("no storage space"), "{why}");
    consensus.shutdown().await;
}

#[tokio::test]
async fn options_that_can_not_work_are_refused() {
    let dir = TempDir::new().expect("a directory");
    let odd = Options { heartbeat: 10 * SECOND, ..options(dir.path()) };
    let error = Consensus::bootstrap(odd).await.err().expect("refused");
    assert!(matches!(error, OpenError::Options { .. }), "{error:?}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn storage_without_a_node_asks_for_bootstrap() {
    let error = Consensus::open_on(Disk::default(), options(Path::new("d"))).await.err().expect("refused");
    assert!(matches!(error, OpenError::NotBootstrapped { .. }), "{error:?}");
}

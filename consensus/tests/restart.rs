//! What a restart brings back: everything acknowledged, exactly once, in order (CT-1, CT-6).

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use consensus::{Consensus, OpenError};
use support::disk::Disk;
use support::{action, catalog, held, model, options, still_clock, submit_range};
use tempfile::TempDir;

const CHILD_DIR: &str = "LOCKSTEP_TEST_CHILD_DIR";
const KILLS: u64 = 12;

/// Not a test of its own: the process that `acknowledged_commands_survive_kill_9` kills.
#[tokio::test]
async fn child_that_submits_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let consensus = Consensus::bootstrap(options(&dir)).await.expect("bootstrap");
    let mut n = held(&catalog(&consensus));
    loop {
        consensus.submit(action(n)).await.expect("submit");
        n += 1;
        eprintln!("acknowledged {n}");
    }
}

fn child(dir: &TempDir) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "child_that_submits_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child process")
}

#[tokio::test]
async fn acknowledged_commands_survive_kill_9() {
    let dir = TempDir::new().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let mut child = child(&dir);
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        // Some rounds end before the first snapshot, some long after; never twice at one place.
        let enough = acknowledged + 1 + (round * 37) % 150;
        for line in lines.by_ref() {
            let line = line.expect("text");
            acknowledged = parse(&line, acknowledged);
            if acknowledged >= enough {
                break;
            }
        }
        if round == 0 {
            let refused = Consensus::open(options(dir.path())).await.err();
            let pid = Some(child.id());
            assert!(matches!(refused, Some(OpenError::Locked { pid: p, .. }) if p == pid), "{refused:?}");
        }
        std::thread::sleep(Duration::from_micros(round * 173));
        child.kill().expect("SIGKILL");
        child.wait().expect("reaped");
        for line in lines {
            acknowledged = parse(&line.expect("text"), acknowledged);
        }
        let consensus = Consensus::open(options(dir.path())).await.expect("open after the kill");
        let held = held(&catalog(&consensus));
        assert!(held >= acknowledged, "round {round}: {acknowledged} acknowledged, {held} held");
        assert!(held <= acknowledged + 1, "one command is under way at a time");
        acknowledged = held;
        consensus.shutdown().await;
    }
}

fn parse(line: &str, before: u64) -> u64 {
    let n = line.strip_prefix("acknowledged ").unwrap_or_else(|| panic!("the child says: {line}"));
    let n = n.parse().expect("a number");
    assert_eq!(n, before + 1);
    n
}

/// A child that another test of this process starts shares our open files, the lock among them, until it
/// runs its own program: so long our own lock may still be seen.
async fn reopened(path: &Path) -> Consensus {
    for _ in 0..500 {
        match Consensus::open(options(path)).await {
            Err(OpenError::Locked { pid, .. }) if pid == Some(std::process::id()) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => return opened.expect("open"),
        }
    }
    panic!("still locked by this process after its shutdown");
}

#[tokio::test]
async fn reopening_after_many_snapshots_and_purges_gives_an_equal_catalog() {
    let dir = TempDir::new().expect("a directory");
    let mut consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    for round in 0..8 {
        submit_range(&consensus, round * 60..(round + 1) * 60).await;
        let before = consensus.read().await.expect("read");
        consensus.shutdown().await;
        consensus = reopened(dir.path()).await;
        let after = consensus.read().await.expect("read");
        assert_eq!(after.catalog, before.catalog);
        assert!(after.index >= before.index);
    }
    assert_eq!(held(&catalog(&consensus)), 480);
}

#[tokio::test]
async fn the_log_stays_bounded() {
    let dir = TempDir::new().expect("a directory");
    let consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    submit_range(&consensus, 0..1_000).await;
    consensus.shutdown().await;
    let db = redb::ReadOnlyDatabase::open(dir.path().join("raft.redb")).expect("the store");
    let txn = redb::ReadableDatabase::begin_read(&db).expect("a transaction");
    let log = txn.open_table(redb::TableDefinition::<u64, &[u8]>::new("log")).expect("the log");
    let entries = redb::ReadableTableMetadata::len(&log).expect("its length");
    // Kept, since the last snapshot, and what came while that was written.
    assert!((5..60).contains(&entries), "{entries} entries of 1,000");
}

/// On a thread of one: the disk's pictures and the count of acknowledged commands are then in
/// step.
#[tokio::test(flavor = "current_thread")]
async fn acknowledged_commands_survive_a_power_cut_at_any_write() {
    for seed in 0..3 {
        let disk = Disk::default();
        let dir = PathBuf::from(format!("seed {seed}"));
        let options = || consensus::Options { clock: still_clock(), ..options(&dir) };
        let consensus = Consensus::bootstrap_on(disk.clone(), options()).await.expect("bootstrap");
        disk.start_pictures(seed);
        for n in 0..150 {
            consensus.submit(action(n)).await.expect("submit");
            disk.set_label(n + 1);
        }
        consensus.shutdown().await;
        let pictures = disk.pictures();
        assert!(pictures.len() > 20, "{} pictures", pictures.len());
        for (i, (picture, acknowledged)) in pictures.into_iter().enumerate() {
            let place = format!("seed {seed}, picture {i}, {acknowledged} acknowledged");
            let after =
                Consensus::open_on(picture, options()).await.unwrap_or_else(|e| panic!("{place}: {e:?}"));
            let held = held(&catalog(&after));
            assert!(held >= acknowledged && held <= acknowledged + 1, "{place}: {held} held");
            assert_eq!(catalog(&after), model(held), "{place}");
            after.shutdown().await;
        }
    }
}

//! Submitting, reading, watching, stopping: what the handle promises while it runs.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use catalog::{Action, Outcome, Refusal};
use consensus::{Consensus, Options, SubmitError};
use support::{SECOND, action, catalog, held, options, submit_range};
use tempfile::TempDir;

async fn founded() -> (TempDir, Consensus) {
    let dir = TempDir::new().expect("a directory");
    let consensus = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    (dir, consensus)
}

#[tokio::test]
async fn a_group_of_one_leads_within_a_second_of_founding_and_of_opening() {
    let dir = TempDir::new().expect("a directory");
    let started = Instant::now();
    let first = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    assert!(first.status().is_leader);
    assert!(started.elapsed() < SECOND, "founding took {:?}", started.elapsed());
    let id = first.node_id();
    first.shutdown().await;

    let started = Instant::now();
    let again = Consensus::open(options(dir.path())).await.expect("open");
    assert!(started.elapsed() < SECOND, "opening took {:?}", started.elapsed());
    let status = again.status();
    assert_eq!((status.is_leader, status.leader, status.node_id), (true, Some(id), id));
    assert_eq!((status.voters, status.millis_since_quorum_ack), (vec![id], Some(0)));
    assert_eq!((status.node_name.as_str(), status.stopped), ("node-a", None));
}

#[tokio::test]
async fn a_submitted_command_is_applied_when_it_is_answered() {
    let (_dir, consensus) = founded().await;
    let watch = consensus.watch();
    let before = watch.borrow().index;
    assert_eq!(consensus.submit(action(0)).await.expect("submit"), Outcome::Done);
    assert_eq!(watch.borrow().index, before + 1);
    assert_eq!(held(&watch.borrow().catalog), 1);
    assert_eq!(*consensus.read().await.expect("read"), *watch.borrow().clone());
    assert_eq!(consensus.status().last_applied, before + 1);
}

#[tokio::test]
async fn a_refused_command_changes_nothing() {
    let (_dir, consensus) = founded().await;
    submit_range(&consensus, 0..5).await;
    let before = catalog(&consensus);
    let refused = consensus.submit(action(1)).await;
    assert!(matches!(refused, Err(SubmitError::Refused(Refusal::Exists { .. }))), "{refused:?}");
    let missing = consensus.submit(Action::DeleteCluster { name: "nobody".into() }).await;
    assert!(matches!(missing, Err(SubmitError::Refused(Refusal::NotFound { .. }))), "{missing:?}");
    assert_eq!(catalog(&consensus), before);
}

#[tokio::test]
async fn a_command_too_large_is_refused_before_it_is_proposed() {
    let (_dir, consensus) = founded().await;
    let before = consensus.status().last_applied;
    let configs = [("a".to_owned(), "x".repeat(33 * 1024 * 1024))].into();
    let huge = Action::CreateCluster { name: "c".into(), cluster_id: "id".into(), configs };
    let refused = consensus.submit(huge).await.expect_err("too large").to_string();
    assert!(refused.starts_with("command: ") && refused.contains("split it"), "{refused}");
    assert_eq!(consensus.status().last_applied, before);
}

#[tokio::test]
async fn commands_are_stamped_by_the_injected_clock() {
    let dir = TempDir::new().expect("a directory");
    let now = Arc::new(AtomicI64::new(0));
    let clock = {
        let now = now.clone();
        Arc::new(move || now.fetch_add(1, Ordering::Relaxed))
    };
    let consensus = Consensus::bootstrap(Options { clock, ..options(dir.path()) }).await.expect("bootstrap");
    submit_range(&consensus, 0..3).await;
    assert_eq!(now.load(Ordering::Relaxed), 3, "one look at the clock a command");
}

#[tokio::test]
async fn the_node_id_comes_from_the_injected_entropy_and_is_never_zero() {
    for (drawn, expected) in [(0, 1), (0xabc, 0xabc)] {
        let dir = TempDir::new().expect("a directory");
        let entropy = Arc::new(move || drawn);
        let consensus =
            Consensus::bootstrap(Options { entropy, ..options(dir.path()) }).await.expect("bootstrap");
        assert_eq!(consensus.node_id().0, expected);
    }
}

#[tokio::test]
async fn concurrent_submits_are_all_applied_once() {
    let (_dir, consensus) = founded().await;
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let consensus = consensus.clone();
            let start = Action::StartNode { node: catalog::NodeId(9), name: format!("{n}").into() };
            tokio::spawn(async move { consensus.submit(start).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic").expect("submit"), Outcome::Done);
    }
    assert_eq!(catalog(&consensus).nodes[&catalog::NodeId(9)].starts, 200);
}

#[tokio::test]
async fn after_shutdown_commands_and_reads_are_answered_stopped() {
    let (_dir, consensus) = founded().await;
    submit_range(&consensus, 0..2).await;
    let other = consensus.clone();
    consensus.shutdown().await;
    assert!(matches!(other.submit(action(2)).await, Err(SubmitError::Stopped)));
    assert!(matches!(other.read().await, Err(SubmitError::Stopped)));
    let status = other.status();
    assert_eq!((status.is_leader, status.leader, status.millis_since_quorum_ack), (false, None, None));
    assert_eq!(status.stopped.as_deref(), Some("shut down"));
    assert_eq!(held(&catalog(&other)), 2, "what was applied can still be seen");
    other.shutdown().await;
}

#[tokio::test]
async fn the_directory_is_free_after_shutdown_and_after_the_last_handle_is_gone() {
    let (dir, consensus) = founded().await;
    consensus.shutdown().await;
    let again = Consensus::open(options(dir.path())).await.expect("free after shutdown");
    drop(consensus);
    drop(again);
    let started = Instant::now();
    loop {
        match Consensus::open(options(dir.path())).await {
            Ok(_) => break,
            Err(e) => assert!(started.elapsed() < 5 * SECOND, "still not free: {e}"),
        }
        tokio::time::sleep(SECOND / 100).await;
    }
}

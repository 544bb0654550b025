//! A disk that fails at runtime stops its node, which says so; the others go on, and nothing that was
//! acknowledged is lost or changed.

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;

use catalog::{Action, NodeId};
use consensus::{Consensus, SubmitError};
use support::disk::Disk;
use support::fleet::Fleet;
use support::{SECOND, action, catalog, held, model, options};
use tokio::time::sleep;

fn create(name: &str, bytes: usize) -> Action {
    let configs = BTreeMap::from([("client.id".to_owned(), "x".repeat(bytes))]);
    Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_that_node_only() {
    for leads in [true, false] {
        let mut fleet = Fleet::of(3, 1).await;
        fleet.leader().await.submit(action(1)).await.expect("submit");
        let leader = fleet.number_of(fleet.leader().await.node_id());
        let number = if leads { leader } else { fleet.a_follower().await };
        fleet.nodes[number].disk.fail(Some(ErrorKind::StorageFull));
        let full = fleet.nodes[number].get().clone();
        if leads {
            let told = full.submit(action(2)).await;
            assert!(matches!(told, Err(SubmitError::Stopped)), "{told:?}");
        } else {
            fleet.leader().await.submit(action(2)).await.expect("the others are a majority");
        }
        fleet.until("it has stopped", |_| full.status().stopped.is_some()).await;
        let status = full.status();
        let why = status.stopped.expect("a reason");
        assert!(why.contains("no space left for memory: free some and start again"), "{why}");
        assert_eq!((status.is_leader, status.leader), (false, None));
        assert!(matches!(full.read().await, Err(SubmitError::Stopped)));
        let answer = full.serve(NodeId(1), bytes::Bytes::from_static(&[])).await;
        assert!(String::from_utf8_lossy(&answer).contains("no space left for memory"), "{answer:?}");

        fleet.leader().await.submit(action(4)).await.expect("the others go on");
        fleet.nodes[number].disk.fail(None);
        fleet.kill(number).await;
        fleet.start(number).await;
        fleet.until_equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_in_the_middle_of_a_commit_loses_nothing_acknowledged() {
    for operations in 0..40 {
        let disk = Disk::default();
        let options = || options("memory".as_ref());
        let node = Consensus::bootstrap_on(disk.clone(), options()).await.expect("bootstrap");
        disk.fail_in(operations, ErrorKind::Other);
        let mut acknowledged = 0;
        while node.submit(action(acknowledged)).await.is_ok() {
            acknowledged += 1;
        }
        let why = node.status().stopped.expect("a reason");
        assert!(why.starts_with("can't read or write memory"), "{why}");
        assert_eq!(catalog(&node), model(acknowledged), "what it shows is what it acknowledged");
        node.shutdown().await;
        let disk = disk.after_power_cut(operations);
        let again = Consensus::open_on(disk, options()).await.expect("open");
        let held = held(&catalog(&again));
        assert!(held == acknowledged || held == acknowledged + 1, "{operations}: {held}, {acknowledged}");
    }
}

/// The Raft leader has to read again what it has written; its disk was changed meanwhile.
async fn passed_on_by(change: impl FnOnce(&Disk)) -> String {
    let fleet = Fleet::of(3, 1).await;
    let leader = fleet.leader().await.clone();
    let away = fleet.a_follower().await;
    fleet.net.isolate(fleet.nodes[away].id);
    // More than redb keeps in memory.
    for n in 0..60 {
        leader.submit(create(&format!("c{n}"), 400_000)).await.expect("submit");
    }
    change(&fleet.nodes[fleet.number_of(leader.node_id())].disk);
    fleet.net.heal();
    fleet.until("the Raft leader has stopped", |_| leader.status().stopped.is_some()).await;
    fleet.leader().await;
    sleep(3 * SECOND).await;
    let others: Vec<usize> = (0..3).filter(|number| fleet.nodes[*number].id != leader.node_id()).collect();
    fleet.until_equal_of(&others).await;
    let clusters = catalog(fleet.nodes[away].get()).clusters;
    assert_eq!(clusters.len(), 60);
    for cluster in clusters.values() {
        assert_eq!(cluster.configs["client.id"], "x".repeat(400_000));
    }
    leader.status().stopped.expect("a reason")
}

#[tokio::test(start_paused = true)]
async fn entries_that_the_disk_changed_are_never_passed_on() {
    let why = passed_on_by(|disk| disk.corrupt_bytes(b'x')).await;
    assert!(why.starts_with("memory is damaged (log entry "), "{why}");
    assert!(why.contains("doesn't have its checksum") && why.contains("join again as a new one"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn pages_that_redb_can_not_make_sense_of_stop_the_node_and_not_a_task_of_it() {
    let why = passed_on_by(|disk| disk.corrupt_pages(64 * 1024)).await;
    assert!(why.starts_with("memory is damaged ("), "{why}");
}

/// Found by the simulation: a page that only the last commit had was taken for a commit that a power cut tore,
/// and what was acknowledged in it was gone without a word.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_damaged_while_the_node_is_down_costs_nothing_acknowledged_or_is_told() {
    let disk = Disk::default();
    let options = || options("memory".as_ref());
    let node = Consensus::bootstrap_on(disk.clone(), options()).await.expect("bootstrap");
    const COMMANDS: u64 = 30;
    for n in 0..COMMANDS {
        node.submit(action(n)).await.expect("submit");
    }
    // As a kill leaves it.
    let disk = disk.after_power_cut(1);
    let (mut told, mut opened) = (0, 0);
    for page in 0..disk.pages() {
        for damaged in [disk.without(page), disk.with_a_wrong_bit(page, page * 997 % (8 * 4096))] {
            match Consensus::open_on(damaged, options()).await {
                Ok(node) => {
                    assert_eq!(held(&catalog(&node)), COMMANDS, "page {page}");
                    node.shutdown().await;
                    opened += 1;
                }
                Err(error) => {
                    let why = error.to_string();
                    // The first page says what the file is.
                    assert!(page == 0 || why.starts_with("memory is damaged ("), "page {page}: {why}");
                    told += 1;
                }
            }
        }
    }
    assert!(told > 10 && opened > 10, "{told} told, {opened} opened");
}

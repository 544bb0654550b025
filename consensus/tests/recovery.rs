//! One node goes on alone after the majority is lost for good.

mod support;

use catalog::{Action, NodeId, Outcome};
use consensus::{Consensus, OpenError, RecoverError, recover, recover_on};
use support::disk::Disk;
use support::fleet::Fleet;
use support::{SECOND, action, catalog, held, options, submit_range};
use tempfile::TempDir;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn the_recovered_node_keeps_what_it_held_and_the_others_are_strangers() {
    for seed in 0..5 {
        let mut fleet = Fleet::with(3, seed, 20, 5).await;
        for n in 0..50 {
            fleet.leader().await.submit(action(3 * n + 1)).await.expect("submit");
        }
        fleet.until_equal().await;
        let survivor = fleet.a_follower().await;
        let before = catalog(fleet.nodes[survivor].get());
        let term = fleet.leader().await.status().term;
        for number in 0..3 {
            fleet.kill(number).await;
        }
        let report =
            recover_on(fleet.nodes[survivor].disk.clone(), &fleet.options(survivor)).expect("recovered");
        assert!(report.changed && report.voted);
        assert_eq!(report.node_id, fleet.nodes[survivor].id);
        assert_eq!(report.removed.len(), 2);
        assert!(report.not_known_committed <= 3, "{report:?}");

        fleet.start(survivor).await;
        let node = fleet.nodes[survivor].get().clone();
        node.submit(action(1_001)).await.expect("it leads alone");
        let status = node.status();
        assert!(status.term > term && status.is_leader, "{status:?}");
        assert_eq!(status.voters, [node.node_id()]);
        let after = catalog(&node);
        assert_eq!(after.clusters.len(), before.clusters.len() + 1);
        assert!(before.clusters.iter().all(|(name, cluster)| after.clusters[name] == *cluster));
        assert_eq!(after.nodes.keys().copied().collect::<Vec<_>>(), [node.node_id()]);
        assert_eq!(after.fleet.removed.len(), 2);

        // The others come back, and are a majority of the fleet that was.
        let others: Vec<usize> = (0..3).filter(|number| *number != survivor).collect();
        for number in &others {
            fleet.start(*number).await;
        }
        sleep(10 * SECOND).await;
        assert_eq!(node.status().term, status.term, "seed {seed}: nobody disturbs it");
        assert!(node.status().is_leader);
        node.submit(action(1_002)).await.expect("it goes on");
        for number in others {
            let other = fleet.nodes[number].get();
            assert!(!catalog(other).clusters.contains_key("c1001"), "seed {seed}: it has nothing of it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovered_node_takes_new_members() {
    let mut fleet = Fleet::of(3, 3).await;
    let old: Vec<NodeId> = fleet.nodes.iter().map(|node| node.id).collect();
    for number in 0..3 {
        fleet.kill(number).await;
    }
    recover_on(fleet.nodes[0].disk.clone(), &fleet.options(0)).expect("recovered");
    fleet.nodes.truncate(1);
    fleet.seed = 4;
    fleet.start(0).await;
    fleet.leader().await;
    for number in 10..12 {
        // Their names are free again.
        let added = fleet.admit().await;
        assert!(!old.contains(&added), "{number}");
    }
    fleet.let_all_vote().await;
    fleet.until_equal().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_never_have_been_acknowledged_is_kept_and_counted() {
    let mut fleet = Fleet::of(3, 1).await;
    let leader = fleet.leader().await.clone();
    fleet.net.isolate(leader.node_id());
    for n in 0..4 {
        let node = leader.clone();
        tokio::spawn(async move { node.submit(action(3 * n + 1)).await });
    }
    sleep(SECOND / 10).await;
    let number = fleet.number_of(leader.node_id());
    for number in 0..3 {
        fleet.kill(number).await;
    }
    let report = recover_on(fleet.nodes[number].disk.clone(), &fleet.options(number)).expect("recovered");
    assert!(report.not_known_committed >= 4, "{report:?}");
    fleet.start(number).await;
    let node = fleet.nodes[number].get();
    node.submit(action(1_001)).await.expect("it leads");
    assert_eq!(catalog(node).clusters.len(), 5, "they count now");
}

#[tokio::test(start_paused = true)]
async fn recovering_twice_does_nothing_more() {
    let mut fleet = Fleet::of(3, 1).await;
    for number in 0..3 {
        fleet.kill(number).await;
    }
    let disk = fleet.nodes[1].disk.clone();
    let first = recover_on(disk.clone(), &fleet.options(1)).expect("recovered");
    let second = recover_on(disk.clone(), &fleet.options(1)).expect("recovered");
    assert!(first.changed && !second.changed);
    assert_eq!(second.last_index, first.last_index + 3, "itself as the only voter, two removals");
    fleet.start(1).await;
    fleet.nodes[1].get().submit(action(1)).await.expect("it leads");
    fleet.kill(1).await;
    assert!(!recover_on(disk, &fleet.options(1)).expect("recovered").changed);
}

#[tokio::test(start_paused = true)]
async fn a_learner_may_be_recovered_if_it_holds_the_catalog() {
    let mut fleet = Fleet::of(3, 1).await;
    let learner = fleet.admit().await;
    fleet.leader().await.submit(action(1)).await.expect("submit");
    fleet.until_equal().await;
    let number = fleet.number_of(learner);
    let waiting = fleet.wait_to_join().await;
    fleet.until_equal_of(&[0, 1, 2, number]).await;
    for number in 0..5 {
        fleet.kill(number).await;
    }
    let report = recover_on(fleet.nodes[number].disk.clone(), &fleet.options(number)).expect("recovered");
    assert!(!report.voted && report.changed);
    fleet.start(number).await;
    let node = fleet.nodes[number].get();
    node.submit(action(2)).await.expect("it leads");
    assert_eq!(catalog(node).clusters.len(), 2);

    let empty = fleet.number_of(waiting);
    let refused = recover_on(fleet.nodes[empty].disk.clone(), &fleet.options(empty)).expect_err("refused");
    assert!(matches!(refused, RecoverError::NoCatalog(id) if id == waiting), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_can_not_be_recovered() {
    let mut fleet = Fleet::of(3, 1).await;
    let number = fleet.a_follower().await;
    let gone = fleet.nodes[number].id;
    fleet.leader().await.submit(Action::RemoveNode { node: gone, lost: true }).await.expect("removed");
    fleet.until_equal().await;
    fleet.kill(number).await;
    let refused = recover_on(fleet.nodes[number].disk.clone(), &fleet.options(number)).expect_err("refused");
    assert!(matches!(refused, RecoverError::Removed(id) if id == gone), "{refused:?}");
}

#[tokio::test]
async fn a_directory_in_use_or_without_a_node_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let refused = recover(&options(dir.path())).expect_err("refused");
    assert!(matches!(refused, RecoverError::Open(OpenError::NotBootstrapped { .. })), "{refused:?}");

    let node = Consensus::bootstrap(options(dir.path())).await.expect("bootstrap");
    let start = Action::StartNode { node: node.node_id(), name: "node-a".into() };
    assert_eq!(node.submit(start).await.expect("submit"), Outcome::Done);
    let refused = recover(&options(dir.path())).expect_err("refused");
    assert!(matches!(refused, RecoverError::Open(OpenError::Locked { .. })), "{refused:?}");
    node.shutdown().await;

    let report = recover(&options(dir.path())).expect("nothing to do");
    assert!(!report.changed && report.last_command_ms.is_some(), "{report:?}");
    let again = Consensus::open(options(dir.path())).await.expect("open");
    again.submit(action(1)).await.expect("submit");
}

#[tokio::test]
async fn a_node_without_a_name_in_its_catalog_is_refused() {
    let disk = Disk::default();
    let node = Consensus::bootstrap_on(disk.clone(), options("memory".as_ref())).await.expect("bootstrap");
    submit_range(&node, 0..4).await;
    assert_eq!(held(&catalog(&node)), 4);
    node.shutdown().await;
    let refused = recover_on(disk, &options("memory".as_ref())).expect_err("refused");
    assert!(matches!(refused, RecoverError::NoCatalog(_)), "{refused:?}");
}

//! What reaches the others: snapshots while commands flow, large commands, bounded calls.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::Action;
use support::SECOND;
use support::fleet::{Fleet, MS};
use tokio::time::sleep;

fn create(name: &str, bytes: usize) -> Action {
    let configs = BTreeMap::from([("client.id".to_owned(), "x".repeat(bytes))]);
    Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_away_is_sent_a_snapshot_while_commands_flow() {
    for seed in 0..3 {
        let fleet = Fleet::with(3, seed, 20, 5).await;
        let leader = fleet.leader().await.clone();
        let away = fleet.a_follower().await;
        let submits = tokio::spawn(async move {
            for n in 0..400 {
                leader.submit(create(&format!("c{n}"), 3_000)).await.expect("submit");
            }
        });
        fleet.net.isolate(fleet.nodes[away].id);
        sleep(SECOND).await;
        let behind = fleet.nodes[away].get().status().last_applied;
        let there = fleet.leader().await.status().last_applied;
        assert!(there > behind + 30, "seed {seed}: entries it lacks are purged: {there}, {behind}");
        fleet.net.heal();
        submits.await.expect("all submitted");
        fleet.until_equal().await;
        let clusters = fleet.nodes[away].get().watch().borrow().catalog.clusters.len();
        assert_eq!(clusters, 400, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_megabytes_goes_in_bounded_pieces_to_a_new_learner() {
    let mut fleet = Fleet::founded_with(1, 5, 1).await;
    let leader = fleet.leader().await.clone();
    for n in 0..12 {
        leader.submit(create(&format!("c{n}"), 300_000)).await.expect("submit");
    }
    fleet.admit().await;
    fleet.until_equal().await;
    let largest = fleet.net.bytes_max();
    assert!(largest > 400_000 && largest < 600_000, "{largest} bytes");
}

#[tokio::test(start_paused = true)]
async fn many_large_entries_are_spread_over_bounded_calls() {
    let fleet = Fleet::of(3, 1).await;
    let away = fleet.a_follower().await;
    fleet.net.isolate(fleet.nodes[away].id);
    let leader = fleet.leader().await;
    for n in 0..30 {
        leader.submit(create(&format!("c{n}"), 100_000)).await.expect("submit");
    }
    fleet.net.heal();
    fleet.until_equal().await;
    let largest = fleet.net.bytes_max();
    assert!(largest > 300_000 && largest < 600_000, "{largest} bytes");
}

#[tokio::test(start_paused = true)]
async fn one_huge_command_reaches_all_without_unseating_the_raft_leader() {
    let fleet = Fleet::of(3, 1).await;
    // A piece takes a third of the time that openraft gives to the whole.
    fleet.net.latency_max(120 * MS);
    let before = fleet.leader().await.status();
    let follower = fleet.nodes[fleet.a_follower().await].get();
    follower.submit(create("large", 3_000_000)).await.expect("forwarded in one call");
    fleet.leader().await.submit(create("huge", 5_000_000)).await.expect("submit");
    fleet.until_equal().await;
    for status in fleet.statuses() {
        assert_eq!((status.term, status.leader), (before.term, before.leader));
    }
    let refused = follower.submit(create("too large to forward", 9_000_000)).await;
    assert!(refused.expect_err("refused").to_string().contains("split it"));
}

#[tokio::test(start_paused = true)]
async fn members_far_apart_agree() {
    let fleet = Fleet::of(3, 1).await;
    fleet.net.latency_max(150 * MS);
    let before = fleet.leader().await.status();
    for n in 0..20 {
        for node in fleet.running() {
            node.submit(create(&format!("{n}-{}", node.node_id()), 10)).await.expect("submit");
        }
    }
    sleep(10 * SECOND).await;
    assert_eq!(fleet.leader().await.status().term, before.term, "300 ms of round trip unseat nobody");
    fleet.until_equal().await;
}

#[tokio::test(start_paused = true)]
async fn at_rest_members_say_little() {
    let fleet = Fleet::of(3, 1).await;
    sleep(5 * SECOND).await;
    let count = |fleet: &Fleet| fleet.net.calls().values().sum::<u64>();
    let (before, index) = (count(&fleet), fleet.leader().await.status().last_applied);
    sleep(Duration::from_secs(60)).await;
    let calls = (count(&fleet) - before) / 60;
    assert!((10..=20).contains(&calls), "{calls} calls a second: two followers hear from it every 150 ms");
    assert_eq!(fleet.leader().await.status().last_applied, index, "nothing is proposed");
}

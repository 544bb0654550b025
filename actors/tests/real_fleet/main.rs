//! Fleets on the machine's own clock, with the time that everything takes, one after the other. What they
//! print is a measurement; what they demand leaves room for a busy machine.

#[path = "../fleet/batches.rs"]
mod batches;
#[path = "../fleet/clusters.rs"]
mod clusters;
mod fleet;

use std::time::Duration;

use catalog::NodeId;
use fleet::RealFleet;
use tokio::sync::Mutex;

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
const FRESH: i64 = 0;

/// They would wait for each other's elections.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_s_partitions_flow_elsewhere_and_the_others_stay() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for kills_the_raft_leader in [false, true] {
        let mut fleet = RealFleet::start(3, 6).await;
        let load = fleet.clusters.produce(FRESH);
        fleet.flows().await;
        let each_has_two =
            |owners: &[Option<NodeId>]| owners.iter().all(|a| owners.iter().filter(|b| a == *b).count() == 2);
        fleet.until("balanced", 3 * PATIENCE, || each_has_two(&fleet.owners())).await;
        let owners = fleet.owners();
        fleet.until("a Raft leader", PATIENCE, || fleet.leader().is_some()).await;
        let victim = if kills_the_raft_leader { fleet.leader() } else { fleet.followers().pop() };
        let victim = victim.expect("a Raft leader");
        let pauses = fleet.clusters.watch_pauses();
        let epochs = fleet.epochs();
        fleet.kill(victim);
        let ends: Vec<i64> = (0..6).map(|partition| fleet.clusters.mirror_end(partition)).collect();
        let grown = |p: usize| fleet.clusters.mirror_end(p as u32) > ends[p] + 100;
        fleet.until("all flow", PATIENCE, || (0..6).all(grown)).await;
        println!("pauses, Raft leader killed: {kills_the_raft_leader}: {:?}", pauses.end());
        for ((owner, before), after) in owners.iter().zip(epochs).zip(fleet.epochs()) {
            assert_eq!(before != after, *owner == Some(victim), "only what it owned moves");
        }
        load.abort();
        fleet.is_exact().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_leader_that_leaves_hands_everything_over() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut fleet = RealFleet::start(3, 6).await;
    let load = fleet.clusters.produce(FRESH);
    fleet.flows().await;
    fleet.until("a Raft leader", PATIENCE, || fleet.leader().is_some()).await;
    let leaves = fleet.leader().expect("a Raft leader");
    let pauses = fleet.clusters.watch_pauses();
    assert!(fleet.engine(leaves).leave(PATIENCE).await, "everything was handed over");
    tokio::time::sleep(SECOND).await;
    let pauses = pauses.end();
    println!("pauses, the Raft leader left: {pauses:?}");
    assert!(fleet.owners().iter().all(|owner| *owner != Some(leaves)));
    fleet.kill(leaves);
    load.abort();
    fleet.is_exact().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_two_moves_to_its_second_node_when_the_founder_is_drained_and_removed() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut fleet = RealFleet::start(2, 3).await;
    let load = fleet.clusters.produce(FRESH);
    fleet.flows().await;
    let founder = fleet.voters()[0];
    let other = fleet.nodes().into_iter().find(|node| *node != founder).expect("two");
    fleet.drain(founder).await;
    let has_moved = || fleet.owners().iter().all(|owner| *owner == Some(other));
    fleet.until("nothing is the founder's", PATIENCE, has_moved).await;
    fleet.until("the other alone votes", PATIENCE, || fleet.voters() == [other]).await;
    fleet.remove(founder).await.expect("removed");
    fleet.kill(founder);
    let ends: Vec<i64> = (0..3).map(|partition| fleet.clusters.mirror_end(partition)).collect();
    let grown = |p: usize| fleet.clusters.mirror_end(p as u32) > ends[p] + 100;
    fleet.until("all flow", PATIENCE, || (0..3).all(grown)).await;
    fleet.until("it leads", PATIENCE, || fleet.leader() == Some(other)).await;
    load.abort();
    fleet.is_exact().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_pauses_a_partition_for_a_moment() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let fleet = RealFleet::start(3, 3).await;
    let load = fleet.clusters.produce(FRESH);
    fleet.flows().await;
    let mut all = Vec::new();
    for _ in 0..12 {
        let owner = fleet.owners()[0];
        let to = fleet.nodes().into_iter().find(|node| Some(*node) != owner).expect("others");
        let pauses = fleet.clusters.watch_pauses();
        fleet.hand_over(0, to).await;
        fleet.until("handed over", PATIENCE, || fleet.owners()[0] == Some(to)).await;
        tokio::time::sleep(SECOND / 2).await;
        all.push(pauses.end()[0]);
    }
    all.sort_unstable();
    println!("pauses at a hand-over: {all:?}");
    load.abort();
    fleet.is_exact().await;
}

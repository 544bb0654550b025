//! Who leads, and what it takes to change that.

mod support;

use std::time::Duration;

use catalog::{Action, Duty};
use consensus::SubmitError;
use support::fleet::{Fleet, MS};
use support::{SECOND, action};
use tokio::time::{Instant, sleep};

const SEEDS: std::ops::Range<u64> = 0..5;

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_cut_off_comes_back_without_an_election() {
    for seed in SEEDS {
        let fleet = Fleet::of(3, seed).await;
        let before = fleet.leader().await.status();
        let lonely = fleet.a_follower().await;
        fleet.net.isolate(fleet.nodes[lonely].id);
        sleep(10 * SECOND).await;
        assert_eq!(fleet.nodes[lonely].get().status().term, before.term, "seed {seed}");
        fleet.leader().await.submit(action(1)).await.expect("a majority is there");
        fleet.net.heal();
        sleep(5 * SECOND).await;
        for status in fleet.statuses() {
            assert_eq!((status.term, status.leader), (before.term, before.leader), "seed {seed}");
        }
        fleet.until_equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hears_nothing_of_the_raft_leader_but_is_heard_unseats_nobody() {
    for seed in SEEDS {
        let fleet = Fleet::of(3, seed).await;
        let before = fleet.leader().await.status();
        let deaf = fleet.a_follower().await;
        fleet.net.cut_one_way(before.node_id, fleet.nodes[deaf].id);
        sleep(10 * SECOND).await;
        fleet.net.heal();
        sleep(3 * SECOND).await;
        for status in fleet.statuses() {
            assert_eq!((status.term, status.leader), (before.term, before.leader), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_raft_leader_is_replaced_within_two_seconds() {
    let mut slowest = Duration::ZERO;
    for seed in SEEDS {
        for size in [3, 5] {
            let mut fleet = Fleet::of(size, seed).await;
            let old = fleet.leader().await.node_id();
            let died = Instant::now();
            fleet.kill(fleet.number_of(old)).await;
            fleet.until("another leads", |fleet| fleet.led().is_some()).await;
            fleet.leader().await.submit(action(1)).await.expect("submit");
            slowest = slowest.max(died.elapsed());
            assert!(died.elapsed() < 2 * SECOND, "seed {seed}: {:?}", died.elapsed());
            fleet.start(fleet.number_of(old)).await;
            fleet.until_equal().await;
        }
    }
    println!("slowest of {} elections: {slowest:?}", SEEDS.count() * 2);
}

#[tokio::test(start_paused = true)]
async fn an_isolated_raft_leader_knows_that_it_is_and_answers_no_read() {
    for seed in SEEDS {
        let fleet = Fleet::of(3, seed).await;
        let old = fleet.leader().await.clone();
        fleet.net.isolate(old.node_id());
        sleep(2 * SECOND).await;
        let status = old.status();
        let age = status.millis_since_quorum_ack;
        assert!(!status.is_leader || age.is_some_and(|age| age >= 1_500), "seed {seed}: {status:?}");
        let new = fleet.leader().await;
        assert_ne!(new.node_id(), old.node_id());
        new.submit(action(1)).await.expect("submit");
        let read = old.read().await;
        assert!(matches!(read, Err(SubmitError::NoLeader { .. })), "seed {seed}: {read:?}");
        let submitted = old.submit(action(2)).await;
        assert!(matches!(submitted, Err(SubmitError::Deadline)), "seed {seed}: {submitted:?}");
        fleet.net.heal();
        fleet
            .until("one leads", |fleet| {
                fleet.statuses().iter().filter(|status| status.is_leader).count() == 1
            })
            .await;
        fleet.until_equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_within_300_ms() {
    for seed in SEEDS {
        for size in [3, 5] {
            let fleet = Fleet::of(size, seed).await;
            let old = fleet.leader().await.clone();
            let term = old.status().term;
            let started = Instant::now();
            let yields = old.clone();
            let taken = tokio::spawn(async move { yields.yield_leadership().await });
            let new = taken.await.expect("no panic").expect("another takes it");
            let new = fleet.nodes[fleet.number_of(new)].get();
            new.submit(action(1)).await.expect("submit");
            assert!(started.elapsed() < 300 * MS, "seed {seed}: {:?}", started.elapsed());
            assert_eq!(new.status().term, term + 1, "seed {seed}: one election");
            old.submit(action(2)).await.expect("it goes on as a follower");
            sleep(3 * SECOND).await;
            for status in fleet.statuses() {
                assert_eq!((status.term, status.leader), (term + 1, Some(new.node_id())), "seed {seed}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_a_node_that_is_not_about_to_stop_too() {
    for seed in SEEDS {
        let fleet = Fleet::of(3, seed).await;
        let leader = fleet.leader().await;
        let stops = fleet.nodes[fleet.a_follower().await].id;
        leader.submit(Action::SetDuty { node: stops, duty: Duty::Stops }).await.expect("submit");
        let new = leader.yield_leadership().await.expect("another takes it");
        assert!(new != stops && new != leader.node_id(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_stays_where_nobody_can_take_it() {
    let alone = Fleet::founded(1).await;
    assert_eq!(alone.nodes[0].get().yield_leadership().await, None);
    alone.nodes[0].get().submit(action(1)).await.expect("it goes on");

    let fleet = Fleet::of(3, 1).await;
    let leader = fleet.leader().await.clone();
    let follower = fleet.nodes[fleet.a_follower().await].get();
    assert_eq!(follower.yield_leadership().await, None, "it has nothing to hand over");
    fleet.net.isolate(leader.node_id());
    let started = Instant::now();
    assert_eq!(leader.yield_leadership().await, None);
    assert!(started.elapsed() < 2 * SECOND + SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_was_down_as_a_whole_finds_a_raft_leader_again() {
    for seed in SEEDS {
        let mut fleet = Fleet::of(3, seed).await;
        fleet.leader().await.submit(action(1)).await.expect("submit");
        for number in 0..3 {
            fleet.kill(number).await;
        }
        for number in 0..3 {
            fleet.start(number).await;
        }
        fleet.leader().await.submit(action(2)).await.expect("submit");
        fleet.until_equal().await;
    }
}

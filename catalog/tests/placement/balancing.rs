//! Partitions that move for the sake of balance.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::placement::{HAND_OVERS_MAX, RECEIVER_MAX, REST, Reason};
use catalog::*;

use crate::world::{World, of};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

fn balanced(nodes: u64, partitions: u32) -> World {
    let mut world = World::of(nodes);
    world.topic("orders", partitions);
    world.settle();
    world
}

/// `counts[i]` partitions of `orders` on node i + 1, which may move.
fn uneven(counts: &[u32]) -> World {
    let mut world = World::of(counts.len() as u64);
    world.topic("orders", counts.iter().sum());
    let mut next = 0;
    for (node, count) in (1..).zip(counts) {
        for _ in 0..*count {
            world.put("orders", next, node);
            next += 1;
        }
    }
    world
}

#[test]
fn a_fleet_at_rest_moves_nothing() {
    let world = balanced(3, 3_000);
    let plan = world.plan();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.look_again, Some(10 * SECOND), "rates change without a word");
}

#[test]
fn a_few_more_or_less_are_not_worth_a_move() {
    assert!(uneven(&[4, 2]).plan().is_empty());
    assert_eq!(uneven(&[5, 2]).plan().hand_over.len(), 1);
    assert!(uneven(&[1_010, 990]).plan().is_empty());
    let plan = uneven(&[1_050, 950]).plan();
    assert_eq!(plan.hand_over.len(), 50, "what has begun goes on to the end");
    assert!(plan.hand_over.iter().all(|p| p.reason == Reason::Count));
}

#[test]
fn hand_overs_under_way_are_bounded_for_each_receiver_and_in_all() {
    let mut world = uneven(&[9_000, 0, 0, 0]);
    let plan = world.plan();
    assert_eq!(plan.hand_over.len(), HAND_OVERS_MAX);
    let mut received = BTreeMap::new();
    for planned in &plan.hand_over {
        *received.entry(planned.step.node).or_insert(0) += 1;
    }
    assert!(received.values().all(|count| *count <= RECEIVER_MAX), "{received:?}");
    world.propose(plan);
    assert!(world.plan().is_empty(), "those under way count");

    let mut world = uneven(&[3_000, 0]);
    let plan = world.plan();
    assert_eq!(plan.hand_over.len(), RECEIVER_MAX);
    world.propose(plan);
    assert!(world.plan().is_empty(), "those under way to it count");
}

#[test]
fn a_node_that_has_just_come_starts_slowly() {
    let mut world = balanced(2, 3_000);
    world.join(3);
    let plan = world.plan();
    assert_eq!(plan.hand_over.len(), 8);
    world.propose(plan);
    world.pass(SECOND / 2);
    let plan = world.plan();
    assert!(plan.is_empty(), "eight have come within its first second: {plan}");
    assert!(plan.look_again.is_some_and(|again| again <= SECOND));
    world.pass(SECOND);
    assert_eq!(world.plan().hand_over.len(), 16);
}

#[test]
fn a_third_of_twenty_thousand_partitions_moves_to_a_node_that_joins_two_within_thirty_seconds() {
    let mut world = balanced(2, 20_000);
    world.join(3);
    let began = world.situation.now;
    world.changes.clear();
    while world.catalog.owned_by(NodeId(3)) < 6_666 {
        let plan = world.plan();
        world.propose(plan);
        world.pass(Duration::from_millis(100));
        assert!(world.situation.now - began < 30 * SECOND, "{:?}", world.counts());
    }
    println!("moved after {:?}", world.situation.now - began);
    assert_eq!(world.counts(), [6_667, 6_667, 6_666]);
    assert_eq!(world.changes.len(), 6_666, "each of them once");
}

#[test]
fn nothing_is_balanced_before_all_members_were_heard_of() {
    let mut world = balanced(3, 300);
    world.join(4);
    world.unknown(2);
    assert!(world.plan().is_empty());
    world.live(2);
    assert!(!world.plan().is_empty());
}

#[test]
fn nothing_is_balanced_while_anything_is_to_be_mended() {
    let mut world = balanced(3, 300);
    world.join(4);
    world.lost(2);
    let plan = world.plan();
    assert_eq!((plan.assign.len(), plan.hand_over.len()), (100, 0));
}

#[test]
fn busy_partitions_are_shared_out_at_equal_counts() {
    let mut world = uneven(&[50, 50]);
    for partition in 0..50 {
        world.rate("orders", partition, MIB);
    }
    let plan = world.plan();
    assert!(plan.hand_over.iter().all(|p| p.reason == Reason::Rate), "{plan}");
    world.settle();
    assert_eq!(world.counts(), [50, 50]);
    let rates = world.node_rates();
    assert!(*rates.iter().max().expect("rates") <= 25 * MIB * 125 / 100, "{rates:?}");
}

#[test]
fn a_busy_partition_goes_alone_only_if_the_counts_allow_it() {
    for (counts, moves) in [([2, 2], 2), ([3, 2], 1)] {
        let mut world = uneven(&counts);
        world.rate("orders", 0, 8 * MIB);
        world.rate("orders", 1, 8 * MIB);
        let plan = world.plan();
        assert_eq!(plan.hand_over.len(), moves, "{plan}");
    }
}

#[test]
fn a_joining_node_gets_its_share_of_the_bytes_with_its_share_of_the_partitions() {
    let mut world = balanced(2, 600);
    for partition in 0..600 {
        world.rate("orders", partition, if partition % 10 == 0 { 10 * MIB } else { 10_000 });
    }
    world.settle();
    world.join(3);
    world.changes.clear();
    world.settle();
    assert_eq!(world.counts(), [200, 200, 200]);
    let rates = world.node_rates();
    assert!(*rates.iter().max().expect("rates") <= 200 * MIB * 125 / 100, "{rates:?}");
    assert!(world.changes.len() <= 220, "{} moves where 200 are needed", world.changes.len());
}

#[test]
fn one_partition_that_is_more_than_a_share_moves_nothing() {
    let mut world = uneven(&[10, 10]);
    world.rate("orders", 0, 500 * MIB);
    for partition in 1..20 {
        world.rate("orders", partition, MIB);
    }
    let plan = world.plan();
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn rates_that_differ_little_move_nothing_and_neither_do_small_ones() {
    let mut world = uneven(&[10, 10]);
    for partition in 0..20 {
        world.rate("orders", partition, if partition < 10 { 6 * MIB } else { 4 * MIB });
    }
    assert!(world.plan().is_empty(), "20 % above the mean");
    for partition in 0..20 {
        world.rate("orders", partition, if partition < 10 { 50_000 } else { 0 });
    }
    assert!(world.plan().is_empty(), "half a megabyte a second");
}

#[test]
fn no_partition_moves_twice_within_a_minute_however_rates_jump() {
    let mut world = balanced(3, 90);
    world.changes.clear();
    for round in 0..400u64 {
        for partition in 0..90u64 {
            let busy = (partition + round / 7) % 3 == round % 3;
            world.rate("orders", partition as u32, if busy { 8 * MIB } else { 1_000 });
        }
        let plan = world.plan();
        world.propose(plan);
        world.pass(SECOND);
    }
    let mut last: BTreeMap<PartitionKey, Duration> = BTreeMap::new();
    assert!(world.changes.len() > 10, "rates that jump like that move something");
    for (at, key, _) in &world.changes {
        if let Some(before) = last.insert(key.clone(), *at) {
            assert!(*at - before >= REST, "{key:?} moved {:?} after the last time", *at - before);
        }
    }
}

#[test]
fn a_partition_that_has_just_got_its_first_owner_may_move_and_one_that_moved_rests() {
    let mut world = World::of(2);
    world.topic("orders", 100);
    let plan = world.plan();
    world.propose(plan);
    world.join(3);
    assert_eq!(world.plan().hand_over.len(), 8, "nothing ran before: nothing has moved");
    world.settle();
    assert_eq!(world.counts(), [34, 33, 33]);
    world.lost(2);
    let plan = world.plan();
    world.propose(plan);
    world.live(2);
    let just_moved = |step| world.situation.changed[&of(step)] == world.situation.now;
    let back = world.plan().hand_over;
    assert_eq!(back.len(), 8);
    assert!(!back.iter().any(|planned| just_moved(&planned.step)));
}

#[test]
fn a_failure_moves_what_has_just_moved() {
    let mut world = balanced(2, 100);
    world.join(3);
    world.settle();
    world.lost(3);
    assert_eq!(world.plan().assign.len(), 33);
}

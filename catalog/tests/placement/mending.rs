//! Partitions that can't stay where they are.

use std::time::Duration;

use catalog::placement::{HAND_OVER_MAX, HAND_OVERS_MAX, MOVES_MAX, Plan, Reason};
use catalog::*;

use crate::world::{World, key, mirror};

/// Nodes 1 to 3, each with a third of `orders`.
fn three(partitions: u32) -> World {
    let mut world = World::of(3);
    world.topic("orders", partitions);
    world.settle();
    world
}

fn receivers(planned: &[placement::Planned]) -> Vec<u64> {
    let mut nodes: Vec<_> = planned.iter().map(|p| p.step.node.0).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

#[test]
fn new_partitions_are_spread_and_the_plan_says_what_and_why() {
    let mut world = World::of(2);
    world.topic("orders", 3);
    let plan = world.plan();
    assert_eq!(
        plan.to_string(),
        "assign orders[0] -> 0000000000000001 (new), orders[1] -> 0000000000000002 (new), \
         orders[2] -> 0000000000000001 (new)"
    );
    world.propose(plan);
    world.pass(Duration::from_secs(1));
    world.duty(1, Duty::Drains);
    world.topic("clicks", 1);
    assert_eq!(
        world.plan().to_string(),
        "assign clicks[0] -> 0000000000000002 (new); hand over orders[0] -> 0000000000000002 \
         (owner-drains), orders[2] -> 0000000000000002 (owner-drains)"
    );
}

#[test]
fn a_long_plan_is_a_short_line() {
    let mut world = World::of(1);
    world.topic("orders", 1_000);
    let line = world.plan().to_string();
    assert!(line.ends_with("(new) and 984 more"), "{line}");
    assert!(line.len() < 1_000, "{line}");
}

#[test]
fn nothing_moves_while_nobody_is_live() {
    let mut world = three(9);
    world.topic("clicks", 5);
    for node in 1..=3 {
        world.lost(node);
    }
    assert_eq!(world.plan(), Plan::default());
    for node in 1..=3 {
        world.unknown(node);
    }
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn nothing_goes_to_a_node_that_is_lost_unknown_drains_or_stops() {
    let mut world = World::of(5);
    world.lost(2);
    world.unknown(3);
    world.duty(4, Duty::Drains);
    world.duty(5, Duty::Stops);
    world.topic("orders", 10);
    assert_eq!(receivers(&world.plan().assign), [1]);
}

#[test]
fn what_an_unheard_node_has_stays_with_it() {
    let mut world = three(9);
    world.unknown(2);
    assert!(world.plan().is_empty());
}

#[test]
fn a_lost_nodes_partitions_go_to_the_others_at_once_and_evenly() {
    let mut world = three(3_000);
    world.lost(2);
    let plan = world.plan();
    assert_eq!((plan.assign.len(), plan.hand_over.len()), (1_000, 0));
    assert!(plan.assign.iter().all(|p| p.reason == Reason::OwnerLost));
    world.propose(plan);
    assert_eq!(world.counts(), [1_500, 0, 1_500]);
}

#[test]
fn a_removed_nodes_partitions_go_to_the_others() {
    let mut world = three(9);
    world.done(Action::RemoveNode { node: NodeId(2), lost: true });
    let plan = world.plan();
    assert!(plan.assign.iter().all(|p| p.reason == Reason::OwnerRemoved));
    assert_eq!(receivers(&plan.assign), [1, 3]);
    assert_eq!(plan.assign.len(), 3);
}

#[test]
fn no_plan_is_longer_than_a_command_may_be() {
    let mut world = World::of(2);
    world.topic("orders", 10_000);
    assert_eq!(world.plan().assign.len(), MOVES_MAX);
    world.settle();
    assert_eq!(world.counts(), [5_000, 5_000]);
}

#[test]
fn a_stopping_node_hands_everything_over_at_once() {
    let mut world = three(6_000);
    world.duty(3, Duty::Stops);
    let plan = world.plan();
    assert_eq!((plan.assign.len(), plan.hand_over.len()), (0, 2_000));
    assert_eq!(receivers(&plan.hand_over), [1, 2]);
    world.settle();
    assert_eq!(world.counts(), [3_000, 3_000, 0]);
}

#[test]
fn a_draining_node_hands_over_so_many_at_a_time_until_it_has_none() {
    let mut world = three(6_000);
    world.duty(3, Duty::Drains);
    assert_eq!(world.plan().hand_over.len(), HAND_OVERS_MAX);
    world.settle();
    assert_eq!(world.counts(), [3_000, 3_000, 0]);
}

#[test]
fn the_only_live_node_keeps_what_it_has_when_it_drains() {
    let mut world = three(9);
    world.lost(1);
    world.lost(2);
    world.settle();
    world.duty(3, Duty::Drains);
    assert!(world.plan().is_empty());
    assert_eq!(world.counts(), [0, 0, 9]);
}

#[test]
fn a_hand_over_to_a_node_that_is_lost_is_taken_back() {
    let mut world = three(9);
    let step =
        command::Move { mirror: mirror("orders"), partition: 0, node: NodeId(2), expected_epoch: Some(1) };
    world.done(Action::HandOver { moves: vec![step] });
    world.lost(2);
    let plan = world.plan();
    assert_eq!(
        plan.to_string().split("; ").nth(1),
        Some("hand over orders[0] -> 0000000000000001 (receiver-gone)")
    );
    world.propose(plan);
    assert!(world.catalog.fleet.hand_overs.is_empty());
    assert_eq!(world.catalog.owner(&key("orders", 0)), Some(NodeId(1)));
}

#[test]
fn a_hand_over_that_its_owner_does_not_release_is_called_off_and_begun_anew_only_if_it_is_needed() {
    for drains in [false, true] {
        let mut world = three(9);
        if drains {
            world.duty(1, Duty::Drains);
        }
        let epoch = |world: &World| {
            world.catalog.mirror(&mirror("orders")).expect("there").partitions[0]
                .assignment
                .as_ref()
                .map(|a| a.epoch)
        };
        let (node, before) = (NodeId(2), epoch(&world));
        let step = command::Move { mirror: mirror("orders"), partition: 0, node, expected_epoch: before };
        world.done(Action::HandOver { moves: vec![step] });
        world.situation.handing_over.insert(key("orders", 0), world.situation.now);
        let of_it = |plan: &Plan| plan.to_string().matches("orders[0]").count();
        world.situation.now += HAND_OVER_MAX - Duration::from_millis(1);
        assert_eq!(of_it(&world.plan()), 0, "its owner may take so long");
        world.situation.now += Duration::from_millis(1);
        let plan = world.plan();
        assert!(plan.to_string().contains("orders[0] -> 0000000000000001 (not-released)"), "{plan}");
        world.propose(plan);
        assert!(!world.catalog.fleet.hand_overs.contains_key(&key("orders", 0)));
        assert!(epoch(&world) > before, "a release that is still on its way counts no more");
        world.situation.handing_over.clear();
        assert_eq!(of_it(&world.plan()), usize::from(drains));
    }
}

#[test]
fn a_draining_nodes_hand_over_to_a_node_that_is_lost_goes_to_another() {
    let mut world = three(9);
    world.duty(1, Duty::Drains);
    let plan = world.plan();
    world.propose(plan);
    let to_two = world.catalog.fleet.hand_overs.values().filter(|to| to.0 == 2).count();
    assert!(to_two > 0);
    world.lost(2);
    let plan = world.plan();
    let redirected = plan.hand_over.iter().filter(|p| p.reason == Reason::ReceiverGone);
    assert_eq!(redirected.clone().count(), to_two);
    assert!(redirected.clone().all(|p| p.step.node == NodeId(3)));
    world.propose(plan);
    world.lost(3);
    let plan = world.plan();
    assert!(plan.assign.is_empty(), "nobody is left who could take any: {plan}");
    assert!(plan.hand_over.iter().all(|p| p.step.node == NodeId(1)), "it keeps what it has: {plan}");
    world.propose(plan);
    assert!(world.plan().is_empty());
}

#[test]
fn what_a_lost_node_was_handing_over_goes_where_it_was_going() {
    let mut world = three(9);
    let step =
        command::Move { mirror: mirror("orders"), partition: 0, node: NodeId(3), expected_epoch: Some(1) };
    world.done(Action::HandOver { moves: vec![step] });
    world.lost(1);
    let plan = world.plan();
    let first = plan.assign.iter().find(|p| p.step.partition == 0).expect("assigned");
    assert_eq!(first.step.node, NodeId(3));
}

#[test]
fn the_busiest_go_first_and_what_failed_or_is_paused_last() {
    let mut world = World::of(2);
    world.topic("clicks", 2);
    world.topic("orders", 4);
    for (topic, partition) in [("clicks", 0), ("clicks", 1), ("orders", 0), ("orders", 1), ("orders", 2)] {
        world.put(topic, partition, 1);
    }
    world.put("orders", 3, 1);
    world.done(Action::PauseMirror { mirror: mirror("clicks") });
    let message = "another producer wrote".into();
    let failure = Failure { error: MirrorError::ForeignWrite, offset: 1, message, at_ms: 1 };
    world.done(Action::FailPartition {
        mirror: mirror("orders"),
        partition: 0,
        assignment_epoch: 1,
        failure,
    });
    world.rate("orders", 3, 5_000);
    world.rate("orders", 2, 900);
    world.rate("orders", 0, 9_000);
    world.lost(1);
    let order: Vec<_> =
        world.plan().assign.iter().map(|p| (p.step.mirror.topic.to_string(), p.step.partition)).collect();
    let expected = [("orders", 3), ("orders", 2), ("orders", 1), ("orders", 0), ("clicks", 0), ("clicks", 1)];
    assert_eq!(order, expected.map(|(topic, partition)| (topic.to_owned(), partition)));
}

#[test]
fn a_lost_nodes_busy_partitions_are_shared_out_by_rate_as_well() {
    let mut world = World::of(3);
    world.topic("orders", 12);
    for partition in 0..12 {
        world.put("orders", partition, 3);
        world.rate("orders", partition, 1_000_000 * u64::from(partition));
    }
    world.lost(3);
    world.settle();
    assert_eq!(world.counts(), [6, 6, 0]);
    let rates = world.node_rates();
    assert!(rates[0].abs_diff(rates[1]) <= 2_000_000, "{rates:?}");
}

#[test]
fn a_node_that_has_just_come_doesnt_get_all_that_another_loses() {
    let mut world = three(3_000);
    world.lost(1);
    world.settle();
    world.live(1);
    world.lost(2);
    let plan = world.plan();
    world.propose(plan);
    assert_eq!(world.counts(), [8, 0, 2_992]);
    let plan = world.plan();
    assert!(plan.is_empty(), "it has got what it may in its first second: {plan}");
    assert!(plan.look_again.is_some_and(|again| again <= Duration::from_secs(1)));
    world.settle();
    assert_eq!(world.counts(), [1_500, 0, 1_500]);
}

#[test]
fn a_node_that_has_just_come_gets_all_when_there_is_no_other() {
    let mut world = World::of(2);
    world.topic("orders", 2_000);
    world.settle();
    world.lost(1);
    world.settle();
    world.live(1);
    world.duty(2, Duty::Stops);
    assert_eq!(world.plan().hand_over.len(), 2_000);
}

//! Several nodes in one process, between two embedded clusters: partitions change hands, owners are cut
//! off, nodes leave, and the mirror stays the source's exact image.

mod batches;
mod clusters;
mod group;
mod world;

use std::time::Duration;

use broker::Fault;
use catalog::{Action, Duty};
use clusters::DAY_MS;
use kafka_protocol::messages::ProduceRequest;
use world::{World, node};

const SECOND: Duration = Duration::from_secs(1);
const FRESH: i64 = 0;
/// Older than brokers remember a producer: nothing guards such a mirror.
const OLD: i64 = 2 * DAY_MS;

#[tokio::test(start_paused = true)]
async fn a_partition_changes_hands_under_load_without_loss_or_copy() {
    let world = World::start(3, 6).await;
    let load = world.produce(FRESH);
    world.flows().await;
    let pauses = world.watch_pauses();
    for round in 0..6 {
        let partition = round % 3;
        let to = 1 + (world.owner(partition).0 % 3);
        world.hand_over(partition, to);
        world.until("handed over", SECOND, || world.owner(partition) == node(to)).await;
        assert!(!world.assignment(partition).unclean, "nothing was in doubt");
        tokio::time::sleep(SECOND).await;
    }
    let pauses = pauses.end();
    assert!(pauses[..3].iter().all(|pause| *pause < Duration::from_millis(200)), "moved: {pauses:?}");
    assert!(pauses[3..].iter().all(|pause| *pause < Duration::from_millis(100)), "untouched: {pauses:?}");
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// Its former owner hears of nothing and goes on sending the same bytes, until it meets those of the next.
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_cut_off_does_a_guarded_mirror_no_harm() {
    let world = World::start(3, 3).await;
    let load = world.produce(FRESH);
    world.flows().await;
    tokio::time::sleep(3 * SECOND).await;
    let zombie = node(2);
    assert_eq!(world.owner(1), zombie);
    let pauses = world.watch_pauses();
    world.group.cut_off(zombie);
    world.until("given to another", 3 * SECOND, || world.owner(1) != zombie).await;
    assert!(world.assignment(1).unclean);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(world.state(2, 1), Some("WAITING_FOR_LEASE"), "it has met the next owner");
    let pauses = pauses.end();
    assert!(pauses[1] < SECOND, "two owners pause nothing for long: {pauses:?}");
    assert!(pauses[0] < SECOND / 10 && pauses[2] < SECOND / 10, "untouched: {pauses:?}");
    world.group.bring_back(zombie);
    world.until("told", SECOND, || world.state(2, 1).is_none()).await;
    tokio::time::sleep(SECOND).await;
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// Only lease and wait keep a second copy out.
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_cut_off_stops_an_unguarded_mirror_before_the_next_one_begins() {
    let world = World::start(3, 3).await;
    let load = world.produce(OLD);
    world.flows().await;
    tokio::time::sleep(3 * SECOND).await;
    let zombie = node(2);
    world.group.cut_off(zombie);
    // The last grant counts from a report before the cut.
    tokio::time::sleep(3_010 * SECOND / 1_000).await;
    let end = world.mirror_end(1);
    assert_eq!(world.state(2, 1), Some("WAITING_FOR_LEASE"));
    assert_ne!(world.owner(1), zombie, "lost after 2 s");
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(world.mirror_end(1), end, "the next owner waits for what may still arrive");
    world.until("flows elsewhere", 6 * SECOND, || world.mirror_end(1) > end).await;
    world.group.bring_back(zombie);
    tokio::time::sleep(3 * SECOND).await;
    load.abort();
    world.is_exact(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_raft_leader_what_is_guarded_flows_on_and_what_is_not_waits_for_one() {
    for (age_ms, flows_on) in [(FRESH, true), (OLD, false)] {
        let world = World::start(3, 3).await;
        let load = world.produce(age_ms);
        world.flows().await;
        tokio::time::sleep(3 * SECOND).await;
        let epochs = [0, 1, 2].map(|partition| world.assignment(partition).epoch);
        world.group.lead(None);
        tokio::time::sleep(5 * SECOND).await;
        let pauses = world.watch_pauses();
        tokio::time::sleep(20 * SECOND).await;
        let longest = pauses.end();
        assert_eq!(longest.iter().all(|pause| *pause < SECOND / 10), flows_on, "{longest:?}");
        assert_eq!(longest.iter().all(|pause| *pause > 15 * SECOND), !flows_on, "{longest:?}");
        let ends = [0, 1, 2].map(|partition| world.mirror_end(partition));
        world.group.lead(Some(node(3)));
        // Nothing was in doubt: nothing is waited for but the lease.
        let grown = |p: usize| world.mirror_end(p as u32) > ends[p] + 100;
        world.until("all flow", 2 * SECOND, || (0..3).all(grown)).await;
        // The new coordinator gives everyone the time to report.
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!([0, 1, 2].map(|partition| world.assignment(partition).epoch), epochs);
        load.abort();
        world.is_exact(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_hands_everything_over_and_nothing_pauses() {
    let world = World::start(3, 9).await;
    let load = world.produce(FRESH);
    world.flows().await;
    // It must be known that others are there.
    tokio::time::sleep(3 * SECOND).await;
    let pauses = world.watch_pauses();
    let leaves = node(2);
    let untouched = [0, 2, 3, 5, 6, 8].map(|partition| (partition, world.assignment(partition)));
    assert!(world.group.engine(leaves).leave(10 * SECOND).await, "everything was handed over");
    assert!((0..9).all(|partition| world.owner(partition) != leaves));
    assert!([1, 4, 7].iter().all(|partition| !world.assignment(*partition).unclean));
    world.group.cut_off(leaves);
    tokio::time::sleep(5 * SECOND).await;
    for (partition, assignment) in untouched {
        assert_eq!(world.assignment(partition), assignment);
    }
    let pauses = pauses.end();
    assert!(pauses.iter().all(|pause| *pause < SECOND / 5), "{pauses:?}");
    load.abort();
    world.is_exact(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_company_just_stops() {
    let world = World::start(1, 2).await;
    let load = world.produce(OLD);
    world.flows().await;
    assert!(!world.group.engine(node(1)).leave(10 * SECOND).await, "nobody takes it");
    assert_eq!(world.owner(0), node(1));
    assert_eq!(world.state(1, 0), Some("STOPPED"));
    load.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_is_taken_back_goes_on_where_it_was() {
    let world = World::start(2, 2).await;
    let load = world.produce(FRESH);
    world.flows().await;
    let before = world.assignment(0);
    for _ in 0..5 {
        world.hand_over(0, 2);
        tokio::time::sleep(SECOND / 500).await;
        if world.owner(0) == before.node {
            world.hand_over(0, 1);
        }
        tokio::time::sleep(SECOND).await;
        if world.owner(0) != before.node {
            world.hand_over(0, 1);
            world.until("back", SECOND, || world.owner(0) == before.node).await;
        }
    }
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// Nothing was in doubt, so nothing is waited for, though nothing guards the mirror.
#[tokio::test(start_paused = true)]
async fn an_unguarded_mirror_changes_hands_as_quickly() {
    let world = World::start(2, 2).await;
    let load = world.produce(OLD);
    world.flows().await;
    tokio::time::sleep(SECOND).await;
    let pauses = world.watch_pauses();
    for to in [2, 1, 2] {
        world.hand_over(0, to);
        world.until("handed over", SECOND, || world.owner(0) == node(to)).await;
        tokio::time::sleep(SECOND).await;
    }
    let pauses = pauses.end();
    assert!(pauses[0] < SECOND / 5, "{pauses:?}");
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// It reports and is answered, but doesn't learn that its partition was taken away.
#[tokio::test(start_paused = true)]
async fn an_owner_that_applies_nothing_loses_its_lease_though_it_reports() {
    let world = World::start(3, 3).await;
    let load = world.produce(OLD);
    world.flows().await;
    tokio::time::sleep(3 * SECOND).await;
    let zombie = node(2);
    world.group.hold_back(zombie);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(world.state(2, 1), Some("RUNNING"), "it has missed nothing");
    world.take_away(1, 3);
    tokio::time::sleep(3_010 * SECOND / 1_000).await;
    assert_eq!(world.state(2, 1), Some("WAITING_FOR_LEASE"));
    let end = world.mirror_end(1);
    tokio::time::sleep(18 * SECOND).await;
    assert_eq!(world.mirror_end(1), end);
    world.until("flows elsewhere", 6 * SECOND, || world.mirror_end(1) > end).await;
    world.group.catch_up(zombie);
    world.until("told", SECOND, || world.state(2, 1).is_none()).await;
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// Others can't reach it, but it reaches them.
#[tokio::test(start_paused = true)]
async fn an_owner_that_applies_nothing_is_lost_though_it_reports() {
    let world = World::start(3, 3).await;
    let load = world.produce(FRESH);
    world.flows().await;
    tokio::time::sleep(15 * SECOND).await;
    world.group.hold_back(node(2));
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!(world.owner(1), node(2), "there was nothing to apply");
    let changes_nothing = Action::SetDuty { node: node(3), duty: Duty::Mirrors };
    world.group.apply(changes_nothing).expect("taken");
    world.until("given to another", 15 * SECOND, || world.owner(1) != node(2)).await;
    world.group.catch_up(node(2));
    world.until("told", SECOND, || world.state(2, 1).is_none()).await;
    load.abort();
    world.is_exact(30 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_moved_rests_though_another_node_becomes_raft_leader() {
    let world = World::start(2, 6).await;
    world.group.lead(None);
    tokio::time::sleep(SECOND).await;
    (0..6).for_each(|partition| world.take_away(partition, 2));
    tokio::time::sleep(SECOND).await;
    (0..6).for_each(|partition| world.take_away(partition, 1));
    let moved = tokio::time::Instant::now();
    for leader in [2, 1, 2] {
        world.group.lead(Some(node(leader)));
        tokio::time::sleep(15 * SECOND).await;
        assert!((0..6).all(|partition| world.owner(partition) == node(1)), "after {:?}", moved.elapsed());
    }
    world
        .until("shared out", 30 * SECOND, || (0..6).filter(|p| world.owner(*p) == node(2)).count() == 3)
        .await;
    assert!(moved.elapsed() >= 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_idle_mirror_that_nothing_guards_shows_that_it_has_no_lease() {
    let world = World::start(2, 2).await;
    let load = world.produce(OLD);
    world.flows().await;
    load.abort();
    world.until("the mirror has caught up", 5 * SECOND, || world.is_whole()).await;
    let states =
        |world: &World| [world.state(1, 0), world.state(2, 1)].map(|state| state.unwrap_or_default());
    assert_eq!(states(&world), ["RUNNING"; 2]);
    world.group.lead(None);
    tokio::time::sleep(3_010 * SECOND / 1_000).await;
    assert_eq!(states(&world), ["WAITING_FOR_LEASE"; 2]);
    let row = world.group.engine(node(1)).observatory().partitions(&clusters::mirror()).remove(0);
    assert!(row.since_ms > 0, "since its lease ended: {row:?}");
    world.group.lead(Some(node(2)));
    world.until("run again", 3 * SECOND, || states(&world) == ["RUNNING"; 2]).await;
    world.is_exact(SECOND).await;
}

/// It lives and reports, and can tell nobody that it has stopped.
#[tokio::test(start_paused = true)]
async fn a_hand_over_that_its_owner_never_releases_is_called_off() {
    let world = World::start(3, 3).await;
    let load = world.produce(FRESH);
    world.flows().await;
    tokio::time::sleep(3 * SECOND).await;
    let (stuck, before) = (node(2), world.assignment(1));
    world.group.mute(stuck);
    world.hand_over(1, 3);
    tokio::time::sleep(29 * SECOND).await;
    assert!(!world.group.catalog().fleet.hand_overs.is_empty());
    tokio::time::sleep(7 * SECOND).await;
    assert!(world.group.catalog().fleet.hand_overs.is_empty());
    assert_eq!(world.owner(1), stuck);
    assert!(world.assignment(1).epoch > before.epoch, "what it says of the former one counts no more");
    world.group.unmute(stuck);
    world.until("goes on", 2 * SECOND, || world.state(2, 1) == Some("RUNNING")).await;
    load.abort();
    world.is_exact(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_at_rest_agrees_on_nothing() {
    let world = World::start(3, 6).await;
    tokio::time::sleep(30 * SECOND).await;
    let before = world.group.entries();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(world.group.entries(), before);
}

/// The broker is slow: it hears of each batch long after it was sent.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_awaited_before_a_partition_changes_hands() {
    let world = World::start(2, 1).await;
    let load = world.produce(OLD);
    world.flows().await;
    let late = world.west.interceptors().add(|_, _: &ProduceRequest| Fault::Delay(SECOND / 2));
    // In the middle of a batch's delay.
    tokio::time::sleep(SECOND * 5 / 4).await;
    world.hand_over(0, 2);
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(world.owner(0), node(1), "it hasn't stopped yet");
    world.until("handed over", SECOND, || world.owner(0) == node(2)).await;
    world.west.interceptors().remove(late);
    tokio::time::sleep(2 * SECOND).await;
    load.abort();
    world.is_exact(10 * SECOND).await;
}

/// What the destination remembers was seen too long ago: it is looked at again, and that is all.
#[tokio::test(start_paused = true)]
async fn a_guarded_mirror_that_was_idle_without_a_raft_leader_goes_on_at_once() {
    let world = World::start(3, 3).await;
    let load = world.produce(FRESH);
    world.flows().await;
    load.abort();
    world.group.lead(None);
    tokio::time::sleep(60 * SECOND).await;
    let ends = [0, 1, 2].map(|partition| world.mirror_end(partition));
    let load = world.produce(FRESH);
    let grown = |p: usize| world.mirror_end(p as u32) > ends[p];
    world.until("all flow", SECOND, || (0..3).all(grown)).await;
    load.abort();
    world.is_exact(SECOND).await;
}

/// Its lane holds the batch back, and nothing else comes that would make it look again.
#[tokio::test(start_paused = true)]
async fn old_data_behind_fresh_goes_by_itself_when_the_takeover_was_waited_out() {
    let world = World::start(3, 3).await;
    let load = world.produce(FRESH);
    world.flows().await;
    tokio::time::sleep(3 * SECOND).await;
    let zombie = node(2);
    world.group.cut_off(zombie);
    world.until("given to another", 3 * SECOND, || world.owner(1) != zombie).await;
    tokio::time::sleep(SECOND).await;
    load.abort();
    world.until("the mirror has caught up", 5 * SECOND, || world.is_whole()).await;
    let (end, begun) = (world.mirror_end(1), tokio::time::Instant::now());
    let load = world.produce(OLD);
    tokio::time::sleep(SECOND / 100).await;
    load.abort();
    tokio::time::sleep(18 * SECOND).await;
    assert_eq!(world.mirror_end(1), end, "what was under way may still arrive");
    world.until("it goes", 8 * SECOND, || world.mirror_end(1) > end).await;
    assert!(begun.elapsed() >= 20 * SECOND, "{:?}", begun.elapsed());
    world.group.bring_back(zombie);
    world.is_exact(10 * SECOND).await;
}

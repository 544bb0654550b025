//! Several nodes in one process, between two embedded clusters: partitions change hands, owners are cut
//! off, nodes leave, and the mirror stays the source's exact image.

mod batches;
mod group;
mod world;

use std::time::Duration;

use world::{DAY_MS, World, node};

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
    assert!(pauses[3..].iter().all(|pause| *pause < Duration::from_millis(50)), "untouched: {pauses:?}");
    load.abort();
    world.is_exact(10 * SECOND).await;
}

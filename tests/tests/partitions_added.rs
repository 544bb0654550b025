//! A source topic that grows under load: its mirror grows with it, and what stands in the new
//! partitions is as exact as the rest.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rand::Rng;
use tests::client::add_partitions;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, describe, mirrored, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::settled::{check_active, compare_ends, wait_no_lag};
use tests::wire::{RawReader, TopicEnds};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 3;
/// Once while the node runs on, once with a kill.
const GROWN: i32 = 7;
const GROWN_AGAIN: i32 = 9;
/// Of each load; three run in the end.
const RECORDS_PER_SECOND: u32 = 300;

/// `metadata.max.age.ms` of 5 s at both ends, and a start after a kill.
const GROWTH_LIMIT: Duration = Duration::from_secs(30);
/// Up to the next look at the metadata, which grows the topic, then the mirror.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 0..=10_000;
const KILL_POLL: Duration = Duration::from_millis(5);
/// Each partition gets a share of each load within seconds.
const WRITTEN_LIMIT: Duration = Duration::from_secs(60);
const MIRRORED_LIMIT: Duration = Duration::from_secs(30);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

#[test]
fn partitions_added_at_the_source_are_mirrored_exactly_though_the_node_is_killed() {
    Scenario::run("partitions-added", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let west = KafkaCluster::start(KafkaConfig::single(WEST, scenario.directory()))?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let mut loads = vec![start_load(scenario, &east, PARTITIONS)?];
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        let mut reader = RawReader::new(&west.bootstrap())?;
        let begun = || mirrored(&mut reader, TOPIC).map(|count| (count > 0).then_some(())).transpose();
        poll_until(MIRRORED_LIMIT, POLL, begun).unwrap_or_else(|| bail!("nothing mirrored"))?;

        add_partitions(&east.bootstrap(), TOPIC, GROWN as usize)?;
        let grown_at = Instant::now();
        loads.push(start_load(scenario, &east, GROWN)?);
        wait_grown(&mut node, &west, GROWN, grown_at)?;

        add_partitions(&east.bootstrap(), TOPIC, GROWN_AGAIN as usize)?;
        let grown_at = Instant::now();
        loads.push(start_load(scenario, &east, GROWN_AGAIN)?);
        let wait = Duration::from_millis(scenario.rng().random_range(KILL_AFTER_MS));
        // At the latest when the topic has grown and the mirror, perhaps, has not.
        poll_until(wait, KILL_POLL, || {
            partitions(&west).map(|found| (found == GROWN_AGAIN as usize).then_some(())).transpose()
        })
        .transpose()?;
        node.kill9()?;
        let (elapsed, there) = (grown_at.elapsed(), partitions(&west)?);
        eprintln!("killed {elapsed:?} after the growth, with {there} partitions at the destination");
        node.restart()?;
        wait_grown(&mut node, &west, GROWN_AGAIN, grown_at)?;

        let mut source = RawReader::new(&east.bootstrap())?;
        poll_until(WRITTEN_LIMIT, POLL, || {
            let everywhere = |ends: TopicEnds| ends.values().all(|(_, end)| *end > 0);
            source.ends(TOPIC).map(|ends| everywhere(ends).then_some(())).transpose()
        })
        .unwrap_or_else(|| bail!("a partition of the source has no record yet"))?;
        let mut acknowledged = 0;
        for load in loads {
            acknowledged += load.stop()?.total();
        }
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        let records = compare_ends(&east, &west, TOPIC)?;
        ensure!(records == acknowledged, "{records} at both ends, {acknowledged} acknowledged");
        wait_no_lag(&node, WEST, LINK, TOPIC)?;
        check_active(&node, WEST, LINK, TOPIC)?;
        node.sigterm()
    });
}

fn start_load(scenario: &Scenario, east: &KafkaCluster, partitions: i32) -> Result<Load> {
    Load::start(&LoadConfig {
        bootstrap: east.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed().wrapping_add(partitions.unsigned_abs().into()),
        age: Duration::ZERO,
    })
}

/// The topic has so many partitions, and the product shows as many, each with a known lag.
fn wait_grown(node: &mut Node, west: &KafkaCluster, wanted: i32, since: Instant) -> Result<()> {
    loop {
        let (there, known) = (partitions(west)?, partitions_known(node)?);
        if (there, known) == (wanted as usize, wanted as usize) {
            eprintln!("{wanted} partitions after {:?}", since.elapsed());
            return Ok(());
        }
        node.check_running()?;
        if since.elapsed() >= GROWTH_LIMIT {
            bail!(
                "{wanted} partitions at the source for {GROWTH_LIMIT:?}, {there} at the destination, {known} of \
                 them with a lag\n{}",
                describe(node, LINK, TOPIC)
            );
        }
        std::thread::sleep(POLL);
    }
}

fn partitions(west: &KafkaCluster) -> Result<usize> {
    Ok(RawReader::new(&west.bootstrap())?.partitions(TOPIC)?.len())
}

fn partitions_known(node: &Node) -> Result<usize> {
    let mirror = node.mirror_json(WEST, LINK, TOPIC)?;
    let rows = mirror["mirror_lags"].as_array().cloned().unwrap_or_default();
    Ok(rows.iter().filter(|row| row["lag"].is_i64()).count())
}

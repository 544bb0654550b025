//! An unclean leader election at the destination takes records that were acknowledged. What the
//! mirror holds afterwards is right; it may stand still, with an error that says where.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::seq::SliceRandom;
use tests::cluster::KafkaCluster;
use tests::mirror::{create_mirror, describe, ends_table};
use tests::node::Node;
use tests::operator;
use tests::pair::{Age, FRESH, LINK, OLD, PARTITIONS, TOPIC, VERSIONS, WEST, start_clusters, start_load};
use tests::scenario::{self, Scenario};
use tests::settled::{check_active, compare_ends, wait_no_lag};
use tests::wire::{PartitionMetadata, RawBatch, RawReader};

/// Some batches, so that the mirror has a past.
const MIRRORED_FIRST: i64 = 200;
/// What only the partition leader has, and loses.
const MIRRORED_ALONE: i64 = 300;
const MIRRORED_LIMIT: Duration = Duration::from_secs(60);
/// A killed broker's session, its restart and its catching up.
const IN_SYNC_LIMIT: Duration = Duration::from_secs(90);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

#[test]
fn what_an_unclean_election_took_is_sent_again_or_told() {
    let ages = [FRESH, OLD];
    let seed = scenario::seed().expect("a seed");
    let drawn = if scenario::all_cells() { &ages[..] } else { &ages[seed as usize % 2..][..1] };
    drawn.iter().for_each(|age| lose_by_an_unclean_election(*age));
}

fn lose_by_an_unclean_election(age: Age) {
    Scenario::run(&format!("unclean-election-{}", age.name), |scenario| {
        let mut rng = scenario.rng();
        let mut versions = VERSIONS;
        versions.shuffle(&mut rng);
        eprintln!("Kafka {versions:?}");
        // Two copies on three brokers: without both of them a quorum of controllers is left that can
        // take the follower out of the in-sync replicas, and later elect it.
        let two_copies = [("default.replication.factor", "2"), ("min.insync.replicas", "1")];
        let (east, mut west) = start_clusters(scenario, versions, age, &two_copies)?;
        let load = start_load(scenario, &east, age)?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        wait_mirrored(&mut node, &west, 0, MIRRORED_FIRST)?;
        // Else it is set back within seconds: that it is off is held.
        node.cli(&["link", "update", LINK, "--config", "topic.config.sync.ms=86400000"])?;
        operator::set_topic_config(&west.bootstrap(), TOPIC, "unclean.leader.election.enable", "true")?;

        let placement = operator::placement(&west.bootstrap(), TOPIC)?;
        let partition = rng.random_range(0..PARTITIONS);
        let Some(PartitionMetadata { leader, replicas, .. }) = placement.get(&partition) else {
            bail!("no partition {partition}: {placement:?}");
        };
        let leader = *leader;
        let follower = *replicas.iter().find(|replica| **replica != leader).context("a second replica")?;
        eprintln!("partition {partition}: leader {leader}, follower {follower}");

        west.kill(u16::try_from(follower)?)?;
        let alone = |number: i32, found: &PartitionMetadata| number != partition || found.in_sync == [leader];
        operator::wait_placement(&west.bootstrap(), TOPIC, IN_SYNC_LIMIT, "led without followers", alone)?;
        wait_mirrored(&mut node, &west, partition, MIRRORED_ALONE)?;
        let lost = last_batch(&west, partition)?;
        west.kill(u16::try_from(leader)?)?;
        west.restart(u16::try_from(follower)?)?;
        let elected =
            |number: i32, found: &PartitionMetadata| number != partition || found.leader == follower;
        operator::wait_placement(
            &west.bootstrap(),
            TOPIC,
            IN_SYNC_LIMIT,
            "led by the old follower",
            elected,
        )?;
        west.restart(u16::try_from(leader)?)?;
        load.stop()?;

        match outcome(&mut node, &east, &west)? {
            Outcome::CaughtUp => {
                let again = batch_at(&west, partition, lost.base_offset)?;
                // Else nothing was lost, and nothing is proven.
                ensure!(
                    again.partition_leader_epoch > lost.partition_leader_epoch,
                    "offset {} was never lost: leader epoch {} before, {} now",
                    lost.base_offset,
                    lost.partition_leader_epoch,
                    again.partition_leader_epoch
                );
                compare_ends(&east, &west, TOPIC)?;
                wait_no_lag(&node, WEST, LINK, TOPIC)?;
            }
            Outcome::Failed { partitions } => {
                eprintln!("stopped instead: {partitions:#?}");
                for (number, message) in partitions {
                    ensure!(
                        message.contains("offset"),
                        "partition {number} failed without an offset: {message}"
                    );
                }
                compare_what_is_there(&east, &west)?;
            }
        }
        node.sigterm()
    });
}

enum Outcome {
    CaughtUp,
    /// Error messages by partition.
    Failed {
        partitions: BTreeMap<i64, String>,
    },
}

fn outcome(node: &mut Node, east: &KafkaCluster, west: &KafkaCluster) -> Result<Outcome> {
    let wanted = RawReader::new(&east.bootstrap())?.ends(TOPIC)?;
    let mut reader = RawReader::new(&west.bootstrap())?;
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    loop {
        if reader.ends(TOPIC)? == wanted {
            check_active(node, WEST, LINK, TOPIC)?;
            return Ok(Outcome::CaughtUp);
        }
        node.check_running()?;
        let partitions = failed_partitions(node)?;
        if !partitions.is_empty() {
            return Ok(Outcome::Failed { partitions });
        }
        if Instant::now() >= deadline {
            let found = reader.ends(TOPIC)?;
            bail!(
                "neither caught up nor failed after {CATCH_UP_LIMIT:?}\n{}\n{}",
                ends_table(&wanted, &found),
                describe(node, LINK, TOPIC)
            );
        }
        std::thread::sleep(POLL);
    }
}

fn failed_partitions(node: &Node) -> Result<BTreeMap<i64, String>> {
    let mirror = node.mirror_json(WEST, LINK, TOPIC)?;
    let rows = mirror["mirror_lags"].as_array().with_context(|| format!("no partitions in {mirror}"))?;
    let failed = rows.iter().filter(|row| row["state"] == "FAILED");
    let named = failed.map(|row| {
        let number = row["partition"].as_i64().with_context(|| format!("no partition in {row}"))?;
        Ok((number, row["error_message"].as_str().unwrap_or_default().to_owned()))
    });
    named.collect()
}

/// The mirror of one partition grows by `more` records.
fn wait_mirrored(node: &mut Node, west: &KafkaCluster, partition: i32, more: i64) -> Result<()> {
    let mut reader = RawReader::new(&west.bootstrap())?;
    let deadline = Instant::now() + MIRRORED_LIMIT;
    let mut wanted = None;
    loop {
        let end = reader.ends_if_exists(TOPIC)?.and_then(|ends| ends.get(&partition).map(|(_, end)| *end));
        let end = end.unwrap_or(0);
        let wanted = *wanted.get_or_insert(end + more);
        if end >= wanted {
            return Ok(());
        }
        node.check_running()?;
        if Instant::now() >= deadline {
            bail!(
                "partition {partition}: {end} of {wanted} mirrored after {MIRRORED_LIMIT:?}\n{}",
                describe(node, LINK, TOPIC)
            );
        }
        std::thread::sleep(POLL);
    }
}

fn last_batch(west: &KafkaCluster, partition: i32) -> Result<RawBatch> {
    let end = RawReader::new(&west.bootstrap())?.log_end(TOPIC, partition)?;
    batch_at(west, partition, end - 1)
}

fn batch_at(west: &KafkaCluster, partition: i32, offset: i64) -> Result<RawBatch> {
    let batches = RawReader::new(&west.bootstrap())?.fetch(TOPIC, partition, offset)?;
    batches.into_iter().next().with_context(|| format!("nothing in partition {partition} at offset {offset}"))
}

/// Every batch of the mirror is the source's at its offset, up to wherever the mirror got.
fn compare_what_is_there(east: &KafkaCluster, west: &KafkaCluster) -> Result<()> {
    let mut source = RawReader::new(&east.bootstrap())?;
    let mut mirror = RawReader::new(&west.bootstrap())?;
    for (partition, (start, end)) in mirror.ends(TOPIC)? {
        let wanted = source.batches(TOPIC, partition, start..end);
        let found = mirror.batches(TOPIC, partition, start..end);
        let mut next = start;
        for (wanted, found) in wanted.zip(found) {
            let (wanted, found) = (wanted?, found?);
            ensure!(
                found.records()? == wanted.records()?,
                "partition {partition}: the batch at offset {} isn't the source's at {}",
                found.base_offset,
                wanted.base_offset
            );
            next = found.last_offset() + 1;
        }
        ensure!(next == end, "partition {partition}: compared up to {next}, the mirror ends at {end}");
    }
    Ok(())
}

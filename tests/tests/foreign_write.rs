//! A mirror topic is Lockstep's alone: what somebody else writes there stops the partition and is
//! named, and a topic that somebody else filled is no place for a mirror.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::client::{Batching, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare;
use tests::compare::Side;
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_link, create_mirror, describe, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::settled;
use tests::wire::{RawBatch, RawReader, TopicEnds};

const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 3;
const POLL: Duration = Duration::from_millis(200);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// A node tells what went wrong while it goes wrong; after a start it looks at both logs first.
const FAILED_LIMIT: Duration = Duration::from_secs(30);
/// Longer than anything that was under way takes to arrive.
const STAYS: Duration = Duration::from_secs(5);

/// What a topic must have so that nothing in it is changed on arrival.
const EXACT: [(&str, &str); 4] = [
    ("compression.type", "producer"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
];

const FOREIGN_PARTITION: i32 = 1;
const FOREIGN_RECORDS: u32 = 5;
/// Requests in flight for one partition.
const OURS_AFTER_MAX: usize = 5;
const RECORDS_BEFORE: u64 = 2_000;
const RECORDS_AFTER: u64 = 2_000;
const RECORDS_PER_SECOND: u32 = 1_000;

#[test]
fn a_foreign_write_stops_its_partition_by_name_and_no_other() {
    const TOPIC: &str = "orders";
    Scenario::run("foreign-write", |scenario| {
        let (east, west) = start_clusters(scenario)?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        produce(scenario, &east, TOPIC, RECORDS_BEFORE)?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;

        let west_bootstrap = west.bootstrap();
        let foreign =
            write_records(&west_bootstrap, TOPIC, FOREIGN_PARTITION, FOREIGN_RECORDS, Batching::Large)?;
        produce(scenario, &east, TOPIC, RECORDS_AFTER)?;
        wait_failed(&mut node, TOPIC)?;
        check_failure(&node, TOPIC, foreign.start)?;
        wait_others_caught_up(&east, &west, TOPIC)?;
        std::thread::sleep(STAYS);
        let stopped_at = RawReader::new(&west_bootstrap)?.ends(TOPIC)?;
        check_partition(&east, &west, TOPIC, &foreign)?;
        for partition in [0, 2] {
            check_equal(&east, &west, TOPIC, partition)?;
        }

        node.kill9()?;
        node.restart()?;
        check_failure(&node, TOPIC, foreign.start).context("after a restart")?;
        produce(scenario, &east, TOPIC, RECORDS_AFTER)?;
        wait_others_caught_up(&east, &west, TOPIC)?;
        check_failure(&node, TOPIC, foreign.start).context("after a restart and more records")?;
        ensure!(
            ends_of(&west, TOPIC, FOREIGN_PARTITION)? == stopped_at[&FOREIGN_PARTITION],
            "written after it failed"
        );

        node.cli(&["mirror", "delete", TOPIC, "--link", LINK, "--yes"])?;
        let left = RawReader::new(&west_bootstrap)?.ends(TOPIC)?;
        produce(scenario, &east, TOPIC, RECORDS_AFTER)?;
        std::thread::sleep(STAYS);
        let gone = node.mirror_json(WEST, LINK, TOPIC);
        ensure!(gone.as_ref().is_err_and(|e| e.to_string().contains("404")), "a deleted mirror: {gone:?}");
        ensure!(
            RawReader::new(&west_bootstrap)?.ends(TOPIC)? == left,
            "written after its mirror was deleted"
        );
        node.sigterm()
    });
}

#[test]
fn a_foreign_write_while_the_node_is_down_is_found_at_its_start() {
    const TOPIC: &str = "ledger";
    Scenario::run("foreign-at-start", |scenario| {
        let (east, west) = start_clusters(scenario)?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        produce(scenario, &east, TOPIC, RECORDS_BEFORE)?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        node.kill9()?;
        // Several batches: the first one is to be named, not the last.
        let foreign =
            write_records(&west.bootstrap(), TOPIC, FOREIGN_PARTITION, FOREIGN_RECORDS, Batching::Single)?;
        produce(scenario, &east, TOPIC, RECORDS_AFTER)?;
        node.restart()?;
        wait_failed(&mut node, TOPIC)?;
        check_failure(&node, TOPIC, foreign.start)?;
        let counted = node.metric("lockstep_foreign_write_total")?;
        ensure!(counted == 1.0, "{counted} foreign writes counted");
        wait_others_caught_up(&east, &west, TOPIC)?;
        let end = ends_of(&west, TOPIC, FOREIGN_PARTITION)?.1;
        ensure!(
            end == foreign.end,
            "foreign {foreign:?}, log end {end}: written behind what was there before"
        );
        node.sigterm()
    });
}

/// Nothing comes from the source that would run into it.
#[test]
fn a_foreign_write_to_an_idle_mirror_is_noticed_and_told_with_its_size() {
    const TOPIC: &str = "quiet";
    Scenario::run("foreign-while-idle", |scenario| {
        let (east, west) = start_clusters(scenario)?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        produce(scenario, &east, TOPIC, RECORDS_BEFORE)?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        settled::wait_no_lag(&node, WEST, LINK, TOPIC)?;

        let write =
            || write_records(&west.bootstrap(), TOPIC, FOREIGN_PARTITION, FOREIGN_RECORDS, Batching::Single);
        let first = write()?.start;
        wait_failed(&mut node, TOPIC)?;
        let told = |total: u32| {
            check_failure(&node, TOPIC, first)?;
            let mirror = node.mirror_json(WEST, LINK, TOPIC)?;
            let size = format!(
                "{total} offsets from {first} on are not the source's ({total} of others and 0 of ours"
            );
            let message = mirror["mirror_topic_error_message"].as_str().context("a message")?;
            ensure!(message.contains(&size), "{size:?} isn't in {message:?}");
            Ok(())
        };
        // Batches of one record: noticed after the first of them or after the last.
        check_failure(&node, TOPIC, first)?;
        write()?;
        node.cli(&["mirror", "resume", TOPIC, "--link", LINK])?;
        let both = poll_until(FAILED_LIMIT, POLL, || told(2 * FOREIGN_RECORDS).is_ok().then_some(()));
        both.map_or_else(|| told(2 * FOREIGN_RECORDS).context("after a resume"), Ok)?;
        node.sigterm()
    });
}

#[test]
fn only_an_empty_topic_of_the_same_shape_is_taken_for_a_mirror() {
    Scenario::run("existing-topic", |scenario| {
        let (east, west) = start_clusters(scenario)?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_link(&node, &east, &west, LINK)?;
        for topic in ["filled", "narrow", "squeezed", "ready"] {
            create_topic(&east.bootstrap(), topic, PARTITIONS, &[])?;
            produce(scenario, &east, topic, RECORDS_BEFORE)?;
        }
        create_topic(&west.bootstrap(), "filled", PARTITIONS, &EXACT)?;
        create_topic(&west.bootstrap(), "narrow", PARTITIONS - 1, &EXACT)?;
        create_topic(&west.bootstrap(), "ready", PARTITIONS, &EXACT)?;
        let squeezed: Vec<(&str, &str)> = EXACT
            .into_iter()
            .map(|(key, value)| (key, if value == "producer" { "gzip" } else { value }))
            .collect();
        create_topic(&west.bootstrap(), "squeezed", PARTITIONS, &squeezed)?;
        write_records(&west.bootstrap(), "filled", 2, 1, Batching::Large)?;

        check_refused(&node, "filled", &["'filled'", "isn't empty", "partition 2", "offset 1"])?;
        check_refused(&node, "narrow", &["'narrow'", "2 partitions", "the source 3"])?;
        check_refused(&node, "squeezed", &["'squeezed'", "compression.type is gzip and must be producer"])?;
        node.cli(&["mirror", "create", "ready", "--link", LINK])?;
        wait_caught_up(&mut node, &east, &west, (LINK, "ready"), CATCH_UP_LIMIT)?;
        for partition in 0..PARTITIONS {
            check_equal(&east, &west, "ready", partition)?;
        }
        ensure!(ends_of(&west, "filled", 2)? == (0, 1), "a refused topic was written to");
        node.sigterm()
    });
}

fn start_clusters(scenario: &Scenario) -> Result<(KafkaCluster, KafkaCluster)> {
    let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
    let west = KafkaCluster::start(KafkaConfig::single(WEST, scenario.directory()))?;
    Ok((east, west))
}

/// Varied records in all partitions.
fn produce(scenario: &Scenario, cluster: &KafkaCluster, topic: &str, count: u64) -> Result<()> {
    let load = Load::start(&LoadConfig {
        bootstrap: cluster.bootstrap(),
        topic: topic.to_owned(),
        partitions: PARTITIONS,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })?;
    load.wait_acknowledged(count, CATCH_UP_LIMIT)?;
    load.stop().map(drop)
}

/// Waits until the mirror is FAILED, and returns it.
fn wait_failed(node: &mut Node, topic: &str) -> Result<Value> {
    let deadline = Instant::now() + FAILED_LIMIT;
    loop {
        let mirror = node.mirror_json(WEST, LINK, topic)?;
        if mirror["mirror_status"] == "FAILED" {
            return Ok(mirror);
        }
        node.check_running()?;
        if Instant::now() >= deadline {
            bail!("the mirror hasn't failed after {FAILED_LIMIT:?}:\n{}", describe(node, LINK, topic));
        }
        std::thread::sleep(POLL);
    }
}

fn check_failure(node: &Node, topic: &str, first_foreign: i64) -> Result<()> {
    check_rows(node, topic, FOREIGN_PARTITION, first_foreign)
}

/// One partition FAILED, with FOREIGN_WRITE and where; the mirror says the same; no other failed.
fn check_rows(node: &Node, topic: &str, failed: i32, first_foreign: i64) -> Result<()> {
    let mirror = node.mirror_json(WEST, LINK, topic)?;
    let told = || format!("first foreign offset {first_foreign} in partition {failed}: {mirror:#}");
    let names_it = |message: &Value| {
        message.as_str().is_some_and(|message| message.contains(&format!("at offset {first_foreign}:")))
    };
    let whole = mirror["mirror_status"] == "FAILED"
        && mirror["mirror_topic_error"] == "FOREIGN_WRITE"
        && names_it(&mirror["mirror_topic_error_message"]);
    ensure!(whole, "the mirror's own fields; {}", told());
    for row in mirror["mirror_lags"].as_array().with_context(told)? {
        if row["partition"] == failed {
            let named = row["state"] == "FAILED"
                && row["error"] == "FOREIGN_WRITE"
                && names_it(&row["error_message"]);
            ensure!(named, "the partition's row; {}", told());
        } else {
            ensure!(
                row["state"] != "FAILED" && row["error"].is_null(),
                "another partition's row; {}",
                told()
            );
        }
    }
    Ok(())
}

/// Equal up to the foreign records; behind them, no more of ours than was in flight.
fn check_partition(
    east: &KafkaCluster,
    west: &KafkaCluster,
    topic: &str,
    foreign: &std::ops::Range<i64>,
) -> Result<()> {
    let mut source = RawReader::new(&east.bootstrap())?;
    let mut destination = RawReader::new(&west.bootstrap())?;
    let end = destination.log_end(topic, FOREIGN_PARTITION)?;
    let before: Vec<RawBatch> =
        source.batches(topic, FOREIGN_PARTITION, 0..foreign.start).collect::<Result<_>>()?;
    let found: Vec<RawBatch> =
        destination.batches(topic, FOREIGN_PARTITION, 0..end).collect::<Result<_>>()?;
    let ours = found.first().context("an empty mirror partition")?.producer_id;
    let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|batch| batch.producer_id == ours);
    let (ours_before, ours_after): (Vec<_>, Vec<_>) =
        ours.into_iter().partition(|batch| batch.base_offset < foreign.start);
    let offsets = |batches: &[RawBatch]| -> Vec<(i64, i64)> {
        batches.iter().map(|batch| (batch.base_offset, batch.last_offset())).collect()
    };
    ensure!(offsets(&ours_before) == offsets(&before), "not the source's batches before the foreign ones");
    let same = ours_before.iter().zip(&before).all(|(one, two)| one.payload == two.payload);
    ensure!(same, "not the source's bytes before the foreign ones");
    let theirs: i64 = others.iter().map(|batch| i64::from(batch.record_count)).sum();
    ensure!(theirs == i64::from(FOREIGN_RECORDS), "foreign batches {:?}", offsets(&others));
    eprintln!("foreign {foreign:?}; ours behind: {:?}", offsets(&ours_after));
    ensure!(!ours_after.is_empty(), "nothing of ours behind: then how was it noticed?");
    ensure!(ours_after.len() <= OURS_AFTER_MAX, "{} batches of ours behind", ours_after.len());
    Ok(())
}

fn wait_others_caught_up(east: &KafkaCluster, west: &KafkaCluster, topic: &str) -> Result<()> {
    let others = |cluster: &KafkaCluster| -> Result<TopicEnds> {
        let mut ends = RawReader::new(&cluster.bootstrap())?.ends(topic)?;
        ends.remove(&FOREIGN_PARTITION);
        Ok(ends)
    };
    let wanted = others(east)?;
    let caught_up = poll_until(CATCH_UP_LIMIT, POLL, || {
        others(west).map(|found| (found == wanted).then_some(())).transpose()
    });
    caught_up.unwrap_or_else(|| bail!("the other partitions aren't at {wanted:?} after {CATCH_UP_LIMIT:?}"))
}

fn check_equal(east: &KafkaCluster, west: &KafkaCluster, topic: &str, partition: i32) -> Result<()> {
    let side =
        |name, cluster: &KafkaCluster| Side { name, bootstrap: cluster.bootstrap(), topic: topic.to_owned() };
    let compared = compare::raw_partition(&side("source", east), &side("destination", west), partition)?;
    ensure!(compared.records > 0, "partition {partition} is empty at both ends");
    Ok(())
}

/// (first, next) offset of one partition.
fn ends_of(cluster: &KafkaCluster, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let ends = RawReader::new(&cluster.bootstrap())?.ends(topic)?;
    ends.get(&partition).copied().with_context(|| format!("{topic} has no partition {partition}"))
}

/// Exit code 1, a message with all of `named`, and no mirror.
fn check_refused(node: &Node, topic: &str, named: &[&str]) -> Result<()> {
    let Err(error) = node.cli(&["mirror", "create", topic, "--link", LINK]) else {
        bail!("topic {topic} was taken for a mirror");
    };
    let told = error.to_string();
    eprintln!("{told}");
    ensure!(told.contains("ended with exit status: 1\n"), "{told}");
    for name in named {
        ensure!(told.contains(name), "{name:?} isn't in the refusal: {told}");
    }
    let mirror = node.mirror_json(WEST, LINK, topic);
    ensure!(mirror.as_ref().is_err_and(|e| e.to_string().contains("404")), "refused, and there: {mirror:?}");
    Ok(())
}

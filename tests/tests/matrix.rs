//! Between every pair of Kafka versions, whatever a log can hold arrives as it is.
//!
//! A normal run takes one pair a test, drawn from the seed; `LOCKSTEP_TEST_ALL_CELLS=1` all of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::client::{Batching, add_partitions, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::{Load, LoadConfig, create_topic, every_profile};
use tests::mirror::{create_link, create_mirror, describe, wait_caught_up};
use tests::node::Node;
use tests::operator::set_topic_config;
use tests::poll_until;
use tests::scenario::{self, Scenario};
use tests::settled::{check_active, compare_ends, wait_no_lag};
use tests::shapes::{self, Census, write_every_shape};
use tests::wire::RawReader;

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
/// What the shapes stand between.
const RECORDS_PER_SECOND: u32 = 500;
/// Three destination brokers keep three copies of each record.
const CELLS: [Cell; 4] = [
    Cell { source: "3.9.1", destination: "3.9.1", destination_brokers: 1 },
    Cell { source: "3.9.1", destination: "4.4.0", destination_brokers: 3 },
    Cell { source: "4.4.0", destination: "3.9.1", destination_brokers: 3 },
    Cell { source: "4.4.0", destination: "4.4.0", destination_brokers: 1 },
];
/// About 250 MB in tens of thousands of batches, partly one at a time.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);

/// The first batches, and a refusal.
const PARKED_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Cell {
    source: &'static str,
    destination: &'static str,
    destination_brokers: u16,
}

/// Who says at the source that batches may be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Topic,
    Brokers,
}

#[test]
fn sixteen_partitions_of_every_shape_are_mirrored_exactly_while_they_grow() {
    for cell in cells(0) {
        run("matrix-16", cell, Limit::Topic, 16, 2);
    }
}

#[test]
fn one_partition_of_every_shape_is_mirrored_exactly() {
    for cell in cells(1) {
        run("matrix-1", cell, Limit::Brokers, 1, 0);
    }
}

/// What doesn't fit is named, holds up nobody else, and arrives once it fits.
#[test]
fn a_record_too_large_for_the_mirror_is_told_and_arrives_once_the_limit_is_raised() {
    for cell in cells(2) {
        Scenario::run(&format!("too-large-{}-{}", cell.source, cell.destination), |scenario| {
            let (east, west) = start_clusters(scenario, Cell { destination_brokers: 1, ..cell }, &[])?;
            create_topic(&east.bootstrap(), TOPIC, 2, &shapes::TOPIC_CONFIGS)?;
            let mut node = Node::bootstrap("node-1", scenario.directory())?;
            create_link(&node, &east, &west, LINK)?;
            // Else the mirror topic's limit follows the source's, and nothing is too large for long.
            node.cli(&["link", "update", LINK, "--config", "topic.config.sync.ms=86400000"])?;
            node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
            write_records(&east.bootstrap(), TOPIC, 0, 100, Batching::Large)?;
            wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;

            set_topic_config(&east.bootstrap(), TOPIC, "max.message.bytes", &shapes::batch_bytes_max())?;
            write_every_shape(&east.bootstrap(), TOPIC, 0..1, scenario.seed())?;
            let others = write_records(&east.bootstrap(), TOPIC, 1, 100, Batching::Large)?;
            let row = wait_parked(&node, 0)?;
            eprintln!("{row:#}");
            ensure!(row["error"] == "RECORD_TOO_LARGE", "parked for another reason: {row:#}");
            let message = row["error_message"].as_str().unwrap_or_default();
            ensure!(message.contains("raise max.message.bytes"), "the way out isn't named: {row:#}");
            wait_end(&west, 1, others.end)?;

            node.cli(&["link", "update", LINK, "--config", "topic.config.sync.ms=1000"])
                .context("the limit follows the source")?;
            wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
            Census::take(&east.bootstrap(), TOPIC)?.check_every_shape()?;
            compare_ends(&east, &west, TOPIC)?;
            wait_no_lag(&node, WEST, LINK, TOPIC)?;
            check_active(&node, WEST, LINK, TOPIC)?;
            node.sigterm()
        });
    }
}

fn wait_parked(node: &Node, partition: i64) -> Result<Value> {
    poll_until(PARKED_LIMIT, POLL, || {
        let mirror = node.mirror_json(WEST, LINK, TOPIC).ok()?;
        let rows = mirror["mirror_lags"].as_array()?;
        let row = rows.iter().find(|row| row["partition"] == partition)?;
        (row["state"] == "PARKED").then(|| row.clone())
    })
    .with_context(|| format!("not PARKED after {PARKED_LIMIT:?}: {}", describe(node, LINK, TOPIC)))
}

fn wait_end(cluster: &KafkaCluster, partition: i32, wanted: i64) -> Result<()> {
    let mut reader = RawReader::new(&cluster.bootstrap())?;
    let there = || reader.log_end(TOPIC, partition).map(|end| (end >= wanted).then_some(())).transpose();
    let reached = poll_until(CATCH_UP_LIMIT, POLL, there);
    reached.with_context(|| format!("partition {partition} doesn't reach {wanted}"))?
}

/// Another one for each test of a run.
fn cells(test: usize) -> Vec<Cell> {
    if scenario::all_cells() {
        return CELLS.to_vec();
    }
    let seed = scenario::seed().expect("a seed");
    vec![CELLS[(seed as usize + test) % CELLS.len()]]
}

/// With more than one partition the last one stays empty, also once `added` have come.
fn run(name: &str, cell: Cell, limit: Limit, partitions: i32, added: i32) {
    Scenario::run(&format!("{name}-{}-{}", cell.source, cell.destination), |scenario| {
        eprintln!("{cell:?}, {limit:?}");
        let bytes_max = shapes::batch_bytes_max();
        let (of_topic, of_brokers) = match limit {
            Limit::Topic => (Some(("max.message.bytes", &*bytes_max)), None),
            Limit::Brokers => (None, Some(("message.max.bytes", &*bytes_max))),
        };
        let (east, west) = start_clusters(scenario, cell, of_brokers.as_slice())?;
        let configs: Vec<(&str, &str)> = shapes::TOPIC_CONFIGS.into_iter().chain(of_topic).collect();
        create_topic(&east.bootstrap(), TOPIC, partitions, &configs)?;
        scenario.note("clusters up");
        let filled = |partitions: i32| 0..(partitions - 1).max(1);

        let write = |partitions, turn| {
            write_every_shape(
                &east.bootstrap(),
                TOPIC,
                filled(partitions),
                scenario.seed().wrapping_add(turn),
            )
        };
        let mut written = write(partitions, 0).context("before the mirror")?;
        scenario.note(&format!("{written} records written"));
        let load = start_load(scenario, &east, filled(partitions).end)?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        if added > 0 {
            add_partitions(&east.bootstrap(), TOPIC, (partitions + added) as usize)?;
        }
        written += write(partitions + added, 1).context("while mirroring")?;
        written += load.stop()?.total();

        scenario.note(&format!("{written} records written"));
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        scenario.note("caught up");
        let census = Census::take(&east.bootstrap(), TOPIC)?;
        census.check_every_shape()?;
        let empty = u32::from(partitions > 1);
        ensure!(census.empty_partitions == empty, "{} empty partitions", census.empty_partitions);
        scenario.note("every record counted");
        let records = compare_ends(&east, &west, TOPIC)?;
        ensure!(records == written, "{records} at both ends, {written} acknowledged");
        wait_no_lag(&node, WEST, LINK, TOPIC)?;
        check_active(&node, WEST, LINK, TOPIC)?;
        node.sigterm()
    });
}

fn start_clusters(
    scenario: &Scenario,
    cell: Cell,
    source_properties: &[(&str, &str)],
) -> Result<(KafkaCluster, KafkaCluster)> {
    let mut east = KafkaConfig::single("east", scenario.directory());
    east.version = cell.source.to_owned();
    for (key, value) in source_properties {
        east = east.property(key, value);
    }
    let mut west = KafkaConfig::single(WEST, scenario.directory());
    west.version = cell.destination.to_owned();
    west.brokers = cell.destination_brokers;
    Ok((KafkaCluster::start(east)?, KafkaCluster::start(west)?))
}

fn start_load(scenario: &Scenario, east: &KafkaCluster, partitions: i32) -> Result<Load> {
    Load::start(&LoadConfig {
        bootstrap: east.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions,
        profiles: every_profile(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })
}

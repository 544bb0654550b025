//! The promise the product stands on: whatever happens to the node, the mirror ends up with the
//! same records at the same offsets, byte for byte, none lost, none twice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::node::Node;
use tests::scenario::Scenario;
use tests::wire::{RawReader, TopicEnds};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const PARTITIONS: i32 = 16;
/// About 1 MB/s: every partition has something in flight at each kill, and two brokers on two
/// cores keep up.
const RECORDS_PER_SECOND: u32 = 1_500;

const KILLS: u32 = 20;
/// From "still starting" to "settled and idle".
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 200..=3_000;
/// A mirror of this load is seconds behind at most; the rest is for retries with back-off.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
const CATCH_UP_POLL: Duration = Duration::from_millis(500);

#[test]
fn a_mirror_is_exact_after_twenty_kills_of_its_node() {
    Scenario::run("mirror-survives-kills", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let west = KafkaCluster::start(KafkaConfig::single("west", scenario.directory()))?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let load = Load::start(&LoadConfig {
            bootstrap: east.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: Duration::ZERO,
        })?;

        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west)?;

        let mut rng = scenario.rng();
        let mut west_reader = RawReader::new(&west.bootstrap())?;
        let (mut during, mut lives_with_progress) = (0, 0);
        for kill in 1..=KILLS {
            let wait = Duration::from_millis(rng.random_range(KILL_AFTER_MS));
            std::thread::sleep(wait);
            node.kill9().with_context(|| format!("kill {kill}"))?;
            let now = mirrored(&mut west_reader)?;
            lives_with_progress += u32::from(now > during);
            during = now;
            node.restart().with_context(|| format!("after kill {kill}, {wait:?} after the start"))?;
        }
        eprintln!("{during} offsets mirrored during the kills, in {lives_with_progress} of {KILLS} lives");
        // Kills that hit an idle mirror would prove nothing.
        ensure!(during > 0, "nothing was mirrored between the first and the last kill");

        let report = load.stop()?;
        wait_caught_up(&mut node, &east, &west)?;
        eprintln!("caught up; {} records acknowledged", report.total());

        let source = Side { name: "source", bootstrap: east.bootstrap(), topic: TOPIC.to_owned() };
        let destination = Side { name: "destination", bootstrap: west.bootstrap(), topic: TOPIC.to_owned() };
        let by_batch = compare::raw_batches(&source, &destination)?;
        let by_record = compare::records(&source, &destination)?;
        eprintln!("equal by batch {by_batch:?}, by record {by_record:?}");
        ensure!(by_batch.records == report.total(), "{by_batch:?}, acknowledged {}", report.total());
        ensure!(by_record.records == report.total(), "{by_record:?}, acknowledged {}", report.total());
        node.sigterm()
    });
}

fn create_mirror(node: &Node, east: &KafkaCluster, west: &KafkaCluster) -> Result<()> {
    for cluster in [east, west] {
        node.cli(&["cluster", "create", cluster.name(), "--bootstrap-server", &cluster.bootstrap()])?;
    }
    node.cli(&["link", "create", LINK, "--source", east.name(), "--destination", west.name()])?;
    node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
    Ok(())
}

/// Offsets at the destination, over all partitions; 0 while it has no such topic.
fn mirrored(west: &mut RawReader) -> Result<i64> {
    let ends = west.ends_if_exists(TOPIC)?.unwrap_or_default();
    Ok(ends.values().map(|(_, end)| end).sum())
}

/// The source is quiet: waits until the destination's log ends are the source's.
fn wait_caught_up(node: &mut Node, east: &KafkaCluster, west: &KafkaCluster) -> Result<()> {
    let wanted = RawReader::new(&east.bootstrap())?.ends(TOPIC)?;
    let mut reader = RawReader::new(&west.bootstrap())?;
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    loop {
        let found = reader.ends_if_exists(TOPIC)?.unwrap_or_default();
        if found == wanted {
            return Ok(());
        }
        node.check_running()?;
        if Instant::now() >= deadline {
            bail!(
                "the mirror has not caught up after {CATCH_UP_LIMIT:?}\n{}\n{}",
                ends_table(&wanted, &found),
                describe(node)
            );
        }
        std::thread::sleep(CATCH_UP_POLL);
    }
}

/// Only what differs, a line a partition.
fn ends_table(source: &TopicEnds, destination: &TopicEnds) -> String {
    let mut lines = vec!["partition: (first, next) offset at the source, at the destination".to_owned()];
    for (partition, ends) in source {
        let found = destination.get(partition);
        if found != Some(ends) {
            lines.push(format!("{partition:9}: {ends:?}, {found:?}"));
        }
    }
    lines.join("\n")
}

/// What the product itself says, or why it says nothing.
fn describe(node: &Node) -> String {
    let told = node.cli(&["mirror", "describe", TOPIC, "--link", LINK, "-o", "json"]);
    told.unwrap_or_else(|error| format!("{error:#}"))
}

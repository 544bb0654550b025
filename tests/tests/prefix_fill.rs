//! A source that has deleted records before its mirror began: the mirror starts at the same
//! offsets, whenever its node is killed, and again when a broker has lost the cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tests::client::{Batching, delete_records, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, describe, ends_table, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::settled::{check_active, wait_no_lag};
use tests::wire::{RawReader, TopicEnds};

const TOPIC: &str = "history";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 4;

/// Partitions 0 to 2 are under load; of partition 0 nothing is deleted.
const LOADED: i32 = 3;
/// A long prefix of several filler batches (200,000 each), deleted into the middle of a batch.
const LONG: i32 = 1;
const LONG_RECORDS: u32 = 900_000;
const LONG_LEFT: std::ops::Range<i64> = 10_000..60_000;
/// Deleted anywhere, so that the first batch may be the one that holds the log start.
const SHORT: i32 = 2;
const SHORT_RECORDS: u32 = 100_000;
/// Deleted to its end.
const EMPTIED: i32 = 3;
const EMPTIED_RECORDS: u32 = 450_000;
const WRITTEN_TO_EMPTIED: u32 = 100;
const RECORDS_PER_SECOND: u32 = 300;
const WRITTEN_LIMIT: Duration = Duration::from_secs(30);

/// Brokers write log starts down 30 s after their start and every minute from then on; one that
/// doesn't do the latter loses the cut for sure.
const CUT_UNWRITTEN: (&str, &str) = ("log.flush.start.offset.checkpoint.interval.ms", "3600000");
/// From "nothing recorded" to "topic and prefix just recorded".
const EARLY_KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 0..=300;
/// Every life but the first waits 20 s before it goes on with a fill: fillers are old records.
const FILL_LIMIT: Duration = Duration::from_secs(60);
const FILL_POLL: Duration = Duration::from_millis(2);
const SHOWN_LIMIT: Duration = Duration::from_secs(30);
const RECUT_LIMIT: Duration = Duration::from_secs(60);
/// A cut counts once it has stood for longer than a minute.
const SETTLED_LIMIT: Duration = Duration::from_secs(110);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

#[test]
fn a_mirror_starts_where_its_source_starts_whatever_is_killed_during_the_fill() {
    Scenario::run("prefix-fill", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let forgetful =
            KafkaConfig::single(WEST, scenario.directory()).property(CUT_UNWRITTEN.0, CUT_UNWRITTEN.1);
        let mut west = KafkaCluster::start(forgetful)?;
        let mut rng = scenario.rng();
        let (load, starts) = prepare_source(scenario, &east, &mut rng)?;

        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        let mut stage = Fill { west: RawReader::new(&west.bootstrap())?, starts, hits: 0 };
        kill_early(&mut node, &mut rng)?;
        stage.kill_when_filling(&mut node)?;
        kill_early(&mut node, &mut rng)?;
        stage.kill_when_filling(&mut node)?;
        // Kills before or after the fill would prove nothing of it.
        ensure!(stage.hits > 0, "no kill hit a fill that was under way");

        wait_status(&node, "PENDING_SYNCHRONIZE", SHOWN_LIMIT)?;
        stage.wait_cut(&mut node, FILL_LIMIT)?;
        let shown = status(&node)?;
        ensure!(shown == "PENDING_SYNCHRONIZE", "{shown} though the cut may still be lost");

        // Held, so that what the broker lost is seen before it is made good.
        node.pause()?;
        west.kill(1)?;
        west.restart(1)?;
        let found = stage.west.ends(TOPIC)?;
        node.resume()?;
        let lost: Vec<i32> = stage.uncut(&found);
        eprintln!("cuts lost with the broker: partitions {lost:?}");
        ensure!(!lost.is_empty(), "the broker lost no cut, so nothing is proven: {found:?}");
        let before = load.acknowledged();
        stage.wait_cut(&mut node, RECUT_LIMIT)?;
        load.wait_acknowledged(before + u64::from(RECORDS_PER_SECOND), WRITTEN_LIMIT)?;
        load.stop()?;
        write_records(&east.bootstrap(), TOPIC, EMPTIED, WRITTEN_TO_EMPTIED, Batching::Large)?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        compare_what_is_left(&east, &west)?;

        wait_status(&node, "ACTIVE", SETTLED_LIMIT)?;
        check_active(&node, WEST, LINK, TOPIC)?;
        wait_no_lag(&node, WEST, LINK, TOPIC)?;
        compare_what_is_left(&east, &west)?;
        node.sigterm()
    });
}

/// A source with a past, a live load, and where its logs start: all of them by partition.
fn prepare_source(
    scenario: &Scenario,
    east: &KafkaCluster,
    rng: &mut StdRng,
) -> Result<(Load, BTreeMap<i32, i64>)> {
    let bootstrap = east.bootstrap();
    create_topic(&bootstrap, TOPIC, PARTITIONS, &[])?;
    let started = Instant::now();
    for (partition, count) in [(LONG, LONG_RECORDS), (SHORT, SHORT_RECORDS), (EMPTIED, EMPTIED_RECORDS)] {
        write_records(&bootstrap, TOPIC, partition, count, Batching::Large)?;
    }
    eprintln!("a past written in {:?}", started.elapsed());
    let mut reader = RawReader::new(&bootstrap)?;
    let long = inside_a_batch(&mut reader, LONG, || i64::from(LONG_RECORDS) - rng.random_range(LONG_LEFT))?;
    let short = rng.random_range(1..i64::from(SHORT_RECORDS));
    let starts =
        BTreeMap::from([(0, 0), (LONG, long), (SHORT, short), (EMPTIED, i64::from(EMPTIED_RECORDS))]);
    let load = Load::start(&LoadConfig {
        bootstrap: bootstrap.clone(),
        topic: TOPIC.to_owned(),
        partitions: LOADED,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })?;
    load.wait_acknowledged(u64::from(RECORDS_PER_SECOND), WRITTEN_LIMIT)?;
    let deleted: Vec<(i32, i64)> = starts
        .iter()
        .filter(|(_, start)| **start > 0)
        .map(|(partition, start)| (*partition, *start))
        .collect();
    delete_records(&bootstrap, TOPIC, &deleted)?;
    eprintln!("log starts at the source: {starts:?}");
    Ok((load, starts))
}

/// An offset that `draw` yields and that isn't the first of its batch.
fn inside_a_batch(reader: &mut RawReader, partition: i32, mut draw: impl FnMut() -> i64) -> Result<i64> {
    const DRAWS_MAX: u32 = 100;
    for _ in 0..DRAWS_MAX {
        let offset = draw();
        let batches = reader.fetch(TOPIC, partition, offset)?;
        let holder = batches.first().with_context(|| format!("no batch at offset {offset}"))?;
        if holder.base_offset < offset && offset <= holder.last_offset() {
            return Ok(offset);
        }
    }
    bail!("no offset inside a batch in {DRAWS_MAX} draws: are there batches of several records?")
}

fn kill_early(node: &mut Node, rng: &mut StdRng) -> Result<()> {
    std::thread::sleep(Duration::from_millis(rng.random_range(EARLY_KILL_AFTER_MS)));
    node.kill9()?;
    node.restart()
}

/// The mirror while it is filled.
struct Fill {
    west: RawReader,
    /// Where the source's logs start.
    starts: BTreeMap<i32, i64>,
    /// Kills with a partition filled in part.
    hits: u32,
}

impl Fill {
    /// Kills the node as soon as the long prefix has grown in this life.
    fn kill_when_filling(&mut self, node: &mut Node) -> Result<()> {
        let started = Instant::now();
        let before = self.filled()?;
        let grown = poll_until(FILL_LIMIT, FILL_POLL, || {
            self.filled().map(|now| (now > before).then_some(())).transpose()
        });
        grown.unwrap_or_else(|| bail!("no filler in {FILL_LIMIT:?}\n{}", describe(node, LINK, TOPIC)))?;
        node.kill9()?;
        let found = self.ends()?;
        let in_part = |(partition, start): (&i32, &i64)| {
            found.get(partition).is_some_and(|(_, end)| (1..*start).contains(end))
        };
        self.hits += u32::from(self.starts.iter().any(in_part));
        eprintln!("killed {:?} after its start with {found:?}", started.elapsed());
        node.restart()
    }

    /// The log end of the long prefix.
    fn filled(&mut self) -> Result<i64> {
        Ok(self.ends()?.get(&LONG).map_or(0, |(_, end)| *end))
    }

    fn ends(&mut self) -> Result<TopicEnds> {
        Ok(self.west.ends_if_exists(TOPIC)?.unwrap_or_default())
    }

    /// Waits until every partition starts where the source's does.
    fn wait_cut(&mut self, node: &mut Node, limit: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let found = self.ends()?;
            if found.len() == self.starts.len() && self.uncut(&found).is_empty() {
                eprintln!("log starts equal after {:?}", started.elapsed());
                return Ok(());
            }
            node.check_running()?;
            if started.elapsed() >= limit {
                let wanted =
                    self.starts.iter().map(|(partition, start)| (*partition, (*start, -1))).collect();
                bail!(
                    "log starts differ after {limit:?}\n{}\n{}",
                    ends_table(&wanted, &found),
                    describe(node, LINK, TOPIC)
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Partitions that don't start where the source's do.
    fn uncut(&self, found: &TopicEnds) -> Vec<i32> {
        let starts_there = |(partition, start): &(&i32, &i64)| {
            found.get(*partition).is_some_and(|(first, _)| first == *start)
        };
        self.starts.iter().filter(|pair| !starts_there(pair)).map(|(partition, _)| *partition).collect()
    }
}

/// What `mirror describe` says of the whole mirror.
fn status(node: &Node) -> Result<String> {
    let told = node.cli(&["mirror", "describe", TOPIC, "--link", LINK, "-o", "json"])?;
    let shown: Value = serde_json::from_str(&told).with_context(|| format!("not JSON: {told}"))?;
    Ok(shown["mirror_status"].as_str().with_context(|| format!("no status: {told}"))?.to_owned())
}

fn wait_status(node: &Node, wanted: &str, limit: Duration) -> Result<()> {
    let started = Instant::now();
    let seen =
        poll_until(limit, POLL, || status(node).map(|found| (found == wanted).then_some(())).transpose());
    seen.unwrap_or_else(|| bail!("not {wanted} after {limit:?}:\n{}", describe(node, LINK, TOPIC)))?;
    eprintln!("{wanted} after {:?}", started.elapsed());
    Ok(())
}

fn compare_what_is_left(east: &KafkaCluster, west: &KafkaCluster) -> Result<()> {
    let side =
        |name, cluster: &KafkaCluster| Side { name, bootstrap: cluster.bootstrap(), topic: TOPIC.to_owned() };
    let (source, destination) = (side("source", east), side("destination", west));
    let by_batch = compare::raw_batches(&source, &destination)?;
    let by_record = compare::records(&source, &destination)?;
    eprintln!("equal by batch {by_batch:?}, by record {by_record:?}");
    let ends = RawReader::new(&west.bootstrap())?.ends(TOPIC)?;
    let left: i64 = ends.values().map(|(start, end)| end - start).sum();
    // A batch that holds a log start is compared whole, so batches hold more.
    ensure!(i64::try_from(by_record.records)? == left, "{left} offsets at the destination, {by_record:?}");
    ensure!(by_batch.records > by_record.records, "no log start inside a batch: {by_batch:?}, {by_record:?}");
    Ok(())
}

//! Mirror topics become ordinary topics: promoted with everything that the source had, failed over with
//! what is there, and nothing of ours is written afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use serde_json::Value;
use tests::client::own_topic_configs;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, LoadReport, PROFILES, create_topic};
use tests::mirror::{create_mirror, describe, mirrored};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::settled::check_active;
use tests::stopped;
use tests::wire::RawReader;

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 3;
const RECORDS_PER_SECOND: u32 = 600;

const MIRRORED_LIMIT: Duration = Duration::from_secs(60);
/// Ten quiet seconds, a start after a kill, and the fence.
const STOP_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
const WRITTEN: u64 = 1_500;
/// Above every pause that a node makes before it tries something again.
const STAYS: Duration = Duration::from_secs(12);
/// From the order to stop until the node is killed: anywhere in the fence.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 0..=300;

#[test]
fn a_promoted_topic_has_every_record_and_takes_its_clients_own() {
    Scenario::run("promote", |scenario| {
        scenario.each_version(|version, parent| promote(scenario, version, parent))
    });
}

#[test]
fn a_failover_without_its_source_and_through_a_kill_keeps_what_is_there() {
    Scenario::run("failover", |scenario| {
        scenario.each_version(|version, parent| fail_over(scenario, version, parent))
    });
}

struct Stage {
    east: KafkaCluster,
    west: KafkaCluster,
    node: Node,
}

impl Stage {
    /// A mirror under load.
    fn start(scenario: &Scenario, version: &str, parent: &Path) -> Result<(Stage, Load)> {
        let cluster = |name: &str| KafkaCluster::start(KafkaConfig::single(name, parent).version(version));
        let (east, west) = (cluster("east")?, cluster(WEST)?);
        create_topic(
            &east.bootstrap(),
            TOPIC,
            PARTITIONS,
            &[("compression.type", "lz4"), ("retention.ms", "86400000")],
        )?;
        let load = start_load(scenario, &east)?;
        let node = Node::bootstrap("node-1", parent)?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        let mut reader = RawReader::new(&west.bootstrap())?;
        let wanted = i64::try_from(WRITTEN)?;
        let begun = || mirrored(&mut reader, TOPIC).map(|count| (count > wanted).then_some(())).transpose();
        poll_until(MIRRORED_LIMIT, POLL, begun).unwrap_or_else(|| bail!("nothing mirrored"))?;
        Ok((Stage { east, west, node }, load))
    }

    fn mirror(&self) -> Result<Value> {
        self.node.mirror_json(WEST, LINK, TOPIC)
    }

    fn wait_stopped(&mut self, since: Instant) -> Result<Value> {
        loop {
            let mirror = self.mirror()?;
            if mirror["mirror_status"] == "STOPPED" {
                eprintln!("STOPPED after {:?}", since.elapsed());
                return Ok(mirror);
            }
            self.node.check_running()?;
            ensure!(since.elapsed() < STOP_LIMIT, "not STOPPED after {STOP_LIMIT:?}: {mirror:#}");
            std::thread::sleep(POLL);
        }
    }

    fn side(cluster: &KafkaCluster, name: &'static str) -> Side {
        Side { name, bootstrap: cluster.bootstrap(), topic: TOPIC.to_owned() }
    }

    /// Nothing is written by us, whatever the source does, and nothing can be done with it but forget it.
    fn check_is_ordinary(&mut self) -> Result<()> {
        let before = RawReader::new(&self.west.bootstrap())?.ends(TOPIC)?;
        for action in ["pause", "resume"] {
            let said = self.node.cli_said(&["mirror", action, TOPIC, "--link", LINK])?;
            ensure!(said.stderr.contains("has STOPPED"), "{action}: {said:?}");
        }
        std::thread::sleep(STAYS);
        let after = RawReader::new(&self.west.bootstrap())?.ends(TOPIC)?;
        ensure!(before == after, "written after STOPPED: {before:?}, {after:?}");
        self.node.cli(&["mirror", "failover", TOPIC, "--link", LINK, "--yes"]).context("twice is once")?;
        ensure!(self.mirror()?["mirror_status"] == "STOPPED");
        Ok(())
    }
}

fn start_load(scenario: &Scenario, cluster: &KafkaCluster) -> Result<Load> {
    Load::start(&LoadConfig {
        bootstrap: cluster.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })
}

fn promote(scenario: &Scenario, version: &str, parent: &Path) -> Result<()> {
    let (mut stage, load) = Stage::start(scenario, version, parent)?;
    let said = stage.node.cli_said(&["mirror", "promote", TOPIC, "--link", LINK, "--dry-run"])?;
    ensure!(said.status.success() && said.stderr.contains("Would promote orders"), "{said:?}");
    let asks = stage.node.cli_said(&["mirror", "promote", TOPIC, "--link", LINK])?;
    ensure!(asks.status.code() == Some(2) && asks.stderr.contains("--yes"), "{asks:?}");

    stage.node.cli(&["mirror", "promote", TOPIC, "--link", LINK, "--yes"])?;
    let waits = poll_until(MIRRORED_LIMIT, POLL, || {
        let mirror = stage.mirror().ok()?;
        Some(mirror["waiting_for"].as_str()?.to_owned())
            .filter(|_| mirror["mirror_status"] == "PENDING_STOPPED")
    });
    let waits = waits.context("it says what it waits for")?;
    ensure!(waits.contains("partition"), "{waits}");
    stage.node.cli(&["mirror", "promote", TOPIC, "--link", LINK, "--cancel"])?;
    check_active(&stage.node, WEST, LINK, TOPIC).context("cancelled")?;

    stage.node.cli(&["mirror", "promote", TOPIC, "--link", LINK, "--yes"])?;
    std::thread::sleep(STAYS);
    let mirror = stage.mirror()?;
    ensure!(mirror["mirror_status"] == "PENDING_STOPPED", "promoted under load: {mirror:#}");
    let report: LoadReport = load.stop()?;
    let since = Instant::now();
    // A node that dies meanwhile begins the quiet time again.
    stage.node.kill9()?;
    stage.node.restart()?;
    let mirror = stage.wait_stopped(since)?;
    let ends = stopped::ends(&mirror)?;
    let lags: Vec<&Value> =
        mirror["mirror_lags"].as_array().into_iter().flatten().map(|row| &row["lag"]).collect();
    ensure!(lags.iter().all(|lag| **lag == 0), "{mirror:#}");
    let compared = compare::raw_up_to(
        &Stage::side(&stage.east, "source"),
        &Stage::side(&stage.west, "destination"),
        &ends,
    )?;
    eprintln!("equal up to its end: {compared:?}");
    ensure!(compared.records == report.total(), "{} of {} acknowledged", compared.records, report.total());
    check_configs(&stage.west, Some("lz4"))?;
    stopped::write_on(start_load(scenario, &stage.west)?, &stage.west.bootstrap(), TOPIC, &ends)?;
    let more = start_load(scenario, &stage.east)?;
    stage.check_is_ordinary()?;
    more.stop()?;
    stage.node.cli(&["link", "delete", LINK, "--yes"]).context("a link of STOPPED mirrors")?;
    stage.node.sigterm()
}

fn fail_over(scenario: &Scenario, version: &str, parent: &Path) -> Result<()> {
    let (mut stage, load) = Stage::start(scenario, version, parent)?;
    stage.east.kill(1)?;
    drop(load);
    let since = Instant::now();
    stage.node.cli(&["mirror", "failover", TOPIC, "--link", LINK, "--yes"])?;
    let wait = Duration::from_millis(scenario.rng().random_range(KILL_AFTER_MS));
    std::thread::sleep(wait);
    let was = stage.mirror()?["mirror_status"].clone();
    stage.node.kill9()?;
    eprintln!("killed {wait:?} after the order, {was}");
    stage.node.restart()?;
    let said = stage.node.cli_said(&["mirror", "failover", TOPIC, "--link", LINK, "--yes", "--wait"])?;
    ensure!(
        said.status.success() && said.stderr.contains("has STOPPED"),
        "{said:?}\n{}",
        describe(&stage.node, LINK, TOPIC)
    );
    let mirror = stage.wait_stopped(since)?;
    ensure!(mirror["mirror_lags"][0]["lag"].is_null(), "the source is away: {mirror:#}");
    let ends = stopped::ends(&mirror)?;
    check_configs(&stage.west, None)?;
    stopped::write_on(start_load(scenario, &stage.west)?, &stage.west.bootstrap(), TOPIC, &ends)?;

    // What was mirrored is the source's, and nothing follows it although the source is back.
    stage.east.restart(1)?;
    stage.check_is_ordinary()?;
    let compared = compare::raw_up_to(
        &Stage::side(&stage.east, "source"),
        &Stage::side(&stage.west, "destination"),
        &ends,
    )?;
    eprintln!("equal up to its end: {compared:?}");
    ensure!(compared.records >= WRITTEN, "{compared:?}");
    stage.node.sigterm()
}

/// What was held while mirroring is free again.
fn check_configs(west: &KafkaCluster, compression: Option<&str>) -> Result<()> {
    let own = own_topic_configs(&west.bootstrap(), TOPIC)?;
    ensure!(own.get("compression.type").map(String::as_str) == compression, "{own:?}");
    ensure!(!own.contains_key("message.timestamp.after.max.ms"), "{own:?}");
    ensure!(own.get("retention.ms").map(String::as_str) == Some("86400000"), "{own:?}");
    Ok(())
}

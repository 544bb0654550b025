//! Whatever happens to the brokers on both sides, and to the node in the middle of it, the mirror
//! ends up with the same records at the same offsets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, describe, ends_table, wait_caught_up};
use tests::node::Node;
use tests::operator::{self, Placement};
use tests::scenario::Scenario;
use tests::settled::{check_active, compare_ends, wait_no_lag};
use tests::wire::{PartitionMetadata, RawBatch, RawReader};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 8;
/// Four brokers share two cores: what they keep up with beside their restarts.
const RECORDS_PER_SECOND: u32 = 600;
const VERSIONS: [&str; 2] = ["3.9.1", "4.4.0"];

/// Longer than a broker is held: it stays in sync by name all the while, so that the high watermark
/// can't follow the log end.
const SESSION_TIMEOUT: (&str, &str) = ("broker.session.timeout.ms", "18000");
const FOLLOWER_HELD: Duration = Duration::from_secs(15);
/// When, within that, the node is killed: with a request in doubt, and time left for a look at both
/// logs.
const NODE_KILLED_AFTER_MS: std::ops::RangeInclusive<u64> = 2_000..=8_000;
/// Longer than any request of the node's may take.
const NODE_HELD: Duration = Duration::from_secs(35);
/// From "the cluster hasn't noticed" to "some leaders have moved".
const BROKER_DOWN_MS: std::ops::RangeInclusive<u64> = 0..=4_000;
const BETWEEN_FAULTS_MS: std::ops::RangeInclusive<u64> = 500..=3_000;

/// A killed broker's session, its restart and its catching up.
const IN_SYNC_LIMIT: Duration = Duration::from_secs(90);
/// A fault that is over: back-off of up to 30 s, and the wait after a request in doubt.
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

/// Some batches, so that the mirror has a past.
const MIRRORED_FIRST: i64 = 200;
/// What only the partition leader has, and loses.
const MIRRORED_ALONE: i64 = 300;
const MIRRORED_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillDestinationBroker,
    HoldDestinationFollower,
    KillSourceBroker,
    HoldNode,
    MoveDestinationLeaders,
}

const FAULTS: [Fault; 6] = [
    Fault::KillDestinationBroker,
    Fault::KillDestinationBroker,
    Fault::HoldDestinationFollower,
    Fault::KillSourceBroker,
    Fault::HoldNode,
    Fault::MoveDestinationLeaders,
];

#[test]
fn a_mirror_is_exact_after_faults_of_brokers_on_both_sides() {
    Scenario::run("broker-faults", |scenario| {
        let mut rng = scenario.rng();
        let mut versions = VERSIONS;
        versions.shuffle(&mut rng);
        let mut faults = FAULTS;
        faults.shuffle(&mut rng);
        eprintln!("Kafka {versions:?}, {faults:?}");

        let (east, west) =
            start_clusters(scenario, versions, &[SESSION_TIMEOUT, ("min.insync.replicas", "2")])?;
        let load = start_load(scenario, &east)?;
        let node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        let mut stage = Stage { east, west, node, was_active: false, rng };
        stage.expect_progress().context("before the first fault")?;
        for fault in faults {
            let started = Instant::now();
            stage.strike(fault).with_context(|| format!("{fault:?}"))?;
            stage.expect_progress().with_context(|| format!("after {fault:?}"))?;
            stage.check()?;
            eprintln!("{fault:?} over, and mirroring, after {:?}", started.elapsed());
            stage.sleep(BETWEEN_FAULTS_MS);
        }

        let report = load.stop()?;
        let Stage { east, west, mut node, .. } = stage;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        wait_no_lag(&node, WEST, LINK, TOPIC)?;
        check_active(&node, WEST, LINK, TOPIC)?;
        let records = compare_ends(&east, &west, TOPIC)?;
        // A producer without idempotence may repeat what a killed broker took: more, never fewer.
        ensure!(records >= report.total(), "{records} at both ends, acknowledged {}", report.total());
        node.sigterm()
    });
}

/// Everything faults act upon.
struct Stage {
    east: KafkaCluster,
    west: KafkaCluster,
    node: Node,
    was_active: bool,
    rng: StdRng,
}

impl Stage {
    fn strike(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillDestinationBroker => self.kill_destination_broker(),
            Fault::HoldDestinationFollower => self.hold_destination_follower(),
            Fault::KillSourceBroker => {
                self.east.kill(1)?;
                self.sleep(BROKER_DOWN_MS);
                self.east.restart(1)
            }
            Fault::HoldNode => {
                self.node.pause()?;
                std::thread::sleep(NODE_HELD);
                self.node.resume()
            }
            Fault::MoveDestinationLeaders => self.move_destination_leaders(),
        }
    }

    fn kill_destination_broker(&mut self) -> Result<()> {
        let broker = self.any_destination_broker();
        self.west.kill(broker)?;
        self.sleep(BROKER_DOWN_MS);
        self.west.restart(broker)?;
        self.wait_in_sync().map(drop)
    }

    /// Everything the held broker follows is appended by its leader and not acknowledged; the node
    /// dies with that in doubt, and the next life finds log end and high watermark apart.
    fn hold_destination_follower(&mut self) -> Result<()> {
        let broker = self.any_destination_broker();
        self.west.pause(broker)?;
        let held = Instant::now();
        self.sleep(NODE_KILLED_AFTER_MS);
        self.node.kill9()?;
        self.node.restart()?;
        std::thread::sleep(FOLLOWER_HELD.saturating_sub(held.elapsed()));
        self.west.resume(broker)?;
        self.wait_in_sync().map(drop)
    }

    /// Away by a controlled shutdown, then back by preferred leader election.
    fn move_destination_leaders(&mut self) -> Result<()> {
        let broker = self.any_destination_broker();
        self.west.stop_broker(broker)?;
        self.west.restart(broker)?;
        let before = self.wait_in_sync()?;
        let partitions: Vec<i32> = before.keys().copied().collect();
        let moved = operator::elect_preferred_leaders(&self.west.bootstrap(), TOPIC, &partitions)?;
        ensure!(moved > 0, "no leader had to move: {before:?}");
        let is_preferred = |_: i32, found: &PartitionMetadata| found.replicas.first() == Some(&found.leader);
        let bootstrap = self.west.bootstrap();
        operator::wait_placement(&bootstrap, TOPIC, IN_SYNC_LIMIT, "led by preferred leaders", is_preferred)?;
        eprintln!("{moved} partition leaders moved back to broker {broker}");
        Ok(())
    }

    fn any_destination_broker(&mut self) -> u16 {
        self.rng.random_range(1..=3)
    }

    /// Faults overlap with mirroring, not with each other: two brokers short, min.insync.replicas
    /// would stop all producing.
    fn wait_in_sync(&self) -> Result<Placement> {
        let in_sync = |_: i32, found: &PartitionMetadata| found.leader >= 0 && found.in_sync.len() == 3;
        operator::wait_placement(&self.west.bootstrap(), TOPIC, IN_SYNC_LIMIT, "in sync", in_sync)
    }

    /// What the source holds now is mirrored in time, with the load going on.
    fn expect_progress(&mut self) -> Result<()> {
        let wanted = RawReader::new(&self.east.bootstrap())?.ends(TOPIC)?;
        let mut reader = RawReader::new(&self.west.bootstrap())?;
        let deadline = Instant::now() + PROGRESS_LIMIT;
        loop {
            let found = reader.ends_if_exists(TOPIC)?.unwrap_or_default();
            let reached =
                |(number, end): (&i32, &(i64, i64))| found.get(number).is_some_and(|at| at.1 >= end.1);
            if wanted.iter().all(reached) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() >= deadline {
                bail!(
                    "what the source held {PROGRESS_LIMIT:?} ago isn't mirrored\n{}\n{}",
                    ends_table(&wanted, &found),
                    describe(&self.node, LINK, TOPIC)
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn check(&mut self) -> Result<()> {
        self.node.check_running()?;
        // Until it is set up, a mirror is not ACTIVE yet.
        if !self.was_active {
            self.was_active = check_active(&self.node, WEST, LINK, TOPIC).is_ok();
            return Ok(());
        }
        check_active(&self.node, WEST, LINK, TOPIC)
    }

    fn sleep(&mut self, range_ms: std::ops::RangeInclusive<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(range_ms)));
    }
}

/// The mirror may stand still afterwards, with an error that says where; it may not be wrong.
#[test]
fn what_an_unclean_election_took_is_sent_again_or_told() {
    Scenario::run("unclean-election", |scenario| {
        let mut rng = scenario.rng();
        let mut versions = VERSIONS;
        versions.shuffle(&mut rng);
        eprintln!("Kafka {versions:?}");
        // Two copies on three brokers: without both of them a quorum of controllers is left that can
        // take the follower out of the in-sync replicas, and later elect it.
        let two_copies = [("default.replication.factor", "2"), ("min.insync.replicas", "1")];
        let (east, mut west) = start_clusters(scenario, versions, &two_copies)?;
        let load = start_load(scenario, &east)?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        wait_mirrored(&mut node, &west, 0, MIRRORED_FIRST)?;
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

fn start_clusters(
    scenario: &Scenario,
    [source, destination]: [&str; 2],
    properties: &[(&str, &str)],
) -> Result<(KafkaCluster, KafkaCluster)> {
    let mut east = KafkaConfig::single("east", scenario.directory());
    east.version = source.to_owned();
    let mut west = KafkaConfig::single(WEST, scenario.directory());
    west.version = destination.to_owned();
    west.brokers = 3;
    for (key, value) in properties {
        west = west.property(key, value);
    }
    let (east, west) = (KafkaCluster::start(east)?, KafkaCluster::start(west)?);
    create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
    Ok((east, west))
}

fn start_load(scenario: &Scenario, east: &KafkaCluster) -> Result<Load> {
    Load::start(&LoadConfig {
        bootstrap: east.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })
}

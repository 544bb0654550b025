//! Whatever happens to the brokers on both sides, and to the node in the middle of it, the mirror
//! ends up with the same records at the same offsets: with records of now, whose mirroring the
//! destination remembers (guarded), and with records so old that it forgets at once (unguarded).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tests::cluster::KafkaCluster;
use tests::mirror::{create_mirror, describe, ends_table, wait_caught_up};
use tests::node::Node;
use tests::operator::{self, Placement};
use tests::pair::{Age, FRESH, LINK, OLD, TOPIC, VERSIONS, WEST, check_guarded, start_clusters, start_load};
use tests::scenario::{self, Scenario};
use tests::settled::{check_active, check_not_failed, compare_ends, wait_no_lag};
use tests::wire::{PartitionMetadata, RawReader};

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
    stays_exact_through_faults(FRESH, 4);
}

#[test]
fn a_mirror_of_old_records_is_exact_after_faults_of_brokers_on_both_sides() {
    // Each costs the wait after a request in doubt, 20 s.
    stays_exact_through_faults(OLD, 2);
}

/// All faults, in a random order; a normal run may stop after `faults_max` of them.
fn stays_exact_through_faults(age: Age, faults_max: usize) {
    Scenario::run(&format!("broker-faults-{}", age.name), |scenario| {
        let mut rng = scenario.rng();
        let mut versions = VERSIONS;
        versions.shuffle(&mut rng);
        let mut faults = FAULTS.to_vec();
        faults.shuffle(&mut rng);
        if !scenario::all_cells() {
            faults.truncate(faults_max);
        }
        eprintln!("Kafka {versions:?}, {faults:?}");

        let properties = [SESSION_TIMEOUT, ("min.insync.replicas", "2")];
        let (east, west) = start_clusters(scenario, versions, age, &properties)?;
        let load = start_load(scenario, &east, age)?;
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
        check_guarded(&node, age.guarded)?;
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
        // The only broker of the source may be down, or its return not be seen yet.
        check_not_failed(&self.node, WEST, LINK, TOPIC)
    }

    fn sleep(&mut self, range_ms: std::ops::RangeInclusive<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(range_ms)));
    }
}

//! What holds a mirror back: the link's cap, the destination's own clients, a broker's quota. Each is seen in the
//! metrics, goes as it came, and costs no record and no place.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::client::{Batching, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, wait_caught_up};
use tests::node::Node;
use tests::operator::set_producer_quota;
use tests::poll_until;
use tests::scenario::Scenario;

const LINK: &str = "east-west";
const TOPIC: &str = "orders";
const CLIENTS_TOPIC: &str = "theirs";
/// A batch each, of some 70 bytes.
const RECORDS: u32 = 400;
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

const BUDGET: &str = "lockstep_throttle_budget_bytes_per_second";
const CLIENTS: &str = "lockstep_destination_client_write_bytes_per_second";
const HELD: &str = "lockstep_throttle_seconds_total";

#[test]
fn a_mirror_that_is_held_back_says_why_and_loses_nothing() {
    Scenario::share("clients-first", |scenario| {
        let seed = scenario.seed();
        scenario.each_version(|version, parent| {
            let mut world = World::start(version, parent, seed)?;
            world.a_cap_is_kept_and_lifted_while_the_link_runs()?;
            world.clients_are_seen_and_minded()?;
            world.a_quota_is_waited_out()?;
            world.compare()
        })
    });
}

struct World {
    east: KafkaCluster,
    west: KafkaCluster,
    node: Node,
    seed: u64,
}

impl World {
    fn start(version: &str, parent: &Path, seed: u64) -> Result<Self> {
        let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, parent).version(version));
        let (east, west) = (start("east")?, start("west")?);
        let node = Node::bootstrap("node-1", parent)?;
        create_topic(&east.bootstrap(), TOPIC, 1, &[])?;
        create_topic(&west.bootstrap(), CLIENTS_TOPIC, 1, &[])?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;
        let mut world = Self { east, west, node, seed };
        world.write_and_wait()?;
        Ok(world)
    }

    fn write_and_wait(&mut self) -> Result<()> {
        write_records(&self.east.bootstrap(), TOPIC, 0, RECORDS, Batching::Single)?;
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, TOPIC), LIMIT)
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        self.node.cli(&["link", "update", LINK, "--config", &format!("{key}={value}")]).map(drop)
    }

    fn wait_metric(&self, name: &str, what: &str, holds: impl Fn(f64) -> bool) -> Result<()> {
        let mut last = Ok(0.0);
        let seen = poll_until(LIMIT, POLL, || {
            last = self.node.metric(name);
            last.as_ref().is_ok_and(|value| holds(*value)).then_some(())
        });
        seen.with_context(|| format!("{name} isn't {what} after {LIMIT:?}: {last:?}"))
    }

    /// Seconds that this reason held the link back.
    fn held(&self, reason: &str) -> Result<f64> {
        self.node.metric_with(HELD, &format!("reason=\"{reason}\""))
    }

    fn a_cap_is_kept_and_lifted_while_the_link_runs(&mut self) -> Result<()> {
        const KEY: &str = "throughput.max.bytes.per.second";
        let held = self.held("cap")?;
        self.set(KEY, "4096")?;
        // 400 batches of more than 61 bytes at 4,096 bytes a second, of which writing them takes some.
        let begun = Instant::now();
        self.write_and_wait()?;
        let took = begun.elapsed();
        ensure!(
            took >= Duration::from_secs(5),
            "400 batches passed a cap of 4,096 bytes a second in {took:?}"
        );
        ensure!(self.held("cap")? > held + 1.0, "nothing was held by the cap: {}", self.held("cap")?);
        self.set(KEY, "1000000000")?;
        let held = self.held("cap")?;
        self.write_and_wait()?;
        ensure!(self.held("cap")? - held < 0.5, "still held by the cap: {held}, {}", self.held("cap")?);
        Ok(())
    }

    fn clients_are_seen_and_minded(&mut self) -> Result<()> {
        self.wait_metric(BUDGET, "gone", |budget| budget == 0.0)?;
        let load = Load::start(&LoadConfig {
            bootstrap: self.west.bootstrap(),
            topic: CLIENTS_TOPIC.to_owned(),
            partitions: 1,
            profiles: PROFILES.to_vec(),
            records_per_second: 500,
            seed: self.seed,
            age: Duration::ZERO,
        })?;
        self.wait_metric(CLIENTS, "above zero", |written| written > 0.0)?;
        self.wait_metric(BUDGET, "there", |budget| budget > 0.0)?;
        // Mirroring isn't starved.
        self.write_and_wait()?;
        self.set("throttle.client.writes.first", "false")?;
        self.wait_metric(BUDGET, "gone, though the link minds no clients", |budget| budget == 0.0)?;
        self.set("throttle.client.writes.first", "true")?;
        self.wait_metric(BUDGET, "there again", |budget| budget > 0.0)?;
        load.stop()?;
        self.wait_metric(BUDGET, "gone, though the clients are", |budget| budget == 0.0)?;
        self.wait_metric(CLIENTS, "zero", |written| written == 0.0)
    }

    /// A broker answers at once and then doesn't hear the connection: what is sent meanwhile would run into its
    /// deadline, and be in doubt.
    fn a_quota_is_waited_out(&mut self) -> Result<()> {
        set_producer_quota(&self.west.bootstrap(), "lockstep", 4_000.0)?;
        self.write_and_wait()?;
        let held = self.held("quota")?;
        ensure!(held > 1.0, "held by the quota for {held} s only");
        Ok(())
    }

    fn compare(self) -> Result<()> {
        let side =
            |name, cluster: &KafkaCluster| Side { name, bootstrap: cluster.bootstrap(), topic: TOPIC.into() };
        let (source, destination) = (side("source", &self.east), side("destination", &self.west));
        let compared = compare::records(&source, &destination)?;
        ensure!(compared.records == 5 * u64::from(RECORDS), "{} records", compared.records);
        let log = self.node.log_text()?;
        ensure!(!log.contains("in doubt"), "a request ran into its deadline:\n{log}");
        Ok(())
    }
}

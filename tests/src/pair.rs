//! A source of one broker, a destination of three, and a mirror between them under load, with
//! records of one age: what the tests of faults have in common.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{KafkaCluster, KafkaConfig};
use crate::load::{Load, LoadConfig, PROFILES, create_topic};
use crate::node::Node;
use crate::scenario::Scenario;

pub const TOPIC: &str = "orders";
pub const LINK: &str = "east-west";
pub const WEST: &str = "west";
pub const PARTITIONS: i32 = 8;
/// One of them is the source, the other the destination.
pub const VERSIONS: [&str; 2] = ["3.9.1", "4.4.0"];
/// Four brokers share two cores: what they keep up with beside their restarts.
const RECORDS_PER_SECOND: u32 = 600;

/// How old the records say they are, and what brokers make of it.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    pub name: &'static str,
    age: Duration,
    pub guarded: bool,
    destination_properties: &'static [(&'static str, &'static str)],
}

impl Age {
    pub fn age(&self) -> Duration {
        self.age
    }

    /// What makes brokers do so.
    pub fn destination_properties(&self) -> &'static [(&'static str, &'static str)] {
        self.destination_properties
    }
}

/// The destination remembers who mirrored them.
pub const FRESH: Age = Age { name: "fresh", age: Duration::ZERO, guarded: true, destination_properties: &[] };
/// It forgets at once.
pub const OLD: Age = Age {
    name: "old",
    // Brokers remember a producer for a day after its newest record.
    age: Duration::from_secs(5 * 24 * 3600),
    guarded: false,
    // They look for producers to forget every ten minutes by default.
    destination_properties: &[("producer.id.expiration.check.interval.ms", "1000")],
};

/// Starts both clusters, the source with the topic.
pub fn start_clusters(
    scenario: &Scenario,
    [source, destination]: [&str; 2],
    age: Age,
    properties: &[(&str, &str)],
) -> Result<(KafkaCluster, KafkaCluster)> {
    let mut east = KafkaConfig::single("east", scenario.directory());
    east.version = source.to_owned();
    let mut west = KafkaConfig::single(WEST, scenario.directory());
    west.version = destination.to_owned();
    west.brokers = 3;
    for (key, value) in properties.iter().chain(age.destination_properties) {
        west = west.property(key, value);
    }
    let (east, west) = (KafkaCluster::start(east)?, KafkaCluster::start(west)?);
    // Retention by time would delete old records at both ends, each in its own time.
    create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[("retention.ms", "-1")])?;
    Ok((east, west))
}

pub fn start_load(scenario: &Scenario, east: &KafkaCluster, age: Age) -> Result<Load> {
    Load::start(&LoadConfig {
        bootstrap: east.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: age.age,
    })
}

/// Whether the destination remembers the mirror, in every partition. What was proven in the other
/// mode would be no proof.
pub fn check_guarded(node: &Node, wanted: bool) -> Result<()> {
    let mirror = node.mirror_json(WEST, LINK, TOPIC)?;
    let rows = mirror["mirror_lags"].as_array().with_context(|| format!("no partitions in {mirror}"))?;
    ensure!(
        rows.iter().all(|row| row["guarded"] == wanted),
        "guarded is not {wanted} everywhere: {mirror:#}"
    );
    Ok(())
}

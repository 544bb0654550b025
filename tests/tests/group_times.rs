//! How soon a thousand groups stand at the destination where they stand at the source, at default settings.
//! `cargo xtask bench groups` runs it and writes the report; figures fail nothing here.

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::client::{Batching, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::groups::put;
use tests::load::create_topic;
use tests::mirror::{create_link, wait_caught_up};
use tests::node::Node;
use tests::scenario::Scenario;
use tests::wire::{self, Connection};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const PARTITIONS: i32 = 4;
const RECORDS: u32 = 1_000;
const GROUPS: usize = 1_000;
const RUNS: i64 = 20;
const LIMIT: Duration = Duration::from_secs(60);
const EVERY_GROUP: &str = r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;

#[test]
#[ignore = "a measurement of a minute"]
fn times_until_groups_stand_where_they_stand_at_the_source() {
    Scenario::run("group-times", |scenario| {
        let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, scenario.directory()));
        let (east, west) = (start("east")?, start("west")?);
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        for partition in 0..PARTITIONS {
            write_records(&east.bootstrap(), TOPIC, partition, RECORDS, Batching::Large)?;
        }
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_link(&node, &east, &west, LINK)?;
        for config in
            ["consumer.offset.sync.enable=true", &format!("consumer.offset.group.filters={EVERY_GROUP}")]
        {
            node.cli(&["link", "update", LINK, "--config", config])?;
        }
        node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), LIMIT)?;
        // Whoever asks for a coordinator first has the topic of group offsets made.
        for cluster in [&east, &west] {
            put(&cluster.bootstrap(), "first", TOPIC, &[(0, 0)])?;
        }
        let mut ends = Ends { east: open(&east)?, west: open(&west)? };
        let names: Vec<String> = (0..GROUPS).map(|number| format!("group-{number}")).collect();
        ends.follow(&names, 0)?;
        for run in 1..=RUNS {
            figure("all", ends.follow(&names, run)?);
            // At another moment of the sync's period each time.
            std::thread::sleep(Duration::from_millis(137 * run as u64 % 1_000));
            figure("one", ends.follow(&names[..1], 500 + run)?);
        }
        node.sigterm()
    });
}

struct Ends {
    east: Connection,
    west: Connection,
}

impl Ends {
    /// From the last commit at the source until the destination shows them all.
    fn follow(&mut self, names: &[String], offset: i64) -> Result<Duration> {
        for group in names {
            wire::groups::commit(&mut self.east, group, TOPIC, PARTITIONS, offset)?;
        }
        let begun = Instant::now();
        let mut behind: Vec<&String> = names.iter().collect();
        while !behind.is_empty() {
            ensure!(begun.elapsed() < LIMIT, "{} groups aren't at {offset} after {LIMIT:?}", behind.len());
            let mut still = Vec::new();
            for group in behind {
                let found = wire::groups::positions(&mut self.west, group, TOPIC, PARTITIONS)?;
                if found.values().any(|found| *found != offset) {
                    still.push(group);
                }
            }
            behind = still;
        }
        Ok(begun.elapsed())
    }
}

fn open(cluster: &KafkaCluster) -> Result<Connection> {
    let bootstrap = cluster.bootstrap();
    let address = bootstrap.to_socket_addrs().context("an address")?.next().context("no address")?;
    Connection::open(address, LIMIT)
}

/// As xtask reads it.
fn figure(kind: &str, time: Duration) {
    println!("FIGURE {kind} {}", time.as_millis());
}

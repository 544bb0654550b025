//! Topics that are deleted under a mirror, at either end: said at once, failed after
//! `cluster.link.retry.timeout.ms`, the mirror's data untouched, all other mirrors undisturbed. One that was made
//! anew is another topic, and never mixed in.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::client::{Batching, delete_topic, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::create_topic;
use tests::mirror::{create_link, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::wire::RawReader;

const LINK: &str = "east-west";
const WEST: &str = "west";
const RECORDS: u32 = 100;
const TOPICS: [&str; 3] = ["orders", "clicks", "kept"];
/// `cluster.link.retry.timeout.ms` here.
const RETRY_TIMEOUT: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(100);

#[test]
fn a_topic_that_is_gone_fails_its_mirror_alone_and_costs_it_nothing() {
    Scenario::share("topics-gone", |scenario| {
        scenario.each_version(|version, parent| World::start(version, parent)?.run())
    });
}

struct World {
    east: KafkaCluster,
    west: KafkaCluster,
    node: Node,
}

impl World {
    fn start(version: &str, parent: &Path) -> Result<Self> {
        let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, parent).version(version));
        let (east, west) = (start("east")?, start(WEST)?);
        let node = Node::bootstrap("node-1", parent)?;
        create_link(&node, &east, &west, LINK)?;
        let timeout = format!("cluster.link.retry.timeout.ms={}", RETRY_TIMEOUT.as_millis());
        node.cli(&["link", "update", LINK, "--config", &timeout])?;
        Ok(Self { east, west, node })
    }

    fn run(mut self) -> Result<()> {
        for topic in TOPICS {
            self.new_topic(topic)?;
            self.node.cli(&["mirror", "create", topic, "--link", LINK])?;
            wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, topic), LIMIT)?;
        }
        self.the_source_is_deleted()?;
        self.the_source_is_another_topic()?;
        self.the_destination_is_deleted()?;
        self.all_others_go_on()?;
        self.node.sigterm()
    }

    fn the_source_is_deleted(&self) -> Result<()> {
        let before = RawReader::new(&self.west.bootstrap())?.ends("orders")?;
        delete_topic(&self.east.bootstrap(), "orders")?;
        let row = self.until("orders", |row| row["state"] == "PARKED")?;
        ensure!(row["error"] == "SOURCE_TOPIC_MAY_BE_DELETED" && row["retry_at"].is_string(), "{row:#}");
        let row = self.until("orders", |row| row["state"] == "FAILED")?;
        ensure!(row["error"] == "SOURCE_TOPIC_MAY_BE_DELETED", "{row:#}");
        let shown = self.node.mirror_json(WEST, LINK, "orders")?;
        ensure!(shown["mirror_status"] == "FAILED", "{shown:#}");
        let message = shown["mirror_topic_error_message"].as_str().unwrap_or_default();
        ensure!(message.contains("no topic 'orders' at the source"), "{shown:#}");
        let after = RawReader::new(&self.west.bootstrap())?.ends("orders")?;
        ensure!(after == before, "the mirror's data was touched: {before:?}, {after:?}");
        Ok(())
    }

    /// Of the same name and length.
    fn the_source_is_another_topic(&self) -> Result<()> {
        self.new_topic("orders")?;
        self.node.cli(&["mirror", "resume", "orders", "--link", LINK])?;
        self.until("orders", |row| row["error"] == "SOURCE_TOPIC_ID_CHANGED" && row["state"] == "FAILED")?;
        // How far behind the new one it is says nothing.
        self.until("orders", |row| row["lag"].is_null() && row["source_end_offset"].is_null())?;
        Ok(())
    }

    fn the_destination_is_deleted(&self) -> Result<()> {
        delete_topic(&self.west.bootstrap(), "clicks")?;
        write_records(&self.east.bootstrap(), "clicks", 0, RECORDS, Batching::Large)?;
        self.until("clicks", |row| row["error"] == "DESTINATION_TOPIC_CHANGED" && row["state"] == "FAILED")?;
        let there = RawReader::new(&self.west.bootstrap())?.ends_if_exists("clicks")?;
        ensure!(there.is_none(), "it was made anew by itself: {there:?}");
        Ok(())
    }

    fn all_others_go_on(&mut self) -> Result<()> {
        write_records(&self.east.bootstrap(), "kept", 0, RECORDS, Batching::Large)?;
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, "kept"), LIMIT)?;
        let shown = self.node.mirror_json(WEST, LINK, "kept")?;
        ensure!(shown["mirror_status"] == "ACTIVE", "{shown:#}");
        Ok(())
    }

    fn new_topic(&self, topic: &str) -> Result<()> {
        create_topic(&self.east.bootstrap(), topic, 1, &[])?;
        write_records(&self.east.bootstrap(), topic, 0, RECORDS, Batching::Large).map(drop)
    }

    /// The row of its only partition.
    fn until(&self, topic: &str, is_so: impl Fn(&serde_json::Value) -> bool) -> Result<serde_json::Value> {
        let mut last = serde_json::Value::Null;
        let found = poll_until(LIMIT, POLL, || {
            last = self.node.mirror_json(WEST, LINK, topic).ok()?["mirror_lags"][0].clone();
            is_so(&last).then(|| last.clone())
        });
        found.with_context(|| format!("'{topic}' stays as it is: {last:#}"))
    }
}

//! A link mirrors by itself what its filters mean: topics that are there and those that come, each once, and
//! never again what a person has ended. Names get the link's prefix; two links of opposite directions don't
//! mirror each other's mirrors.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::client::{Batching, delete_topic, write_records};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::groups::put;
use tests::load::create_topic;
use tests::mirror::{create_link, mirrored, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::wire::RawReader;

const LINK: &str = "east-west";
const BACK: &str = "west-east";
const PREFIXED: &str = "copies";
const WEST: &str = "west";
const ALL_BUT_TEMPORARY: &str = r#"{"topicFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"temp-","patternType":"PREFIXED","filterType":"EXCLUDE"}]}"#;
const ONLY_ORDERS: &str =
    r#"{"topicFilters":[{"name":"orders","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;
const ENABLE: &str = "auto.create.mirror.topics.enable";
const FILTERS: &str = "auto.create.mirror.topics.filters";
const RECORDS: u32 = 100;
/// What couldn't be made is tried again after 30 s.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Three rounds, at `metadata.max.age.ms` of 5 s.
const STAYS: Duration = Duration::from_secs(8);

#[test]
fn new_topics_are_mirrored_by_themselves_once() {
    Scenario::share("auto-create", |scenario| {
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
        Ok(Self { east, west, node })
    }

    fn run(mut self) -> Result<()> {
        for topic in ["orders", "temp-1", "taken"] {
            new_topic(&self.east, topic)?;
        }
        new_topic(&self.west, "taken")?;
        // Kafka's own topics are there, too.
        put(&self.east.bootstrap(), "app", "orders", &[(0, 5)])?;
        create_link(&self.node, &self.east, &self.west, LINK)?;
        std::thread::sleep(STAYS);
        ensure!(self.mirrors(LINK)?.is_empty(), "not enabled yet: {:?}", self.mirrors(LINK)?);

        self.set(LINK, &[(ENABLE, "true")])?;
        self.told(LINK, "no topic is meant")?;
        self.set(LINK, &[(FILTERS, ALL_BUT_TEMPORARY)])?;
        self.waits_for("orders")?;
        self.told(LINK, "TOPIC_EXISTS_ERROR")?;
        self.a_new_topic_comes()?;
        ensure!(self.mirrors(LINK)? == ["clicks", "orders"], "{:?}", self.mirrors(LINK)?);
        delete_topic(&self.west.bootstrap(), "taken")?;
        self.waits_for("taken").context("what was in its way is gone")?;
        self.what_a_person_ended_stays_ended()?;
        self.names_begin_with_the_prefix()?;
        self.links_of_both_directions_leave_each_others_mirrors_alone()?;
        self.node.sigterm()
    }

    fn a_new_topic_comes(&mut self) -> Result<()> {
        let begun = Instant::now();
        new_topic(&self.east, "clicks")?;
        let mut west = RawReader::new(&self.west.bootstrap())?;
        let come = || mirrored(&mut west, "clicks").map(|count| (count > 0).then_some(())).transpose();
        poll_until(LIMIT, POLL, come).unwrap_or_else(|| bail!("nothing of it: {}", self.tasks(LINK)?))?;
        eprintln!("a new topic's records after {:?}", begun.elapsed());
        self.waits_for("clicks")
    }

    fn what_a_person_ended_stays_ended(&mut self) -> Result<()> {
        self.node.cli(&["mirror", "delete", "orders", "--link", LINK, "--delete-topic", "--yes"])?;
        self.told(LINK, "'orders': isn't mirrored again")?;
        self.node.cli(&["mirror", "promote", "clicks", "--link", LINK, "--yes", "--wait"])?;
        self.node.kill9()?;
        self.node.restart()?;
        self.told(LINK, "'orders': isn't mirrored again")?;
        std::thread::sleep(STAYS);
        ensure!(self.mirrors(LINK)? == ["clicks", "taken"], "{:?}", self.mirrors(LINK)?);
        let there = RawReader::new(&self.west.bootstrap())?.ends_if_exists("orders")?;
        ensure!(there.is_none(), "the topic is there again: {there:?}");
        let clicks = self.node.mirror_json(WEST, LINK, "clicks")?;
        ensure!(clicks["mirror_status"] == "STOPPED", "{clicks:#}");
        // By hand it is made all the same.
        self.node.cli(&["mirror", "create", "orders", "--link", LINK])?;
        self.waits_for("orders")
    }

    fn names_begin_with_the_prefix(&mut self) -> Result<()> {
        self.node.cli(&[
            "link",
            "create",
            PREFIXED,
            "--source",
            "east",
            "--destination",
            WEST,
            "--config",
            "cluster.link.prefix=east.",
        ])?;
        self.set(PREFIXED, &[(FILTERS, ONLY_ORDERS), (ENABLE, "true")])?;
        let wanted = RawReader::new(&self.east.bootstrap())?.ends("orders")?;
        let mut west = RawReader::new(&self.west.bootstrap())?;
        let mut equal =
            || west.ends_if_exists("east.orders").map(|ends| (ends.as_ref() == Some(&wanted)).then_some(()));
        poll_until(LIMIT, POLL, || equal().transpose())
            .unwrap_or_else(|| bail!("no east.orders: {}", self.tasks(PREFIXED)?))?;
        self.node.cli(&["mirror", "create", "temp-1", "--link", PREFIXED])?;
        let other = self.node.cli_said(&[
            "mirror",
            "create",
            "clicks-2",
            "--link",
            PREFIXED,
            "--source-topic",
            "clicks",
        ])?;
        ensure!(!other.status.success() && other.stderr.contains("begin with 'east.'"), "{other:?}");
        ensure!(self.mirrors(PREFIXED)? == ["east.orders", "east.temp-1"], "{:?}", self.mirrors(PREFIXED)?);
        let fixed = ["link", "update", PREFIXED, "--config", "cluster.link.prefix=west."];
        let fixed = self.node.cli_said(&fixed)?;
        ensure!(!fixed.status.success() && fixed.stderr.contains("cluster.link.prefix"), "{fixed:?}");
        Ok(())
    }

    fn links_of_both_directions_leave_each_others_mirrors_alone(&mut self) -> Result<()> {
        new_topic(&self.west, "western")?;
        self.node.cli(&["link", "create", BACK, "--source", WEST, "--destination", "east"])?;
        self.set(BACK, &[(FILTERS, ALL_BUT_TEMPORARY), (ENABLE, "true")])?;
        wait_caught_up(&mut self.node, &self.west, &self.east, (BACK, "western"), LIMIT)?;
        self.told(BACK, "'east.orders': isn't mirrored on")?;
        std::thread::sleep(STAYS);
        ensure!(self.mirrors(BACK)? == ["western"], "{:?}", self.mirrors(BACK)?);
        let forth = self.mirrors(LINK)?;
        ensure!(forth == ["clicks", "orders", "taken"], "{forth:?}");
        self.told(LINK, "'western': isn't mirrored on")
    }

    fn set(&self, link: &str, configs: &[(&str, &str)]) -> Result<()> {
        for (key, value) in configs {
            self.node.cli(&["link", "update", link, "--config", &format!("{key}={value}")])?;
        }
        Ok(())
    }

    fn tasks(&self, link: &str) -> Result<String> {
        self.node.cli(&["link", "task", "list", link])
    }

    /// Now or soon.
    fn told(&self, link: &str, words: &str) -> Result<()> {
        let found = poll_until(LIMIT, POLL, || self.tasks(link).ok().filter(|told| told.contains(words)));
        ensure!(found.is_some(), "'{words}' isn't told: {}", self.tasks(link)?);
        Ok(())
    }

    fn waits_for(&mut self, topic: &str) -> Result<()> {
        wait_caught_up(&mut self.node, &self.east, &self.west, (LINK, topic), LIMIT)
    }

    /// Names of its mirror topics.
    fn mirrors(&self, link: &str) -> Result<Vec<String>> {
        let on = if link == BACK { "east" } else { WEST };
        let found = self.node.get_json(&format!("/kafka/v3/clusters/{on}/links/{link}/mirrors"))?;
        let rows = found["data"].as_array().context("rows")?;
        let names =
            rows.iter().map(|row| Ok(row["mirror_topic_name"].as_str().context("a name")?.to_owned()));
        names.collect()
    }
}

fn new_topic(cluster: &KafkaCluster, topic: &str) -> Result<()> {
    create_topic(&cluster.bootstrap(), topic, 2, &[])?;
    for partition in 0..2 {
        write_records(&cluster.bootstrap(), topic, partition, RECORDS, Batching::Large)?;
    }
    Ok(())
}

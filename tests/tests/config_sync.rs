//! Topic configs follow the source, edits by hand are set back, what the destination refuses is told, and a
//! topic that is no mirror any more is left alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::client::{delete_topic, own_topic_configs};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::create_topic;
use tests::mirror::create_mirror;
use tests::node::Node;
use tests::operator::set_topic_config;
use tests::poll_until;
use tests::scenario::Scenario;

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
/// `topic.config.sync.ms` is 5 s by default; the set-up comes before.
const SYNC_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);
/// Two rounds.
const STAYS: Duration = Duration::from_secs(11);

#[test]
fn topic_configs_follow_the_source_until_the_mirror_stops() {
    Scenario::share("config-sync", |scenario| scenario.each_version(follow));
}

fn follow(version: &str, parent: &Path) -> Result<()> {
    let start = |name: &str| KafkaCluster::start(KafkaConfig::single(name, parent).version(version));
    let (east, west) = (start("east")?, start(WEST)?);
    create_topic(&east.bootstrap(), TOPIC, 2, &[("retention.ms", "7200000")])?;
    let mut node = Node::bootstrap("node-1", parent)?;
    create_mirror(&node, &east, &west, LINK, TOPIC)?;
    expect(&west, &[("retention.ms", "7200000"), ("compression.type", "producer")])?;

    set_topic_config(&east.bootstrap(), TOPIC, "retention.ms", "3600000")?;
    set_topic_config(&east.bootstrap(), TOPIC, "cleanup.policy", "compact,delete")?;
    set_topic_config(&east.bootstrap(), TOPIC, "min.insync.replicas", "1")?;
    expect(&west, &[("retention.ms", "3600000"), ("cleanup.policy", "compact,delete")])?;
    ensure!(!own_topic_configs(&west.bootstrap(), TOPIC)?.contains_key("min.insync.replicas"));

    for (key, value) in [("retention.ms", "1000"), ("compression.type", "gzip")] {
        set_topic_config(&west.bootstrap(), TOPIC, key, value)?;
    }
    expect(&west, &[("retention.ms", "3600000"), ("compression.type", "producer")])
        .context("edited by hand")?;
    let link = node.get_json(&format!("/kafka/v3/clusters/{WEST}/links/{LINK}?include_tasks=true"))?;
    let task =
        link["tasks"].as_array().into_iter().flatten().find(|task| task["task_name"] == "TopicConfigsSync");
    ensure!(task.is_some_and(|task| task["state"] == "ACTIVE"), "{link:#}");
    ensure!(node.metric("lockstep_topic_config_updates_total")? >= 4.0);

    let refused = node.cli_said(&[
        "link",
        "update",
        LINK,
        "--config",
        "topic.config.sync.include=min.insync.replicas",
    ])?;
    ensure!(!refused.status.success() && refused.stderr.contains("never follows the source"), "{refused:?}");

    another_topic_of_the_name_is_left_alone(&mut node, &east, &west)?;

    node.cli(&["mirror", "failover", TOPIC, "--link", LINK, "--yes", "--wait"])?;
    set_topic_config(&east.bootstrap(), TOPIC, "retention.ms", "1800000")?;
    set_topic_config(&west.bootstrap(), TOPIC, "compression.type", "zstd")?;
    std::thread::sleep(STAYS);
    expect(&west, &[("retention.ms", "3600000"), ("compression.type", "zstd")])
        .context("an ordinary topic")?;
    node.sigterm()
}

/// A source that was made anew with a short retention must not cost the mirror its records.
fn another_topic_of_the_name_is_left_alone(
    node: &mut Node,
    east: &KafkaCluster,
    west: &KafkaCluster,
) -> Result<()> {
    const RECREATED: &str = "clicks";
    create_topic(&east.bootstrap(), RECREATED, 1, &[("retention.ms", "7200000")])?;
    node.cli(&["mirror", "create", RECREATED, "--link", LINK])?;
    expect_of(west, RECREATED, &[("retention.ms", "7200000")])?;
    delete_topic(&east.bootstrap(), RECREATED)?;
    create_topic(&east.bootstrap(), RECREATED, 1, &[("retention.ms", "1000")])?;
    std::thread::sleep(STAYS);
    expect_of(west, RECREATED, &[("retention.ms", "7200000")]).context("of a source that was recreated")?;
    let link = node.get_json(&format!("/kafka/v3/clusters/{WEST}/links/{LINK}?include_tasks=true"))?;
    let text = link.to_string();
    ensure!(text.contains("IN_ERROR") && text.contains("is another one by now"), "{link:#}");
    Ok(())
}

/// The mirror topic has these configs of its own, now or soon.
fn expect(west: &KafkaCluster, wanted: &[(&str, &str)]) -> Result<()> {
    expect_of(west, TOPIC, wanted)
}

fn expect_of(west: &KafkaCluster, topic: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let begun = Instant::now();
    let mut last = BTreeMap::new();
    let found = poll_until(SYNC_LIMIT, POLL, || {
        last = own_topic_configs(&west.bootstrap(), topic).ok()?;
        wanted.iter().all(|(key, value)| last.get(*key).map(String::as_str) == Some(value)).then_some(())
    });
    if found.is_none() {
        bail!("not {wanted:?} within {SYNC_LIMIT:?}: {last:?}");
    }
    eprintln!("{wanted:?} after {:?}", begun.elapsed());
    Ok(())
}

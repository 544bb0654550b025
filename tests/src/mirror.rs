//! One mirror topic that keeps its source's name: how it is set up, how far it has come, and what
//! the product says of it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cluster::KafkaCluster;
use crate::node::Node;
use crate::wire::{RawReader, TopicEnds};

const POLL: Duration = Duration::from_millis(500);

/// Registers both clusters, bridges them and mirrors `topic`.
pub fn create_mirror(
    node: &Node,
    source: &KafkaCluster,
    destination: &KafkaCluster,
    link: &str,
    topic: &str,
) -> Result<()> {
    create_link(node, source, destination, link)?;
    node.cli(&["mirror", "create", topic, "--link", link])?;
    Ok(())
}

/// Registers both clusters and bridges them.
pub fn create_link(node: &Node, source: &KafkaCluster, destination: &KafkaCluster, link: &str) -> Result<()> {
    for cluster in [source, destination] {
        node.cli(&["cluster", "create", cluster.name(), "--bootstrap-server", &cluster.bootstrap()])?;
    }
    node.cli(&["link", "create", link, "--source", source.name(), "--destination", destination.name()])?;
    Ok(())
}

/// Offsets at the destination, over all partitions; 0 while it has no such topic.
pub fn mirrored(destination: &mut RawReader, topic: &str) -> Result<i64> {
    let ends = destination.ends_if_exists(topic)?.unwrap_or_default();
    Ok(ends.values().map(|(_, end)| end).sum())
}

/// The source is quiet: waits until first and next offset of every partition at the destination are
/// the source's.
pub fn wait_caught_up(
    node: &mut Node,
    source: &KafkaCluster,
    destination: &KafkaCluster,
    (link, topic): (&str, &str),
    limit: Duration,
) -> Result<()> {
    let wanted = RawReader::new(&source.bootstrap())?.ends(topic)?;
    let mut reader = RawReader::new(&destination.bootstrap())?;
    let deadline = Instant::now() + limit;
    loop {
        let found = reader.ends_if_exists(topic)?.unwrap_or_default();
        if found == wanted {
            return Ok(());
        }
        node.check_running()?;
        if Instant::now() >= deadline {
            bail!(
                "the mirror has not caught up after {limit:?}\n{}\n{}",
                ends_table(&wanted, &found),
                describe(node, link, topic)
            );
        }
        std::thread::sleep(POLL);
    }
}

/// Only what differs, a line a partition.
pub fn ends_table(source: &TopicEnds, destination: &TopicEnds) -> String {
    let mut lines = vec!["partition: (first, next) offset at the source, at the destination".to_owned()];
    for (partition, ends) in source {
        let found = destination.get(partition);
        if found != Some(ends) {
            lines.push(format!("{partition:9}: {ends:?}, {found:?}"));
        }
    }
    lines.join("\n")
}

/// What the product itself says, or why it says nothing.
pub fn describe(node: &Node, link: &str, topic: &str) -> String {
    let told = node.cli(&["mirror", "describe", topic, "--link", link, "-o", "json"]);
    told.unwrap_or_else(|error| format!("{error:#}"))
}

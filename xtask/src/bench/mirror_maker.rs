//! MirrorMaker 2, as its own process, tuned for what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use harness::artifacts::Artifacts;

use super::mirror::Task;
use super::plan::{Kind, Road, Shape};
use super::stage::Stage;

const DESTINATION: &str = "destination";
/// Above the 1.4–2.4 GiB that it was seen to take in all.
const JVM: &str = "-Xmx2g";

/// Internal topics that it leaves behind, named after the source's alias.
pub fn topics_at_destination(alias: &str) -> Vec<String> {
    ["configs", "offsets", "status"].map(|what| format!("mm2-{what}.{alias}.internal")).to_vec()
}

pub fn topics_at_source() -> Vec<String> {
    vec![format!("mm2-offset-syncs.{DESTINATION}.internal")]
}

pub fn command(artifacts: &Artifacts, properties: &[String], directory: &Path) -> Result<Command> {
    let path = directory.join("mirror-maker.properties");
    fs::write(&path, properties.join("\n")).with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new("java");
    command
        .args([JVM, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
        .args(["-cp", &artifacts.class_path(), "org.apache.kafka.connect.mirror.MirrorMaker"])
        .arg(&path)
        .current_dir(directory);
    Ok(command)
}

/// Large fetches and batches, several requests under way; at rest no waiting for more.
pub fn properties(task: &Task, stage: &Stage, source: &str, destination: &str) -> Vec<String> {
    let alias = task.alias();
    let flow = format!("{alias}->{DESTINATION}");
    let (linger_ms, batch_bytes) = if task.kind == Kind::Probe { (0, 16_384) } else { (50, 1_000_000) };
    let codec = if task.shape == Shape::Json { "zstd" } else { "none" };
    let mut lines = vec![
        format!("clusters={alias},{DESTINATION}"),
        format!("{alias}.bootstrap.servers={source}"),
        format!("{DESTINATION}.bootstrap.servers={destination}"),
        format!("{flow}.enabled=true"),
        format!("{flow}.topics={}", task.topic),
        format!("{DESTINATION}->{alias}.enabled=false"),
        "tasks.max=2".to_owned(),
        "emit.heartbeats.enabled=false".to_owned(),
        "emit.checkpoints.enabled=false".to_owned(),
        "sync.group.offsets.enabled=false".to_owned(),
        "sync.topic.acls.enabled=false".to_owned(),
        "refresh.groups.enabled=false".to_owned(),
        format!("{alias}.consumer.fetch.max.bytes=52428800"),
        format!("{alias}.consumer.max.partition.fetch.bytes=8388608"),
        format!("{alias}.consumer.max.poll.records=5000"),
        format!("{alias}.consumer.receive.buffer.bytes=-1"),
        format!("{DESTINATION}.producer.linger.ms={linger_ms}"),
        format!("{DESTINATION}.producer.batch.size={batch_bytes}"),
        format!("{DESTINATION}.producer.buffer.memory=134217728"),
        format!("{DESTINATION}.producer.max.in.flight.requests.per.connection=5"),
        format!("{DESTINATION}.producer.enable.idempotence=true"),
        format!("{DESTINATION}.producer.compression.type={codec}"),
        format!("{DESTINATION}.producer.send.buffer.bytes=-1"),
        format!("{DESTINATION}.offset.storage.partitions=1"),
        format!("{DESTINATION}.status.storage.partitions=1"),
    ];
    let single_copies = [
        "replication.factor",
        "offset-syncs.topic.replication.factor",
        "offset.storage.replication.factor",
        "status.storage.replication.factor",
        "config.storage.replication.factor",
    ];
    lines.extend(single_copies.map(|key| format!("{key}=1")));
    if task.road == Road::Tls {
        for (name, side) in [(alias.as_str(), &stage.source), (DESTINATION, &stage.destination)] {
            lines.push(format!("{name}.security.protocol=SSL"));
            lines.push(format!("{name}.ssl.truststore.type=PEM"));
            lines.push(format!("{name}.ssl.truststore.location={}", side.ca.display()));
        }
    }
    lines
}

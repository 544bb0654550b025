//! What must hold of a mirror whose source is quiet: the product says so, and both witnesses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::KafkaCluster;
use crate::compare::{self, Side};
use crate::node::Node;
use crate::poll_until;

/// Lag as shown is measured every few seconds.
const LAG_LIMIT: Duration = Duration::from_secs(30);
const LAG_POLL: Duration = Duration::from_millis(250);

/// The mirror is ACTIVE and none of its partitions has failed. A failure stays until a person acts,
/// so this also tells of one long ago.
pub fn check_active(node: &Node, destination: &str, link: &str, topic: &str) -> Result<()> {
    let mirror = node.mirror_json(destination, link, topic)?;
    ensure!(mirror["mirror_status"] == "ACTIVE", "the mirror isn't ACTIVE: {mirror:#}");
    let failed = rows(&mirror)?.iter().any(|row| row["state"] == "FAILED");
    ensure!(!failed, "the mirror is ACTIVE with a failed partition: {mirror:#}");
    Ok(())
}

/// As [`check_active`], or its source doesn't answer for the moment.
pub fn check_not_failed(node: &Node, destination: &str, link: &str, topic: &str) -> Result<()> {
    let mirror = node.mirror_json(destination, link, topic)?;
    let passes = ["ACTIVE", "SOURCE_UNAVAILABLE"].iter().any(|status| mirror["mirror_status"] == *status);
    ensure!(passes, "the mirror is neither ACTIVE nor SOURCE_UNAVAILABLE: {mirror:#}");
    let failed = rows(&mirror)?.iter().any(|row| row["state"] == "FAILED");
    ensure!(!failed, "the mirror has a failed partition: {mirror:#}");
    Ok(())
}

/// The product shows lag 0, known and not null, for every partition.
pub fn wait_no_lag(node: &Node, destination: &str, link: &str, topic: &str) -> Result<()> {
    let mut last = Ok(Value::Null);
    let settled = poll_until(LAG_LIMIT, LAG_POLL, || {
        last = node.mirror_json(destination, link, topic);
        let rows = rows(last.as_ref().ok()?).ok()?;
        (!rows.is_empty() && rows.iter().all(|row| row["lag"] == 0)).then_some(())
    });
    settled.with_context(|| match &last {
        Ok(mirror) => format!("lag shown {LAG_LIMIT:?} after both ends were equal: {mirror:#}"),
        Err(error) => format!("no lag shown after {LAG_LIMIT:?}: {error:#}"),
    })
}

/// Equal by raw batches and by librdkafka's records; returns how many there are.
pub fn compare_ends(source: &KafkaCluster, destination: &KafkaCluster, topic: &str) -> Result<u64> {
    let source = Side { name: "source", bootstrap: source.bootstrap(), topic: topic.to_owned() };
    let destination =
        Side { name: "destination", bootstrap: destination.bootstrap(), topic: topic.to_owned() };
    let by_batch = compare::raw_batches(&source, &destination)?;
    let by_record = compare::records(&source, &destination)?;
    eprintln!("equal by batch {by_batch:?}, by record {by_record:?}");
    ensure!(by_batch.records == by_record.records, "{by_batch:?}, {by_record:?}");
    Ok(by_batch.records)
}

fn rows(mirror: &Value) -> Result<&Vec<Value>> {
    mirror["mirror_lags"].as_array().with_context(|| format!("no partitions in {mirror:#}"))
}

//! A topic that was a mirror: where that ended, and that its clients' own records follow.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::load::Load;
use crate::wire::RawReader;

const WRITTEN: u64 = 1_500;
const WRITTEN_LIMIT: Duration = Duration::from_secs(60);

/// Where the mirror's records end, by partition, as the product shows it.
pub fn ends(mirror: &Value) -> Result<BTreeMap<i32, i64>> {
    let rows = mirror["mirror_lags"].as_array().context("no partitions")?;
    let end = |row: &Value| {
        let partition = row["partition"].as_i64().context("no partition")?;
        let end = row["mirror_end_offset"].as_i64().with_context(|| format!("no end in {row}"))?;
        Ok((i32::try_from(partition)?, end))
    };
    rows.iter().map(end).collect()
}

/// Lets `load`, whose producers write to the topic, go on for a while, and then finds everything that was
/// acknowledged behind the mirror's end, once, and a fence in every partition. Nobody else may write.
pub fn write_on(load: Load, bootstrap: &str, topic: &str, ends: &BTreeMap<i32, i64>) -> Result<()> {
    load.wait_acknowledged(load.acknowledged() + WRITTEN, WRITTEN_LIMIT)?;
    let report = load.stop()?;
    let mut reader = RawReader::new(bootstrap)?;
    for (partition, end) in ends {
        let log_end = reader.log_end(topic, *partition)?;
        let (mut own, mut fences) = (0, 0);
        for batch in reader.batches(topic, *partition, *end..log_end) {
            let batch = batch?;
            match batch.is_control() {
                true => fences += 1,
                false => own += u64::try_from(batch.record_count)?,
            }
        }
        let acknowledged = report.acknowledged.get(partition).copied().unwrap_or_default();
        ensure!(own == acknowledged, "partition {partition}: {own} records of {acknowledged} acknowledged");
        ensure!(fences >= 1, "partition {partition} has no fence behind offset {end}");
    }
    eprintln!("{} own records behind the mirror's ends", report.total());
    Ok(())
}

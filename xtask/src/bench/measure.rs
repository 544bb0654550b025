//! A copy seen from outside: the destination's log end, and what the kernel says of the processes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::client::Client;
use super::outcome::Copied;
use super::proc::{self, Cpu};

/// A JVM that starts beside two brokers takes ten seconds.
const FIRST_RECORD_LIMIT: Duration = Duration::from_secs(60);
/// Without a record for this long a copy has stopped.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// A hundredth of a short copy; a hundred tiny requests a second cost a broker little.
const POLL: Duration = Duration::from_millis(10);

/// Who works.
#[derive(Clone, Debug)]
pub struct Pids {
    /// The process that mirrors, or all of them.
    pub mirror: Vec<u32>,
    pub source: u32,
    pub destination: u32,
}

/// What is expected.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub records: i64,
    /// Of one record with its part of the batch, before compression.
    pub record_bytes: f64,
    /// From first to last record.
    pub limit: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    records: i64,
    mirror: Cpu,
    source: Cpu,
    destination: Cpu,
    steal_seconds: f64,
}

impl Pids {
    fn mirror_cpu(&self) -> Result<Cpu> {
        self.mirror
            .iter()
            .try_fold(Cpu::default(), |sum, pid| Ok(sum.plus(proc::cpu(*pid).context("the mirror")?)))
    }

    fn memory_peak_bytes(&self) -> Result<u64> {
        self.mirror.iter().map(|pid| proc::memory_peak_bytes(*pid)).sum()
    }
}

impl Sample {
    fn take(pids: &Pids, records: i64) -> Result<Sample> {
        Ok(Sample {
            at: Instant::now(),
            records,
            mirror: pids.mirror_cpu()?,
            source: proc::cpu(pids.source).context("the source's broker")?,
            destination: proc::cpu(pids.destination).context("the destination's broker")?,
            steal_seconds: proc::steal_seconds()?,
        })
    }
}

/// Watches `topic` from its first record to its last; `started` is when the mirror was.
pub fn copy(
    mut destination: Client,
    topic: &str,
    partitions: i32,
    pids: Pids,
    expected: Expected,
    started: Instant,
) -> Result<Copied> {
    let first = loop {
        let records = destination.records(topic, partitions)?;
        if records > 0 {
            break Sample::take(&pids, records)?;
        }
        pids.mirror_cpu()?;
        ensure!(started.elapsed() < FIRST_RECORD_LIMIT, "no record came within {FIRST_RECORD_LIMIT:?}");
        std::thread::sleep(POLL);
    };
    ensure!(first.records < expected.records, "all records were there at the first look: too few");
    let (mut seen, mut moved) = (first.records, first.at);
    let last = loop {
        std::thread::sleep(POLL);
        let records = destination.records(topic, partitions)?;
        if records > seen {
            (seen, moved) = (records, Instant::now());
        }
        if records >= expected.records || first.at.elapsed() > expected.limit {
            break Sample::take(&pids, records)?;
        }
        if moved.elapsed() > STALL_LIMIT {
            bail!("stopped at {records} of {} records", expected.records);
        }
    };
    ensure!(last.records > first.records, "no record came after the first look");
    let cut = last.records < expected.records;
    let memory_peak_bytes = pids.memory_peak_bytes()?;
    Ok(figures(started, first, last, expected.record_bytes, cut, memory_peak_bytes))
}

fn figures(
    started: Instant,
    first: Sample,
    last: Sample,
    record_bytes: f64,
    cut: bool,
    memory_peak_bytes: u64,
) -> Copied {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let bytes = (last.records - first.records) as f64 * record_bytes;
    let gigabytes = bytes / 1e9;
    let mirror = last.mirror.since(first.mirror);
    let per_gigabyte = |earlier: Cpu, later: Cpu| later.since(earlier).seconds() / gigabytes;
    Copied {
        seconds,
        bytes,
        megabytes_per_second: bytes / 1e6 / seconds,
        mirror_cpu: mirror.seconds() / gigabytes,
        source_cpu: per_gigabyte(first.source, last.source),
        destination_cpu: per_gigabyte(first.destination, last.destination),
        mirror_system_share: mirror.system_seconds / mirror.seconds().max(f64::EPSILON),
        memory_peak_bytes,
        first_record_seconds: first.at.duration_since(started).as_secs_f64(),
        cut,
        steal_seconds: last.steal_seconds - first.steal_seconds,
        profile: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_from_the_first_record_seen() {
        let started = Instant::now();
        let cpu = |user_seconds| Cpu { user_seconds, system_seconds: 1.0 };
        let sample = |seconds, records, used| Sample {
            at: started + Duration::from_secs(seconds),
            records,
            mirror: Cpu { user_seconds: used, system_seconds: used },
            source: cpu(used),
            destination: cpu(3.0 * used),
            steal_seconds: 0.5 * used,
        };
        let found = figures(started, sample(2, 1_000, 1.0), sample(6, 2_001_000, 5.0), 1_000.0, false, 7);
        assert_eq!((found.seconds, found.bytes, found.megabytes_per_second), (4.0, 2e9, 500.0));
        assert_eq!((found.mirror_cpu, found.source_cpu, found.destination_cpu), (4.0, 2.0, 6.0));
        assert_eq!((found.mirror_system_share, found.first_record_seconds), (0.5, 2.0));
        assert_eq!(found.steal_seconds, 2.0);
    }
}

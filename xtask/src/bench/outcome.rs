//! What one run gave: the lines of the report.

use serde::Serialize;

use super::plan::{Part, Road, Shape, System};

/// One run; a line of JSON in the report.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub key: Key,
    pub round: u32,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Runs with the same key are the same but for chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    pub part: Part,
    pub shape: Shape,
    pub partitions: i32,
    pub system: System,
    pub road: Road,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    Copied(Copied),
    Probed(Probed),
    Failed { reason: String },
}

/// Figures of a copy, from the first record seen at the destination to the last. Bytes are those of
/// batches before compression; a GB is 10⁹ of them.
#[derive(Clone, Debug, Serialize)]
pub struct Copied {
    pub seconds: f64,
    pub bytes: f64,
    pub megabytes_per_second: f64,
    /// CPU seconds per GB.
    pub mirror_cpu: f64,
    pub source_cpu: f64,
    pub destination_cpu: f64,
    /// Of the mirror's CPU time, the kernel's share.
    pub mirror_system_share: f64,
    pub memory_peak_bytes: u64,
    /// From the start of the process, set-up included.
    pub first_record_seconds: f64,
    /// The limit came before the last record.
    pub cut: bool,
    /// In which the host ran others.
    pub steal_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// Latency of single records, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Probed {
    pub records: usize,
    /// From the source's acknowledgement to being visible at the destination.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub produce_p50_ms: f64,
    pub memory_peak_bytes: u64,
}

/// Where CPU time went.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// What told the functions, or why nothing did.
    pub source: String,
    /// Share of all samples by program, kernel and library.
    pub places: Vec<(f64, String)>,
    /// Share of all samples, where, what; largest first.
    pub functions: Vec<(f64, String)>,
    /// CPU seconds by thread name: the program's, the kernel's.
    pub threads: Vec<(String, f64, f64)>,
}

impl Key {
    /// The load and its spread, in words.
    pub fn place(&self) -> String {
        format!("{}, {}", self.shape.label(), partitions(self.partitions))
    }
}

pub fn partitions(count: i32) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

impl Run {
    pub fn copied(&self) -> Option<&Copied> {
        match &self.outcome {
            Outcome::Copied(copied) => Some(copied),
            _ => None,
        }
    }

    pub fn probed(&self) -> Option<&Probed> {
        match &self.outcome {
            Outcome::Probed(probed) => Some(probed),
            _ => None,
        }
    }

    /// One line for the terminal.
    pub fn line(&self) -> String {
        let Key { part, shape, partitions, system, road } = self.key;
        let what = format!("{part:?}").to_lowercase();
        let head = format!(
            "{what:<10} {} x{partitions:<3} {:<15} {:<14} #{}",
            shape.argument(),
            road.label(),
            system.label(),
            self.round
        );
        match &self.outcome {
            Outcome::Copied(copied) => format!("{head}  {}", copied.line()),
            Outcome::Probed(probed) => {
                format!("{head}  p50 {:.2} ms, p99 {:.2} ms", probed.p50_ms, probed.p99_ms)
            }
            Outcome::Failed { reason } => format!("{head}  FAILED: {reason}"),
        }
    }
}

impl Copied {
    fn line(&self) -> String {
        format!(
            "{:7.1} MB/s  CPU-s/GB {:5.2} (brokers {:.2}, {:.2})  {:4.0} MiB  first {:.2} s  {:.1} s{}",
            self.megabytes_per_second,
            self.mirror_cpu,
            self.source_cpu,
            self.destination_cpu,
            self.memory_peak_bytes as f64 / (1024.0 * 1024.0),
            self.first_record_seconds,
            self.seconds,
            if self.cut { ", cut" } else { "" }
        )
    }
}

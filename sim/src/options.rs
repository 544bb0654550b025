//! What a seed draws before anything runs. Printed first, so that a failure says what world it was.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::clusters::{CLUSTERS, Mood};
use crate::faults::{self, Fault};

/// Time for the operator and for faults; what follows is quiet.
const BUSY: std::ops::RangeInclusive<u64> = 20..=60;

/// Without faults, at the end: longer than the slowest thing that must then come right, which is a link
/// that notices that its clusters are silent (three checks of up to 10 s).
const QUIET: Duration = Duration::from_secs(45);

/// Commands of the operator, beside those that found clusters and links.
const COMMANDS: std::ops::RangeInclusive<u64> = 20..=80;

/// One way, between any two hosts.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 1..=100;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub busy: Duration,
    pub quiet: Duration,
    pub latency_max: Duration,
    pub commands: u64,
    /// By place in [`CLUSTERS`].
    pub moods: Vec<Mood>,
    /// In the order in which they happen.
    pub faults: Vec<Fault>,
}

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "options");
        let busy = Duration::from_secs(chance.between(BUSY));
        Self {
            seed,
            busy,
            quiet: QUIET,
            latency_max: Duration::from_millis(chance.between(LATENCY_MS)),
            commands: chance.between(COMMANDS),
            moods: CLUSTERS.iter().map(|_| *chance.pick(&Mood::ALL)).collect(),
            faults: faults::draw(&mut chance, busy),
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "  busy for {:?}, then quiet for {:?}", self.busy, self.quiet)?;
        writeln!(f, "  latency up to {:?}, {} commands", self.latency_max, self.commands)?;
        for (cluster, mood) in CLUSTERS.iter().zip(&self.moods) {
            writeln!(f, "  cluster {} {mood}", cluster.name)?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}

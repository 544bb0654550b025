//! What is measured and what follows from it. Pure.

use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::super::goals::{Goal, at_least, at_most};
use super::super::proc::Cpu;
use super::super::stats::median;

/// The client's p99 beside a mirror, over the one alone.
const P99_RATIO_MAX: f64 = 1.25;
/// What we are after.
const P99_RATIO_WISHED: f64 = 1.05;
/// The governed mirror's rate beside the client, over the ungoverned one's.
const RATE_RATIO_MIN: f64 = 0.5;
/// Once the client has stopped, over the ungoverned one's.
const RECOVERED_RATIO: f64 = 0.9;
const RECOVERED_SECONDS_MAX: usize = 5;
/// In its first second without the client the ungoverned mirror speeds up, too.
const SPEED_UP_SECONDS: usize = 1;

/// Who works beside the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nobody
    Alone,
    /// Lockstep at default settings
    Governed,
    /// Lockstep that puts no client's writes first
    Ungoverned,
    /// MirrorMaker 2
    MirrorMaker,
}

pub const KINDS: [Kind; 4] = [Kind::Alone, Kind::Governed, Kind::Ungoverned, Kind::MirrorMaker];

impl Kind {
    pub fn label(self) -> &'static str {
        match self {
            Kind::Alone => "client alone",
            Kind::Governed => "Lockstep",
            Kind::Ungoverned => "Lockstep, governor off",
            Kind::MirrorMaker => "MirrorMaker 2",
        }
    }
}

/// A moment of a mirror's catching up.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Instant,
    /// At the destination.
    pub mirrored: i64,
    pub destination: Cpu,
    pub mirror: Cpu,
    pub steal_seconds: f64,
}

/// One run. Rates are MB/s, CPU time is seconds a second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// None without a mirror.
    pub mirror_rate: Option<f64>,
    pub destination_cpu: f64,
    pub mirror_cpu: f64,
    pub steal_seconds: f64,
    pub p99_ms_by_second: Vec<f64>,
    pub mirror_rate_by_second: Vec<f64>,
    /// After the client stopped, as long as there was something to mirror.
    pub mirror_rate_after: Vec<f64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Measured(Box<Measured>),
    /// The mirror had nothing to do for a part of the time.
    Void,
    Failed {
        reason: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub kind: Kind,
    pub round: u32,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Run {
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            _ => None,
        }
    }
}

/// From each sample to the next.
pub fn rates(samples: &[Sample], record_bytes: f64) -> Vec<f64> {
    samples.windows(2).map(|pair| rate(pair[0], pair[1], record_bytes)).collect()
}

pub fn rate(first: Sample, last: Sample, record_bytes: f64) -> f64 {
    let megabytes = (last.mirrored - first.mirrored) as f64 * record_bytes / 1e6;
    megabytes / last.at.duration_since(first.at).as_secs_f64()
}

/// The values of a kind, round by round.
pub fn values(runs: &[Run], kind: Kind, value: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
    runs.iter().filter(|run| run.kind == kind).filter_map(|run| value(run.measured()?)).collect()
}

/// The median of a kind.
pub fn middle(runs: &[Run], kind: Kind, value: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
    median(&values(runs, kind, value))
}

/// Both kinds in the rounds that measured both.
fn pairs(runs: &[Run], own: Kind, other: Kind) -> impl Iterator<Item = (&Measured, &Measured)> {
    runs.iter().filter(move |run| run.kind == own).filter_map(move |run| {
        let beside = runs.iter().find(|beside| beside.kind == other && beside.round == run.round)?;
        Some((run.measured()?, beside.measured()?))
    })
}

/// The median over the rounds of a value's ratio within a round.
pub fn ratio(runs: &[Run], own: Kind, other: Kind, value: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
    let ratios = pairs(runs, own, other).filter_map(|(own, other)| Some(value(own)? / value(other)?));
    median(&ratios.collect::<Vec<_>>())
}

/// What the ungoverned mirror takes without a client.
fn undisturbed(ungoverned: &Measured) -> Option<f64> {
    mean(ungoverned.mirror_rate_after.get(SPEED_UP_SECONDS..)?)
}

/// The first second after the client's end in which the governed mirror was as fast as the ungoverned one;
/// infinite when it never was. None when there is nothing to tell by.
fn recovered_after(governed: &Measured, ungoverned: &Measured) -> Option<f64> {
    let (after, wanted) = (&governed.mirror_rate_after, RECOVERED_RATIO * undisturbed(ungoverned)?);
    let reached = after.iter().position(|rate| *rate >= wanted).map(|second| second + 1);
    let watched_long_enough = after.len() >= RECOVERED_SECONDS_MAX;
    reached.map(|second| second as f64).or(watched_long_enough.then_some(f64::INFINITY))
}

/// From then on when it should have been, the rate over the ungoverned one's.
fn held(governed: &Measured, ungoverned: &Measured) -> Option<f64> {
    Some(mean(governed.mirror_rate_after.get(RECOVERED_SECONDS_MAX..)?)? / undisturbed(ungoverned)?)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub fn goals(runs: &[Run]) -> Vec<Goal> {
    let p99 = ratio(runs, Kind::Governed, Kind::Alone, |m| Some(m.p99_ms));
    let rate = ratio(runs, Kind::Governed, Kind::Ungoverned, |m| m.mirror_rate);
    let after = |value: fn(&Measured, &Measured) -> Option<f64>| {
        let both = pairs(runs, Kind::Governed, Kind::Ungoverned);
        median(&both.filter_map(|(own, other)| value(own, other)).collect::<Vec<_>>())
    };
    let percent = RECOVERED_RATIO * 100.0;
    vec![
        at_most("governor: client's p99 over the one alone".to_owned(), P99_RATIO_MAX, p99),
        at_most("the same, as we want it".to_owned(), P99_RATIO_WISHED, p99),
        at_least("governor: catch-up rate over the one without it".to_owned(), RATE_RATIO_MIN, rate),
        at_most(
            format!("client stopped: seconds until {percent} % of the rate without governor"),
            RECOVERED_SECONDS_MAX as f64,
            after(recovered_after),
        ),
        at_least(
            format!("client stopped for {RECOVERED_SECONDS_MAX} s: rate over the one without governor"),
            RECOVERED_RATIO,
            after(held),
        ),
    ]
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::super::super::goals::Verdict;
    use super::*;

    pub fn run(kind: Kind, round: u32, p99_ms: f64, rate: f64, after: &[f64]) -> Run {
        let measured = Measured {
            p99_ms,
            mirror_rate: (kind != Kind::Alone).then_some(rate),
            mirror_rate_after: after.to_vec(),
            ..Measured::default()
        };
        Run { kind, round, outcome: Outcome::Measured(Box::new(measured)) }
    }

    const UNDISTURBED: [f64; 8] = [150.0, 200.0, 200.0, 200.0, 200.0, 200.0, 200.0, 200.0];

    fn verdicts(runs: &[Run]) -> Vec<(String, Verdict)> {
        goals(runs).into_iter().map(|goal| (goal.measured, goal.verdict)).collect()
    }

    fn governed(p99_ms: f64, rate: f64, after: &[f64]) -> Vec<(String, Verdict)> {
        verdicts(&[
            run(Kind::Alone, 1, 10.0, 0.0, &[]),
            run(Kind::Governed, 1, p99_ms, rate, after),
            run(Kind::Ungoverned, 1, 50.0, 100.0, &UNDISTURBED),
        ])
    }

    #[test]
    fn a_governor_keeps_all_of_its_promises_or_each_is_missed() {
        let met = |measured: &str| (measured.to_owned(), Verdict::Met);
        let missed = |measured: &str| (measured.to_owned(), Verdict::Missed);
        let good = governed(10.4, 60.0, &[90.0, 150.0, 180.0, 190.0, 190.0, 200.0, 200.0, 200.0]);
        assert_eq!(good, [met("1.04"), met("1.04"), met("0.60"), met("3.00"), met("1.00")]);
        let bad = governed(13.0, 40.0, &[90.0, 100.0, 110.0, 120.0, 130.0, 140.0, 140.0, 140.0]);
        assert_eq!(bad, [missed("1.30"), missed("1.30"), missed("0.40"), missed("inf"), missed("0.70")]);
        let late = governed(11.0, 60.0, &[90.0, 100.0, 110.0, 120.0, 130.0, 140.0, 180.0, 200.0]);
        assert_eq!(late[1..4], [missed("1.10"), met("0.60"), missed("7.00")]);
    }

    #[test]
    fn a_mirror_that_had_caught_up_too_early_tells_nothing_of_its_recovery() {
        let cut = governed(10.0, 60.0, &[90.0, 100.0]);
        assert_eq!([cut[3].1, cut[4].1], [Verdict::Unmeasured; 2]);
        let runs = [Run { kind: Kind::Governed, round: 1, outcome: Outcome::Void }];
        assert!(verdicts(&runs).iter().all(|(_, verdict)| *verdict == Verdict::Unmeasured));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // A machine that halves its speed in the second round changes no ratio.
        let runs = [
            run(Kind::Alone, 1, 10.0, 0.0, &[]),
            run(Kind::Governed, 1, 12.0, 0.0, &[]),
            run(Kind::Governed, 2, 24.0, 0.0, &[]),
            run(Kind::Alone, 2, 20.0, 0.0, &[]),
            run(Kind::Governed, 3, 99.0, 0.0, &[]),
        ];
        assert_eq!(ratio(&runs, Kind::Governed, Kind::Alone, |m| Some(m.p99_ms)), Some(1.2));
        assert_eq!(middle(&runs, Kind::Alone, |m| Some(m.p99_ms)), Some(15.0));
    }

    #[test]
    fn a_rate_is_of_what_came_between_two_looks() {
        let start = Instant::now();
        let sample = |ms, mirrored| Sample {
            at: start + Duration::from_millis(ms),
            mirrored,
            destination: Cpu::default(),
            mirror: Cpu::default(),
            steal_seconds: 0.0,
        };
        let samples = [sample(0, 5_000), sample(500, 6_000), sample(2_500, 6_000)];
        assert_eq!(rates(&samples, 1_000.0), [2.0, 0.0]);
    }
}

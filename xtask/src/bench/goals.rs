//! The speed goals, judged by what was measured. They live here and in no test: a busy machine must
//! not fail a build.

use serde::Serialize;

use super::outcome::{Copied, Key, Run, partitions};
use super::plan::{Part, ROUND_TRIP_MS, Road, Shape, System};
use super::stats::median;

/// Lockstep's CPU time per GB, over the floor's.
const CPU_RATIO_MAX: f64 = 1.25;
/// Lockstep's rate, over the floor's.
const RATE_RATIO_MIN: f64 = 0.9;
/// What Lockstep may add to the floor's median latency.
const LATENCY_ADDED_MS_MAX: f64 = 0.3;
const MEMORY_MIB_MAX: f64 = 100.0;
/// Lockstep's rate behind a long round trip, over the one behind none.
const DELAYED_RATIO_MIN: f64 = 0.8;

#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    pub what: String,
    pub wanted: String,
    pub measured: String,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Met,
    Missed,
    Unmeasured,
}

impl Verdict {
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Unmeasured => "not measured",
        }
    }
}

/// What Lockstep is held against: for small batches the floor that joins them.
pub fn reference(shape: Shape) -> System {
    if shape == Shape::Small { System::FloorJoining } else { System::Floor }
}

/// The goals of the parts that ran.
pub fn judge(runs: &[Run]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut keys: Vec<Key> = Vec::new();
    for run in runs {
        if run.key.system == System::Lockstep && !keys.contains(&run.key) {
            keys.push(run.key);
        }
    }
    for key in keys {
        match (key.part, key.road) {
            (Part::Throughput, _) => {
                goals.extend(throughput(runs, key, System::Floor));
                // What joining small batches would bring, which Lockstep doesn't do yet.
                if reference(key.shape) != System::Floor {
                    goals.extend(throughput(runs, key, reference(key.shape)));
                }
            }
            (Part::Latency, Road::Plain) => goals.push(latency(runs, key)),
            (Part::Memory, _) => goals.push(memory(runs, key)),
            (Part::Delay, Road::Proxied { round_trip_ms: ROUND_TRIP_MS }) if key.partitions > 1 => {
                goals.push(delay(runs, key));
            }
            _ => {}
        }
    }
    goals
}

fn throughput(runs: &[Run], key: Key, floor: System) -> [Goal; 2] {
    let floor = Key { system: floor, ..key };
    let of = |value: fn(&Copied) -> f64| ratio(runs, key, floor, value);
    let place = key.place();
    let against = floor.system.label();
    [
        at_most(format!("{place}: CPU per GB over the {against}'s"), CPU_RATIO_MAX, of(|c| c.mirror_cpu)),
        at_least(
            format!("{place}: MB/s over the {against}'s"),
            RATE_RATIO_MIN,
            of(|c| c.megabytes_per_second),
        ),
    ]
}

fn latency(runs: &[Run], key: Key) -> Goal {
    let floor = Key { system: System::Floor, ..key };
    let p50 = |run: &Run| Some(run.probed()?.p50_ms);
    let added: Vec<f64> = pairs(runs, key, floor, p50).map(|(own, floor)| own - floor).collect();
    at_most("latency at rest: ms added to the floor's p50".to_owned(), LATENCY_ADDED_MS_MAX, median(&added))
}

/// The worst run counts: memory is a bound.
fn memory(runs: &[Run], key: Key) -> Goal {
    let peaks = runs.iter().filter(|run| run.key == key).filter_map(Run::copied);
    let peak = peaks.map(|copied| copied.memory_peak_bytes).max();
    let mib = peak.map(|bytes| bytes as f64 / (1024.0 * 1024.0));
    at_most(
        format!("catching up on {}: MiB resident at most", partitions(key.partitions)),
        MEMORY_MIB_MAX,
        mib,
    )
}

fn delay(runs: &[Run], key: Key) -> Goal {
    let without = Key { road: Road::Proxied { round_trip_ms: 0 }, ..key };
    at_least(
        format!("{ROUND_TRIP_MS} ms, {}: MB/s over those at 0 ms", partitions(key.partitions)),
        DELAYED_RATIO_MIN,
        ratio(runs, key, without, |copied| copied.megabytes_per_second),
    )
}

/// The median over the rounds of one value's ratio within a round.
pub fn ratio(runs: &[Run], own: Key, other: Key, value: impl Fn(&Copied) -> f64) -> Option<f64> {
    let of = |run: &Run| Some(value(run.copied()?));
    let ratios: Vec<f64> = pairs(runs, own, other, of).map(|(own, other)| own / other).collect();
    median(&ratios)
}

/// The values of both, round by round.
fn pairs<'a>(
    runs: &'a [Run],
    own: Key,
    other: Key,
    value: impl Fn(&Run) -> Option<f64> + 'a,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    runs.iter().filter(move |run| run.key == own).filter_map(move |run| {
        let beside = runs.iter().find(|beside| beside.key == other && beside.round == run.round)?;
        Some((value(run)?, value(beside)?))
    })
}

pub fn at_most(what: String, limit: f64, measured: Option<f64>) -> Goal {
    goal(what, format!("≤ {limit}"), measured, |value| value <= limit)
}

pub fn at_least(what: String, limit: f64, measured: Option<f64>) -> Goal {
    goal(what, format!("≥ {limit}"), measured, |value| value >= limit)
}

fn goal(what: String, wanted: String, measured: Option<f64>, holds: impl Fn(f64) -> bool) -> Goal {
    let verdict = match measured {
        Some(value) if holds(value) => Verdict::Met,
        Some(_) => Verdict::Missed,
        None => Verdict::Unmeasured,
    };
    let measured = measured.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    Goal { what, wanted, measured, verdict }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bench::outcome::{Outcome, Probed};

    pub fn key(part: Part, system: System, road: Road) -> Key {
        Key { part, shape: Shape::Large, partitions: 16, system, road }
    }

    pub fn copied(key: Key, round: u32, rate: f64, cpu: f64, mib: u64) -> Run {
        let copied = Copied {
            seconds: 2.0,
            bytes: 2e6 * rate,
            megabytes_per_second: rate,
            mirror_cpu: cpu,
            source_cpu: 1.0,
            destination_cpu: 1.5,
            mirror_system_share: 0.5,
            memory_peak_bytes: mib * 1024 * 1024,
            first_record_seconds: 0.25,
            cut: false,
            steal_seconds: 0.0,
            profile: None,
        };
        Run { key, round, outcome: Outcome::Copied(copied) }
    }

    fn probed(system: System, round: u32, p50_ms: f64) -> Run {
        let probed = Probed { records: 1, p50_ms, p99_ms: 9.0, produce_p50_ms: 1.0, memory_peak_bytes: 1 };
        let key = key(Part::Latency, system, Road::Plain);
        Run { key, round, outcome: Outcome::Probed(probed) }
    }

    fn verdicts(runs: &[Run]) -> Vec<(String, Verdict)> {
        judge(runs).into_iter().map(|goal| (goal.measured, goal.verdict)).collect()
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let own = key(Part::Throughput, System::Lockstep, Road::Plain);
        let floor = Key { system: System::Floor, ..own };
        // A machine that halves its speed in the second round changes no ratio.
        let runs = [
            copied(floor, 1, 600.0, 1.0, 50),
            copied(own, 1, 570.0, 1.2, 50),
            copied(own, 2, 285.0, 2.4, 50),
            copied(floor, 2, 300.0, 2.0, 50),
        ];
        assert_eq!(verdicts(&runs), [("1.20".into(), Verdict::Met), ("0.95".into(), Verdict::Met)]);
        let slow = [copied(floor, 1, 600.0, 1.0, 50), copied(own, 1, 500.0, 1.3, 50)];
        assert_eq!(verdicts(&slow), [("1.30".into(), Verdict::Missed), ("0.83".into(), Verdict::Missed)]);
    }

    #[test]
    fn a_goal_without_its_floor_is_not_measured() {
        let own = key(Part::Throughput, System::Lockstep, Road::Plain);
        let floor = Key { system: System::Floor, ..own };
        let failed = Run { key: floor, round: 1, outcome: Outcome::Failed { reason: "gone".into() } };
        let runs = [failed, copied(own, 1, 500.0, 1.0, 50)];
        assert!(verdicts(&runs).iter().all(|(_, verdict)| *verdict == Verdict::Unmeasured));
    }

    #[test]
    fn latency_is_what_is_added_to_the_floor() {
        let runs = |own| [probed(System::Floor, 1, 1.0), probed(System::Lockstep, 1, own)];
        assert_eq!(verdicts(&runs(1.25))[0].1, Verdict::Met);
        assert_eq!(verdicts(&runs(1.4))[0].1, Verdict::Missed);
    }

    #[test]
    fn the_highest_memory_peak_counts() {
        let own = key(Part::Memory, System::Lockstep, Road::Plain);
        let runs = [copied(own, 1, 500.0, 1.0, 80), copied(own, 2, 500.0, 1.0, 120)];
        assert_eq!(verdicts(&runs), [("120.00".into(), Verdict::Missed)]);
    }

    #[test]
    fn the_delayed_rate_is_held_against_the_undelayed_one() {
        let far = key(Part::Delay, System::Lockstep, Road::Proxied { round_trip_ms: ROUND_TRIP_MS });
        let near = Key { road: Road::Proxied { round_trip_ms: 0 }, ..far };
        let runs = |rate| [copied(near, 1, 400.0, 1.0, 50), copied(far, 1, rate, 1.0, 50)];
        assert_eq!(verdicts(&runs(330.0)), [("0.82".into(), Verdict::Met)]);
        assert_eq!(verdicts(&runs(300.0)), [("0.75".into(), Verdict::Missed)]);
    }
}

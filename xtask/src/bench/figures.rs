//! Measurements that a test of the tests crate makes on real Kafka: it acts and prints figures, which become a
//! report here.
//!
//! - `cargo xtask bench fleet`: how long mirror partitions stand still when their node is killed or stopped.
//! - `cargo xtask bench groups`: how soon a thousand groups stand where they stand at the source.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{load_average, machine_line, write_evidence};
use crate::exec;
use crate::nightly::{commit, utc};
use crate::suite::{build_binary, fresh_seed, kafka_tests};

/// What is promised of the figures of a kind.
#[derive(Clone, Copy, Debug)]
struct Goal {
    kind: &'static str,
    what: &'static str,
    pick: Pick,
    limit_ms: u64,
}

/// What is measured, by an ignored test of that name.
pub struct Measurement {
    test: &'static str,
    /// Of the report's file.
    name: &'static str,
    title: &'static str,
    setting: &'static str,
    goals: &'static [Goal],
}

pub const FLEET: Measurement = Measurement {
    test: "fleet_times",
    name: "fleet",
    title: "Takeovers and stops of a fleet",
    setting: "Three nodes, twelve partitions, a record for each every 20 ms beside varied load; a look at both ends \
              every 25 ms. A figure is the longest time that a partition of the node stood still with something to \
              mirror. Brokers, load, nodes and watch share the machine.",
    goals: &[
        Goal {
            kind: "guarded",
            what: "SIGKILL to all guarded partitions flowing elsewhere, median",
            pick: Pick::Median,
            limit_ms: 5_000,
        },
        Goal {
            kind: "unguarded",
            what: "SIGKILL to all unguarded partitions flowing elsewhere, median",
            pick: Pick::Median,
            limit_ms: 30_000,
        },
        Goal {
            kind: "stop",
            what: "longest pause of a partition at a graceful stop",
            pick: Pick::Longest,
            limit_ms: 1_000,
        },
    ],
};

pub const GROUPS: Measurement = Measurement {
    test: "group_times",
    name: "groups",
    title: "Group offsets that follow the source",
    setting: "One node at default settings, a thousand groups with a position in each of four partitions, one broker \
              a cluster. A figure is the time from the last commit at the source until all that was committed stands \
              at the destination; to look at all thousand takes some hundred milliseconds, which are in it.",
    goals: &[
        Goal {
            kind: "one",
            what: "one group of a thousand moves, median",
            pick: Pick::Median,
            limit_ms: 1_000,
        },
        Goal { kind: "all", what: "all thousand groups move, median", pick: Pick::Median, limit_ms: 1_000 },
    ],
};

#[derive(Clone, Copy, Debug)]
enum Pick {
    Median,
    Longest,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Measure this binary instead of building one from this checkout
    #[arg(long, value_name = "FILE")]
    lockstep: Option<PathBuf>,
    /// Repeats the load; drawn at random by default
    #[arg(long)]
    seed: Option<u64>,
}

/// One run, such as `guarded Raft leader`, and its milliseconds.
type Figure = (String, u64);

pub fn run(measurement: &Measurement, arguments: &Arguments) -> Result<()> {
    let load = load_average()?;
    let binary = match &arguments.lockstep {
        Some(given) => fs::canonicalize(given).with_context(|| format!("--lockstep {}", given.display()))?,
        None => build_binary()?,
    };
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let (begun, started) = (Instant::now(), utc("%FT%TZ")?);
    let mut tests = kafka_tests(seed, &binary, &["--test", measurement.test]);
    let (passed, output) = exec::capture(tests.arg("--ignored"))?;
    let figures = figures(&output);
    ensure!(passed && !figures.is_empty(), "the measurement failed:\n{output}");
    let setting = format!(
        "Commit {}, started {started}, {:.0} minutes, seed {seed}.\n\n{}, load average before {load}.\n",
        commit()?,
        begun.elapsed().as_secs_f32() / 60.0,
        machine_line()?,
    );
    write_evidence(measurement.name, &started, &report(measurement, &setting, &figures))
}

/// Lines `FIGURE guarded Raft leader 3120`.
fn figures(output: &str) -> Vec<Figure> {
    let parse = |line: &str| {
        let (kind, ms) = line.trim().strip_prefix("FIGURE ")?.rsplit_once(' ')?;
        Some((kind.to_owned(), ms.parse().ok()?))
    };
    // The harness shows them twice: as they come, and when the test has passed.
    let successes = output.split("\nsuccesses:\n").nth(1).unwrap_or(output);
    successes.lines().filter_map(parse).collect()
}

fn report(measurement: &Measurement, setting: &str, figures: &[Figure]) -> String {
    let mut text = format!("# {}\n\n{setting}\n{}\n\n", measurement.title, measurement.setting);
    text.push_str("| goal | limit | found | |\n|---|---|---|---|\n");
    for Goal { kind, what, pick, limit_ms: limit } in measurement.goals {
        let mut all: Vec<u64> = figures
            .iter()
            .filter(|(name, _)| name.split(' ').next() == Some(*kind))
            .map(|(_, ms)| *ms)
            .collect();
        all.sort_unstable();
        let found = match pick {
            Pick::Median => all.get(all.len() / 2),
            Pick::Longest => all.last(),
        };
        let (shown, verdict) = match found {
            Some(ms) if ms < limit => (format!("{ms} ms of {} runs", all.len()), "met"),
            Some(ms) => (format!("{ms} ms of {} runs", all.len()), "missed"),
            None => ("nothing".to_owned(), "missed"),
        };
        let _ = writeln!(text, "| {what} | {limit} ms | {shown} | {verdict} |");
    }
    let mut by_kind: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    figures.iter().for_each(|(kind, ms)| by_kind.entry(kind).or_default().push(ms.to_string()));
    text.push_str("\n| runs | ms, in their order |\n|---|---|\n");
    for (kind, all) in by_kind {
        let _ = writeln!(text, "| {kind} | {} |", all.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_medians_and_verdicts() {
        let output = "FIGURE stop 9\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nFIGURE guarded follower 3000\n\
                      FIGURE guarded Raft leader 7000\nFIGURE guarded follower 4000\nFIGURE stop 1200\n";
        let found = figures(output);
        assert_eq!(found.len(), 4);
        let text = report(&FLEET, "", &found);
        assert!(text.contains("| 5000 ms | 4000 ms of 3 runs | met |"), "{text}");
        assert!(text.contains("| 30000 ms | nothing | missed |"), "{text}");
        assert!(text.contains("| 1000 ms | 1200 ms of 1 runs | missed |"), "{text}");
        assert!(text.contains("| guarded follower | 3000, 4000 |"), "{text}");
    }
}

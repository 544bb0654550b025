//! `cargo xtask bench scale-out`: one loaded topic mirrored by a fleet of one, of two and of three nodes in
//! turn, between two real brokers on the same machine. More nodes have no more processors here: what is
//! lost against one node is the price of sharing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use harness::artifacts::KAFKA_DEFAULT;
use harness::fleet::Fleet;
use harness::machine;
use harness::node::Node;
use serde::Serialize;

use super::goals::{Goal, at_least};
use super::measure::{self, Expected, Pids};
use super::outcome::Copied;
use super::plan::{Road, Shape};
use super::report::{goals_table, json, number, table};
use super::runner::{self, Loaded};
use super::stage::Stage;
use super::stats::median;
use super::{Directory, load_average, machine_line, write_evidence};
use crate::nightly::{commit, utc};
use crate::suite::{build_binary, fresh_seed, release_binary};

const FLEETS: [usize; 3] = [1, 2, 3];
/// Shared evenly by each of the fleets.
const PARTITIONS: i32 = 12;
const TOPIC: &str = "load";
/// More nodes may cost so much of one node's rate.
const RATE_RATIO_MIN: f64 = 0.85;
const COPY_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds in which every fleet has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Of a copy of large batches
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(50..=4_000))]
    megabytes: u64,
    /// Measure this binary instead of building one from this checkout
    #[arg(long, value_name = "FILE")]
    lockstep: Option<PathBuf>,
    /// Repeats the bytes of the load; drawn at random by default
    #[arg(long)]
    seed: Option<u64>,
    /// Version of the brokers
    #[arg(long, value_name = "VERSION", default_value = KAFKA_DEFAULT)]
    kafka: String,
    /// Don't wait for tests to end and don't keep them waiting: for trying
    #[arg(long)]
    beside_others: bool,
}

#[derive(Serialize)]
struct Run {
    nodes: usize,
    round: u32,
    #[serde(flatten)]
    copied: Copied,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let load = load_average()?;
    let lockstep = match &arguments.lockstep {
        Some(given) => fs::canonicalize(given).with_context(|| format!("--lockstep {}", given.display()))?,
        None => build_binary()?,
    };
    let raw_path = release_binary(&["-p", "raw-path"], "raw-path")?;
    let _machine = if arguments.beside_others { None } else { Some(machine::take()?) };
    let (begun, started) = (Instant::now(), utc("%FT%TZ")?);
    let directory = Directory::make()?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let stage = Stage::start(&arguments.kafka, &directory.path)?;
    stage.source.client()?.create_topic(TOPIC, PARTITIONS)?;
    let bytes = arguments.megabytes * 1_000_000;
    let loaded = runner::load(&raw_path, stage.source.plain(), TOPIC, PARTITIONS, Shape::Large, bytes, seed)?;
    let bench = Bench { lockstep, stage, directory: directory.path.clone(), loaded };
    // The brokers have to warm up, too.
    bench.copy(1, 0)?;
    let mut runs = Vec::new();
    for round in 1..=arguments.runs {
        let mut fleets = FLEETS;
        fleets.rotate_left(round as usize % FLEETS.len());
        for nodes in fleets {
            let copied = bench.copy(nodes, round)?;
            eprintln!(
                "#{round} {nodes} nodes {:.0} MB/s, {:.2} CPU-s/GB",
                copied.megabytes_per_second, copied.mirror_cpu
            );
            runs.push(Run { nodes, round, copied });
        }
    }
    let setting = format!(
        "Commit {}, started {started}, {:.0} minutes, seed {seed}.\n\n{}, load average before {load}. Apache \
         Kafka {}, one broker a cluster.\n",
        commit()?,
        begun.elapsed().as_secs_f64() / 60.0,
        machine_line()?,
        arguments.kafka,
    );
    write_evidence("scale-out", &started, &report(&setting, &runs))
}

struct Bench {
    lockstep: PathBuf,
    stage: Stage,
    directory: PathBuf,
    loaded: Loaded,
}

impl Bench {
    /// By a new fleet into a new topic.
    fn copy(&self, nodes: usize, round: u32) -> Result<Copied> {
        let directory = self.directory.join(format!("{round}-{nodes}"));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let topic = format!("mirror-{round}-{nodes}");
        let copied = self.copy_to(&topic, nodes, &directory);
        self.stage.destination.client()?.delete_topics(&[topic])?;
        fs::remove_dir_all(&directory).context("remove the run's directory")?;
        copied.with_context(|| format!("a copy by {nodes} nodes"))
    }

    fn copy_to(&self, topic: &str, nodes: usize, directory: &Path) -> Result<Copied> {
        let mut fleet = Fleet::found_binary(self.lockstep.clone(), directory, nodes, false)?;
        let any = fleet.any()?;
        let (source, destination) = self.stage.take_road(Road::Plain);
        for (name, bootstrap) in [("source", &source), ("destination", &destination)] {
            any.cli(&["cluster", "create", name, "--bootstrap-server", bootstrap])?;
        }
        any.cli(&["link", "create", "link", "--source", "source", "--destination", "destination"])?;
        let pids = Pids {
            mirror: fleet.running().map(Node::pid).collect::<Result<_>>()?,
            source: self.stage.source.pid()?,
            destination: self.stage.destination.pid()?,
        };
        let record_bytes = self.loaded.raw_bytes / self.loaded.records as f64;
        let expected = Expected { records: self.loaded.records, record_bytes, limit: COPY_LIMIT };
        let (watched, started) = (topic.to_owned(), Instant::now());
        let client = self.stage.destination.client()?;
        let watcher =
            std::thread::spawn(move || measure::copy(client, &watched, PARTITIONS, pids, expected, started));
        any.cli(&["mirror", "create", topic, "--link", "link", "--source-topic", TOPIC])?;
        let copied = watcher.join().map_err(|_| anyhow!("the watching thread panicked"))?;
        fleet.kill_all()?;
        copied
    }
}

/// The median over the rounds of a fleet's value over one node's in the same round.
fn ratio(runs: &[Run], nodes: usize, value: fn(&Copied) -> f64) -> Option<f64> {
    let of = |nodes: usize, round: u32| {
        runs.iter().find(|run| run.nodes == nodes && run.round == round).map(|run| value(&run.copied))
    };
    let rounds = runs.iter().filter(|run| run.nodes == nodes).map(|run| run.round);
    let ratios = rounds.filter_map(|round| Some(of(nodes, round)? / of(1, round)?));
    median(&ratios.collect::<Vec<_>>())
}

fn goals(runs: &[Run]) -> Vec<Goal> {
    let goal = |nodes: &usize| {
        let what = format!("{nodes} nodes: MB/s over those of one node");
        at_least(what, RATE_RATIO_MIN, ratio(runs, *nodes, |copied| copied.megabytes_per_second))
    };
    FLEETS[1..].iter().map(goal).collect()
}

fn report(setting: &str, runs: &[Run]) -> String {
    let row = |nodes: &usize| {
        let of = |value: fn(&Copied) -> f64| {
            let all = runs.iter().filter(|run| run.nodes == *nodes).map(|run| value(&run.copied));
            median(&all.collect::<Vec<_>>())
        };
        vec![
            nodes.to_string(),
            number(of(|c| c.megabytes_per_second), 0),
            number(ratio(runs, *nodes, |c| c.megabytes_per_second), 2),
            number(of(|c| c.mirror_cpu), 2),
            number(ratio(runs, *nodes, |c| c.mirror_cpu), 2),
            number(of(|c| c.source_cpu), 2),
            number(of(|c| c.destination_cpu), 2),
            number(of(|c| c.memory_peak_bytes as f64 / (1024.0 * 1024.0)), 0),
        ]
    };
    let head = [
        "nodes",
        "MB/s",
        "to one node",
        "CPU-s/GB",
        "to one node",
        "source broker",
        "destination broker",
        "peak MiB of all",
    ];
    let mut text = format!(
        "# One copy shared by one, two and three nodes\n\n{setting}\n{PARTITIONS} partitions of 1 KiB records in \
         batches of 256 KiB. The brokers and all nodes share the machine. A figure is the median of its rounds, \
         a ratio the median of the ratios within a round; it counts from the first record seen at the \
         destination to the last.\n\n{}\n\n## Goals\n\n{}\n\n```json\n",
        table(&head, FLEETS.iter().map(row)),
        goals_table(&goals(runs)),
    );
    runs.iter().for_each(|run| text += &format!("{}\n", json(run)));
    text + "```\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::goals::Verdict;
    use crate::bench::goals::tests::copied;
    use crate::bench::outcome::Outcome;
    use crate::bench::plan::{Part, System};

    fn run(nodes: usize, round: u32, rate: f64) -> Run {
        let key = crate::bench::goals::tests::key(Part::Throughput, System::Lockstep, Road::Plain);
        let Outcome::Copied(copied) = copied(key, round, rate, 1.0, 64).outcome else { unreachable!() };
        Run { nodes, round, copied }
    }

    #[test]
    fn fleets_are_held_against_one_node_of_their_round() {
        let runs = [run(1, 1, 500.0), run(3, 1, 430.0), run(2, 2, 200.0), run(1, 2, 250.0)];
        let verdicts: Vec<_> = goals(&runs).into_iter().map(|goal| (goal.measured, goal.verdict)).collect();
        assert_eq!(verdicts, [("0.80".into(), Verdict::Missed), ("0.86".into(), Verdict::Met)]);
        assert!(report("", &runs).contains("| 3     | 430  | 0.86        |"), "{}", report("", &runs));
    }
}

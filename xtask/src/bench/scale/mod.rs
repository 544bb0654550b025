//! `cargo xtask bench scale`: what many mirror partitions cost a fleet of three nodes, and how soon they
//! flow after all nodes were killed and after one was. Nodes and embedded clusters are processes.
//!
//! - [`records`]: the clusters, and a record for every partition.
//! - [`stage`]: the fleet between them, and what its metrics say.
//! - [`report`]: figures, goals, profiles as text.

mod records;
mod report;
mod stage;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::machine;

use self::report::{Figures, Setting};
use self::stage::Stage;
use super::profile::Profiler;
use super::{Directory, load_average, machine_line, write_evidence};
use crate::nightly::{commit, utc};
use crate::suite::{build_binary, release_binary};

/// What a start costs once: it is over by then, and freed memory went back.
const SETTLE: Duration = Duration::from_secs(15);
/// Brokers remember a producer for a day.
const OLD: Duration = Duration::from_secs(2 * 24 * 3600);
/// Partitions of one topic.
const TOPIC_PARTITIONS: u32 = 500;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Mirror partitions, in topics of 500
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    partitions: u32,
    /// How long the fleet is watched at rest
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    rest: u64,
    /// Measure this binary instead of building one from this checkout
    #[arg(long, value_name = "FILE")]
    lockstep: Option<PathBuf>,
    /// Embedded clusters by this binary of the example `serve` instead of a fresh one
    #[arg(long, value_name = "FILE")]
    serve: Option<PathBuf>,
    /// Records of the day before yesterday: no broker remembers their producer, so leases and waits guard
    /// their mirrors
    #[arg(long)]
    old: bool,
    /// Sample the busiest node by perf while partitions start and move
    #[arg(long)]
    profile: bool,
    /// Don't wait for tests to end and don't keep them waiting: for trying
    #[arg(long)]
    beside_others: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let load = load_average()?;
    let given = |path: &PathBuf| fs::canonicalize(path).with_context(|| path.display().to_string());
    let lockstep = arguments.lockstep.as_ref().map_or_else(build_binary, given)?;
    let serve = arguments.serve.as_ref().map_or_else(build_serve, given)?;
    let _machine = if arguments.beside_others { None } else { Some(machine::take()?) };
    let (begun, started) = (Instant::now(), utc("%FT%TZ")?);
    let directory = Directory::make()?;
    let topics = topics(arguments.partitions)?;
    let mut stage = Stage::start(lockstep, &serve, &directory.path, topics)?;
    let figures = measure(&mut stage, arguments)
        .map_err(|error| error.context(format!("the nodes' logs end with\n{}", stage.log_tails())))?;
    let setting = Setting {
        commit: commit()?,
        started: started.clone(),
        minutes: begun.elapsed().as_secs_f64() / 60.0,
        machine: machine_line()?,
        load,
        partitions: arguments.partitions,
        old: arguments.old,
        rest_seconds: arguments.rest,
    };
    write_evidence("scale", &started, &report::markdown(&setting, &figures))
}

/// The in-memory brokers as a process.
pub fn build_serve() -> Result<PathBuf> {
    release_binary(&["-p", "broker", "--example", "serve"], "examples/serve")
}

/// Names and numbers of partitions.
fn topics(partitions: u32) -> Result<Vec<(String, i32)>> {
    let mut topics = Vec::new();
    let mut left = partitions;
    while left > 0 {
        let of_this = left.min(TOPIC_PARTITIONS);
        topics.push((format!("topic-{:03}", topics.len()), i32::try_from(of_this)?));
        left -= of_this;
    }
    Ok(topics)
}

fn measure(stage: &mut Stage, arguments: &Arguments) -> Result<Figures> {
    let partitions = f64::from(arguments.partitions);
    let age = if arguments.old { OLD } else { Duration::ZERO };
    let mut figures = Figures::default();
    // A record before the mirrors are made, so that each has something to copy.
    stage.source.append_everywhere(1, age)?;
    std::thread::sleep(SETTLE);
    let bare = stage.memory_bytes()?;
    let per_partition = |bytes: u64| bytes.saturating_sub(bare) as f64 / partitions;

    let step = stage.begin("mirrors made")?;
    let made = profiler(stage, arguments, "make")?;
    stage.create_mirrors()?;
    figures.steps.push(stage.wait_flowing(step)?);
    figures.profiles.extend(finish(made, "Making mirrors, one after the other")?);
    std::thread::sleep(SETTLE);
    figures.bare_bytes = bare;
    figures.bytes_per_partition = Some(per_partition(stage.memory_bytes()?));

    figures.answers = stage.ask()?;
    figures.rest = Some(stage.watch_rest(Duration::from_secs(arguments.rest))?);

    stage.fleet.kill_all()?;
    stage.source.append_everywhere(2, age)?;
    let step = stage.begin("all nodes started")?;
    stage.fleet.restart_all()?;
    let profiler = profiler(stage, arguments, "start")?;
    let flowed = stage.wait_flowing(step)?;
    figures.profiles.extend(finish(profiler, "Starting: all partitions of a node begin at once")?);
    figures.start_seconds = Some(flowed.flowing_seconds);
    figures.steps.push(flowed);
    std::thread::sleep(SETTLE);
    figures.bytes_per_partition_restarted = Some(per_partition(stage.memory_bytes()?));

    stage.fleet.wait_settled(stage::NODES).context("before a node is killed")?;
    let lost = stage.fleet.raft_leader()?;
    let owned = stage.fleet.member(&lost)?.owned;
    let step = stage.begin(&format!("{lost}, the Raft leader, killed with {owned} partitions"))?;
    stage.fleet.kill(&lost)?;
    let profiler = self::profiler(stage, arguments, "move")?;
    stage.source.append_everywhere(3, age)?;
    let flowed = stage.wait_flowing(step)?;
    figures.profiles.extend(finish(profiler, "Moving: a third of all partitions changes its node")?);
    figures.move_seconds = Some(flowed.flowing_seconds);
    figures.steps.push(flowed);
    figures.compared = stage.compare()?;
    ensure!(figures.compared >= partitions as usize, "only {} partitions compared", figures.compared);
    Ok(figures)
}

fn profiler(stage: &Stage, arguments: &Arguments, name: &str) -> Result<Option<Profiler>> {
    if !arguments.profile {
        return Ok(None);
    }
    let directory = stage.directory.join(name);
    fs::create_dir_all(&directory).context("create the profile's directory")?;
    Ok(Some(Profiler::attach(stage.busiest_pid()?, &directory)))
}

fn finish(profiler: Option<Profiler>, title: &str) -> Result<Option<report::Profiled>> {
    let profile = profiler.map(Profiler::finish).transpose()?;
    Ok(profile.map(|profile| (title.to_owned(), profile)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_spread_over_topics_of_five_hundred() {
        let counts = |partitions| topics(partitions).unwrap().into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(counts(1_200), [500, 500, 200]);
        assert_eq!(counts(3), [3]);
    }
}

//! `cargo xtask bench impact`: what a mirror that catches up costs a client of the destination, whose core is
//! what is short.
//!
//! - [`play`]: one run, and the client's capacity.
//! - [`client`]: the paced producer.
//! - [`cores`]: who runs where.
//! - [`figures`], [`report`]: what follows.

mod client;
mod cores;
mod figures;
mod play;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use harness::artifacts::{Artifacts, KAFKA_DEFAULT, MIRROR_MAKER_DEFAULT};
use harness::{machine, workspace_root};

use self::figures::{KINDS, Kind, Run};
use self::play::{BACKLOG, Bench, CLIENT_CORE, CLIENT_PARTITIONS, OTHERS_CORE, PARTITIONS, WARM_UP_SECONDS};
use super::mirror::Programs;
use super::plan::Shape;
use super::runner;
use super::stage::Stage;
use super::{Directory, load_average, machine_line, write_evidence};
use crate::exec;
use crate::nightly::{commit, utc};
use crate::suite::{build_binary, fresh_seed, release_binary};

/// As Kafka's own scripts start a broker. On one core a JVM would choose another collector.
const COLLECTOR: [&str; 3] =
    ["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"];
/// Beside what is mirrored: brokers, MirrorMaker 2, the client's records, what the machine needs itself.
const ROOM_GB: f64 = 6.0;
/// Of the disk, for everybody else.
const DISK_LEFT_GB: f64 = 10.0;
/// Of a run before anything is measured.
const WARM_UP_ROUND: u32 = 0;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Rounds in which every kind has its turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How long the client is measured in a run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Measure this kind alone; may be repeated
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Of the backlog: it has to last for a run of the fastest mirror
    #[arg(long, value_name = "N", default_value_t = 11_000, value_parser = clap::value_parser!(u64).range(50..=100_000))]
    megabytes: u64,
    /// Of the backlog's batches; small ones are most work for the destination
    #[arg(long, value_enum, default_value = "small")]
    shape: Shape,
    /// Where the destination's logs are; in memory by default: its core is to be short, not its disk
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    destination: PathBuf,
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

pub fn run(arguments: &Arguments) -> Result<()> {
    let (load, machine) = (load_average()?, machine_line()?);
    let cores = std::thread::available_parallelism().context("count the cores")?.get();
    ensure!(cores > OTHERS_CORE, "{cores} core: client and mirror need one each");
    let backlog_gb = arguments.megabytes as f64 / 1e3;
    ensure_room(&workspace_root(), backlog_gb + DISK_LEFT_GB)?;
    ensure_room(&arguments.destination, backlog_gb + ROOM_GB)?;
    let programs = programs(arguments)?;
    let _machine = if arguments.beside_others { None } else { Some(machine::take()?) };
    let (begun, started) = (Instant::now(), utc("%FT%TZ")?);
    // All that we start is there as well, until it is moved.
    cores::pin(std::process::id(), OTHERS_CORE)?;
    let directory = Directory::make()?;
    let destination = Directory::make_in(&arguments.destination.join("lockstep"))?;
    let mut bench = start(arguments, programs, &directory.path, &destination.path)?;
    let capacity = warm_up(&mut bench)?;
    eprintln!("the client alone: {:.1} MB/s; its pace: {:.1} MB/s", capacity / 1e6, bench.pace as f64 / 1e6);
    let kinds: Vec<Kind> =
        KINDS.into_iter().filter(|kind| arguments.only.is_empty() || arguments.only.contains(kind)).collect();
    let runs = all_rounds(&mut bench, &kinds, arguments.runs)?;
    let setting = format!(
        "Commit {}, started {started}, {:.0} minutes, seed {}.\n\n{machine}, load average before {load}. Apache Kafka \
         {}, one broker a cluster, the destination's logs in `{}`. MirrorMaker 2 {MIRROR_MAKER_DEFAULT}.\n\nBacklog: {:.1} GB on \
         {PARTITIONS} partitions, {}. Client: {CLIENT_PARTITIONS} partitions; it alone, without a pace, {:.1} MB/s; \
         its pace {:.1} MB/s; {WARM_UP_SECONDS} s of warm-up, {} s measured.\n",
        commit()?,
        begun.elapsed().as_secs_f64() / 60.0,
        bench.seed,
        arguments.kafka,
        arguments.destination.display(),
        bench.backlog.raw_bytes / 1e9,
        arguments.shape.label(),
        capacity / 1e6,
        bench.pace as f64 / 1e6,
        arguments.seconds,
    );
    write_evidence("impact", &started, &report::markdown(&setting, &runs))?;
    ensure!(runs.iter().any(|run| run.measured().is_some()), "no run gave a figure");
    Ok(())
}

fn programs(arguments: &Arguments) -> Result<Programs> {
    let lockstep = match &arguments.lockstep {
        Some(given) => fs::canonicalize(given).with_context(|| format!("--lockstep {}", given.display()))?,
        None => build_binary()?,
    };
    let mirror_maker = if arguments.only.is_empty() || arguments.only.contains(&Kind::MirrorMaker) {
        Artifacts::ensure_mirror_maker(MIRROR_MAKER_DEFAULT)
    } else {
        Err(anyhow!("not to be measured"))
    };
    Ok(Programs { lockstep, raw_path: release_binary(&["-p", "raw-path"], "raw-path")?, mirror_maker })
}

/// The brokers where they belong, and the backlog.
fn start(arguments: &Arguments, programs: Programs, directory: &Path, destination: &Path) -> Result<Bench> {
    let stage = Stage::start_apart(&arguments.kafka, directory, destination, &COLLECTOR)?;
    cores::pin(stage.destination.pid()?, CLIENT_CORE)?;
    stage.source.client()?.create_topic(BACKLOG, PARTITIONS)?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let (bytes, shape) = (arguments.megabytes * 1_000_000, arguments.shape);
    let source = stage.source.plain();
    let backlog = runner::load(&programs.raw_path, source, BACKLOG, PARTITIONS, shape, bytes, seed)?;
    let (directory, seconds) = (directory.to_path_buf(), arguments.seconds);
    Ok(Bench { stage, programs, directory, shape, backlog, seed, seconds, pace: 0, count: 0 })
}

/// Brokers have to do what they will be measured at. The capacity that the pace follows from.
fn warm_up(bench: &mut Bench) -> Result<f64> {
    let cold = bench.capacity()?;
    bench.set_pace(cold);
    eprintln!("warming up: {}", report::line(&bench.run(Kind::Governed, WARM_UP_ROUND)?));
    let capacity = bench.capacity()?;
    bench.set_pace(capacity);
    Ok(capacity)
}

/// Every round begins with another kind, so that none always follows the same one.
fn all_rounds(bench: &mut Bench, kinds: &[Kind], rounds: u32) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for round in 1..=rounds {
        let first = (round as usize - 1) % kinds.len();
        for kind in [&kinds[first..], &kinds[..first]].concat() {
            let run = bench.run(kind, round)?;
            eprintln!("{}", report::line(&run));
            runs.push(run);
        }
    }
    Ok(runs)
}

/// What is free in memory is no more than the machine has.
fn ensure_room(directory: &Path, needed_gb: f64) -> Result<()> {
    let ask = |command: &mut Command| -> Result<String> {
        let (passed, text) = exec::capture(command.arg(directory))?;
        ensure!(passed, "{}: {}", directory.display(), text.trim());
        Ok(text.split_whitespace().last().unwrap_or_default().to_owned())
    };
    let free = ask(Command::new("df").args(["--output=avail", "-B1"]))?;
    let mut free: f64 = free.parse().with_context(|| format!("df says {free:?}"))?;
    if ask(Command::new("stat").args(["-f", "-c", "%T"]))? == "tmpfs" {
        let memory = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        free = free.min(available_bytes(&memory).context("/proc/meminfo tells no available memory")?);
    }
    ensure!(
        free / 1e9 >= needed_gb,
        "{} has {:.1} GB free, {needed_gb:.1} are needed: give --megabytes less, or --destination another place",
        directory.display(),
        free / 1e9
    );
    Ok(())
}

fn available_bytes(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_does_not_fit_is_refused() {
        let refused = ensure_room(Path::new("/dev/shm"), 1e9).unwrap_err().to_string();
        assert!(refused.contains("give --megabytes less"), "{refused}");
        let nowhere = ensure_room(Path::new("/nowhere"), 1.0).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere"), "{nowhere}");
        assert_eq!(available_bytes("MemFree: 1 kB\nMemAvailable:    2048 kB\n"), Some(2_097_152.0));
    }
}

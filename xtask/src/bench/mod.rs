//! `cargo xtask bench`: Lockstep's speed beside the floor's and MirrorMaker 2's, on the same brokers
//! and topics. The report goes to `docs/evidence/`; a missed goal is reported and fails nothing.

mod client;
mod figures;
mod goals;
mod impact;
mod measure;
mod mirror;
mod mirror_maker;
mod outcome;
mod plan;
mod proc;
mod profile;
mod proxy;
mod report;
mod runner;
mod scale;
mod scale_out;
mod stage;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::artifacts::{Artifacts, KAFKA_DEFAULT, MIRROR_MAKER_DEFAULT, kafka_home};
use harness::{machine, workspace_root};

use self::mirror::Programs;
use self::outcome::{Outcome, Run};
use self::plan::{Part, Scale, System};
use self::report::Setting;
use self::runner::Bench;
use self::stage::Stage;
use crate::exec;
use crate::nightly::{commit, utc};
use crate::suite::{build_binary, fresh_seed, release_binary};

/// No run begins later; the last one and the clean-up fit into the rest of 25 and of 4 minutes.
const LIMIT: Duration = Duration::from_secs(24 * 60);
const LIMIT_QUICK: Duration = Duration::from_secs(3 * 60 + 15);

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// One round of small copies: for trying, its figures say little
    #[arg(long)]
    quick: bool,
    /// Measure this part alone; may be repeated
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Rounds in which every system has its turn, 3 by default, 1 with --quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// Of a copy of large batches, 1500 by default, 400 with --quick; other loads follow from it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(50..=4_000))]
    megabytes: Option<u64>,
    /// No run is begun after this long, 24 by default, 3 with --quick; builds don't count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: Option<u64>,
    /// Repeats the bytes of a load; drawn at random by default
    #[arg(long)]
    seed: Option<u64>,
    /// Version of the brokers
    #[arg(long, value_name = "VERSION", default_value = KAFKA_DEFAULT)]
    kafka: String,
    /// Measure this binary instead of building one from this checkout
    #[arg(long, value_name = "FILE")]
    lockstep: Option<PathBuf>,
    /// Don't wait for tests to end and don't keep them waiting: for trying
    #[arg(long)]
    beside_others: bool,
}

/// What is measured apart from the comparison of mirrors.
#[derive(Clone, Debug, clap::Subcommand)]
enum Other {
    /// How long partitions stand still when a node of three is killed or stopped
    Fleet(figures::Arguments),
    /// How soon a thousand groups stand at the destination where they stand at the source
    Groups(figures::Arguments),
    /// What catching up costs a client of the destination, with and without the governor
    Impact(impact::Arguments),
    /// What thousands of mirror partitions cost a fleet, and how soon they flow after losses
    Scale(scale::Arguments),
    /// One copy by a fleet of one, of two and of three nodes: what sharing costs
    ScaleOut(scale_out::Arguments),
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.other {
        Some(Other::Fleet(arguments)) => return figures::run(&figures::FLEET, arguments),
        Some(Other::Groups(arguments)) => return figures::run(&figures::GROUPS, arguments),
        Some(Other::Impact(arguments)) => return impact::run(arguments),
        Some(Other::Scale(arguments)) => return scale::run(arguments),
        Some(Other::ScaleOut(arguments)) => return scale_out::run(arguments),
        None => {}
    }
    // Before our own builds add to it.
    let load = load_average()?;
    let scale = Scale::new(arguments.quick, arguments.runs, arguments.megabytes);
    let scenes = plan::scenes(&arguments.only, scale);
    let parts_with = |system| {
        scenes.iter().any(|scene| scene.contenders.iter().any(|contender| contender.system == system))
    };
    if let Some(hint) = profile::hint().filter(|_| scenes.iter().any(|scene| scene.part == Part::Profile)) {
        eprintln!("{hint}");
    }
    let programs = Programs {
        lockstep: lockstep_binary(arguments)?,
        raw_path: release_binary(&["-p", "raw-path"], "raw-path")?,
        mirror_maker: if parts_with(System::MirrorMaker) {
            Artifacts::ensure_mirror_maker(MIRROR_MAKER_DEFAULT)
        } else {
            Err(anyhow!("not to be measured"))
        },
    };
    let _machine = if arguments.beside_others {
        None
    } else {
        eprintln!("waiting for the machine, if tests on real Kafka run");
        Some(machine::take()?)
    };
    let started = Instant::now();
    let limit = if arguments.quick { LIMIT_QUICK } else { LIMIT };
    let limit = arguments.minutes.map_or(limit, |minutes| Duration::from_secs(minutes * 60));
    let directory = Directory::make()?;
    let setting = setting(arguments, scale, load)?;
    let mut bench = Bench {
        stage: Stage::start(&arguments.kafka, &directory.path)?,
        programs,
        directory: directory.path.clone(),
        seed: setting.seed,
        probe_records: scale.probe_records(),
        deadline: started + limit,
        count: 0,
    };
    let path = report_path("bench", &setting.started)?;
    let mut runs = Vec::new();
    for scene in plan::warm_up(&scenes, scale) {
        bench.warm_up(&scene)?;
    }
    let mut outcome = Ok(());
    for scene in &scenes {
        outcome = bench.play(scene, &mut |run: Run| {
            eprintln!("{}", run.line());
            runs.push(run);
        });
        // What is measured stays, whatever comes.
        write_report(&path, &setting, &runs, started)?;
        if outcome.is_err() {
            break;
        }
    }
    println!("{}", report::summary(&runs));
    println!("report: {}", path.strip_prefix(workspace_root()).unwrap_or(&path).display());
    outcome?;
    let failed = runs.iter().filter(|run| matches!(run.outcome, Outcome::Failed { .. })).count();
    ensure!(failed < runs.len(), "no run gave a figure");
    Ok(())
}

fn lockstep_binary(arguments: &Arguments) -> Result<PathBuf> {
    let Some(given) = &arguments.lockstep else { return build_binary() };
    // Nodes run in directories of their own.
    fs::canonicalize(given).with_context(|| format!("--lockstep {}", given.display()))
}

/// One at a time; what an interrupted bench left there is removed by the next.
struct Directory {
    path: PathBuf,
    _lock: fs::File,
}

impl Directory {
    fn make() -> Result<Directory> {
        Directory::make_in(&kafka_home())
    }

    fn make_in(home: &Path) -> Result<Directory> {
        fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
        let lock = fs::File::create(home.join("bench.lock")).context("create the bench's lock")?;
        lock.try_lock().with_context(|| format!("another bench runs in {}", home.display()))?;
        let path = home.join("bench");
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove old {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Directory { path, _lock: lock })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Where the evidence of a kind lies that was begun at this time.
fn report_path(kind: &str, started: &str) -> Result<PathBuf> {
    let folder = workspace_root().join("docs").join("evidence");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let stamp: String = started.chars().filter(|letter| !"-:".contains(*letter)).collect();
    Ok(folder.join(format!("{kind}-{stamp}.md")))
}

/// Shows a report, and keeps it.
fn write_evidence(kind: &str, started: &str, report: &str) -> Result<()> {
    let path = report_path(kind, started)?;
    fs::write(&path, report).with_context(|| format!("write {}", path.display()))?;
    println!("{report}\nreport: {}", path.strip_prefix(workspace_root()).unwrap_or(&path).display());
    Ok(())
}

fn write_report(path: &Path, setting: &Setting, runs: &[Run], started: Instant) -> Result<()> {
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let text = report::markdown(setting, runs, minutes);
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn setting(arguments: &Arguments, scale: Scale, load: String) -> Result<Setting> {
    let first_line = |command: &mut Command| -> Result<String> {
        let (_, text) = exec::capture(command)?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    Ok(Setting {
        commit: commit()?,
        started: utc("%FT%TZ")?,
        command: command_line(arguments),
        machine: machine_line()?,
        load,
        kafka: format!("Apache Kafka {}, one broker a cluster", arguments.kafka),
        mirror_maker: MIRROR_MAKER_DEFAULT.to_owned(),
        java: first_line(Command::new("java").arg("-version"))?,
        rust: first_line(Command::new("rustc").arg("--version"))?,
        seed: arguments.seed.unwrap_or_else(fresh_seed),
        rounds: scale.rounds,
    })
}

/// As it was typed, but for a path, which is this machine's own.
fn command_line(arguments: &Arguments) -> String {
    let given = arguments.lockstep.as_ref().map(|path| path.display().to_string());
    let words = std::env::args().skip(1).map(|word| match &given {
        Some(path) => word.replace(path.as_str(), "FILE"),
        None => word,
    });
    format!("cargo xtask {}", words.collect::<Vec<_>>().join(" "))
}

/// Of the last minute.
fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// Such as `2 cores, AMD EPYC, 23.4 GiB, Linux 6.1.0`.
fn machine_line() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
    let cores = std::thread::available_parallelism().context("count the cores")?;
    let (cpus, memory, kernel) =
        (read("/proc/cpuinfo")?, read("/proc/meminfo")?, read("/proc/sys/kernel/osrelease")?);
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&cpus, "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let gibibytes = kib.unwrap_or(f64::NAN) / (1024.0 * 1024.0);
    Ok(format!(
        "{cores} cores, {model}, {gibibytes:.1} GiB, Linux {}",
        kernel.split('-').next().unwrap_or_default().trim()
    ))
}

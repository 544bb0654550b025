//! `cargo xtask sim`: builds the simulation and runs seeds in it, or the same seeds twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use harness::workspace_root;

use crate::exec;
use crate::mutants;
use crate::nightly::{commit, utc};
use crate::suite::{built_binary, fresh_seed};

/// Optimised, with assertions: `Cargo.toml` says how.
pub const PROFILE: &str = "sim";

/// What `meta` compares by default: enough for each kind of event to happen in one of them.
const META_SEEDS: u64 = 5;

/// In the suite, about two minutes on two cores: always the same from the first on, so that a change that
/// breaks what held is seen, and one that nobody has seen yet. Looking for more is `swarm`'s and nightly's.
const SUITE_FIRST: u64 = 1;
const SUITE_SEEDS: u64 = 40;

/// What a known bug is hunted with by default.
const MUTANT_SEEDS: u64 = 600;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    seeds: Seeds,
}

#[derive(Debug, Args)]
struct Seeds {
    /// The first one; drawn at random by default
    #[arg(long)]
    seed: Option<u64>,
    /// How many, each in a process of its own. One shows its whole trace
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Writes the commit and the outcome to docs/evidence
    #[arg(long)]
    evidence: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs seeds twice, in two processes each, and compares what they print byte by byte
    Meta {
        /// The first one; drawn at random by default
        #[arg(long)]
        seed: Option<u64>,
        #[arg(long, default_value_t = META_SEEDS, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
    },
    /// Runs fresh seeds for a while, each in a process of its own
    Swarm {
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// The first one; drawn at random by default
        #[arg(long)]
        seed: Option<u64>,
        /// Writes the commit and the outcome to docs/evidence
        #[arg(long)]
        evidence: bool,
    },
    /// Runs seeds again, without their traces: those named, or all of sim/regressions.txt
    Replay { seeds: Vec<u64> },
    /// Puts known bugs back into a copy of the last commit, one at a time, and runs seeds until an
    /// invariant catches each
    #[command(visible_alias = "planted")]
    Mutants {
        /// Only these patches of sim/mutants, by name; all by default
        names: Vec<String>,
        /// The first one
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many, at most, for each bug
        #[arg(long, default_value_t = MUTANT_SEEDS, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
    },
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Seeds { seed, count, evidence } = arguments.seeds;
    match &arguments.what {
        Some(What::Meta { seed, count }) => simulate(&from("meta", *seed, "--count", *count)),
        Some(What::Mutants { names, seed, count }) => mutants::run(names, *seed, *count),
        Some(What::Swarm { minutes, seed, evidence }) => {
            simulate_or_prove(&from("swarm", *seed, "--minutes", *minutes), *evidence)
        }
        Some(What::Replay { seeds }) => {
            let seeds = seeds.iter().map(u64::to_string);
            simulate(&["replay".to_owned()].into_iter().chain(seeds).collect::<Vec<_>>())
        }
        None => simulate_or_prove(&from("seeds", seed, "--count", count), evidence),
    }
}

/// What every change must pass: the same seeds twice, then some more.
pub fn run_some(seed: u64) -> Result<()> {
    simulate(&["replay".to_owned()])?;
    simulate(&from("meta", Some(SUITE_FIRST), "--count", META_SEEDS))?;
    simulate(&from("seeds", Some(SUITE_FIRST + META_SEEDS), "--count", SUITE_SEEDS))?;
    simulate(&from("seeds", Some(seed), "--count", 1))
}

/// What the simulation is told: how many of which seeds.
fn from(what: &str, seed: Option<u64>, how: &str, many: u64) -> Vec<String> {
    let seed = seed.unwrap_or_else(fresh_seed);
    [what, "--seed", &seed.to_string(), how, &many.to_string()].map(str::to_owned).to_vec()
}

fn simulate_or_prove(arguments: &[String], evidence: bool) -> Result<()> {
    if evidence { prove(arguments) } else { simulate(arguments) }
}

fn simulate(arguments: &[String]) -> Result<()> {
    let status = Command::new(build()?).args(arguments).status()?;
    if !status.success() {
        bail!("the simulation failed");
    }
    Ok(())
}

/// Seeds as ever, with a log that says which commit held under which of them.
fn prove(arguments: &[String]) -> Result<()> {
    let (commit, begun) = (commit()?, utc("%Y%m%dT%H%MZ")?);
    let (passed, output) = exec::capture(Command::new(build()?).args(arguments))?;
    // One line a seed would say no more than that it passed.
    let told: Vec<&str> = output.lines().filter(|line| !line.contains(" passed: ")).collect();
    let told = told.join("\n");
    let folder = workspace_root().join("docs").join("evidence");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let log = folder.join(format!("sim-{begun}.log"));
    let text = format!("commit {commit}, sim {}\n{told}\n", arguments.join(" "));
    fs::write(&log, text).with_context(|| format!("write {}", log.display()))?;
    println!("{told}\nlog: {}", log.display());
    if passed { Ok(()) } else { bail!("the simulation failed") }
}

fn build() -> Result<PathBuf> {
    exec::run(&mut exec::cargo(&["build", "--package", "sim", "--profile", PROFILE]))?;
    built_binary(PROFILE, "sim")
}

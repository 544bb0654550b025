//! `cargo xtask sim`: builds the simulation and runs seeds in it, or the same seeds twice.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::exec;
use crate::mutants;
use crate::suite::{built_binary, fresh_seed};

/// Optimised, with assertions: `Cargo.toml` says how.
pub const PROFILE: &str = "sim";

/// What `meta` compares by default: enough for each kind of event to happen in one of them.
const META_SEEDS: u64 = 5;

/// In the suite: about half a minute on two cores.
const SUITE_SEEDS: u64 = 50;

/// What a known bug is hunted with by default.
const MUTANT_SEEDS: u64 = 200;

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
    /// Puts known bugs back into a copy of the last commit, one at a time, and runs seeds until an
    /// invariant catches each
    Mutants {
        /// The first one
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many, at most, for each bug
        #[arg(long, default_value_t = MUTANT_SEEDS, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
    },
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        Some(What::Meta { seed, count }) => simulate("meta", *seed, *count),
        Some(What::Mutants { seed, count }) => mutants::run(*seed, *count),
        None => simulate("seeds", arguments.seeds.seed, arguments.seeds.count),
    }
}

/// What every change must pass: the same seeds twice, then some more.
pub fn run_some(seed: u64) -> Result<()> {
    simulate("meta", Some(seed), META_SEEDS)?;
    simulate("seeds", Some(seed + META_SEEDS), SUITE_SEEDS)
}

fn simulate(what: &str, seed: Option<u64>, count: u64) -> Result<()> {
    let seed = seed.unwrap_or_else(fresh_seed).to_string();
    let mut simulation = Command::new(build()?);
    simulation.args([what, "--seed", &seed, "--count", &count.to_string()]);
    let status = simulation.status()?;
    if !status.success() {
        bail!("the simulation failed");
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    exec::run(&mut exec::cargo(&["build", "--package", "sim", "--profile", PROFILE]))?;
    built_binary(PROFILE, "sim")
}

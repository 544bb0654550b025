//! `cargo xtask test`: everything a change must pass, from nothing but a Rust toolchain, a JDK and
//! Maven. On two cores it stays below 45 minutes, downloads and first builds included.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rand::Rng;

use crate::exec::{self, cargo};
use crate::{check, deploy, prerequisites, side_by_side, sim};

/// Read by the tests crate; not taken from there, as xtask builds it without that part.
const SEED_VARIABLE: &str = "LOCKSTEP_TEST_SEED";
const BINARY_VARIABLE: &str = "LOCKSTEP_BIN";

pub fn run(seed: Option<u64>) -> Result<()> {
    let started = Instant::now();
    let seed = seed.unwrap_or_else(fresh_seed);
    eprintln!("seed {seed}; to repeat this run: cargo xtask test --seed {seed}");
    let outcome = run_steps(seed);
    eprintln!("\nseed {seed}, {:.0} minutes", started.elapsed().as_secs_f32() / 60.0);
    outcome.with_context(|| format!("to repeat this run: cargo xtask test --seed {seed}"))
}

fn run_steps(seed: u64) -> Result<()> {
    prerequisites::ensure_all()?;
    check::run()?;
    sim::run_some(seed)?;
    // Optimised as it is released, with every assertion on, and most of it is built for the simulation already.
    let binary = profiled_binary(sim::PROFILE, &AS_RELEASED, BINARY)?;
    deploy::check(&binary)?;
    // All of both, whatever becomes of one.
    let others = side_by_side::others()?;
    let named = others.iter().flat_map(|name| ["--test", name]);
    let arguments: Vec<&str> = std::iter::once("--lib").chain(named).collect();
    let alone = exec::run(&mut kafka_tests(seed, &binary, &arguments));
    let beside = side_by_side::run(|command| know(command, seed, &binary));
    alone.and(beside)
}

fn know(command: &mut Command, seed: u64, binary: &PathBuf) {
    command.env(SEED_VARIABLE, seed.to_string()).env(BINARY_VARIABLE, binary);
}

/// Short enough to be typed again.
pub fn fresh_seed() -> u64 {
    rand::rng().random_range(1..1_000_000_000)
}

/// As it is released. Optimised: beside two brokers on two cores an unoptimised build is slower than
/// the load.
pub fn build_binary() -> Result<PathBuf> {
    release_binary(&AS_RELEASED, BINARY)
}

const BINARY: &str = "lockstep";
const AS_RELEASED: [&str; 4] = ["-p", "lockstep", "--features", "audit"];

/// Builds a package as its arguments say and returns its binary of this name.
pub fn release_binary(package: &[&str], name: &str) -> Result<PathBuf> {
    profiled_binary("release", package, name)
}

fn profiled_binary(profile: &str, package: &[&str], name: &str) -> Result<PathBuf> {
    exec::run(cargo(&["build", "--profile", profile]).args(package))?;
    built_binary(profile, name)
}

/// Where a build under this profile leaves a binary.
pub fn built_binary(profile: &str, name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running xtask")?;
    // target/<profile>/xtask
    let target = own.ancestors().nth(2).context("xtask lies in no target directory")?;
    let binary = target.join(profile).join(name);
    ensure!(binary.is_file(), "the build left no {}", binary.display());
    Ok(binary)
}

/// The tests crate, one test at a time: each starts brokers that want the machine for themselves.
pub fn kafka_tests(seed: u64, binary: &PathBuf, more: &[&str]) -> Command {
    let mut command = cargo(&["test", "-p", "tests"]);
    command
        .args(more)
        .arg("--no-fail-fast")
        // Each test tells what it found equal, and how long it took.
        .args(["--", "--test-threads=1", "--show-output"]);
    know(&mut command, seed, binary);
    command
}

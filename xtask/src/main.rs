//! The project's own commands, run as `cargo xtask …`. Nothing here is part of the product.

mod bench;
mod check;
mod copies;
mod deploy;
mod exec;
mod kafka;
mod mutants;
mod nightly;
mod older;
mod prerequisites;
mod side_by_side;
mod sim;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "Commands for working on Lockstep")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Real Apache Kafka on this machine, for trying things by hand
    #[command(subcommand)]
    Kafka(kafka::Command),
    /// Speed of Lockstep beside the raw-path floor and MirrorMaker 2; the report goes to
    /// docs/evidence
    Bench(bench::Arguments),
    /// Format, lints, unit tests and documentation of the whole workspace
    Check,
    /// Everything a change must pass: prerequisites, `check`, and the built binary on real Kafka
    Test {
        /// Repeats a run; drawn at random by default
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The product in a world that a seed decides: simulated hosts, network, disks and clocks
    Sim(sim::Arguments),
    /// The files of `deploy/`, held against the tools that read them
    #[command(subcommand)]
    Deploy(deploy::Command),
    /// The tests on real Kafka in all variants, with new seeds, again and again; the log goes to
    /// docs/evidence
    Nightly {
        /// No round is begun after this long
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// Kills of the node in the test of kills; a normal run has 20
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        kills: u32,
        /// The commit whose binary shares a fleet with this one's
        #[arg(long, default_value = "HEAD^", value_name = "COMMIT")]
        older: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Kafka(command) => kafka::run(command),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Check => check::run(),
        Command::Test { seed } => suite::run(seed),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Deploy(command) => deploy::run(command),
        Command::Nightly { minutes, kills, older } => nightly::run(minutes, kills, &older),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not returned from main: that would print a backtrace of xtask, which tells nothing.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

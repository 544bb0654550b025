//! The bench's speed floor: the least work that copies raw batches between two brokers, with
//! blocking sockets and three threads. It is not the product and must never be used as one.
//!
//! It checks no CRC and no leader epoch, retries nothing, knows one broker a side, and ends at the
//! first error. What Lockstep takes beyond it is the price of being safe; `cargo xtask bench` tells
//! how high that is.
//!
//! Beside it stand what the bench needs for any mirror: `load` writes topics of an exact shape, `probe`
//! measures how long a record takes through a mirror at rest, and `pace` is a client whose latency a mirror
//! may cost.

mod append;
mod batch;
mod buffer;
mod copy;
mod fetch;
mod load;
mod pace;
mod probe;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "The speed floor of `cargo xtask bench` and its tools; not the product")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies a topic into one that exists and is empty or a copy's beginning
    Copy(copy::Arguments),
    /// Writes batches of an exact shape and prints how much it was
    Load(load::Arguments),
    /// Writes batches at even times and prints how long each second's took to be acknowledged
    Pace(pace::Arguments),
    /// Writes single records at the source and prints when each was seen at the destination
    Probe(probe::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Copy(arguments) => copy::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Pace(arguments) => pace::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

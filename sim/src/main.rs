//! The product in a world that a seed decides: real consensus, actors and Kafka client on simulated hosts,
//! network, disks and clocks. README.md beside it says what is simulated and what isn't.
//!
//! - [`options`]: what a seed draws. [`world`]: one seed's hosts, step by step.
//! - [`node`], [`api`], [`ends`]: the product, wired. [`view`]: what is seen of it. [`clusters`]: what it mirrors between.
//! - [`operator`]: who asks it, [`wishes`], [`requests`], [`asked`], [`life`]: what for, [`http`]: how.
//! - [`stops`]: mirrors that are promoted and failed over, and whose their topics are then.
//! - [`producer`], [`clients`], [`consumers`], [`verifier`], [`wire`], [`batches`]: the other clients, with a protocol of their own.
//! - [`disk`], [`network`], [`time`], [`chance`]: the seams' simulated sides.
//! - [`faults`], [`fleet_faults`], [`machine_faults`], [`answer_faults`], [`strike`], [`mischief`], [`refusal`]: what goes wrong, and [`struck`]: what that excuses.
//! - [`facts`]: what nodes show. [`judge`], [`invariants`]: what must hold all the same, by [`history`], [`mirrors`] and [`oracle`].
//! - [`trace`], [`shown`], [`walked`], [`run`]: what a run prints. [`processes`]: many runs, and the same
//!   run twice. [`coverage`]: which paths they took.
//!
//! It never waits for real time and never opens a socket or a file.

// rustdoc is told nothing of the flag.
#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "the simulation needs `--cfg tokio_unstable`, which the workspace's .cargo/config.toml sets: without it \
     tokio isn't seeded. A set RUSTFLAGS, even an empty one, replaces that file's flags: unset it"
);

mod answer_faults;
mod api;
mod asked;
mod batches;
mod catching_up;
mod chance;
mod clients;
mod clusters;
mod consumers;
mod coverage;
mod disk;
mod ends;
mod facts;
mod faults;
mod fleet;
mod fleet_faults;
mod history;
mod http;
mod invariants;
mod judge;
mod life;
mod machine_faults;
mod mirrors;
mod mischief;
mod network;
mod node;
mod operator;
mod options;
mod oracle;
mod peering;
mod processes;
mod producer;
mod refusal;
mod requests;
mod run;
mod shown;
mod stops;
mod strike;
mod struck;
mod time;
mod trace;
mod verifier;
mod view;
mod walked;
mod wire;
mod wishes;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::processes::Until;

#[derive(Debug, Parser)]
#[command(name = "sim", about = "Lockstep in a world that a seed decides")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed in this process; prints its trace
    One {
        #[arg(long)]
        seed: u64,
    },
    /// Seeds in processes of their own
    Seeds {
        /// The first one
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Processes at once; as many as there are processors by default
        #[arg(long)]
        at_once: Option<usize>,
    },
    /// Runs seeds twice and compares what they print
    Meta {
        /// The first one
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
    },
    /// Runs seeds for a while
    Swarm {
        /// The first one
        #[arg(long)]
        seed: u64,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// Processes at once; as many as there are processors by default
        #[arg(long)]
        at_once: Option<usize>,
    },
    /// Runs seeds again
    Replay {
        /// All that once failed by default
        seeds: Vec<u64>,
    },
}

fn main() -> ExitCode {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let outcome = match Arguments::parse().command {
        Command::One { seed } => run::run(seed),
        Command::Seeds { seed, count, at_once } => {
            processes::seeds(seed, Until::Count(count), at_once.unwrap_or_else(processors))
        }
        Command::Swarm { seed, minutes, at_once } => {
            let until = Until::Elapsed(Duration::from_secs(minutes * 60));
            processes::seeds(seed, until, at_once.unwrap_or_else(processors))
        }
        Command::Meta { seed, count } => processes::meta(seed, count),
        Command::Replay { seeds } => processes::replay(&seeds),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

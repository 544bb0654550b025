//! The command line. One file a noun; each verb is a call or two of the API and how to show them.
//!
//! Data goes to stdout, words to stderr. Exit code 0: done; 1: failed, with the reason and a hint;
//! 2: the command line itself is wrong. It decides nothing that the API hasn't decided.

mod authority;
mod client;
mod cluster;
mod configs;
mod events;
mod failure;
mod link;
mod mirror;
mod node;
pub mod output;
mod properties;
mod recover;
mod status;
#[cfg(test)]
mod tests;
mod verify;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, ServerArgs};
use crate::demo::DemoCommand;
use crate::server;
pub use client::{Client, typed, typed_all};
pub use failure::Failure;
use output::Format;

const EXAMPLE: &str = "\
Example, a mirror of topic 'orders' from cluster east to cluster west:
  lockstep server --data-dir /var/lib/lockstep --bootstrap &
  lockstep cluster create east --bootstrap-server east-1:9092
  lockstep cluster create west --bootstrap-server west-1:9092
  lockstep link create east-west --source east --destination west
  lockstep mirror create orders --link east-west
  lockstep mirror describe orders --link east-west";

const SERVER_EXAMPLE: &str = "\
Examples:
  lockstep server --data-dir /var/lib/lockstep --bootstrap   the first start
  lockstep server --data-dir /var/lib/lockstep               every other one
  lockstep server --config /etc/lockstep.toml                keys as the flags, _ for -";

const DEMO_EXAMPLE: &str = "\
Examples:
  lockstep demo
  lockstep demo --for 2m --port 7800 --records-per-second 10000";

/// Offset-exact, byte-exact cluster linking for Apache Kafka
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See all of it prove itself on this machine, with nothing to install
    #[command(after_help = DEMO_EXAMPLE)]
    Demo(DemoCommand),
    /// Run a node
    #[command(after_help = SERVER_EXAMPLE)]
    Server(ServerArgs),
    /// Kafka clusters and how to reach them
    Cluster(cluster::ClusterCommand),
    /// Bridges from a source cluster to a destination cluster
    Link(link::LinkCommand),
    /// Mirror topics
    Mirror(mirror::MirrorCommand),
    /// Members of the fleet
    Node(node::NodeCommand),
    /// The fleet, its nodes and what they run
    Status(status::StatusCommand),
    /// What has happened: when, why, and who asked
    Events(events::EventsCommand),
    /// Compare both ends of mirror topics, record by record, with a client that isn't ours
    Verify(verify::VerifyCommand),
}

/// Which node to ask, and how to show what it answers.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// Nodes to ask: the first that can be reached
    #[arg(
        long,
        env = "LOCKSTEP_URL",
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = client::URL_DEFAULT,
        global = true
    )]
    url: Vec<String>,
    /// How to show data
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", global = true)]
    output: Format,
}

impl Remote {
    fn client(&self) -> Client {
        Client::new(&self.url)
    }
}

impl Scope {
    /// An empty variable names nothing.
    fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref().filter(|cluster| !cluster.is_empty())
    }
}

/// Which cluster a link is on.
#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Destination cluster, needed only when the link's name is ambiguous
    #[arg(long, env = "LOCKSTEP_CLUSTER", value_name = "CLUSTER")]
    cluster: Option<String>,
}

pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(command) => return command.run().unwrap_or_else(Failure::tell),
        Command::Server(args) => serve(args),
        Command::Cluster(command) => command.run(),
        Command::Link(command) => command.run(),
        Command::Mirror(command) => command.run(),
        Command::Node(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Verify(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn serve(args: ServerArgs) -> Result<(), Failure> {
    let settings = args.settings(|name| std::env::var(name).ok()).map_err(|error| match error {
        ConfigError::Read { .. } => Failure::from(anyhow::Error::new(error)),
        other => Failure::usage(other.to_string()),
    })?;
    server::run(&settings).map_err(Failure::from)
}

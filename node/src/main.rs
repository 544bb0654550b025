//! The one binary of Lockstep: a node (`lockstep server`), and the commands that talk to one.

mod api;
mod cli;
mod config;
mod demo;
mod peering;
mod process;
mod server;
mod status;
mod telemetry;
#[cfg(feature = "audit")]
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}

//! `lockstep verify`: an independent audit of a link's mirror topics, through librdkafka.
//!
//! Built in with the cargo feature `audit`; without it the command says so.

#[cfg(feature = "audit")]
mod audited;
#[cfg(feature = "audit")]
mod show;

use std::time::Duration;

use clap::Args;

use super::{Remote, Scope};

const EXAMPLE: &str = "\
Examples:
  lockstep verify --link east-west
  lockstep verify orders payments --link east-west --all --max-bytes-per-second 100000000

Exit code 0: both ends are equal; 1: they differ, or it couldn't be finished.";

const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
#[cfg_attr(not(feature = "audit"), allow(dead_code, reason = "taken, and then refused as a whole"))]
pub struct VerifyCommand {
    #[command(flatten)]
    remote: Remote,
    /// Mirror topics; all of the link's when left out
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// The link that the mirror topics belong to
    #[arg(long, value_name = "LINK")]
    link: String,
    #[command(flatten)]
    scope: Scope,
    /// Compare so many offsets at the end of each partition
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
    /// Compare all that both ends hold
    #[arg(long, conflicts_with = "last")]
    all: bool,
    /// Read no faster than this, at each end
    #[arg(long, value_name = "BYTES", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    max_bytes_per_second: u64,
    /// Give up when a cluster says nothing for so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|e| format!("{e}; give a time such as 30s or 2min"))?;
    if (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&time) {
        return Ok(time);
    }
    Err("must be 1s to 10min".to_owned())
}

#[cfg(not(feature = "audit"))]
impl VerifyCommand {
    pub fn run(self) -> Result<(), super::failure::Failure> {
        Err(super::failure::Failure::usage("this lockstep was built without 'verify'").hint(
            "released binaries have it; from source: cargo build --release -p lockstep --features audit",
        ))
    }
}

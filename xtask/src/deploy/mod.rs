//! `cargo xtask deploy`: what is in `deploy/` is held against the tools that will read it, and against
//! what the built binary says that it takes.
//!
//! A tool that is missing and can't be installed skips its part, loudly. Each part also plants mistakes
//! in a copy of its files and fails when one of them passes: a check that can't fail checks nothing.

mod chart;
mod chart_rules;
mod compose;
mod examples;
mod findings;
mod image;
mod known;
mod systemd;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use harness::workspace_root;

use crate::exec;
use crate::prerequisites;
use crate::suite::built_binary;

use findings::{Findings, Outcome};
use known::Known;

/// `docker-compose` and `systemd-analyze`, and what a Python program is installed with.
const DEBIAN_PACKAGES: [&str; 3] = ["docker-compose", "python3-venv", "systemd"];

/// Cargo's profile of what is released.
pub const RELEASE: &str = "release";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The systemd unit, the compose file, the Helm chart and the examples; the image too when told so
    Check {
        /// Builds the image too, from a base that is made here, and runs what is in it; a release build
        /// unless a quicker profile is named
        #[arg(long, value_name = "PROFILE", num_args = 0..=1, default_missing_value = RELEASE)]
        image: Option<String>,
        /// Whose settings the files must name; a debug build by default
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
}

pub fn run(command: Command) -> Result<()> {
    let Command::Check { image, binary } = command;
    let binary = match binary {
        Some(binary) => binary,
        None => {
            exec::run(&mut exec::cargo(&["build", "-p", "lockstep"]))?;
            built_binary("debug", "lockstep")?
        }
    };
    check(&binary)?;
    image.map_or(Ok(()), |profile| check_image(&profile).map(drop))
}

/// All but the image: seconds, once the tools are there.
pub fn check(binary: &Path) -> Result<()> {
    prerequisites::install_where_possible(&DEBIAN_PACKAGES)?;
    let known = Known::ask(binary)?;
    conclude(vec![
        ("examples", examples::check(&known)?),
        ("systemd", systemd::check()?),
        ("compose", compose::check(&known)?),
        ("chart", chart::check(&known)?),
    ])
}

/// Minutes, most of them the build. What became of it, in a word.
pub fn check_image(profile: &str) -> Result<&'static str> {
    let outcome = image::check(profile)?;
    let word = if matches!(outcome, Outcome::Skipped(_)) { "NOT CHECKED" } else { "passed" };
    conclude(vec![("image", outcome)]).map(|()| word)
}

fn conclude(parts: Vec<(&str, Outcome)>) -> Result<()> {
    let mut wrong = 0;
    println!();
    for (part, outcome) in parts {
        match outcome {
            Outcome::Skipped(why) => println!("deploy: {part} SKIPPED, NOT CHECKED: {why}"),
            Outcome::Judged(Findings { wrong: found, told }) => {
                told.iter().for_each(|line| println!("deploy: {part}: {line}"));
                found.iter().for_each(|line| println!("deploy: {part} WRONG: {line}"));
                wrong += found.len();
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} findings in deploy/");
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace_root().join("deploy")
}

/// For copies with mistakes in them and for what is rendered; git ignores it.
fn scratch(part: &str) -> Result<PathBuf> {
    let folder = workspace_root().join("target").join("deploy").join(part);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

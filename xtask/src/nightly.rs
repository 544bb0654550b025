//! `cargo xtask nightly`: the tests on real Kafka with new seeds until the time is up. The log in
//! `docs/evidence/` says which commit held under which seeds; a failure keeps the end of its output.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::workspace_root;

use crate::exec;
use crate::prerequisites;
use crate::suite::{build_binary, fresh_seed, kafka_tests};

/// Of a failed round's output: the panic with its reasons and the ends of the logs.
const KEPT_LINES: usize = 200;

pub fn run(minutes: u64) -> Result<()> {
    prerequisites::ensure_all()?;
    let commit = commit()?;
    let binary = build_binary()?;
    let folder = workspace_root().join("docs").join("evidence");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let log = folder.join(format!("nightly-{}.log", utc("%Y%m%dT%H%MZ")?));
    append(&log, &format!("commit {commit}, {minutes} minutes"))?;

    let started = Instant::now();
    let limit = Duration::from_secs(minutes * 60);
    let (mut rounds, mut failed) = (0u32, 0u32);
    while started.elapsed() < limit {
        let seed = fresh_seed();
        let begun = Instant::now();
        // Integration tests only: unit tests don't read the seed.
        let more = ["--no-fail-fast", "--test", "*"];
        let (passed, output) = exec::capture(&mut kafka_tests(seed, &binary, &more))?;
        rounds += 1;
        let outcome = if passed { "passed" } else { "FAILED" };
        let seconds = begun.elapsed().as_secs();
        append(&log, &format!("{} seed {seed} {outcome} in {seconds} s", utc("%FT%TZ")?))?;
        if !passed {
            failed += 1;
            append(&log, &last_lines(&output))?;
        }
    }
    append(&log, &format!("{rounds} rounds, {failed} failed"))?;
    eprintln!("log: {}", log.display());
    if failed > 0 {
        bail!("{failed} of {rounds} rounds failed");
    }
    Ok(())
}

/// The commit that is tested, and whether the files still are that commit's.
pub fn commit() -> Result<String> {
    let git =
        |arguments: &[&str]| exec::capture(Command::new("git").args(arguments).current_dir(workspace_root()));
    let (found, id) = git(&["rev-parse", "HEAD"])?;
    let (clean, _) = git(&["diff", "--quiet", "HEAD"])?;
    if !found {
        bail!("not a git checkout: {id}");
    }
    let suffix = if clean { "" } else { " with local changes" };
    Ok(format!("{}{suffix}", id.trim()))
}

pub fn utc(format: &str) -> Result<String> {
    let (_, text) = exec::capture(Command::new("date").arg("-u").arg(format!("+{format}")))?;
    Ok(text.trim().to_owned())
}

fn append(log: &Path, line: &str) -> Result<()> {
    eprintln!("{line}");
    let mut file = OpenOptions::new().create(true).append(true).open(log).context("open the log")?;
    writeln!(file, "{line}").context("write the log")
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let first = lines.len().saturating_sub(KEPT_LINES);
    lines[first..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

//! `cargo xtask nightly`: the image, then the tests on real Kafka, in all variants, with new seeds until
//! the time is up, each time with the upgrade of a fleet from an older commit. The log in `docs/evidence/` says which commit held under which seeds, and how long each test
//! took; of a failure it keeps what the test wrote.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::workspace_root;

use crate::copies;
use crate::deploy;
use crate::exec;
use crate::older;
use crate::prerequisites;
use crate::suite::{build_binary, fresh_seed, kafka_tests};

/// Read by the tests crate: all variants where a normal run draws one.
const ALL_CELLS_VARIABLE: &str = "LOCKSTEP_TEST_ALL_CELLS";
/// Read by the tests crate: kills of the node in one test, where a normal run has 20.
const KILLS_VARIABLE: &str = "LOCKSTEP_TEST_KILLS";
/// Read by the tests crate: the binary that shares a fleet with the one under test.
const OLDER_VARIABLE: &str = "LOCKSTEP_OLDER_BIN";
/// Of what a failed test wrote before and after its reasons begin: before them stand the ends of all
/// logs, and what they quote may be long.
const KEPT_BEFORE: usize = 100;
const KEPT_AFTER: usize = 150;

pub fn run(minutes: u64, kills: u32, older: &str) -> Result<()> {
    prerequisites::ensure_all()?;
    let commit = commit()?;
    let older_commit = copies::git(&workspace_root(), &["rev-parse", "--verify", older])?;
    let binary = build_binary()?;
    let older = older::build(&older_commit)?;
    let folder = workspace_root().join("docs").join("evidence");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let log = folder.join(format!("nightly-{}.log", utc("%Y%m%dT%H%MZ")?));
    append(&log, &format!("commit {commit}, {minutes} minutes, all cells, {kills} kills"))?;
    append(&log, &format!("older commit {older_commit}"))?;

    let image = deploy::check_image(deploy::RELEASE);
    let outcome = image.as_ref().map_or_else(|error| format!("FAILED: {error:#}"), ToString::to_string);
    append(&log, &format!("image {outcome}"))?;

    let started = Instant::now();
    let limit = Duration::from_secs(minutes * 60);
    let (mut rounds, mut failed) = (0u32, 0u32);
    while started.elapsed() < limit {
        let seed = fresh_seed();
        let begun = Instant::now();
        let (passed, output) = round(seed, &binary, &older, kills)?;
        rounds += 1;
        let outcome = if passed { "passed" } else { "FAILED" };
        let seconds = begun.elapsed().as_secs();
        append(&log, &format!("{} seed {seed} {outcome} in {seconds} s", utc("%FT%TZ")?))?;
        append(&log, &passed_in(&output))?;
        if !passed {
            failed += 1;
            append(&log, &failures(&output))?;
        }
    }
    append(&log, &format!("{rounds} rounds, {failed} failed"))?;
    eprintln!("log: {}", log.display());
    if failed > 0 {
        bail!("{failed} of {rounds} rounds failed");
    }
    image.map(|_| ())
}

fn round(seed: u64, binary: &PathBuf, older: &Path, kills: u32) -> Result<(bool, String)> {
    // Integration tests only: unit tests don't read the seed.
    let mut tests = kafka_tests(seed, binary, &["--no-fail-fast", "--test", "*"]);
    tests.env(ALL_CELLS_VARIABLE, "1").env(KILLS_VARIABLE, kills.to_string());
    let (passed, mut output) = exec::capture(&mut tests)?;
    let mut upgrade = kafka_tests(seed, binary, &["--test", "fleet_upgrade"]);
    let (upgraded, more) = exec::capture(upgrade.arg("--ignored").env(OLDER_VARIABLE, older))?;
    output.push_str(&more);
    Ok((passed && upgraded, output))
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

/// Each test against brokers says when it passes, and how long it took.
fn passed_in(output: &str) -> String {
    let lines = output.lines().filter(|line| line.contains(": passed after "));
    lines.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// What failed tests wrote, and the reasons they gave: of each test binary, as it comes.
fn failures(output: &str) -> String {
    let mut kept = Vec::new();
    for section in output.split("\nfailures:\n").skip(1) {
        let section = section.split("test result:").next().unwrap_or_default();
        for test in section.split("\n---- ") {
            let lines: Vec<&str> = test.lines().collect();
            let reasons = lines.iter().position(|line| line.contains("panicked at")).unwrap_or_default();
            let first = reasons.saturating_sub(KEPT_BEFORE);
            let last = lines.len().min(reasons + KEPT_AFTER);
            kept.extend(lines.first().filter(|_| first > 0).map(|name| format!("    ---- {name}")));
            kept.extend(lines[first..last].iter().map(|line| format!("    {line}")));
        }
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_times_of_what_passed_and_words_of_what_failed() {
        let output = "test a ... ok\nsuccesses:\n\n---- a stdout ----\na: passed after 3.1 s\n\ntest result: ok.\n\
                      test b ... FAILED\n\nfailures:\n\n---- b stdout ----\nb failed: why\n\nfailures:\n    b\n\n\
                      test result: FAILED. 0 passed\nlater\n";
        assert_eq!(passed_in(output), "    a: passed after 3.1 s");
        let long = format!(
            "\nfailures:\n\n---- c stdout ----\n{}panicked at x\nwhy\n{}",
            "log\n".repeat(500),
            "quoted\n".repeat(500)
        );
        let kept = failures(&long);
        assert!(kept.contains("---- c stdout") && kept.contains("panicked at x\n    why"), "{kept}");
        assert!(kept.lines().count() < 300, "{}", kept.lines().count());
        let told = failures(output);
        assert!(
            told.contains("b failed: why") && !told.contains("later") && !told.contains("passed"),
            "{told}"
        );
    }
}

//! One test against real brokers: it has the machine for itself, a directory, a seed printed
//! first, and, when it fails, its directory stays and the ends of all logs are shown.

use std::fs::{self, File};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::machine;
use crate::process::log_tail;

/// Fixes the seed of a run.
pub const SEED_VARIABLE: &str = "LOCKSTEP_TEST_SEED";
/// When it is 1, tests that draw one variant a run take all of them.
pub const ALL_CELLS_VARIABLE: &str = "LOCKSTEP_TEST_ALL_CELLS";
/// How often a test kills the node, where it does so many times.
pub const KILLS_VARIABLE: &str = "LOCKSTEP_TEST_KILLS";

/// Kafka as old and as new as what is meant for both.
pub const OLDEST_AND_NEWEST: [&str; 2] = ["3.9.1", "4.4.0"];

/// What a test body gets.
#[derive(Debug)]
pub struct Scenario {
    name: String,
    directory: PathBuf,
    seed: u64,
    started: Instant,
    passed: bool,
    _machine: File,
}

impl Scenario {
    /// Runs `body`. Its error fails the test, with the logs of everything it started.
    ///
    /// # Panics
    /// When the body fails: that is how a test reports.
    pub fn run(name: &str, body: impl FnOnce(&Scenario) -> Result<()>) {
        Self::run_with(name, machine::take(), body);
    }

    /// The same for one that mostly waits: others like it may run beside it.
    ///
    /// # Panics
    /// When the body fails: that is how a test reports.
    pub fn share(name: &str, body: impl FnOnce(&Scenario) -> Result<()>) {
        Self::run_with(name, machine::share(), body);
    }

    fn run_with(name: &str, machine: Result<File>, body: impl FnOnce(&Scenario) -> Result<()>) {
        let scenario = machine.and_then(|machine| Scenario::set_up(name, machine));
        let mut scenario = scenario.expect("prepare the scenario");
        let seed = scenario.seed;
        match body(&scenario) {
            Ok(()) => scenario.passed = true,
            Err(error) => {
                drop(scenario);
                // Not `{error:?}`: its backtrace would bury the reasons.
                let reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
                panic!("{name} failed with {SEED_VARIABLE}={seed}:\n{}", reasons.join("\n  because: "));
            }
        }
    }

    fn set_up(name: &str, machine: File) -> Result<Scenario> {
        let seed = seed()?;
        let unique = format!("lockstep-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(unique);
        if directory.exists() {
            fs::remove_dir_all(&directory).context("remove what an earlier process left")?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        eprintln!("{name}: {SEED_VARIABLE}={seed}, directory {}", directory.display());
        let started = Instant::now();
        Ok(Scenario { name: name.to_owned(), directory, seed, started, passed: false, _machine: machine })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Runs `body` with one of [`OLDEST_AND_NEWEST`], or in a long run with both, and a directory for it.
    ///
    /// # Errors
    /// That of `body`, with the version.
    pub fn each_version(&self, body: impl Fn(&str, &Path) -> Result<()>) -> Result<()> {
        let drawn = OLDEST_AND_NEWEST[self.rng().random_range(0..OLDEST_AND_NEWEST.len())];
        for version in OLDEST_AND_NEWEST.into_iter().filter(|version| all_cells() || *version == drawn) {
            eprintln!("Kafka {version}");
            let parent = self.directory.join(version);
            fs::create_dir(&parent).context("make a directory")?;
            body(version, &parent).with_context(|| format!("Kafka {version}"))?;
        }
        Ok(())
    }

    /// Says how far the test has come, and after how long.
    pub fn note(&self, what: &str) {
        eprintln!("{}: {what} after {:.1} s", self.name, self.started.elapsed().as_secs_f32());
    }

    /// The source of all choices of the test itself; the same for the same seed.
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if self.passed {
            self.note("passed");
            if let Err(error) = fs::remove_dir_all(&self.directory) {
                eprintln!("{} stays behind: {error}", self.directory.display());
            }
            return;
        }
        eprintln!("{} failed; everything it wrote stays in {}", self.name, self.directory.display());
        let mut logs = Vec::new();
        collect_logs(&self.directory, &mut logs);
        for log in logs {
            eprintln!("{}", log_tail(&log));
        }
    }
}

/// Whether all variants of a test are to run.
pub fn all_cells() -> bool {
    std::env::var(ALL_CELLS_VARIABLE).is_ok_and(|text| text == "1")
}

/// `normal`, unless the environment says otherwise.
pub fn kills(normal: u32) -> Result<u32> {
    number(KILLS_VARIABLE).transpose().map(|kills| kills.unwrap_or(normal))
}

/// The seed of the run; without one in the environment another at each call.
pub fn seed() -> Result<u64> {
    match number(SEED_VARIABLE) {
        Some(seed) => seed,
        None => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
            Ok(now.as_secs())
        }
    }
}

fn number<T: FromStr<Err = ParseIntError>>(variable: &str) -> Option<Result<T>> {
    let text = std::env::var(variable).ok()?;
    Some(text.trim().parse().with_context(|| format!("{variable}={text:?} is not a number")))
}

/// All files named `*.log` that processes of ours wrote; Kafka's own segments lie in `data`.
fn collect_logs(directory: &Path, logs: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "data") {
            collect_logs(&path, logs);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
}

//! Where CPU time goes: functions by `perf` where it runs, threads by the kernel's own count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::process::{Process, Signal};

use super::outcome::Profile;
use super::proc;
use crate::exec;

/// Not a divisor of anything that ticks.
const SAMPLES_PER_SECOND: &str = "997";
const FUNCTIONS_MAX: usize = 30;
/// Below this a thread is not worth its line.
const THREAD_SECONDS_MIN: f64 = 0.02;
/// perf writes down what it knows of every loaded file when it ends.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Samples one process.
pub struct Profiler {
    pid: u32,
    event: &'static str,
    data: PathBuf,
    /// Or why there is none.
    perf: Result<Process>,
}

impl Profiler {
    pub fn attach(pid: u32, directory: &Path) -> Profiler {
        let event = if counts_cycles() { "cycles" } else { "cpu-clock" };
        let data = directory.join("perf.data");
        let mut command = Command::new("perf");
        command
            .args(["record", "-q", "-F", SAMPLES_PER_SECOND, "-e", event, "-p", &pid.to_string(), "-o"])
            .arg(&data);
        let perf = Process::spawn("perf", command, &directory.join("perf.log"));
        Profiler { pid, event, data, perf }
    }

    /// Ends sampling and sums up; the process must still run.
    pub fn finish(self) -> Result<Profile> {
        let threads = proc::threads(self.pid)?
            .into_iter()
            .filter(|(_, cpu)| cpu.seconds() >= THREAD_SECONDS_MIN)
            .map(|(name, cpu)| (name, cpu.user_seconds, cpu.system_seconds));
        let mut threads: Vec<_> = threads.collect();
        threads.sort_by(|one, two| (two.1 + two.2).total_cmp(&(one.1 + one.2)));
        let (source, mut functions) = match self.perf.and_then(|perf| functions(perf, &self.data)) {
            Ok(functions) => (format!("perf, event {}", self.event), functions),
            Err(error) => (format!("none, because perf didn't run: {error:#}"), Vec::new()),
        };
        let places = places(&functions);
        functions.truncate(FUNCTIONS_MAX);
        Ok(Profile { source, places, functions, threads })
    }
}

/// Virtual machines often have no counter; samples are then taken by a timer.
fn counts_cycles() -> bool {
    let counted = exec::capture(Command::new("perf").args(["stat", "-e", "cycles", "true"]));
    counted.is_ok_and(|(passed, text)| passed && !text.contains("<not "))
}

fn functions(mut perf: Process, data: &Path) -> Result<Vec<(f64, String)>> {
    perf.signal(Signal::INT)?;
    perf.wait(FINISH_LIMIT)?;
    let mut command = Command::new("perf");
    command.args(["report", "--stdio", "--no-inline", "-F", "overhead,dso,symbol", "-i"]).arg(data);
    let (passed, text) = exec::capture(&mut command)?;
    ensure!(passed, "perf report: {text}");
    let functions: Vec<(f64, String)> = text.lines().filter_map(parse_function).collect();
    ensure!(!functions.is_empty(), "perf took no samples");
    Ok(functions)
}

/// A line such as `    12.34%  lockstep  [.] crc32c::hw_x86_64::crc32c`.
fn parse_function(line: &str) -> Option<(f64, String)> {
    let (share, rest) = line.trim().split_once('%')?;
    let share = share.parse().ok()?;
    Some((share, rest.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// The shares of functions added up by where they lie; largest first.
fn places(functions: &[(f64, String)]) -> Vec<(f64, String)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (share, function) in functions {
        let place = function.split(' ').next().unwrap_or_default();
        *sums.entry(place).or_default() += share;
    }
    let mut places: Vec<_> = sums.into_iter().map(|(place, share)| (share, place.to_owned())).collect();
    places.sort_by(|one, two| two.0.total_cmp(&one.0));
    places
}

/// Checks once, before minutes are spent, that a profile can be had.
pub fn hint() -> Option<&'static str> {
    let found = exec::capture(Command::new("perf").arg("--version")).context("start perf");
    found.is_err().then_some("perf is not installed (Debian: linux-perf): the profile will name threads only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_by_place() {
        let of = |share, function: &str| (share, function.to_owned());
        let functions = [of(20.0, "a [.] x"), of(25.0, "b [.] y"), of(10.0, "a [.] z")];
        assert_eq!(places(&functions), [of(30.0, "a"), of(25.0, "b")]);
    }

    #[test]
    fn a_line_of_perf_is_read() {
        let line = "    12.34%  [kernel.kallsyms]    [k] copy_user_generic  ";
        assert_eq!(parse_function(line).unwrap(), (12.34, "[kernel.kallsyms] [k] copy_user_generic".into()));
        assert_eq!(parse_function("# Samples: 100% of event"), None);
        assert_eq!(parse_function(""), None);
    }
}

//! Which core a process runs on, by util-linux's `taskset`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec;

/// A JVM starts threads at all times; one that began beside a look at all of them is seen by the next.
const LOOKS_MAX: usize = 20;
const MISSING: &str = "start taskset; it comes with util-linux";

/// Moves all threads of a process, and with them what they start.
pub fn pin(pid: u32, core: usize) -> Result<()> {
    for _ in 0..LOOKS_MAX {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-p", "-c", &core.to_string(), &pid.to_string()]);
        let (moved, text) = exec::capture(&mut taskset).context(MISSING)?;
        ensure!(moved, "process {pid} can't be moved to core {core}: {}", text.trim());
        if cores(pid)?.iter().all(|cores| *cores == core.to_string()) {
            return Ok(());
        }
    }
    anyhow::bail!("threads of process {pid} still run beside core {core} after {LOOKS_MAX} moves")
}

/// A program that starts on a core.
pub fn command(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// On which each thread may run, such as `0` or `0-1`.
fn cores(pid: u32) -> Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list the threads")?;
    let mut found = Vec::new();
    for task in tasks {
        let path = task.context("list the threads")?.path().join("status");
        // A thread may end while we look.
        let Ok(status) = fs::read_to_string(path) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        found.push(line.context("a thread's status has no cores")?.trim().to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_process_stays_on_its_core() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        pin(sleeper.id(), 0).unwrap();
        assert_eq!(cores(sleeper.id()).unwrap(), ["0"]);
        let no_core = pin(sleeper.id(), 100_000);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(no_core.unwrap_err().to_string().contains("can't be moved"));
    }
}

//! What the kernel knows of a process: CPU time and memory, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

/// The kernel's USER_HZ, which is 100 on every architecture Lockstep is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of all threads, those that ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub user_seconds: f64,
    pub system_seconds: f64,
}

impl Cpu {
    pub fn seconds(self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    pub fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            user_seconds: self.user_seconds + other.user_seconds,
            system_seconds: self.system_seconds + other.system_seconds,
        }
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
        }
    }
}

/// An error when the process has ended.
pub fn cpu(pid: u32) -> Result<Cpu> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} has ended"))?;
    ensure!(!is_dead(&text), "process {pid} has ended");
    parse_cpu(&text).with_context(|| format!("{path} says {text:?}"))
}

/// CPU time by thread name, threads of one name added up.
pub fn threads(pid: u32) -> Result<BTreeMap<String, Cpu>> {
    let mut threads: BTreeMap<String, Cpu> = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list the threads")?;
    for task in tasks {
        let task = task.context("list the threads")?.path();
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task.join("stat")) else { continue };
        let (Some(name), Some(found)) = (parse_name(&text), parse_cpu(&text)) else { continue };
        let sum = threads.entry(name).or_default();
        sum.user_seconds += found.user_seconds;
        sum.system_seconds += found.system_seconds;
    }
    Ok(threads)
}

/// The most memory the process ever had resident.
pub fn memory_peak_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// What is resident now.
pub fn memory_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} has ended"))?;
    parse_bytes(&text, field).with_context(|| format!("{path} has no {field}"))
}

/// Time in which this machine wanted to run and its host ran others.
pub fn steal_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    parse_steal(&text).context("/proc/stat has no steal time")
}

/// Fields 14 and 15 of a `stat` file; a name may contain spaces and parentheses.
fn parse_cpu(stat: &str) -> Option<Cpu> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|ticks| ticks.parse::<f64>().ok());
    let mut seconds = || fields.next()?.map(|ticks| ticks / TICKS_PER_SECOND);
    Some(Cpu { user_seconds: seconds()?, system_seconds: seconds()? })
}

/// Ended, but still in the table because its parent hasn't asked for its status.
fn is_dead(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn parse_name(stat: &str) -> Option<String> {
    let (_, rest) = stat.split_once('(')?;
    Some(rest.rsplit_once(')')?.0.to_owned())
}

fn parse_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn parse_steal(stat: &str) -> Option<f64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: f64 = line.split_whitespace().nth(8)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_parentheses() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 5 0 0 0 1234 56 7 8 20 0 3 0 100 200 300";
        let found = parse_cpu(stat).unwrap();
        assert_eq!(found, Cpu { user_seconds: 12.34, system_seconds: 0.56 });
        assert_eq!(parse_name(stat).unwrap(), "a) b (c)");
        assert_eq!(parse_cpu("42 (cut) S 1"), None);
    }

    #[test]
    fn a_child_that_nobody_asked_for_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = || cpu(child.id()).is_err().then_some(());
        let second = std::time::Duration::from_secs(10);
        harness::poll_until(second, second / 1_000, gone).expect("still counted as running");
        child.wait().unwrap();
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        let parse = |field| parse_bytes(status, field);
        assert_eq!((parse("VmHWM:"), parse("VmRSS:")), (Some(2 * 1024 * 1024), Some(1024 * 1024)));
        assert_eq!(parse("VmSwap:"), None);
    }

    #[test]
    fn steal_is_the_eighth_number() {
        let stat = "cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse_steal(stat), Some(2.5));
    }

    #[test]
    fn our_own_process_can_be_read() {
        let own = std::process::id();
        assert!(cpu(own).unwrap().seconds() >= 0.0);
        assert!(memory_peak_bytes(own).unwrap() > 1024 * 1024);
        assert!(!threads(own).unwrap().is_empty());
        assert!(steal_seconds().unwrap() >= 0.0);
    }
}

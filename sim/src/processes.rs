//! Seeds, each in a process of its own: libraries keep state for the life of a process, and a second
//! simulation in it would begin in another one.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::coverage::Coverage;

/// Of a failed seed's trace.
const LINES_SHOWN: usize = 60;

/// Each of these must be in the traces that `meta` compares: equal traces of nothing prove nothing.
const MUST_HAPPEN: [&str; 19] = [
    "node: was let in",
    "cut: node-",
    "an idempotent producer of ",
    "a plain producer of ",
    "cutting off the filler",
    "disk: sync",
    "disk: a commit waits for",
    "fault: clock set: ",
    "catalog: index",
    "operator: 201 to ",
    "fault: ",
    "dial: ",
    "shown: link ",
    "CHECKING",
    "placement: ",
    " RUNNING at ",
    "mischief: ",
    "over: ",
    "verifier: compares",
];

/// Seeds that once failed, and with what.
const REGRESSIONS: &str = include_str!("../regressions.txt");

fn one(seed: u64) -> Result<Output> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.args(["one", "--seed", &seed.to_string()]);
    command.output().context("start a process for a seed")
}

fn repeat(seed: u64) -> String {
    format!("to repeat: cargo xtask sim --seed {seed}")
}

/// Of all seeds.
#[derive(Default)]
struct Total {
    count: u64,
    simulated: Duration,
    failed: Vec<u64>,
    coverage: Coverage,
    /// By kind.
    faults: BTreeMap<String, u64>,
}

/// How many seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Count(u64),
    /// No further one begins after that time of the machine's.
    Elapsed(Duration),
}

/// Runs seeds from `first` on, a few at a time. A single one shows its trace.
///
/// # Errors
/// When a seed fails.
pub fn seeds(first: u64, until: Until, at_once: usize) -> Result<()> {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let is_single = until == Until::Count(1);
    let worker = || -> Result<()> {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match until {
                Until::Count(count) => place >= count,
                Until::Elapsed(time) => begun.elapsed() >= time,
            };
            if is_over {
                return Ok(());
            }
            let seed = first.wrapping_add(place);
            let output = one(seed)?;
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().last().unwrap_or_default();
            let mut total = total.lock().expect("no panic while held");
            total.count += 1;
            if is_single {
                print!("{text}");
            } else {
                println!("{last}");
            }
            total.simulated += simulated(last).unwrap_or_default();
            total.coverage.add(&text);
            for kind in text.lines().filter_map(fault_kind) {
                *total.faults.entry(kind.to_owned()).or_default() += 1;
            }
            if !output.status.success() {
                if !is_single {
                    let lines: Vec<&str> = text.lines().collect();
                    lines[lines.len().saturating_sub(LINES_SHOWN)..]
                        .iter()
                        .for_each(|line| println!("{line}"));
                }
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                eprintln!("{}", repeat(seed));
                total.failed.push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker never panics"))
    })?;
    let Total { count, simulated, failed, coverage, faults } =
        total.into_inner().expect("no panic while held");
    let wall = begun.elapsed().as_secs_f64();
    if !is_single {
        print!("{coverage}");
        let faults: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("faults: {}", faults.join(", "));
    }
    println!(
        "{count} seeds from {first} on, {} failed, in {wall:.1} s: {:.0} seeds a minute, {:.0} simulated hours an hour",
        failed.len(),
        count as f64 * 60.0 / wall,
        simulated.as_secs_f64() / wall
    );
    ensure!(failed.is_empty(), "failed: seeds {failed:?}");
    Ok(())
}

/// Runs `chosen` seeds again, or if none is chosen all that once failed.
///
/// # Errors
/// When one of them fails.
pub fn replay(chosen: &[u64]) -> Result<()> {
    let known = once_failed()?;
    let all: Vec<u64> = if chosen.is_empty() { known.keys().copied().collect() } else { chosen.to_vec() };
    let mut failed = Vec::new();
    for seed in all {
        let what = known.get(&seed).map(|what| format!(" (once: {what})")).unwrap_or_default();
        let output = one(seed)?;
        if output.status.success() {
            println!("seed {seed} is right{what}");
        } else {
            println!("seed {seed} FAILS{what}");
            eprintln!("{}{}", String::from_utf8_lossy(&output.stderr), repeat(seed));
            failed.push(seed);
        }
    }
    ensure!(failed.is_empty(), "failed: seeds {failed:?}");
    Ok(())
}

/// With what, by seed.
fn once_failed() -> Result<BTreeMap<u64, &'static str>> {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (seed, what) = line.split_once(' ').context("a line of regressions.txt is `seed what`")?;
        Ok((seed.parse().context("a seed in regressions.txt")?, what))
    });
    pairs.collect()
}

/// Of a fault that struck, from its line.
fn fault_kind(line: &str) -> Option<&str> {
    let (_, fault) = line.split_once("sim: fault: ")?;
    Some(fault.split_once(": at ")?.0)
}

/// From the last line of a seed's output.
fn simulated(line: &str) -> Option<Duration> {
    let (before, _) = line.split_once(" s simulated")?;
    before.rsplit(' ').next()?.parse().ok().map(Duration::from_secs)
}

/// Runs each of `count` seeds twice and compares what the two processes print, byte by byte.
///
/// # Errors
/// The first difference; a seed that fails; traces in which nothing happened.
pub fn meta(first: u64, count: u64) -> Result<()> {
    let mut all = String::new();
    for seed in (0..count).map(|place| first.wrapping_add(place)) {
        let (a, b) = (one(seed)?, one(seed)?);
        let (text, again) = (String::from_utf8_lossy(&a.stdout), String::from_utf8_lossy(&b.stdout));
        if let Some((number, left, right)) = first_difference(&text, &again) {
            bail!(
                "seed {seed} isn't repeatable: line {number} was\n  {left}\nand then\n  {right}\n{}",
                repeat(seed)
            );
        }
        ensure!(a.status.success(), "{}{}", String::from_utf8_lossy(&a.stderr), repeat(seed));
        ensure!(!all.contains(&*text), "seed {seed} is like the one before");
        println!("twice the same: {}", text.lines().last().unwrap_or_default());
        all.push_str(&text);
    }
    let missing: Vec<&str> = MUST_HAPPEN.into_iter().filter(|what| !all.contains(what)).collect();
    ensure!(missing.is_empty(), "in none of {count} seeds from {first} on was there {missing:?}");
    Ok(())
}

fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(usize, &'a str, &'a str)> {
    const END: &str = "(the end)";
    let (mut left, mut right) = (a.split_inclusive('\n'), b.split_inclusive('\n'));
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => return None,
            (l, r) if l == r => {}
            (l, r) => return Some((number, l.unwrap_or(END).trim_end(), r.unwrap_or(END).trim_end())),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_also_at_the_end() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some((2, "(the end)", "b")));
        assert_eq!(first_difference("a", "a\n"), Some((1, "a", "a")));
    }

    #[test]
    fn each_line_of_the_regressions_is_a_seed_and_what_it_was() {
        let known = once_failed().expect("readable");
        assert!(!known.is_empty() && known.values().all(|what| what.contains(' ')), "{known:?}");
    }

    #[test]
    fn a_faults_kind_is_read_from_its_line() {
        let line = "    2.128000 -        sim: fault: node leaves: at 2.128s a node leaves, back 3s later";
        assert_eq!(fault_kind(line), Some("node leaves"));
        assert_eq!(fault_kind("  at 2.128s a node leaves, back 3s later"), None);
    }

    #[test]
    fn simulated_time_is_read_from_a_seeds_last_line() {
        assert_eq!(simulated("seed 7 passed: 95 s simulated, 12 lines, 00"), Some(Duration::from_secs(95)));
        assert_eq!(simulated("seed 7"), None);
    }
}

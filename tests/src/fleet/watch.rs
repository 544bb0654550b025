//! How long each partition of the mirror stood still while there was something to mirror: seen at
//! both ends by our own reader, not told by the product.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::wire::RawReader;

/// The error of every figure.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A look that takes longer tells of a broker that was away, not of the mirror.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// After a broker didn't answer.
const BLIND_PAUSE: Duration = Duration::from_millis(200);

/// Looks at both ends in a thread of its own.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    partitions: BTreeMap<i32, Progress>,
}

/// Of one partition of the mirror.
#[derive(Clone, Copy, Debug)]
struct Progress {
    end: i64,
    /// When the mirror grew or had everything.
    good: Instant,
    stall_max: Duration,
}

impl Watch {
    pub fn start(source: &str, destination: &str, topic: &str) -> Watch {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let ends = (source.to_owned(), destination.to_owned(), topic.to_owned());
        let (stopped, shared) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A broker that is away is looked for again, and nobody is blamed meanwhile.
                if look_until(&stopped, &ends, &shared).is_err() {
                    lock(&shared).forget_time(Instant::now());
                    std::thread::sleep(BLIND_PAUSE);
                }
            }
        });
        Watch { stop, seen, thread: Some(thread) }
    }

    /// Forgets the stalls so far.
    pub fn reset(&self) {
        let now = Instant::now();
        for progress in lock(&self.seen).partitions.values_mut() {
            progress.stall_max = Duration::ZERO;
            progress.good = now;
        }
    }

    /// The longest time since the last reset that each partition stood still with something to mirror;
    /// what still stands counts.
    pub fn stalls(&self) -> BTreeMap<i32, Duration> {
        lock(&self.seen).partitions.iter().map(|(partition, p)| (*partition, p.stall_max)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the watch panicked");
        }
    }
}

fn look_until(
    stop: &AtomicBool,
    (source, destination, topic): &(String, String, String),
    seen: &Mutex<Seen>,
) -> Result<()> {
    let (mut source, mut destination) = (RawReader::new(source)?, RawReader::new(destination)?);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        // The source first: what comes meanwhile doesn't look like a stall.
        let wanted = log_ends(&mut source, topic)?;
        let found = log_ends(&mut destination, topic)?;
        let now = Instant::now();
        if now - begun > LOOK_MAX {
            lock(seen).forget_time(now);
        }
        lock(seen).add(now, &wanted, &found);
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn log_ends(reader: &mut RawReader, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let partitions = reader.partitions(topic)?;
    partitions.into_iter().map(|partition| Ok((partition, reader.log_end(topic, partition)?))).collect()
}

impl Seen {
    fn add(&mut self, now: Instant, wanted: &BTreeMap<i32, i64>, found: &BTreeMap<i32, i64>) {
        for (partition, end) in found {
            let source_end = wanted.get(partition).copied().unwrap_or_default();
            let new = Progress { end: *end, good: now, stall_max: Duration::ZERO };
            let progress = self.partitions.entry(*partition).or_insert(new);
            progress.stall_max = progress.stall_max.max(now.saturating_duration_since(progress.good));
            if *end > progress.end || *end >= source_end {
                progress.end = *end;
                progress.good = now;
            }
        }
    }

    fn forget_time(&mut self, now: Instant) {
        self.partitions.values_mut().for_each(|progress| progress.good = now);
    }
}

/// Whole after each look, so a panic elsewhere doesn't spoil it.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stands_still_only_while_there_is_something_to_mirror() {
        let ends = |end: i64| BTreeMap::from([(0, end)]);
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut seen = Seen::default();
        seen.add(at(0), &ends(5), &ends(5));
        seen.add(at(9), &ends(5), &ends(5));
        seen.add(at(10), &ends(6), &ends(5));
        seen.add(at(13), &ends(7), &ends(5));
        seen.add(at(14), &ends(9), &ends(8));
        let stall = seen.partitions[&0].stall_max;
        // Nothing was missing until second 9.
        assert!(stall >= Duration::from_secs(4) && stall <= Duration::from_secs(9), "{stall:?}");
        seen.add(at(15), &ends(9), &ends(9));
        assert_eq!(seen.partitions[&0].good, at(15));
    }
}

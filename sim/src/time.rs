//! What time it is in the simulation, inside and outside of its hosts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// The wall clock begins at 2026-01-01 00:00:00 UTC.
const EPOCH_MS: i64 = 1_767_225_600_000;

#[derive(Clone, Debug, Default)]
pub struct Time(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// As of the last step's end.
    elapsed_us: AtomicU64,
    /// Hosts run, and their clocks are ahead of the last step's end.
    is_stepping: AtomicBool,
    /// What the last reading of the wall clock was: within a step hosts run one after the other, and none
    /// of them may see another's past.
    wall_ms: AtomicI64,
}

impl Time {
    pub fn step_begins(&self) {
        self.0.is_stepping.store(true, Ordering::Relaxed);
    }

    pub fn step_ends(&self, elapsed: Duration) {
        self.0.is_stepping.store(false, Ordering::Relaxed);
        self.0.elapsed_us.store(micros(elapsed), Ordering::Relaxed);
    }

    /// Since the simulation began. Outside of steps (while a host is crashed, its tasks are dropped) a
    /// host's own clock shows the machine's time: it is never asked then.
    pub fn elapsed(&self) -> Duration {
        let in_host = self.0.is_stepping.load(Ordering::Relaxed).then(turmoil::sim_elapsed).flatten();
        in_host.unwrap_or(Duration::from_micros(self.0.elapsed_us.load(Ordering::Relaxed)))
    }

    /// Milliseconds since 1970; never runs backwards.
    pub fn wall_ms(&self) -> i64 {
        let now = EPOCH_MS + i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX - EPOCH_MS);
        self.0.wall_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// What one node's machine tells the time by. It outlives the node's processes.
#[derive(Clone, Debug)]
pub struct Clock {
    time: Time,
    /// How far its wall clock is ahead.
    ahead_ms: Arc<AtomicI64>,
    rate: Rate,
}

/// How a machine's clock runs that nobody sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// What it shows when the simulation begins.
    begins_at: Duration,
    /// Too fast by so many millionths; below zero too slow.
    fast_ppm: i64,
}

impl Rate {
    pub fn new(begins_at: Duration, fast_ppm: i64) -> Self {
        Self { begins_at, fast_ppm }
    }

    fn shows(self, elapsed: Duration) -> Duration {
        let off_ns = elapsed.as_nanos() as i64 / 1_000_000 * self.fast_ppm;
        let off = Duration::from_nanos(off_ns.unsigned_abs());
        self.begins_at + if off_ns < 0 { elapsed - off } else { elapsed + off }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shows {:?} at the beginning and runs {} ppm fast", self.begins_at, self.fast_ppm)
    }
}

impl Clock {
    pub fn new(time: Time, rate: Rate) -> Self {
        Self { time, ahead_ms: Arc::default(), rate }
    }

    /// Someone sets the wall clock.
    pub fn set(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    pub fn wall_ms(&self) -> i64 {
        self.time.wall_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    pub fn uptime(&self) -> Duration {
        self.rate.shows(self.time.elapsed())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_runs_too_fast_or_too_slow_never_runs_backwards() {
        for fast_ppm in [-500, 0, 500] {
            let rate = Rate::new(Duration::from_secs(7), fast_ppm);
            let shown: Vec<Duration> =
                (0..200_000).map(|us| rate.shows(Duration::from_micros(us * 50))).collect();
            assert!(shown.is_sorted() && shown[0] == Duration::from_secs(7));
            let off_us = shown[199_999].as_micros() as i64 - 7_000_000 - 199_999 * 50;
            assert!((off_us - 10 * fast_ppm).abs() <= 1, "{off_us}");
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_no_uptime() {
        let clock = Clock::new(Time::default(), Rate::default());
        let (wall_ms, uptime) = (clock.wall_ms(), clock.uptime());
        clock.set(-60_000);
        assert_eq!((clock.wall_ms(), clock.uptime()), (wall_ms - 60_000, uptime));
    }
}

//! What time it is in the simulation, inside and outside of its hosts.

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

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

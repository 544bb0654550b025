//! Time as a seam; simulation decides what time it is.
//!
//! Brokers age a producer by record timestamps, so the data plane needs the wall clock. A lease needs
//! a clock that nobody sets and that goes on while the machine is suspended.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl WallClock {
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    #[expect(clippy::disallowed_methods, reason = "production's clock")]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

/// Time since some beginning of the machine's. Never set, never backwards, and it counts the time in
/// which the process or the whole machine was stopped.
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub fn system() -> Self {
        Self::new(|| {
            let now = clock_gettime(ClockId::Boottime);
            let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
            Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
        })
    }

    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

/// What a node tells the time by.
#[derive(Clone)]
pub struct Clocks {
    pub wall: WallClock,
    pub uptime: Uptime,
}

impl Clocks {
    pub fn system() -> Self {
        Self { wall: WallClock::system(), uptime: Uptime::system() }
    }
}

//! The cluster's wall clock: a function, so that a simulation can give its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's time at the call, going on by tokio's clock: it never steps back, and stands still
/// with it.
pub fn system_clock() -> Clock {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let started = Instant::now();
    Arc::new(move || milliseconds(since_1970 + started.elapsed()))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

//! How long to wait so that reading stays below a rate.

use std::time::{Duration, Instant};

/// Shorter sleeps take longer than they say.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Counts bytes against time; silence earns no credit.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_second: f64,
    free_at: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1) as f64, free_at: now }
    }

    /// Books `bytes`, and how long to wait before the next.
    pub fn book(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let wait = self.free_at.saturating_duration_since(now);
        (wait >= WAIT_MIN).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_takes_as_long_as_the_rate_says() {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::new(1_000_000, now);
        for _ in 0..2_000 {
            now += pace.book(1_000, now).unwrap_or_default();
        }
        let took = now - start;
        assert!(took > Duration::from_millis(1_985) && took <= Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn silence_earns_no_credit() {
        let now = Instant::now();
        let mut pace = Pace::new(1_000_000, now);
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.book(500_000, later), Some(Duration::from_millis(500)));
    }
}

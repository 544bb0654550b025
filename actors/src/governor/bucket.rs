//! What may go when at so many bytes a second.

use std::time::Duration;

/// What a pause earns at most: as much as a timer is late. A longer one isn't made good by a burst, which clients would
/// wait behind.
const BURST: Duration = Duration::from_millis(2);

/// Pays for requests in bytes. One may always go when nothing is owed, however large it is; what follows
/// waits until it is paid for. So batches that are larger than what a second earns pass, too.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// Below zero: owed.
    level_bytes: f64,
    counted_at: Duration,
}

impl Bucket {
    /// `now` counts from anywhere.
    pub fn new(bytes_per_second: u64, now: Duration) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), level_bytes: 0.0, counted_at: now }
    }

    /// From now on; what is owed stays owed.
    pub fn set(&mut self, bytes_per_second: u64, now: Duration) {
        self.count(now);
        self.bytes_per_second = bytes_per_second.max(1);
    }

    /// How long nothing may go yet.
    pub fn wait(&mut self, now: Duration) -> Option<Duration> {
        self.count(now);
        (self.level_bytes < 0.0)
            .then(|| Duration::from_secs_f64(-self.level_bytes / self.bytes_per_second as f64))
    }

    pub fn pay(&mut self, bytes: usize, now: Duration) {
        self.count(now);
        self.level_bytes -= bytes as f64;
    }

    fn count(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.counted_at).as_secs_f64() * self.bytes_per_second as f64;
        self.counted_at = self.counted_at.max(now);
        let most = BURST.as_secs_f64() * self.bytes_per_second as f64;
        self.level_bytes = (self.level_bytes + earned).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_went_is_paid_for_before_the_next_goes() {
        let mut bucket = Bucket::new(1_000_000, ms(0));
        assert_eq!(bucket.wait(ms(0)), None);
        bucket.pay(500_000, ms(0));
        assert_eq!(bucket.wait(ms(100)), Some(ms(400)));
        bucket.set(2_000_000, ms(100));
        assert_eq!(bucket.wait(ms(100)), Some(ms(200)), "owed bytes are paid at the new rate");
        assert_eq!(bucket.wait(ms(300)), None);
    }

    #[test]
    fn an_hours_pause_earns_no_more_than_a_burst() {
        let mut bucket = Bucket::new(1_000_000, ms(0));
        assert_eq!(bucket.wait(ms(3_600_000)), None);
        bucket.pay(2_000 + 100_000, ms(3_600_000));
        assert_eq!(bucket.wait(ms(3_600_000)), Some(ms(100)));
    }

    #[test]
    fn over_a_minute_the_rate_is_kept_whatever_the_sizes() {
        let mut bucket = Bucket::new(10_000_000, ms(0));
        let (mut now, mut sent) = (ms(0), 0usize);
        for bytes in [64_000, 1_000_000, 300, 4_000_000].into_iter().cycle() {
            now += bucket.wait(now).unwrap_or_default();
            if now >= ms(60_000) {
                break;
            }
            bucket.pay(bytes, now);
            sent += bytes;
        }
        assert!((590_000_000..=605_000_000).contains(&sent), "{sent}");
    }
}

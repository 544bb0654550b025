//! How long our own writes take at a cluster, against how long they take in its quiet times.

use std::collections::VecDeque;
use std::time::Duration;

/// A minute's quickest tell of quiet times, ten seconds each.
const SPAN: Duration = Duration::from_secs(10);
const SPANS: usize = 6;
/// The last ones, of which the median counts.
const LATEST: usize = 16;
/// Older ones tell of another time.
const LATEST_FOR: Duration = Duration::from_secs(2);

/// Slow is what takes so many times the quickest's time, and so much more.
const TIMES: u32 = 4;
const MORE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Default)]
pub struct Slowness {
    /// Since when, and the quickest since then; the newest last.
    quickest: VecDeque<(Duration, Duration)>,
    latest: VecDeque<(Duration, Duration)>,
}

impl Slowness {
    pub fn took(&mut self, now: Duration, after: Duration) {
        match self.quickest.back_mut() {
            Some((since, quickest)) if now < *since + SPAN => *quickest = (*quickest).min(after),
            _ => self.quickest.push_back((now, after)),
        }
        while self.quickest.len() > SPANS {
            self.quickest.pop_front();
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back((now, after));
    }

    /// Any was answered lately.
    pub fn is_busy(&self, now: Duration) -> bool {
        self.latest.back().is_some_and(|(at, _)| now < *at + LATEST_FOR)
    }

    /// How long one takes at the moment.
    pub fn usual(&self) -> Duration {
        let mut latest: Vec<Duration> = self.latest.iter().map(|(_, after)| *after).collect();
        if latest.is_empty() {
            return Duration::ZERO;
        }
        let middle = latest.len() / 2;
        *latest.select_nth_unstable(middle).1
    }

    pub fn is_slow(&self, now: Duration) -> bool {
        let quickest = self.quickest.iter().map(|(_, quickest)| *quickest).min();
        self.is_busy(now) && quickest.is_some_and(|quickest| self.usual() > quickest * TIMES + MORE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_is_measured_by_the_last_minutes_quickest() {
        let mut slowness = Slowness::default();
        let mut take = |from: u64, until: u64, after: u64| {
            for at in (from..until).step_by(100) {
                slowness.took(ms(at), ms(after));
            }
            slowness.is_slow(ms(until))
        };
        assert!(!take(0, 10_000, 3));
        assert!(!take(10_000, 12_000, 32), "four times as long and twenty more");
        assert!(take(12_000, 14_000, 33));
        assert!(!take(14_000, 16_000, 3));
        assert!(take(16_000, 60_000, 33));
        assert!(!take(60_000, 80_000, 33), "after a minute that is how long it takes");
    }

    #[test]
    fn one_slow_answer_is_none() {
        let mut slowness = Slowness::default();
        (0..20).for_each(|n| slowness.took(ms(n), ms(if n == 7 { 900 } else { 3 })));
        assert!(!slowness.is_slow(ms(20)));
        assert_eq!((slowness.usual(), slowness.is_busy(ms(2_000))), (ms(3), true));
        assert!(!slowness.is_busy(ms(2_100)));
    }
}

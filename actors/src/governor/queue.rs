//! How many requests of ours wait at a cluster: what they take beyond what they take in its quiet times, by how many
//! there are. TCP Vegas tells a full path by the same measure.

use std::collections::VecDeque;
use std::time::Duration;

/// The quickest of a minute tells of quiet times, ten seconds each.
const SPAN: Duration = Duration::from_secs(10);
const SPANS: usize = 6;
/// What the last ones took, of which the median counts: a pause of the broker's isn't a queue.
const LATEST_FOR: Duration = Duration::from_millis(500);
const LATEST_MAX: usize = 256;
/// Fewer say little, unless no more came.
const LATEST_MIN: usize = 5;

#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Since when, and the quickest since then; the newest last.
    quickest: VecDeque<(Duration, Duration)>,
    /// When it was answered, and what it took.
    latest: VecDeque<(Duration, Duration)>,
}

impl Queue {
    pub fn took(&mut self, now: Duration, after: Duration) {
        match self.quickest.back_mut() {
            Some((since, quickest)) if now < *since + SPAN => *quickest = (*quickest).min(after),
            _ => self.quickest.push_back((now, after)),
        }
        while self.quickest.len() > SPANS {
            self.quickest.pop_front();
        }
        if self.latest.len() == LATEST_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back((now, after));
    }

    /// How many requests wait, on average over half a second. None while too little is known.
    pub fn length(&mut self, now: Duration) -> Option<f64> {
        let from = now.saturating_sub(LATEST_FOR);
        while self.latest.len() > LATEST_MIN && self.latest.front().is_some_and(|(at, _)| *at < from) {
            self.latest.pop_front();
        }
        if self.latest.len() < LATEST_MIN {
            return None;
        }
        let (since, _) = *self.latest.front()?;
        let seconds = now.saturating_sub(since).max(LATEST_FOR / 2).as_secs_f64();
        let mut took: Vec<Duration> = self.latest.iter().map(|(_, after)| *after).collect();
        let middle = took.len() / 2;
        let median = *took.select_nth_unstable(middle).1;
        let quickest = self.quickest.iter().map(|(_, quickest)| *quickest).min()?;
        let waits = median.saturating_sub(quickest).as_secs_f64();
        Some(self.latest.len() as f64 / seconds * waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A hundred requests a second.
    fn take(queue: &mut Queue, from: u64, until: u64, after: u64) -> f64 {
        (from..until).step_by(10).for_each(|at| queue.took(ms(at), ms(after)));
        queue.length(ms(until)).expect("enough")
    }

    #[test]
    fn what_is_taken_beyond_quiet_times_is_a_queue() {
        let mut queue = Queue::default();
        assert_eq!(queue.length(ms(0)), None);
        assert_eq!(take(&mut queue, 0, 2_000, 3), 0.0);
        // 100 a second that wait for 5 ms each.
        let length = take(&mut queue, 2_000, 3_000, 8);
        assert!((0.45..0.55).contains(&length), "{length}");
        let length = take(&mut queue, 3_000, 4_000, 33);
        assert!((2.7..3.3).contains(&length), "{length}");
        assert_eq!(take(&mut queue, 4_000, 5_000, 3), 0.0);
    }

    #[test]
    fn quiet_times_are_those_of_the_last_minute() {
        let mut queue = Queue::default();
        take(&mut queue, 0, 10_000, 3);
        assert!(take(&mut queue, 10_000, 50_000, 8) > 0.4);
        assert_eq!(take(&mut queue, 50_000, 80_000, 8), 0.0, "by now that is what one takes");
    }

    #[test]
    fn one_that_is_late_is_no_queue_and_a_few_an_hour_are_none() {
        let mut queue = Queue::default();
        take(&mut queue, 0, 1_000, 3);
        queue.took(ms(1_000), ms(900));
        assert_eq!(queue.length(ms(1_000)), Some(0.0));
        (1..=10).for_each(|n| queue.took(ms(n * 1_000_000), ms(50)));
        let length = queue.length(ms(10_000_000)).expect("known");
        assert!(length < 0.01, "{length}");
    }
}

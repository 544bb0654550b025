//! What our requests add to what others wait at a cluster: small requests are timed, those that meet one of
//! ours there against those that meet none. What clients cause among themselves is in both.

use std::collections::VecDeque;
use std::time::Duration;

/// Kept of each kind.
const KEPT_MAX: usize = 256;
/// Older ones tell of another time.
const MET_FOR: Duration = Duration::from_secs(2);
const ALONE_FOR: Duration = Duration::from_secs(10);
/// Fewer say nothing.
const ENOUGH: usize = 8;
const MANY: usize = 32;

/// Small requests' times at one cluster.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    met: VecDeque<(Duration, Duration)>,
    alone: VecDeque<(Duration, Duration)>,
}

/// Medians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Without a request of ours beside it.
    pub alone: Duration,
    /// What one beside it adds.
    pub added: Duration,
}

impl Delays {
    /// A small request that took `delay`, and whether one of ours was there meanwhile.
    pub fn took(&mut self, now: Duration, delay: Duration, met_ours: bool) {
        let kept = if met_ours { &mut self.met } else { &mut self.alone };
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((now, delay));
    }

    /// None while too little is known.
    pub fn added(&mut self, now: Duration) -> Option<Added> {
        let alone = median(&mut self.alone, now.saturating_sub(ALONE_FOR))?;
        let met = median(&mut self.met, now.saturating_sub(MET_FOR));
        let added = match met {
            Some(met) => met.saturating_sub(alone),
            // Ours are so few that hardly any small request meets one.
            None if self.alone_since(now.saturating_sub(MET_FOR)) >= MANY => Duration::ZERO,
            None => return None,
        };
        Some(Added { alone, added })
    }

    fn alone_since(&self, from: Duration) -> usize {
        self.alone.iter().rev().take_while(|(at, _)| *at >= from).count()
    }

    /// How a small request fares without ours isn't known any more.
    pub fn wants_quiet(&self, now: Duration) -> bool {
        self.alone_since(now.saturating_sub(ALONE_FOR / 2)) < ENOUGH
    }
}

fn median(kept: &mut VecDeque<(Duration, Duration)>, from: Duration) -> Option<Duration> {
    while kept.front().is_some_and(|(at, _)| *at < from) {
        kept.pop_front();
    }
    if kept.len() < ENOUGH {
        return None;
    }
    let mut delays: Vec<Duration> = kept.iter().map(|(_, delay)| *delay).collect();
    let middle = delays.len() / 2;
    Some(*delays.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_ours_add_is_the_difference_of_medians() {
        let mut delays = Delays::default();
        assert!(delays.wants_quiet(ms(0)));
        for n in 0..20 {
            delays.took(ms(n * 10), ms(if n == 3 { 500 } else { 2 }), false);
            assert_eq!(delays.added(ms(n * 10)), None);
        }
        for n in 0..20 {
            delays.took(ms(200 + n * 10), ms(5), true);
        }
        assert_eq!(delays.added(ms(400)), Some(Added { alone: ms(2), added: ms(3) }));
        assert!(!delays.wants_quiet(ms(400)));
        assert!(delays.wants_quiet(ms(5_300)));
    }

    #[test]
    fn requests_that_hardly_meet_anyone_add_nothing() {
        let mut delays = Delays::default();
        for n in 0..MANY as u64 {
            assert_eq!(delays.added(ms(n * 20)), None);
            delays.took(ms(n * 20), ms(2), n == 7);
        }
        delays.took(ms(700), ms(2), false);
        assert_eq!(delays.added(ms(700)), Some(Added { alone: ms(2), added: ms(0) }));
    }

    #[test]
    fn what_is_long_past_says_nothing() {
        let mut delays = Delays::default();
        for n in 0..20 {
            delays.took(ms(n), ms(2), false);
            delays.took(ms(n), ms(9), true);
        }
        assert!(delays.added(ms(1_000)).is_some());
        assert_eq!(delays.added(ms(2_100)), None, "those that met ours");
        for n in 0..20 {
            delays.took(ms(12_000 + n), ms(9), true);
        }
        assert_eq!(delays.added(ms(12_100)), None, "those that met none");
    }
}

//! How many partitions change hands at a time without need.

use std::time::Duration;

/// Without a failure or a drain no partition moves again before it has stayed this long.
pub const REST: Duration = Duration::from_secs(60);

/// An owner that hasn't released a partition after so long is stuck: the hand-over is called off, and begun
/// anew if it is still needed. Twice what a broker that doesn't answer makes an owner wait before it has
/// stopped.
pub const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// Hand-overs under way in all, at most: each opens a partition at both clusters anew, so that this also
/// bounds the requests which a change of members adds there.
pub const HAND_OVERS_MAX: usize = 1_024;

/// Hand-overs under way to one receiver, at most. At 300 ms each it takes 1,700 a second.
pub const RECEIVER_MAX: usize = 512;

/// Hand-overs under way for the sake of bytes per second, at most: what is measured after them decides
/// about more.
pub const RATE_HAND_OVERS_MAX: usize = 64;

/// What a node that has just come gets in its first second; twice as much in each one after that. Its
/// connections and caches are cold, and after an outage it has nothing yet but should have thousands.
pub const SLOW_START_FIRST: usize = 8;

pub const SLOW_START_STEP: Duration = Duration::from_secs(1);

/// Doublings until [`RECEIVER_MAX`] is reached.
const SLOW_START_STEPS: u32 = (RECEIVER_MAX / SLOW_START_FIRST).ilog2();

/// How long a node counts as one that has just come.
pub const SLOW_START: Duration = SLOW_START_STEP.saturating_mul(SLOW_START_STEPS);

/// How far the node with the most partitions may be above the one with the fewest before any moves: so
/// many, or this part of the mean. A move pauses a partition for a moment, and a few more or less cost
/// nothing.
pub const COUNT_SPREAD: usize = 2;
pub const COUNT_SPREAD_PERCENT: usize = 2;

/// How far the busiest node may be above the mean before partitions move for it, and down to what they
/// then do. Measured rates come and go: between the two nothing begins.
pub const RATE_BEGINS_PERCENT: u64 = 25;
pub const RATE_ENDS_PERCENT: u64 = 10;

/// Less than this above the mean, in bytes per second, makes no node busy.
pub const RATE_BEGINS: u64 = 1024 * 1024;
pub const RATE_ENDS: u64 = 512 * 1024;

/// Rates change without a word: a plan is never older than this while there is a choice.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Hand-overs under way to a receiver of this age, at most.
pub fn receiver_max(age: Duration) -> usize {
    let doublings = age.as_secs().min(u64::from(SLOW_START_STEPS));
    (SLOW_START_FIRST << doublings).min(RECEIVER_MAX)
}

/// How far the counts may lie apart at rest.
pub fn count_spread(total: usize, nodes: usize) -> usize {
    COUNT_SPREAD.max(total / nodes.max(1) * COUNT_SPREAD_PERCENT / 100)
}

pub fn rate_begins(mean: u64) -> u64 {
    mean.saturating_add(RATE_BEGINS.max(mean / 100 * RATE_BEGINS_PERCENT))
}

pub fn rate_ends(mean: u64) -> u64 {
    mean.saturating_add(RATE_ENDS.max(mean / 100 * RATE_ENDS_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_just_come_gets_eight_then_twice_as_many_each_second() {
        let at = |ms| receiver_max(Duration::from_millis(ms));
        assert_eq!([at(0), at(999), at(1_000), at(2_500), at(5_999)], [8, 8, 16, 32, 256]);
        assert_eq!([at(6_000), at(u64::MAX)], [512, 512]);
        assert_eq!(SLOW_START, Duration::from_secs(6));
    }
}

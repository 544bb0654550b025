//! What goes wrong with the machine that a node runs on: its clocks and its disk. Drawn from a stream of its
//! own, so that the other faults of a seed are what they were.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::disk::Damage;
use crate::faults::{Fault, Kind};
use crate::fleet_faults::{From, OfFleet, Way};
use crate::options::Options;
use crate::time::Rate;

/// In so many seeds of a hundred.
const PERCENT: u64 = 40;
const FAULTS_MAX: u64 = 6;

/// Linux slews a clock by so much at most, also the one that counts suspended time.
const FAST_PPM_MAX: u64 = 500;
const UPTIME_MAX_S: u64 = 30 * 24 * 3_600;

/// A clock that is this far behind is still within the hour that the product takes off the time in which
/// brokers remember a producer. What it takes for fresh beyond that may be forgotten.
const BEHIND_MAX_MS: u64 = 50 * 60_000;
/// Ahead it may be by any time: what is fresh then looks old.
const AHEAD_MAX_MS: u64 = 3 * 24 * 3_600_000;
/// What someone corrects by hand.
const NEAR_MS: u64 = 5_000;

/// A disk that others use, too; one that fails soon.
const COMMIT_TAKES_MS: [std::ops::RangeInclusive<u64>; 3] = [5..=100, 100..=1_000, 1_000..=6_000];
const SLOW_MS: std::ops::RangeInclusive<u64> = 500..=25_000;

/// In so many of the seeds that it may be drawn in.
const DAMAGE_PERCENT: u64 = 40;
/// A store has some hundreds of pages, most of them with something in them.
const DAMAGED_BITS: [u64; 4] = [1, 10, 100, 1_000];
const DAMAGED_PAGES: [u64; 3] = [1, 5, 50];
/// Until someone has put another one in.
const DAMAGED_MS: std::ops::RangeInclusive<u64> = 500..=15_000;

/// A clock that is set does harm when it is all that a node goes by: cut off from its peers, for longer than
/// an unclean takeover of an unguarded partition takes.
const CUT_OFF_PERCENT: u64 = 50;
const CUT_OFF_BEFORE_MS: std::ops::RangeInclusive<u64> = 0..=2_500;
const CUT_OFF_MS: std::ops::RangeInclusive<u64> = 5_000..=60_000;

/// Where a fault falls is drawn as a number, as in [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfMachine {
    /// The wall clock is set, to so far ahead of what is right.
    ClockSet { which: u64, ahead_ms: i64 },
    /// Each commit waits so long for the disk; none fails.
    SlowDisk { which: u64, commit_takes: Duration, lasts: Duration },
    /// What its disk holds is no longer what was written. Whether the node notices or not, a while later it
    /// has another disk, and is another node. With `restarts` it reads the damaged one once more before.
    DamagedDisk { which: u64, damage: Damage, restarts: bool, lasts: Duration },
}

impl OfMachine {
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClockSet { .. } => "clock set",
            Self::SlowDisk { .. } => "disk slow",
            Self::DamagedDisk { .. } => "disk damaged",
        }
    }

    fn draw(chance: &mut Chance) -> Self {
        let which = chance.next();
        if chance.percent(50) {
            return Self::ClockSet { which, ahead_ms: ahead_ms(chance) };
        }
        let takes = chance.pick(&COMMIT_TAKES_MS).clone();
        Self::SlowDisk {
            which,
            commit_takes: Duration::from_millis(chance.between(takes)),
            lasts: Duration::from_millis(chance.between(SLOW_MS)),
        }
    }
}

fn ahead_ms(chance: &mut Chance) -> i64 {
    let most = match chance.between(0..=9) {
        0..2 => return 0,
        2..4 => return chance.between(0..=2 * NEAR_MS) as i64 - NEAR_MS as i64,
        4..7 => return -(chance.between(NEAR_MS..=BEHIND_MAX_MS) as i64),
        7..9 => BEHIND_MAX_MS,
        _ => AHEAD_MAX_MS,
    };
    chance.between(NEAR_MS..=most) as i64
}

/// How the nodes' clocks run, and what strikes their machines.
pub fn draw(chance: &mut Chance, busy: Duration, nodes: u64) -> (Vec<Rate>, Vec<Fault>) {
    if !chance.percent(PERCENT) {
        return ((0..nodes).map(|_| Rate::default()).collect(), Vec::new());
    }
    let rate = |chance: &mut Chance| {
        let begins_at = Duration::from_secs(chance.between(0..=UPTIME_MAX_S));
        Rate::new(begins_at, chance.between(0..=2 * FAST_PPM_MAX) as i64 - FAST_PPM_MAX as i64)
    };
    let rates = (0..nodes).map(|_| rate(chance)).collect();
    let last_ms = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
    let fault = |chance: &mut Chance| Fault {
        at: Duration::from_millis(chance.between(1..=last_ms)),
        kind: Kind::Machine(OfMachine::draw(chance)),
    };
    let mut faults: Vec<Fault> = (0..chance.between(1..=FAULTS_MAX)).map(|_| fault(chance)).collect();
    if nodes > 1 {
        let cuts: Vec<Fault> = faults.iter().filter_map(|fault| cut_off(chance, fault)).collect();
        faults.extend(cuts);
    }
    (rates, faults)
}

/// Where no other disk is lost: of three voters one may be.
pub fn draw_damage(chance: &mut Chance, options: &Options) -> Option<Fault> {
    let loses =
        |fault: &Fault| matches!(fault.kind, Kind::Fleet(OfFleet::DiskLost { .. } | OfFleet::Removed { .. }));
    if !chance.percent(DAMAGE_PERCENT) || options.nodes < 3 || options.faults.iter().any(loses) {
        return None;
    }
    let last_ms = u64::try_from(options.busy.as_millis()).unwrap_or(u64::MAX);
    let which = chance.next();
    let damage = match chance.between(0..=2) {
        0 => Damage::Bits(*chance.pick(&DAMAGED_BITS)),
        1 => Damage::Zeroed(*chance.pick(&DAMAGED_PAGES)),
        _ => Damage::Misplaced(*chance.pick(&DAMAGED_PAGES)),
    };
    let (restarts, lasts) = (chance.percent(70), Duration::from_millis(chance.between(DAMAGED_MS)));
    let kind = Kind::Machine(OfMachine::DamagedDisk { which, damage, restarts, lasts });
    Some(Fault { at: Duration::from_millis(chance.between(last_ms / 5..=last_ms)), kind })
}

/// Just before its clock is set, a node hears nothing of its peers any more.
fn cut_off(chance: &mut Chance, set: &Fault) -> Option<Fault> {
    let Kind::Machine(OfMachine::ClockSet { which, .. }) = set.kind else { return None };
    let before = Duration::from_millis(chance.between(CUT_OFF_BEFORE_MS));
    let lasts = Duration::from_millis(chance.between(CUT_OFF_MS));
    let cut = OfFleet::Cut { which, from: From::Peers, way: Way::Both, lasts };
    let at = set.at.saturating_sub(before).max(Duration::from_millis(1));
    chance.percent(CUT_OFF_PERCENT).then_some(Fault { at, kind: Kind::Fleet(cut) })
}

impl fmt::Display for OfMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockSet { ahead_ms, .. } => {
                let far = Duration::from_millis(ahead_ms.unsigned_abs());
                let how = if *ahead_ms < 0 { "behind" } else { "ahead" };
                write!(f, "a node's wall clock is set to {far:?} {how}")
            }
            Self::DamagedDisk { damage, restarts, lasts, .. } => {
                let then = if *restarts { " at once and starts again" } else { "" };
                write!(f, "a node's disk is damaged{then}: {damage:?}; it is another {lasts:?} later")
            }
            Self::SlowDisk { commit_takes, lasts, .. } => {
                write!(f, "a node's disk takes {commit_takes:?} for each commit, for {lasts:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_set_both_ways_and_never_further_behind_than_the_product_allows_for() {
        let mut chance = Chance::of(1, "test");
        let drawn: Vec<i64> = (0..1_000).map(|_| ahead_ms(&mut chance)).collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(*least < -30 * 60_000 && *least >= -(BEHIND_MAX_MS as i64), "{least}");
        assert!(*most > 24 * 3_600_000 && drawn.contains(&0), "{most}");
    }
}

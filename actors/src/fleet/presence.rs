//! Who is there, as a value: judged by the times of reports, and by whether nodes get on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use catalog::NodeId;
use catalog::placement::Presence;

/// A node that hasn't reported for so long is lost: six reports in a row missed.
pub const LOST_AFTER: Duration = Duration::from_millis(2_600);

/// A node that lacks what the coordinator had so long ago isn't reached by the Raft leader: it could take no
/// lease and learn of no assignment, whatever it reports.
pub const BEHIND_MAX: Duration = Duration::from_secs(10);

/// What the coordinator had applied, and when.
#[derive(Debug, Default)]
pub struct Past(VecDeque<(Duration, u64)>);

impl Past {
    /// Called with every tick, which bounds it.
    pub fn note(&mut self, now: Duration, applied: u64) {
        if self.0.back().is_none_or(|(_, last)| *last != applied) {
            self.0.push_back((now, applied));
        }
        // One that is old enough stays.
        while self.0.get(1).is_some_and(|(at, _)| *at + BEHIND_MAX <= now) {
            self.0.pop_front();
        }
    }

    /// What a node that is there must have applied; nothing before the coordinator has led for so long.
    pub fn needed(&self, now: Duration) -> u64 {
        let old = self.0.iter().take_while(|(at, _)| *at + BEHIND_MAX <= now);
        old.last().map_or(0, |(_, applied)| *applied)
    }
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    starts: u64,
    last: Duration,
    /// Since it was heard of without a break.
    since: Duration,
}

/// What one coordinator has heard since it began.
#[derive(Debug)]
pub struct Presences {
    began: Duration,
    /// Since when each is known as a member.
    met: BTreeMap<NodeId, Duration>,
    heard: BTreeMap<NodeId, Heard>,
}

impl Presences {
    /// Whoever begins knows of itself only; the others get the time in which they would be lost.
    pub fn begin(now: Duration, node: NodeId, starts: u64) -> Self {
        let itself = Heard { starts, last: now, since: now };
        Self { began: now, met: BTreeMap::new(), heard: BTreeMap::from([(node, itself)]) }
    }

    pub fn report(&mut self, now: Duration, node: NodeId, starts: u64) {
        let heard = self.heard.entry(node).or_insert(Heard { starts, last: now, since: now });
        if heard.starts != starts || now >= heard.last + LOST_AFTER {
            heard.since = now;
        }
        heard.starts = starts;
        heard.last = now;
    }

    pub fn of(&self, now: Duration, node: NodeId) -> Presence {
        match self.heard.get(&node) {
            Some(heard) if now < heard.last + LOST_AFTER => Presence::Live { since: heard.since },
            Some(heard) => Presence::Lost { since: heard.last + LOST_AFTER },
            None => {
                let due = self.met.get(&node).copied().unwrap_or(self.began) + LOST_AFTER;
                if now < due { Presence::Unknown } else { Presence::Lost { since: due } }
            }
        }
    }

    /// Of the members; others are forgotten.
    pub fn of_all(
        &mut self,
        now: Duration,
        members: impl Iterator<Item = NodeId>,
    ) -> BTreeMap<NodeId, Presence> {
        let members: Vec<NodeId> = members.collect();
        for node in &members {
            self.met.entry(*node).or_insert(now);
        }
        let all: BTreeMap<NodeId, Presence> =
            members.into_iter().map(|node| (node, self.of(now, node))).collect();
        self.met.retain(|node, _| all.contains_key(node));
        self.heard.retain(|node, _| all.contains_key(node));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_member_that_has_just_come_gets_the_same_time_to_report() {
        let mut presences = Presences::begin(ms(0), ME, 1);
        presences.of_all(ms(0), [ME].into_iter());
        let long_after = ms(60_000);
        let all = presences.of_all(long_after, [ME, OTHER].into_iter());
        assert_eq!(all[&OTHER], Presence::Unknown);
        let all = presences.of_all(long_after + LOST_AFTER, [ME, OTHER].into_iter());
        assert_eq!(all[&OTHER], Presence::Lost { since: long_after + LOST_AFTER });
    }

    fn live(since: u64) -> Presence {
        Presence::Live { since: ms(since) }
    }

    fn lost(since: u64) -> Presence {
        Presence::Lost { since: ms(since) }
    }

    #[test]
    fn a_new_coordinator_knows_of_itself_and_gives_the_others_time() {
        let presences = Presences::begin(ms(100), ME, 3);
        assert_eq!(presences.of(ms(100), ME), live(100));
        assert_eq!(presences.of(ms(2_699), OTHER), Presence::Unknown);
        assert_eq!(presences.of(ms(2_700), OTHER), lost(2_700));
    }

    #[test]
    fn silence_loses_a_node_and_its_next_report_brings_it_back() {
        let mut presences = Presences::begin(ms(0), ME, 1);
        presences.report(ms(50), OTHER, 1);
        presences.report(ms(450), OTHER, 1);
        assert_eq!(presences.of(ms(3_049), OTHER), live(50));
        assert_eq!(presences.of(ms(3_050), OTHER), lost(3_050));
        presences.report(ms(9_000), OTHER, 1);
        assert_eq!(presences.of(ms(9_001), OTHER), live(9_000));
    }

    #[test]
    fn a_node_that_started_anew_is_live_from_then() {
        let mut presences = Presences::begin(ms(0), ME, 1);
        presences.report(ms(50), OTHER, 1);
        presences.report(ms(450), OTHER, 2);
        assert_eq!(presences.of(ms(460), OTHER), live(450));
    }

    #[test]
    fn a_node_must_have_what_the_coordinator_had_ten_seconds_ago() {
        let mut past = Past::default();
        assert_eq!(past.needed(ms(0)), 0);
        past.note(ms(1_000), 7);
        past.note(ms(1_200), 7);
        past.note(ms(5_000), 9);
        assert_eq!([10_999, 11_000, 14_999, 15_000].map(|at| past.needed(ms(at))), [0, 7, 7, 9]);
        for at in 0..1_000 {
            past.note(ms(20_000 + 200 * at), 10 + at);
        }
        assert_eq!(past.needed(ms(219_800)), 10 + 949);
        assert!(past.0.len() <= 52, "{}", past.0.len());
    }

    #[test]
    fn whoever_is_no_member_is_forgotten() {
        let mut presences = Presences::begin(ms(0), ME, 1);
        presences.report(ms(50), OTHER, 1);
        assert_eq!(presences.of_all(ms(60), [ME].into_iter()).len(), 1);
        assert_eq!(presences.of(ms(60), OTHER), Presence::Unknown);
    }
}

//! CT-4: a promoted topic holds everything up to a source end that was quiet for the quiet time. When its fence
//! is asked for there was a moment, not long ago and a quiet time after the promotion was asked for, up to
//! which no source end had moved for that long; and what stood at the source then is in the mirror when it
//! has STOPPED.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use catalog::MirrorStatus;
use catalog::stop::StopKind;
use consensus::Applied;

use super::Invariant;
use crate::clusters::DESTINATION;
use crate::history::Key;
use crate::judge::{Logs, Seen};
use crate::struck::Struck;

/// As the design has it, less what clocks differ by and what passes between two looks.
const QUIET: Duration = Duration::from_millis(9_900);
/// An answer of the source and the command that follows it may take so long at most.
const AGO_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct HoldsAll {
    at: Duration,
    /// Where each source partition ended from when on, the newest last.
    ends: BTreeMap<Key, VecDeque<(Duration, i64)>>,
    /// When each promotion was first seen, by mirror topic and the time it was asked at.
    asked: BTreeMap<(String, i64), Duration>,
    promoted: BTreeMap<String, Promoted>,
}

struct Promoted {
    source_topic: String,
    asked_at: Duration,
    partitions: i32,
    /// Source ends by partition at each of the moments that could have been the one; none before they are
    /// looked for.
    moments: Option<Vec<BTreeMap<i32, i64>>>,
    has_stopped: bool,
    is_judged: bool,
}

impl Invariant for HoldsAll {
    fn id(&self) -> &'static str {
        "CT-4"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Applied(applied) => self.learn(applied),
            Seen::Logs(logs) => {
                self.follow(logs);
                let Self { at, ends, promoted, .. } = self;
                for (name, promoted) in promoted {
                    promoted.look(*at, ends, name, logs).map_err(|why| format!("{name}: {why}"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl HoldsAll {
    fn learn(&mut self, applied: &Applied) {
        let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
        for mirror in links.flat_map(|link| link.mirrors.values()) {
            let Some(stop) = mirror.stop.as_ref().filter(|stop| stop.kind == StopKind::Promote) else {
                continue;
            };
            let name = mirror.name.to_string();
            let asked_at = *self.asked.entry((name.clone(), stop.asked_at_ms)).or_insert(self.at);
            if !mirror.is_fenced() {
                continue;
            }
            let new = || Promoted {
                source_topic: mirror.source_topic.to_string(),
                asked_at,
                partitions: i32::try_from(mirror.partitions.len()).unwrap_or(i32::MAX),
                moments: None,
                has_stopped: false,
                is_judged: false,
            };
            let promoted = self.promoted.entry(name).or_insert_with(new);
            promoted.has_stopped |= mirror.status == MirrorStatus::Stopped;
        }
    }

    fn follow(&mut self, logs: &Logs<'_>) {
        self.at = logs.at;
        for (name, topic) in logs.source.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let ends = self.ends.entry((name.to_owned(), index)).or_default();
                let end = partition.log.end();
                if ends.back().is_none_or(|(_, before)| *before != end) {
                    ends.push_back((logs.at, end));
                }
                while ends.get(1).is_some_and(|(from, _)| *from + AGO_MAX + QUIET < logs.at) {
                    ends.pop_front();
                }
            }
        }
    }
}

type Ends = BTreeMap<Key, VecDeque<(Duration, i64)>>;

impl Promoted {
    fn look(&mut self, now: Duration, ends: &Ends, name: &str, logs: &Logs<'_>) -> Result<(), String> {
        if self.moments.is_none() {
            let moments = self.moments(now, ends, logs.struck);
            if moments.is_empty() {
                let asked_at = self.asked_at;
                return Err(format!("its source wasn't quiet at any time from {asked_at:?} to {now:?}"));
            }
            self.moments = Some(moments);
        }
        if !self.has_stopped || std::mem::replace(&mut self.is_judged, true) {
            return Ok(());
        }
        let there: BTreeMap<i32, i64> =
            logs.images().filter(|image| image.key.0 == name).map(|image| (image.key.1, image.end)).collect();
        // What isn't there was lost with its topic, or by its brokers.
        let is_short =
            |(partition, wanted): (&i32, &i64)| there.get(partition).is_some_and(|end| end < wanted);
        let moments = self.moments.iter().flatten();
        match moments.clone().any(|moment| !moment.iter().any(is_short)) {
            true => Ok(()),
            false => {
                let wanted: Vec<_> = moments.collect();
                Err(format!("it ends at {there:?}, its quiet source ended at {wanted:?}"))
            }
        }
    }

    /// Up to each of which the source was quiet; where its ends were then.
    fn moments(&self, now: Duration, ends: &Ends, struck: &Struck) -> Vec<BTreeMap<i32, i64>> {
        let followed = |index: &i32| !struck.is_unclean_source(&self.source_topic, *index);
        let of = |index: i32| Some((index, ends.get(&(self.source_topic.clone(), index))?));
        let ends: Vec<_> = (0..self.partitions).filter(followed).filter_map(of).collect();
        let from = now.saturating_sub(AGO_MAX).max(self.asked_at + QUIET);
        // The last moment, and those just before something came.
        let changes = ends.iter().flat_map(|(_, ends)| ends.iter().map(|(at, _)| *at));
        let just_before = changes.filter_map(|at| at.checked_sub(Duration::from_nanos(1)));
        let candidates = just_before.chain([now]).filter(|moment| (from..=now).contains(moment));
        let at = |moment: Duration| {
            let at = |(index, ends): &(i32, &VecDeque<(Duration, i64)>)| {
                let (since, end) = ends.iter().rev().find(|(from, _)| *from <= moment)?;
                (*since + QUIET <= moment).then_some((*index, *end))
            };
            ends.iter().map(at).collect::<Option<BTreeMap<i32, i64>>>()
        };
        candidates.filter_map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Where the source may have ended when the promotion, asked for then, was found to have caught up.
    fn moments(asked_at: Duration, now: Duration, changes: &[(u64, i64)]) -> Vec<i64> {
        let promoted = Promoted {
            source_topic: "orders".to_owned(),
            asked_at,
            partitions: 1,
            moments: None,
            has_stopped: false,
            is_judged: false,
        };
        let changes = changes.iter().map(|(at, end)| (s(*at), *end)).collect();
        let ends = BTreeMap::from([(("orders".to_owned(), 0), changes)]);
        let moments = promoted.moments(now, &ends, &Struck::default());
        moments.into_iter().flat_map(BTreeMap::into_values).collect()
    }

    #[test]
    fn a_promotion_ends_after_a_quiet_time_of_its_own() {
        assert_eq!(moments(s(5), s(20), &[(0, 7)]), [7]);
        assert!(moments(s(12), s(20), &[(0, 7)]).is_empty(), "asked for eight seconds ago");
        assert!(moments(s(5), s(20), &[(0, 7), (9, 8), (13, 9)]).is_empty(), "never quiet");
    }

    #[test]
    fn what_came_after_a_quiet_moment_need_not_be_there() {
        assert_eq!(moments(s(5), s(20), &[(0, 7), (18, 8)]), [7]);
        assert_eq!(moments(s(5), s(40), &[(0, 7), (18, 8)]), [7, 8]);
        assert_eq!(moments(s(5), s(90), &[(0, 7), (18, 8)]), [8], "the quiet time before was long ago");
    }
}

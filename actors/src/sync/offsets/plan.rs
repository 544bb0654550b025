//! Where a group is to stand at the destination, as a value (SPEC section 5, CT-5).
//!
//! What Lockstep commits carries its mark in the commit's metadata: whether a position at the destination is
//! ours is read from there, so nothing is remembered elsewhere and a restart changes nothing.

use std::collections::BTreeMap;

use kafka::fetch::TopicPartition;
use kafka::groups::{GroupOffset, GroupOffsets};

/// Metadata of what we commit.
pub const MARK: &str = "lockstep";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A destination position that is ahead and isn't ours is kept.
    NoRewind,
    /// The source always wins.
    Source,
}

/// What a partition of the source is at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    pub mirror: TopicPartition,
    /// Nothing beyond it is there to be read; none: it isn't known, so nothing is synced.
    pub log_end: Option<i64>,
}

/// By mirror partition.
pub type Targets = BTreeMap<TopicPartition, i64>;

/// Where a group that stands so at the source is to stand at the destination. `mirrors`: by source partition.
/// Of a partition without a position at the source nothing is known: that is no reset.
pub fn targets(at_source: &GroupOffsets, mirrors: &BTreeMap<TopicPartition, Vec<Mirrored>>) -> Targets {
    let mirrored = at_source.iter().filter_map(|(at, source)| Some((source.offset, mirrors.get(at)?)));
    let target = |(offset, all)| {
        let all: &Vec<Mirrored> = all;
        all.iter().filter_map(move |m| Some((m.mirror.clone(), m.log_end?.min(offset))))
    };
    mirrored.flat_map(target).collect()
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to commit.
    pub commits: GroupOffsets,
    /// Partitions whose destination position is ahead and stays, with that position.
    pub ahead: Vec<(TopicPartition, i64)>,
}

/// `is_due`: every position of ours is to be committed again, so that none expires.
pub fn plan(targets: &Targets, at_destination: &GroupOffsets, policy: Policy, is_due: bool) -> Plan {
    let mut plan = Plan::default();
    for (mirror, target) in targets {
        let found = at_destination.get(mirror);
        let is_ours = found.is_some_and(|found| found.metadata == MARK);
        let commit = match found {
            None => true,
            Some(found) if found.offset == *target => is_ours && is_due,
            Some(found) if found.offset > *target && !is_ours && policy == Policy::NoRewind => {
                plan.ahead.push((mirror.clone(), found.offset));
                false
            }
            Some(_) => true,
        };
        if commit {
            plan.commits.insert(mirror.clone(), GroupOffset { offset: *target, metadata: MARK.to_owned() });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }

    fn offsets(of: &[(&str, i32, i64, &str)]) -> GroupOffsets {
        let row = |(topic, partition, offset, metadata): &(&str, i32, i64, &str)| {
            (at(topic, *partition), GroupOffset { offset: *offset, metadata: (*metadata).to_owned() })
        };
        of.iter().map(row).collect()
    }

    /// `orders` is mirrored as `east.orders`: partition 0 up to 100, partition 1 to nobody knows where.
    fn mirrors() -> BTreeMap<TopicPartition, Vec<Mirrored>> {
        let mirror = |partition, log_end| vec![Mirrored { mirror: at("east.orders", partition), log_end }];
        [(at("orders", 0), mirror(0, Some(100))), (at("orders", 1), mirror(1, None))].into()
    }

    fn planned(source: i64, destination: Option<(i64, &str)>, policy: Policy, is_due: bool) -> Plan {
        let at_source = offsets(&[("orders", 0, source, ""), ("orders", 1, 5, ""), ("other", 0, 7, "")]);
        let at_destination = destination
            .map_or_else(GroupOffsets::new, |(offset, of)| offsets(&[("east.orders", 0, offset, of)]));
        plan(&targets(&at_source, &mirrors()), &at_destination, policy, is_due)
    }

    fn committed(plan: &Plan) -> Option<i64> {
        assert!(plan.commits.len() <= 1, "only of what is mirrored, and known: {plan:?}");
        plan.commits.get(&at("east.orders", 0)).map(|commit| commit.offset)
    }

    #[test]
    fn a_group_is_put_where_it_stands_at_the_source() {
        assert_eq!(committed(&planned(40, None, Policy::NoRewind, false)), Some(40));
        assert_eq!(committed(&planned(40, Some((30, MARK)), Policy::NoRewind, false)), Some(40));
        assert_eq!(committed(&planned(40, Some((30, "theirs")), Policy::NoRewind, false)), Some(40));
        assert_eq!(committed(&planned(40, Some((40, "theirs")), Policy::NoRewind, true)), None);
    }

    #[test]
    fn never_beyond_the_mirrors_log_end() {
        assert_eq!(committed(&planned(140, None, Policy::NoRewind, false)), Some(100));
        assert_eq!(committed(&planned(140, Some((100, MARK)), Policy::NoRewind, false)), None);
    }

    #[test]
    fn a_position_of_its_own_that_is_ahead_is_kept_unless_the_source_always_wins() {
        let kept = planned(40, Some((60, "")), Policy::NoRewind, false);
        assert_eq!((committed(&kept), kept.ahead.as_slice()), (None, &[(at("east.orders", 0), 60)][..]));
        assert_eq!(committed(&planned(40, Some((60, "")), Policy::Source, false)), Some(40));
        assert_eq!(committed(&planned(61, Some((60, "")), Policy::NoRewind, false)), Some(61), "passed by");
    }

    #[test]
    fn a_reset_at_the_source_is_followed_where_the_destination_shows_what_we_wrote() {
        assert_eq!(committed(&planned(10, Some((60, MARK)), Policy::NoRewind, false)), Some(10));
    }

    #[test]
    fn what_is_ours_is_committed_again_before_it_expires() {
        assert_eq!(committed(&planned(40, Some((40, MARK)), Policy::NoRewind, false)), None);
        assert_eq!(committed(&planned(40, Some((40, MARK)), Policy::NoRewind, true)), Some(40));
    }

    #[test]
    fn one_source_partition_may_have_several_mirrors() {
        let mirror = |topic: &str, log_end| Mirrored { mirror: at(topic, 0), log_end: Some(log_end) };
        let mirrors = [(at("orders", 0), vec![mirror("a", 100), mirror("b", 30)])].into();
        let targets = targets(&offsets(&[("orders", 0, 40, "")]), &mirrors);
        assert_eq!(targets, [(at("a", 0), 40), (at("b", 0), 30)].into());
    }

    #[test]
    fn a_group_without_positions_at_the_source_is_left_alone() {
        let there = offsets(&[("east.orders", 0, 60, MARK)]);
        let targets = targets(&GroupOffsets::new(), &mirrors());
        assert_eq!(plan(&targets, &there, Policy::Source, true), Plan::default());
    }
}

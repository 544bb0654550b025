//! What clients write to a cluster, by how its partitions grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka::fetch::TopicPartition;

use super::control::Clients;

/// A partition's size, in bytes of its log or in offsets.
pub type Sizes = BTreeMap<TopicPartition, i64>;

/// Kafka's own topics: group positions and transactions, our own among them.
const INTERNAL: &str = "__";

/// Growth between two looks.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// When, in which unit, and what was seen.
    last: Option<(Duration, Unit, Sizes)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Offsets,
}

impl Growth {
    /// What grows a second of all partitions but those of `mirrors`. One that wasn't seen last time counts from
    /// now on: its broker may just have been silent. None: there is nothing to compare with, or not in this unit.
    pub fn seen(
        &mut self,
        now: Duration,
        unit: Unit,
        sizes: Sizes,
        mirrors: &BTreeSet<Arc<str>>,
    ) -> Option<Clients> {
        let previous = self.last.take().filter(|(_, of, _)| *of == unit);
        let rate = previous.as_ref().and_then(|(at, _, before)| {
            let seconds = now.saturating_sub(*at).as_secs_f64();
            let grown: i64 = sizes
                .iter()
                .filter(|(partition, _)| is_clients(&partition.topic, mirrors))
                .filter_map(|(partition, size)| Some((size - before.get(partition)?).max(0)))
                .sum();
            (seconds > 0.0).then(|| grown as f64 / seconds)
        });
        self.last = Some((now, unit, sizes));
        rate.map(|rate| told(rate, unit))
    }

    /// The next look has nothing to compare with.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

fn is_clients(topic: &Arc<str>, mirrors: &BTreeSet<Arc<str>>) -> bool {
    !topic.starts_with(INTERNAL) && !mirrors.contains(topic)
}

/// Of growth a second: offsets tell that somebody writes, but not how much.
fn told(rate: f64, unit: Unit) -> Clients {
    match rate > 0.0 {
        true => Clients::Write((unit == Unit::Bytes).then_some(rate)),
        false => Clients::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::Unit::{Bytes, Offsets};
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sizes<const N: usize>(of: [(&str, i32, i64); N]) -> Sizes {
        of.into_iter()
            .map(|(topic, partition, size)| (TopicPartition { topic: topic.into(), partition }, size))
            .collect()
    }

    fn written(bytes_per_second: f64) -> Option<Clients> {
        Some(Clients::Write(Some(bytes_per_second)))
    }

    #[test]
    fn growth_of_what_isnt_ours_is_clients() {
        let mut growth = Growth::default();
        let mirrors = BTreeSet::from(["mirror".into()]);
        let of = |orders, mirror, internal| {
            sizes([("orders", 0, orders), ("mirror", 0, mirror), ("__consumer_offsets", 7, internal)])
        };
        let mut seen = |at_s, sizes, mirrors| growth.seen(at(at_s), Bytes, sizes, mirrors);
        assert_eq!(seen(0, of(1_000, 0, 0), &mirrors), None);
        assert_eq!(seen(1, of(1_000, 5_000, 90), &mirrors), Some(Clients::Quiet));
        assert_eq!(seen(3, of(1_500, 9_000, 180), &mirrors), written(250.0));
        // A mirror that was stopped is an ordinary topic.
        assert_eq!(seen(4, of(1_500, 9_100, 180), &BTreeSet::new()), written(100.0));
    }

    #[test]
    fn retention_takes_nothing_off_what_others_write() {
        let mut growth = Growth::default();
        growth.seen(at(0), Bytes, sizes([("a", 0, 1_000), ("a", 1, 1_000)]), &BTreeSet::new());
        let seen = growth.seen(at(1), Bytes, sizes([("a", 0, 100), ("a", 1, 1_300)]), &BTreeSet::new());
        assert_eq!(seen, written(300.0));
    }

    #[test]
    fn a_partition_that_was_not_seen_for_a_moment_is_no_write() {
        let mut growth = Growth::default();
        let both = || sizes([("a", 0, 1_000), ("a", 1, 1_000)]);
        growth.seen(at(0), Bytes, both(), &BTreeSet::new());
        growth.seen(at(1), Bytes, sizes([("a", 0, 1_000)]), &BTreeSet::new());
        assert_eq!(growth.seen(at(2), Bytes, both(), &BTreeSet::new()), Some(Clients::Quiet));
    }

    /// Found by reading: when the right to see sizes was granted, bytes were compared with offsets.
    #[test]
    fn bytes_are_not_compared_with_offsets() {
        let mut growth = Growth::default();
        let mut seen =
            |at_s, unit, size| growth.seen(at(at_s), unit, sizes([("a", 0, size)]), &BTreeSet::new());
        assert_eq!(seen(0, Offsets, 10), None);
        assert_eq!(seen(1, Offsets, 12), Some(Clients::Write(None)), "but not how much");
        assert_eq!(seen(2, Bytes, 1_000_000), None);
        assert_eq!(seen(3, Bytes, 1_000_000), Some(Clients::Quiet));
        assert_eq!(seen(4, Offsets, 2_000_000), None);
    }
}

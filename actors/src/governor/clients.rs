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
    last: Option<(Duration, Sizes)>,
}

impl Growth {
    /// What grows a second of all partitions but those of `mirrors`. One that wasn't seen last time counts from
    /// now on: its broker may just have been silent. None: the first look, which has nothing to compare with.
    pub fn seen(&mut self, now: Duration, sizes: Sizes, mirrors: &BTreeSet<Arc<str>>) -> Option<f64> {
        let previous = self.last.take();
        let rate = previous.as_ref().and_then(|(at, before)| {
            let seconds = now.saturating_sub(*at).as_secs_f64();
            let grown: i64 = sizes
                .iter()
                .filter(|(partition, _)| is_clients(&partition.topic, mirrors))
                .filter_map(|(partition, size)| Some((size - before.get(partition)?).max(0)))
                .sum();
            (seconds > 0.0).then(|| grown as f64 / seconds)
        });
        self.last = Some((now, sizes));
        rate
    }

    /// The next look has nothing to compare with.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

fn is_clients(topic: &Arc<str>, mirrors: &BTreeSet<Arc<str>>) -> bool {
    !topic.starts_with(INTERNAL) && !mirrors.contains(topic)
}

/// Of growth a second, in bytes where `in_bytes`, in offsets otherwise.
pub fn told(rate: f64, in_bytes: bool) -> Clients {
    match rate > 0.0 {
        true => Clients::Write(in_bytes.then_some(rate)),
        false => Clients::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn sizes<const N: usize>(of: [(&str, i32, i64); N]) -> Sizes {
        of.into_iter()
            .map(|(topic, partition, size)| (TopicPartition { topic: topic.into(), partition }, size))
            .collect()
    }

    #[test]
    fn growth_of_what_isnt_ours_is_clients() {
        let mut growth = Growth::default();
        let mirrors = BTreeSet::from(["mirror".into()]);
        let of = |orders, mirror, internal| {
            sizes([("orders", 0, orders), ("mirror", 0, mirror), ("__consumer_offsets", 7, internal)])
        };
        assert_eq!(growth.seen(at(0), of(1_000, 0, 0), &mirrors), None);
        assert_eq!(growth.seen(at(1), of(1_000, 5_000, 90), &mirrors), Some(0.0));
        assert_eq!(growth.seen(at(3), of(1_500, 9_000, 180), &mirrors), Some(250.0));
        // A mirror that was stopped is an ordinary topic.
        assert_eq!(growth.seen(at(4), of(1_500, 9_100, 180), &BTreeSet::new()), Some(100.0));
    }

    #[test]
    fn retention_takes_nothing_off_what_others_write() {
        let mut growth = Growth::default();
        growth.seen(at(0), sizes([("a", 0, 1_000), ("a", 1, 1_000)]), &BTreeSet::new());
        let seen = growth.seen(at(1), sizes([("a", 0, 100), ("a", 1, 1_300)]), &BTreeSet::new());
        assert_eq!(seen, Some(300.0));
    }

    #[test]
    fn a_partition_that_was_not_seen_for_a_moment_is_no_write() {
        let mut growth = Growth::default();
        let both = || sizes([("a", 0, 1_000), ("a", 1, 1_000)]);
        growth.seen(at(0), both(), &BTreeSet::new());
        growth.seen(at(1), sizes([("a", 0, 1_000)]), &BTreeSet::new());
        assert_eq!(growth.seen(at(2), both(), &BTreeSet::new()), Some(0.0));
    }

    #[test]
    fn offsets_tell_that_clients_write_but_not_how_much() {
        assert_eq!(told(3.0, true), Clients::Write(Some(3.0)));
        assert_eq!(told(3.0, false), Clients::Write(None));
        assert_eq!(told(0.0, true), Clients::Quiet);
    }
}

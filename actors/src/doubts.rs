//! Which mirror partitions of a link may still have requests of a former owner in this process
//! under way, as a value: kept by the link's supervisor, handed to the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::Link;

use crate::plan::{PartitionKey, Start};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Partitions whose last owner here wasn't seen to end with nothing under way.
    open: BTreeSet<PartitionKey>,
    /// Assignment epochs under which partitions were last started here. What an assignment's former
    /// owner may have under way was waited out since, or is among the open ones.
    started: BTreeMap<PartitionKey, u64>,
}

impl Doubts {
    /// All partitions of a link whose supervisor wasn't seen to stop.
    pub fn of_all(link: &Link) -> Self {
        let partitions = |mirror: &catalog::MirrorTopic| 0..mirror.partitions.len() as u32;
        let keys = link.mirrors.values().flat_map(|m| partitions(m).map(|index| (m.name.clone(), index)));
        Self { open: keys.collect(), started: BTreeMap::new() }
    }

    pub fn add(&mut self, key: PartitionKey) {
        self.open.insert(key);
    }

    /// Whether an owner that starts has something to wait out. It does so, or says when it stops
    /// that it didn't.
    pub fn take(&mut self, start: &Start) -> bool {
        let is_first =
            self.started.insert(start.key.clone(), start.assignment_epoch) != Some(start.assignment_epoch);
        let is_open = self.open.remove(&start.key);
        is_open || (start.unclean && is_first)
    }

    /// Whether an owner that started now would have something to wait out.
    pub fn owes(&self, start: &Start) -> bool {
        let is_first = self.started.get(&start.key) != Some(&start.assignment_epoch);
        self.open.contains(&start.key) || (start.unclean && is_first)
    }

    /// What is another node's now has its doubts in the catalog.
    pub fn forget_moved(&mut self, is_elsewhere: impl Fn(&Arc<str>, u32) -> bool) {
        self.open.retain(|(topic, partition)| !is_elsewhere(topic, *partition));
    }

    /// Forgets under what partitions started that aren't the link's any more.
    pub fn forget_starts(&mut self, stays: impl Fn(&Arc<str>, u32) -> bool) {
        self.started.retain(|(topic, partition), _| stays(topic, *partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn start(topic: &str, partition: u32, assignment_epoch: u64, unclean: bool) -> Start {
        Start { key: (topic.into(), partition), assignment_epoch, unclean }
    }

    #[test]
    fn a_doubt_is_waited_out_by_one_owner() {
        let mut doubts = Doubts::default();
        doubts.add(("orders".into(), 1));
        assert!(!doubts.take(&start("orders", 0, 1, false)));
        assert!(doubts.take(&start("orders", 1, 1, false)));
        assert!(!doubts.take(&start("orders", 1, 1, false)));
    }

    #[test]
    fn an_unclean_takeover_is_waited_out_once_an_assignment() {
        let mut doubts = Doubts::default();
        assert!(doubts.take(&start("orders", 0, 2, true)));
        assert!(!doubts.take(&start("orders", 0, 2, true)));
        assert!(doubts.take(&start("orders", 0, 3, true)));
        doubts.add(("orders".into(), 0));
        assert!(doubts.take(&start("orders", 0, 3, true)), "stopped before it had waited");
    }

    #[test]
    fn what_is_handed_over_without_having_been_waited_out_is_said_to_be_in_doubt() {
        let mut doubts = Doubts::default();
        assert!(doubts.owes(&start("orders", 0, 2, true)), "never started here");
        doubts.take(&start("orders", 0, 2, true));
        assert!(!doubts.owes(&start("orders", 0, 2, true)), "its actor says when it stops");
        doubts.add(("orders".into(), 0));
        assert!(doubts.owes(&start("orders", 0, 2, true)));
        doubts.forget_moved(|topic, partition| &**topic == "orders" && partition == 0);
        assert!(!doubts.owes(&start("orders", 0, 4, false)), "its next owner was told");
    }

    #[test]
    fn a_supervisor_that_vanished_leaves_every_partition_in_doubt() {
        let mut doubts = Doubts::of_all(&fixture::link(&[
            ("clicks", vec![Default::default(); 1]),
            ("orders", vec![Default::default(); 2]),
        ]));
        for (topic, partition) in [("clicks", 0), ("orders", 0), ("orders", 1)] {
            assert!(doubts.take(&start(topic, partition, 1, false)), "{topic} {partition}");
        }
        assert!(!doubts.take(&start("orders", 2, 1, false)));
    }
}

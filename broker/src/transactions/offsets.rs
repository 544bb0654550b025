//! Group offsets that a transaction commits (`TxnOffsetCommit`): they wait here for its marker.

use std::collections::BTreeMap;

use super::Key;

/// Where brokers keep group offsets. It isn't a topic of this cluster, but transactions name it.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// `offsets.topic.num.partitions`.
const OFFSETS_PARTITIONS: u32 = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// Of one group.
pub type GroupOffsets = BTreeMap<Key, CommittedOffset>;

#[derive(Debug, Default)]
pub struct PendingOffsets {
    /// By producer id and group.
    pending: BTreeMap<(i64, String), GroupOffsets>,
}

impl PendingOffsets {
    pub fn add(&mut self, producer_id: i64, group: &str, offsets: GroupOffsets) {
        self.pending.entry((producer_id, group.to_owned())).or_default().extend(offsets);
    }

    pub fn has(&self, group: &str, key: &Key) -> bool {
        self.pending.iter().any(|((_, owner), offsets)| owner == group && offsets.contains_key(key))
    }

    /// Takes out what `producer_id` left for the groups of one partition of the offsets' topic.
    pub fn take(&mut self, producer_id: i64, partition: i32) -> Vec<(String, GroupOffsets)> {
        let own =
            |(id, group): &(i64, String)| *id == producer_id && offsets_partition_of(group) == partition;
        let keys: Vec<_> = self.pending.keys().filter(|key| own(key)).cloned().collect();
        keys.into_iter().filter_map(|key| Some((key.1.clone(), self.pending.remove(&key)?))).collect()
    }
}

/// The partition of the offsets' topic that a group belongs to: Java's hash of its name.
pub fn offsets_partition_of(group: &str) -> i32 {
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // `Utils.abs`: the least number counts as zero.
    let positive = if hash == i32::MIN { 0 } else { hash.unsigned_abs() };
    (positive % OFFSETS_PARTITIONS) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_belongs_where_java_puts_it() {
        assert_eq!(offsets_partition_of("a"), 47);
        assert_eq!(offsets_partition_of(""), 0);
    }

    #[test]
    fn offsets_wait_by_producer_and_group() {
        let key = ("orders".to_owned(), 0);
        let offset = CommittedOffset { offset: 5, leader_epoch: -1, metadata: None };
        let mut pending = PendingOffsets::default();
        pending.add(7, "a", BTreeMap::from([(key.clone(), offset)]));
        assert!(pending.has("a", &key) && !pending.has("b", &key));
        assert!(pending.take(8, 47).is_empty() && pending.take(7, 46).is_empty());
        assert_eq!(pending.take(7, 47).len(), 1);
        assert!(!pending.has("a", &key));
    }
}

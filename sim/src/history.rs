//! What the source has ever shown: every batch below its high watermark, as it was seen there. A mirror may
//! hold what the source has deleted since, and never anything else.

use std::collections::BTreeMap;

use broker::State;

use crate::batches::Stored;

/// A topic and partition.
pub type Key = (String, i32);

#[derive(Debug, Default)]
pub struct History(BTreeMap<Key, Past>);

#[derive(Debug, Default)]
pub struct Past {
    /// All below was taken.
    taken_to: i64,
    /// By base offset. More than one only where an unclean election let other records come to stand there.
    batches: BTreeMap<i64, Vec<Stored>>,
    /// What was seen at each offset.
    records: BTreeMap<i64, Vec<u64>>,
    /// How often each record was seen.
    counts: BTreeMap<u64, usize>,
    /// The log start as of the last look, and the highest that was seen.
    start: i64,
    highest_start: i64,
}

impl History {
    /// Takes what is new at the source. Returns partitions whose deleted records are back.
    pub fn take(&mut self, source: &State) -> Vec<Key> {
        let mut undeleted = Vec::new();
        for (name, topic) in source.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader.is_none() {
                    continue;
                }
                let past = self.0.entry((name.to_owned(), index)).or_default();
                if partition.log.start() < past.start {
                    undeleted.push((name.to_owned(), index));
                }
                past.start = partition.log.start();
                past.highest_start = past.highest_start.max(past.start);
                let high_watermark = partition.high_watermark();
                if high_watermark <= past.taken_to {
                    continue;
                }
                let new = partition.log.batches().rev();
                let new: Vec<_> =
                    new.take_while(|batch| batch.header.last_offset() >= past.taken_to).collect();
                for batch in new.into_iter().rev().filter(|b| b.header.last_offset() < high_watermark) {
                    past.add(&batch.bytes);
                }
            }
        }
        undeleted
    }

    /// An unclean election took what stood from `end` on.
    pub fn cut(&mut self, key: &Key, end: i64) {
        if let Some(past) = self.0.get_mut(key) {
            past.taken_to = past.taken_to.min(end);
        }
    }

    pub fn of(&self, topic: &str, partition: i32) -> Option<&Past> {
        self.0.get(&(topic.to_owned(), partition))
    }
}

impl Past {
    fn add(&mut self, bytes: &bytes::Bytes) {
        let Some((batch, _)) = Stored::read(bytes) else { return };
        for (offset, record) in (batch.base_offset..).zip(batch.records().unwrap_or_default()) {
            self.records.entry(offset).or_default().push(record);
            *self.counts.entry(record).or_default() += 1;
        }
        self.taken_to = batch.next_offset();
        self.batches.entry(batch.base_offset).or_default().push(batch);
    }

    /// Batches that were seen to begin there.
    pub fn batches_at(&self, base_offset: i64) -> &[Stored] {
        self.batches.get(&base_offset).map_or(&[], Vec::as_slice)
    }

    pub fn records_at(&self, offset: i64) -> &[u64] {
        self.records.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// Below it there may be nothing to mirror.
    pub fn highest_start(&self) -> i64 {
        self.highest_start
    }

    pub fn count(&self, record: u64) -> usize {
        self.counts.get(&record).copied().unwrap_or_default()
    }

    /// Bytes of the batches that begin within these offsets.
    pub fn bytes_within(&self, offsets: std::ops::Range<i64>) -> usize {
        if offsets.is_empty() {
            return 0;
        }
        let batches = self.batches.range(offsets).filter_map(|(_, versions)| versions.last());
        batches.map(|batch| crate::batches::HEADER_BYTES + batch.payload.len()).sum()
    }
}

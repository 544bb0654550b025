//! Reading a log as a fetch and a ListOffsets do.

use bytes::{Bytes, BytesMut};

use super::{AbortedTransaction, Batch, Log, records};

/// What one fetch gets of a partition.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// Whole batches, then perhaps the beginning of one: a broker cuts at a byte, not at a batch.
    pub records: Bytes,
    pub aborted: Vec<AbortedTransaction>,
    /// Nothing came though there were bytes to come: not even the first batch fits.
    pub too_small: bool,
    /// The last batch isn't whole.
    pub is_cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub timestamp: i64,
    pub offset: i64,
    /// Of the batch: the log may have forgotten where that epoch began.
    pub leader_epoch: i32,
}

impl Log {
    /// Bytes from the batch that holds `offset` on: below `limit`, of one segment, at most `bytes_max`. A
    /// first batch that doesn't fit comes whole when `at_least_one`, else nothing comes.
    pub fn read(&self, offset: i64, limit: i64, bytes_max: usize, at_least_one: bool) -> Chunk {
        let first = self.batches.partition_point(|batch| batch.header.last_offset() < offset);
        let Some(begin) = self.batches.get(first).filter(|_| offset < limit) else { return Chunk::default() };
        if begin.bytes.len() > bytes_max && !at_least_one && bytes_max > 0 {
            return Chunk { too_small: true, ..Chunk::default() };
        }
        let holder = self.segments.partition_point(|segment| segment.base <= begin.header.base_offset);
        let segment_end = self.segments.get(holder).map_or(self.end, |next| next.base);
        let (records, is_cut) = if begin.bytes.len() > bytes_max && !at_least_one {
            (Bytes::new(), false)
        } else {
            let limit = segment_end.min(limit);
            let within: Vec<&Batch> =
                self.batches.range(first..).take_while(|batch| batch.header.last_offset() < limit).collect();
            joined(&within, bytes_max.max(begin.bytes.len()))
        };
        // Kafka doesn't look where the bytes end: it takes the next place that its index knows.
        let behind = begin.position + records.len() as u64;
        let indexed = holder.checked_sub(1).and_then(|holder| self.segments[holder].index.bound(behind));
        let aborted = self.aborted.within(offset, indexed.unwrap_or(segment_end));
        Chunk { records, aborted, too_small: false, is_cut }
    }

    /// The first record that is at least as young as `timestamp`. Looked for in one segment only, the first
    /// that has held such a record: what it held may be deleted by now, and then there is none.
    pub fn at_timestamp(&self, timestamp: i64) -> Option<TimestampedOffset> {
        let segment = self.segments.iter().position(|segment| segment.max_timestamp >= timestamp)?;
        let base = self.segments[segment].base;
        let end = self.segments.get(segment + 1).map_or(self.end, |next| next.base);
        let candidates = self.batches.iter().filter(|batch| {
            (base..end).contains(&batch.header.base_offset) && batch.header.max_timestamp >= timestamp
        });
        candidates.flat_map(stamped).find(|found| found.timestamp >= timestamp && found.offset >= self.start)
    }

    /// The first of the youngest records (KIP-734).
    pub fn youngest(&self) -> Option<TimestampedOffset> {
        let youngest = self.batches.iter().map(|batch| batch.header.max_timestamp).max()?;
        let holder = self.batches.iter().find(|batch| batch.header.max_timestamp == youngest)?;
        stamped(holder).into_iter().find(|found| found.timestamp == youngest)
    }
}

/// Up to `bytes_max`, and whether the last batch is cut by it.
fn joined(batches: &[&Batch], bytes_max: usize) -> (Bytes, bool) {
    if let [only] = batches {
        return (only.bytes.slice(..only.bytes.len().min(bytes_max)), only.bytes.len() > bytes_max);
    }
    let mut is_cut = false;
    let mut out = BytesMut::with_capacity(bytes_max.min(batches.iter().map(|batch| batch.bytes.len()).sum()));
    for batch in batches {
        let room = bytes_max - out.len();
        out.extend_from_slice(&batch.bytes[..batch.bytes.len().min(room)]);
        if out.len() == bytes_max {
            is_cut = batch.bytes.len() > room;
            break;
        }
    }
    (out.freeze(), is_cut)
}

/// Timestamp and offset of each record of a stored batch.
fn stamped(batch: &Batch) -> Vec<TimestampedOffset> {
    let records = records::read(&batch.header, &batch.bytes).unwrap_or_default();
    let base = batch.header.base_offset;
    let stamp = |record: &records::Record| TimestampedOffset {
        timestamp: record.timestamp,
        offset: base + record.offset_delta,
        leader_epoch: batch.header.leader_epoch,
    };
    records.iter().map(stamp).collect()
}

//! One partition's log as its leader holds it: batches, what producers wrote last, ended transactions,
//! leader epochs. A value: never waits, never reads a clock.

mod aborted;
mod append;
mod batch;
mod compression;
mod index;
mod producers;
mod read;
mod records;

use std::collections::VecDeque;

use bytes::Bytes;

pub use aborted::AbortedTransaction;
pub use append::{Appended, Marker, Refusal, Rules, TimestampType, first_header, sole_batch};
pub use batch::{Header, MAGIC};
pub use producers::{Producer, Producers};
pub use read::TimestampedOffset;

use batch::{NO_TIMESTAMP, control_batch};

use aborted::Aborted;
use index::Index;

/// A batch as it is stored: bytes that a fetch answers with, and where they stand.
#[derive(Debug, Clone)]
pub struct Batch {
    pub header: Header,
    pub bytes: Bytes,
    /// In its segment.
    position: u64,
}

/// Where a leader epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    pub leader_epoch: i32,
    pub offset: i64,
}

/// A run of batches that retention deletes as a whole. Only the last one grows.
#[derive(Debug, Clone)]
struct Segment {
    base: i64,
    bytes: u64,
    max_timestamp: i64,
    /// Of its first batch, which came at `created_ms`.
    first_timestamp: Option<i64>,
    created_ms: i64,
    index: Index,
}

#[derive(Debug, Clone)]
pub struct Log {
    batches: VecDeque<Batch>,
    segments: VecDeque<Segment>,
    start: i64,
    /// The log start that a crash of all replicas falls back to (`log-start-offset-checkpoint`).
    saved_start: i64,
    end: i64,
    pub producers: Producers,
    aborted: Aborted,
    epochs: Vec<EpochStart>,
}

/// What retention allows to stay.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Age of a segment's newest record; None: for ever.
    pub milliseconds: Option<i64>,
    pub bytes: Option<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    pub fn new() -> Self {
        Self {
            batches: VecDeque::new(),
            segments: VecDeque::from([Segment::at(0)]),
            start: 0,
            saved_start: 0,
            end: 0,
            producers: Producers::default(),
            aborted: Aborted::default(),
            epochs: Vec::new(),
        }
    }

    pub fn start(&self) -> i64 {
        self.start
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    /// All batches that are still stored, in order; the first may begin below the log start.
    pub fn batches(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.batches.iter()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Nothing at or above this offset is stable: the first record of the oldest open transaction, or of
    /// an ended one whose marker isn't below the high watermark. If that is deleted, it is where the batch
    /// begins that holds the log start, which may lie below that (`LogSegment.read` of Kafka 4.4; Kafka 3.9
    /// tells the log start).
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let open = self.producers.first_open_offset();
        let unreplicated = self.aborted.first_unreplicated(high_watermark);
        match [open, unreplicated].into_iter().flatten().min() {
            Some(unstable) if unstable < self.start => self.base_offset_at_start().min(high_watermark),
            Some(unstable) => unstable.min(high_watermark),
            None => high_watermark.max(self.start),
        }
    }

    fn base_offset_at_start(&self) -> i64 {
        let holder = self.batches.iter().find(|batch| batch.header.last_offset() >= self.start);
        holder.map_or(self.start, |batch| batch.header.base_offset.min(self.start))
    }

    /// Raises the log start; stored batches stay until the start is saved.
    pub fn raise_start(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        self.forget_epochs_before_start();
    }

    /// The log start reaches the disk, and what lies below it can go.
    pub fn save_start(&mut self) {
        self.saved_start = self.start;
        while self.batches.front().is_some_and(|batch| batch.header.last_offset() < self.start) {
            self.drop_first_batch();
        }
        while self.segments.len() > 1 && self.segments[1].base <= self.start {
            self.segments.pop_front();
        }
        self.aborted.forget_below(self.start);
    }

    fn drop_first_batch(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            let bytes = batch.bytes.len() as u64;
            let holder = self.segments.iter().rposition(|segment| segment.base <= batch.header.base_offset);
            let segment = &mut self.segments[holder.unwrap_or(0)];
            segment.bytes = segment.bytes.saturating_sub(bytes);
        }
    }

    /// Deletes whole segments that retention no longer covers, never the active one nor what lies above
    /// the high watermark. Returns the new log start when it moved.
    pub fn retain(&mut self, retention: Retention, now_ms: i64, high_watermark: i64) -> Option<i64> {
        let before = self.start;
        while self.segments.len() > 1 && self.segments[1].base <= high_watermark {
            let oldest = &self.segments[0];
            let aged = retention.milliseconds.is_some_and(|limit| now_ms - oldest.max_timestamp > limit);
            let over = retention.bytes.is_some_and(|limit| self.stored_bytes() - oldest.bytes >= limit);
            if !aged && !over {
                break;
            }
            self.start = self.start.max(self.segments[1].base);
            self.save_start();
        }
        self.forget_epochs_before_start();
        (self.start != before).then_some(self.start)
    }

    /// Drops everything at or above `offset`, as a follower does that becomes leader without it.
    pub fn truncate(&mut self, offset: i64) {
        if offset >= self.end {
            return;
        }
        while self.batches.back().is_some_and(|batch| batch.header.last_offset() >= offset) {
            self.batches.pop_back();
        }
        while self.segments.len() > 1 && self.segments.back().is_some_and(|segment| segment.base >= offset) {
            self.segments.pop_back();
        }
        self.end = self.batches.back().map_or(offset, |batch| batch.header.last_offset() + 1).min(offset);
        self.start = self.start.min(self.end);
        self.saved_start = self.saved_start.min(self.end);
        if let Some(active) = self.segments.back_mut() {
            active.bytes = self
                .batches
                .iter()
                .filter(|batch| batch.header.base_offset >= active.base)
                .map(|batch| batch.bytes.len() as u64)
                .sum();
            let last = self.batches.back().filter(|batch| batch.header.base_offset >= active.base);
            active.index.truncate(last.map_or(0, |batch| batch.position + batch.bytes.len() as u64));
        }
        self.epochs.retain(|epoch| epoch.offset < self.end);
        self.aborted.truncate(self.end);
        self.producers.truncate(self.end, &self.batches);
    }

    /// What a broker finds after a start. A log without records has lost its producers; a start that was
    /// not saved is undone when the stop was a crash. Expired producers aren't loaded.
    pub fn reload(&mut self, crashed: bool, now_ms: i64, expiration_ms: i64) {
        if crashed {
            self.start = self.saved_start.max(self.batches.front().map_or(self.saved_start, |batch| {
                if batch.header.base_offset > self.saved_start {
                    batch.header.base_offset
                } else {
                    self.saved_start
                }
            }));
        } else {
            self.save_start();
        }
        if self.start == self.end {
            self.producers.clear();
        }
        self.producers.expire(now_ms, expiration_ms);
    }

    /// The newest leader epoch that wrote here, and its start.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// Where `leader_epoch` ended: the start of the next one that wrote, or the log end; with the newest
    /// epoch at or below the asked one (KIP-101, KIP-279). None when there is none.
    pub fn end_of_epoch(&self, leader_epoch: i32) -> Option<(i32, i64)> {
        let newest = self.epochs.last()?;
        if leader_epoch == newest.leader_epoch {
            return Some((leader_epoch, self.end));
        }
        if leader_epoch > newest.leader_epoch {
            return None;
        }
        let next = self.epochs.iter().position(|epoch| epoch.leader_epoch > leader_epoch)?;
        match next.checked_sub(1) {
            // An epoch older than any that is known ended where the oldest begins.
            None => Some((leader_epoch, self.epochs[next].offset)),
            Some(found) => Some((self.epochs[found].leader_epoch, self.epochs[next].offset)),
        }
    }

    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.epochs.iter().rev().find(|epoch| epoch.offset <= offset).map(|epoch| epoch.leader_epoch)
    }

    /// A new leader marks where its epoch begins, also before its first write.
    pub fn begin_epoch(&mut self, leader_epoch: i32) {
        self.epochs.retain(|epoch| epoch.offset < self.end && epoch.leader_epoch < leader_epoch);
        self.epochs.push(EpochStart { leader_epoch, offset: self.end });
    }

    fn forget_epochs_before_start(&mut self) {
        let Some(covering) = self.epochs.iter().rposition(|epoch| epoch.offset <= self.start) else { return };
        self.epochs.drain(..covering);
        self.epochs[0].offset = self.epochs[0].offset.max(self.start);
    }
}

impl Segment {
    fn at(base: i64) -> Self {
        Self {
            base,
            bytes: 0,
            max_timestamp: NO_TIMESTAMP,
            first_timestamp: None,
            created_ms: 0,
            index: Index::default(),
        }
    }
}

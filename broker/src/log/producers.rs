//! What a partition remembers of each producer (KIP-98): the epoch, the last five batches, the open
//! transaction. Idempotence and fencing are decided here.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::error::ResponseError as Code;

use super::Batch;
use super::batch::{Header, NO_SEQUENCE, NO_TIMESTAMP};

/// A broker recognises an exact duplicate among so many batches of a producer.
const BATCHES_REMEMBERED: usize = 5;
const NO_EPOCH: i16 = -1;

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
    pub timestamp: i64,
}

impl Remembered {
    fn of(header: &Header) -> Self {
        Self {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    pub batches: VecDeque<Remembered>,
    pub last_timestamp: i64,
    /// Of the coordinator that wrote the last marker, -1 before the first.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction.
    pub open_since: Option<i64>,
}

impl Producer {
    fn unknown() -> Self {
        let last_timestamp = NO_TIMESTAMP;
        Self {
            epoch: NO_EPOCH,
            batches: VecDeque::new(),
            last_timestamp,
            coordinator_epoch: -1,
            open_since: None,
        }
    }

    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    pub fn last_offset(&self) -> i64 {
        self.batches.back().map_or(-1, |batch| batch.last_offset)
    }

    fn take_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }
}

/// The least sequence that a transactional producer came with since its last transaction here: nothing
/// above it is taken first, so that a retry of what was refused can't overtake it (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    epoch: i16,
    sequence: i32,
    since_ms: i64,
    /// By the protocol of KIP-890's second part, a producer that the partition doesn't remember begins at 0.
    from_zero: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Producers {
    known: BTreeMap<i64, Producer>,
    /// Held in memory only.
    expected: BTreeMap<i64, Expected>,
}

impl Producers {
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.known.get(&producer_id)
    }

    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// A batch that begins a transaction is about to be verified.
    pub fn expect(&mut self, header: &Header, from_zero: bool, now_ms: i64) {
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        let fresh = Expected { epoch, sequence, since_ms: now_ms, from_zero };
        let expected = self.expected.entry(header.producer_id).or_insert(fresh);
        if epoch > expected.epoch {
            (expected.epoch, expected.sequence) = (epoch, sequence);
        } else if epoch == expected.epoch {
            expected.sequence = expected.sequence.min(sequence);
        }
    }

    /// Another replica leads, or this one was restarted.
    pub fn expect_nothing(&mut self) {
        self.expected.clear();
    }

    /// A producer is forgotten by the newest timestamp of its last batch, not by its silence.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.known.retain(|_, producer| {
            producer.open_since.is_some() || now_ms.saturating_sub(producer.last_timestamp) < expiration_ms
        });
        self.expected.retain(|_, expected| now_ms.saturating_sub(expected.since_ms) < expiration_ms);
    }

    pub fn first_open_offset(&self) -> Option<i64> {
        self.known.values().filter_map(|producer| producer.open_since).min()
    }

    /// The batch that `header` repeats exactly, when it is among the last five of its epoch.
    pub fn duplicate_of(&self, header: &Header) -> Option<Remembered> {
        let producer = self.known.get(&header.producer_id)?;
        if producer.epoch != header.producer_epoch {
            return None;
        }
        let same = |batch: &&Remembered| {
            batch.base_sequence == header.base_sequence && batch.last_sequence == header.last_sequence()
        };
        producer.batches.iter().find(same).copied()
    }

    /// Whether a data batch may follow what its producer wrote.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH`, `OUT_OF_ORDER_SEQUENCE_NUMBER`, `INVALID_TXN_STATE`.
    pub fn check_data(&self, header: &Header) -> Result<(), Code> {
        let unknown = Producer::unknown();
        let current = self.known.get(&header.producer_id).unwrap_or(&unknown);
        if header.producer_epoch < current.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        let first = header.base_sequence;
        let too_high = |expected: &Expected| {
            first > expected.sequence || (expected.from_zero && current.batches.is_empty() && first != 0)
        };
        if self.expected.get(&header.producer_id).is_some_and(too_high) {
            return Err(Code::OutOfOrderSequenceNumber);
        }
        let in_order = if header.producer_epoch != current.epoch {
            first == 0 || current.epoch == NO_EPOCH
        } else if current.epoch == NO_EPOCH {
            true
        } else {
            let last = current.last_sequence();
            i64::from(first) == i64::from(last) + 1 || (first == 0 && last == i32::MAX)
        };
        if !in_order {
            return Err(Code::OutOfOrderSequenceNumber);
        }
        if current.open_since.is_some() && !header.is_transactional() {
            return Err(Code::InvalidTxnState);
        }
        Ok(())
    }

    /// Whether a marker may be written.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH`, `TRANSACTION_COORDINATOR_FENCED`.
    pub fn check_marker(&self, producer_id: i64, epoch: i16, coordinator_epoch: i32) -> Result<(), Code> {
        let Some(current) = self.known.get(&producer_id) else { return Ok(()) };
        if epoch < current.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        if coordinator_epoch < current.coordinator_epoch {
            return Err(Code::TransactionCoordinatorFenced);
        }
        Ok(())
    }

    /// Remembers a data batch that is now in the log.
    pub fn appended(&mut self, header: &Header) {
        if header.is_transactional() {
            self.expected.remove(&header.producer_id);
        }
        let producer = self.known.entry(header.producer_id).or_insert_with(Producer::unknown);
        producer.take_epoch(header.producer_epoch);
        producer.batches.push_back(Remembered::of(header));
        if producer.batches.len() > BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.last_timestamp = header.max_timestamp;
        if header.is_transactional() && producer.open_since.is_none() {
            producer.open_since = Some(header.base_offset);
        }
    }

    /// Remembers a marker; returns where the transaction that it ended began.
    pub fn marked(
        &mut self,
        producer_id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        now_ms: i64,
    ) -> Option<i64> {
        self.expected.remove(&producer_id);
        let producer = self.known.entry(producer_id).or_insert_with(Producer::unknown);
        producer.take_epoch(epoch);
        producer.coordinator_epoch = coordinator_epoch;
        producer.last_timestamp = now_ms;
        producer.open_since.take()
    }

    /// What a replica that has the log only up to `end` knows of these producers: of each that isn't
    /// forgotten the last batches of its epoch that it stores, as it has read them itself, and those that
    /// were deleted since.
    pub(super) fn truncate(&mut self, end: i64, batches: &VecDeque<Batch>) {
        self.known.retain(|producer_id, producer| {
            producer.batches.retain(|batch| batch.last_offset < end);
            producer.open_since = producer.open_since.filter(|first| *first < end);
            let own = |header: &Header| header.producer_id == *producer_id && !header.is_control();
            let is_known = batches.iter().any(|batch| batch.header.producer_id == *producer_id);
            let first_kept = producer.batches.front().map_or(end, |batch| batch.base_offset);
            let missing = BATCHES_REMEMBERED - producer.batches.len();
            let stored = batches.iter().rev().map(|batch| batch.header);
            let stored = stored.filter(|header| own(header) && header.base_offset < first_kept);
            let stored = stored.take_while(|header| header.producer_epoch == producer.epoch);
            for header in stored.take(missing) {
                producer.batches.push_front(Remembered::of(&header));
            }
            if let Some(batch) = producer.batches.back() {
                producer.last_timestamp = batch.timestamp;
            }
            is_known || !producer.batches.is_empty()
        });
    }
}

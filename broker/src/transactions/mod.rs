//! The transaction coordinators of all brokers as one value (KIP-98, KIP-360): what each transactional id
//! stands at, and what a request makes of it, with Kafka's checks in its order (`TransactionCoordinator`,
//! the protocol before KIP-890's second part). It outlives the brokers, as the log of transactions does.
//!
//! Ending a transaction only prepares: [`markers`] writes the markers later. Never touches a partition
//! itself.

mod markers;
mod producer_ids;

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError as Code;

pub use markers::CoordinatorTimers;

use crate::coordinator::coordinator_partition;
use markers::Markers;
use producer_ids::ProducerIds;

/// Topic and partition.
pub type Key = (String, i32);

/// Where a group keeps its offsets, as a transaction names it: this cluster has no such topic.
pub(crate) fn offsets_key(group: &str) -> Key {
    (OFFSETS_TOPIC.to_owned(), coordinator_partition(group) as i32)
}

const OFFSETS_TOPIC: &str = "__consumer_offsets";

const NO_EPOCH: i16 = -1;
/// The last epoch a client gets; one above it is kept for fencing.
const EPOCH_MAX: i16 = i16::MAX - 1;
const NO_START: i64 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl Status {
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// As Kafka's answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// One transactional id.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub producer_id: i64,
    /// Before the last rotation.
    previous_producer_id: i64,
    pub producer_epoch: i16,
    /// What a producer that bumped its own epoch had before, -1 else (KIP-360).
    last_epoch: i16,
    pub timeout_ms: i32,
    pub status: Status,
    /// Of those that are prepared: the ones whose marker isn't written yet.
    pub partitions: BTreeSet<Key>,
    pub started_ms: i64,
    updated_ms: i64,
    /// Rises when another broker becomes the coordinator.
    coordinator_epoch: i32,
    /// Present while prepared.
    markers: Option<Markers>,
}

/// The present, and when markers of what ends now are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub now_ms: i64,
    pub markers_due_ms: i64,
}

/// A producer id with its epoch.
pub(crate) type ProducerEpoch = (i64, i16);

#[derive(Debug, Default)]
pub struct Transactions {
    known: BTreeMap<String, Transaction>,
    /// Those whose markers aren't all written.
    ending: BTreeSet<String>,
    ids: ProducerIds,
    frozen: bool,
}

impl Transactions {
    pub fn get(&self, transactional_id: &str) -> Option<&Transaction> {
        self.known.get(transactional_id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.known.iter().map(|(id, transaction)| (id.as_str(), transaction))
    }

    /// A producer id that nobody has, from the block of ids that `broker` holds.
    pub(crate) fn fresh_producer_id(&mut self, broker: i32) -> i64 {
        self.ids.next(broker)
    }

    /// InitProducerId; `expected`: what the producer has, when it goes on after an error (KIP-360).
    ///
    /// # Errors
    /// `CONCURRENT_TRANSACTIONS` while the transaction before is being ended, also by this very call;
    /// `PRODUCER_FENCED`.
    pub(crate) fn init(
        &mut self,
        broker: i32,
        id: &str,
        timeout_ms: i32,
        expected: Option<ProducerEpoch>,
        at: Moment,
    ) -> Result<ProducerEpoch, Code> {
        let Self { known, ids, ending, .. } = self;
        let transaction = known
            .entry(id.to_owned())
            .or_insert_with(|| Transaction::new(ids.next(broker), timeout_ms, at.now_ms));
        if expected.is_some_and(|expected| !transaction.may_be(expected)) {
            return Err(Code::ProducerFenced);
        }
        match transaction.status {
            Status::PrepareCommit | Status::PrepareAbort => return Err(Code::ConcurrentTransactions),
            Status::Ongoing => {
                transaction.fence(at);
                ending.insert(id.to_owned());
                return Err(Code::ConcurrentTransactions);
            }
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort => {}
        }
        let exhausted = transaction.producer_epoch >= EPOCH_MAX;
        if exhausted && expected.is_none_or(|(_, epoch)| epoch == transaction.producer_epoch) {
            let last = if expected.is_some() { transaction.producer_epoch } else { NO_EPOCH };
            transaction.begin(ids.next(broker), 0, last);
        } else if exhausted {
            return Err(Code::UnknownServerError);
        } else {
            let (epoch, last) = transaction.next_epoch(expected.map(|(_, epoch)| epoch))?;
            transaction.begin(transaction.producer_id, epoch, last);
        }
        transaction.timeout_ms = timeout_ms;
        transaction.updated_ms = at.now_ms;
        Ok((transaction.producer_id, transaction.producer_epoch))
    }

    /// AddPartitionsToTxn and AddOffsetsToTxn.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`.
    pub(crate) fn add(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        partitions: BTreeSet<Key>,
        now_ms: i64,
    ) -> Result<(), Code> {
        let transaction = self.claimed(id, producer)?;
        if transaction.status.is_prepared() {
            return Err(Code::ConcurrentTransactions);
        }
        if transaction.status != Status::Ongoing {
            transaction.started_ms = now_ms;
            transaction.partitions.clear();
        } else if partitions.is_subset(&transaction.partitions) {
            return Ok(());
        }
        transaction.status = Status::Ongoing;
        transaction.partitions.extend(partitions);
        transaction.updated_ms = now_ms;
        Ok(())
    }

    /// Whether a partition is part of the ongoing transaction, as a leader asks before the first append.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`,
    /// `TRANSACTION_ABORTABLE` when it isn't.
    pub(crate) fn verify(&self, id: &str, producer: ProducerEpoch, key: &Key) -> Result<(), Code> {
        let transaction = self.known.get(id).ok_or(Code::InvalidProducerIdMapping)?;
        transaction.check(producer)?;
        if transaction.status.is_prepared() {
            return Err(Code::ConcurrentTransactions);
        }
        if transaction.partitions.contains(key) { Ok(()) } else { Err(Code::TransactionAbortable) }
    }

    /// EndTxn.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_ID_MAPPING`, `PRODUCER_FENCED`, `CONCURRENT_TRANSACTIONS`, `INVALID_TXN_STATE`.
    pub(crate) fn end(
        &mut self,
        id: &str,
        producer: ProducerEpoch,
        commit: bool,
        at: Moment,
    ) -> Result<(), Code> {
        let transaction = self.claimed(id, producer)?;
        match (transaction.status, commit) {
            (Status::Ongoing, _) => {
                transaction.prepare(commit, at);
                self.ending.insert(id.to_owned());
                Ok(())
            }
            (Status::CompleteCommit, true) | (Status::CompleteAbort, false) => Ok(()),
            (Status::PrepareCommit, true) | (Status::PrepareAbort, false) => {
                Err(Code::ConcurrentTransactions)
            }
            _ => Err(Code::InvalidTxnState),
        }
    }

    /// Transactions that were open for longer than their timeout are aborted, their producers fenced.
    fn time_out(&mut self, at: Moment) {
        for (id, transaction) in &mut self.known {
            let until_ms = transaction.started_ms + i64::from(transaction.timeout_ms);
            if transaction.status == Status::Ongoing && until_ms < at.now_ms {
                transaction.fence(at);
                self.ending.insert(id.clone());
            }
        }
    }

    /// Transactional ids that nothing was done with for so long are forgotten.
    fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.known.retain(|_, transaction| {
            let idle = !transaction.status.is_prepared() && transaction.status != Status::Ongoing;
            !(idle && transaction.updated_ms <= now_ms - expiration_ms)
        });
    }

    fn claimed(&mut self, id: &str, producer: ProducerEpoch) -> Result<&mut Transaction, Code> {
        let transaction = self.known.get_mut(id).ok_or(Code::InvalidProducerIdMapping)?;
        transaction.check(producer)?;
        Ok(transaction)
    }
}

impl Transaction {
    fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: -1,
            producer_epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms,
            status: Status::Empty,
            partitions: BTreeSet::new(),
            started_ms: NO_START,
            updated_ms: now_ms,
            coordinator_epoch: 0,
            markers: None,
        }
    }

    fn check(&self, (producer_id, epoch): ProducerEpoch) -> Result<(), Code> {
        if self.producer_id != producer_id {
            return Err(Code::InvalidProducerIdMapping);
        }
        if self.producer_epoch != epoch { Err(Code::ProducerFenced) } else { Ok(()) }
    }

    /// Whether a producer that says it has this may be the one of this transactional id; its epoch is
    /// looked at later.
    fn may_be(&self, (producer_id, epoch): ProducerEpoch) -> bool {
        self.producer_epoch == NO_EPOCH
            || producer_id == self.producer_id
            || (producer_id == self.previous_producer_id && epoch >= EPOCH_MAX)
    }

    /// The epoch that a producer gets, and the one it had.
    fn next_epoch(&self, expected: Option<i16>) -> Result<(i16, i16), Code> {
        let current = self.producer_epoch;
        match expected {
            None => Ok((current + 1, NO_EPOCH)),
            Some(expected) if current == NO_EPOCH || expected == current => Ok((current + 1, current)),
            // It didn't hear the answer to the same request.
            Some(expected) if expected == self.last_epoch => Ok((current, self.last_epoch)),
            Some(_) => Err(Code::ProducerFenced),
        }
    }

    fn begin(&mut self, producer_id: i64, epoch: i16, last_epoch: i16) {
        self.previous_producer_id = self.producer_id;
        self.producer_id = producer_id;
        self.producer_epoch = epoch;
        self.last_epoch = last_epoch;
        self.status = Status::Empty;
        self.partitions.clear();
        self.started_ms = NO_START;
    }

    /// Aborts with an epoch that no client has.
    fn fence(&mut self, at: Moment) {
        self.last_epoch = self.producer_epoch;
        self.producer_epoch = self.producer_epoch.saturating_add(1);
        self.prepare(false, at);
    }

    fn prepare(&mut self, commit: bool, at: Moment) {
        self.status = if commit { Status::PrepareCommit } else { Status::PrepareAbort };
        self.updated_ms = at.now_ms;
        self.markers = Some(Markers::new(self.partitions.clone(), at.markers_due_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { now_ms: 1_000, markers_due_ms: 1_005 };

    fn one() -> BTreeSet<Key> {
        BTreeSet::from([("orders".to_owned(), 0)])
    }

    #[test]
    fn a_producer_gets_the_same_id_with_the_next_epoch() {
        let mut transactions = Transactions::default();
        let (id, epoch) = transactions.init(1, "tx", 1_000, None, AT).unwrap();
        assert_eq!(epoch, 0);
        assert_eq!(transactions.init(1, "tx", 1_000, None, AT), Ok((id, 1)));
        assert_ne!(transactions.init(1, "other", 1_000, None, AT).unwrap().0, id);
    }

    #[test]
    fn an_exhausted_epoch_gives_a_new_producer_id() {
        let mut transactions = Transactions::default();
        let (id, _) = transactions.init(1, "tx", 1_000, None, AT).unwrap();
        transactions.known.get_mut("tx").unwrap().producer_epoch = EPOCH_MAX;
        let (rotated, epoch) = transactions.init(1, "tx", 1_000, Some((id, EPOCH_MAX)), AT).unwrap();
        assert_eq!((rotated != id, epoch), (true, 0));
        // The same request again, its answer lost.
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id, EPOCH_MAX)), AT), Ok((rotated, 0)));
    }

    #[test]
    fn a_producer_that_goes_on_is_known_by_its_epoch_or_the_one_before() {
        let mut transactions = Transactions::default();
        let (id, _) = transactions.init(1, "tx", 1_000, None, AT).unwrap();
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id, 0)), AT), Ok((id, 1)));
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id, 0)), AT), Ok((id, 1)));
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id, 1)), AT), Ok((id, 2)));
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id, 0)), AT), Err(Code::ProducerFenced));
        assert_eq!(transactions.init(1, "tx", 1_000, Some((id + 1, 2)), AT), Err(Code::ProducerFenced));
    }

    #[test]
    fn an_open_transaction_is_aborted_before_its_id_is_given_again() {
        let mut transactions = Transactions::default();
        let producer = transactions.init(1, "tx", 1_000, None, AT).unwrap();
        transactions.add("tx", producer, one(), 0).unwrap();
        assert_eq!(transactions.init(1, "tx", 1_000, None, AT), Err(Code::ConcurrentTransactions));
        let fenced = transactions.get("tx").unwrap();
        assert_eq!((fenced.status, fenced.producer_epoch), (Status::PrepareAbort, producer.1 + 1));
        assert_eq!(transactions.end("tx", producer, true, AT), Err(Code::ProducerFenced));
    }

    #[test]
    fn a_transaction_ends_once_and_the_way_it_was_asked_to() {
        let mut transactions = Transactions::default();
        let producer = transactions.init(1, "tx", 1_000, None, AT).unwrap();
        assert_eq!(transactions.end("tx", producer, true, AT), Err(Code::InvalidTxnState));
        transactions.add("tx", producer, one(), 0).unwrap();
        assert_eq!(transactions.verify("tx", producer, &("orders".to_owned(), 0)), Ok(()));
        let other = ("orders".to_owned(), 1);
        assert_eq!(transactions.verify("tx", producer, &other), Err(Code::TransactionAbortable));
        assert_eq!(transactions.end("tx", producer, true, AT), Ok(()));
        assert_eq!(transactions.end("tx", producer, true, AT), Err(Code::ConcurrentTransactions));
        assert_eq!(transactions.end("tx", producer, false, AT), Err(Code::InvalidTxnState));
        assert_eq!(transactions.add("tx", producer, one(), 0), Err(Code::ConcurrentTransactions));
    }
}

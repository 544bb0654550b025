//! What coordinators do by themselves: write the markers of transactions that end, abort those that are
//! open for too long, forget transactional ids. And how they can be made to fail.

use std::collections::{BTreeMap, BTreeSet};

use super::{Key, Moment, OFFSETS_TOPIC, Status, Transaction};
use crate::log::Marker;
use crate::state::State;

/// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
const TIMEOUT_CHECK_MS: i64 = 10_000;
/// `transaction.remove.expired.transaction.cleanup.interval.ms`.
const EXPIRATION_CHECK_MS: i64 = 3_600_000;
/// A marker that a partition doesn't take yet is sent again after this (`retry.backoff.ms`).
const MARKER_RETRY_MS: i64 = 100;

/// The markers of one transaction that ends.
#[derive(Debug, Clone)]
pub struct Markers {
    /// All partitions that the transaction had: what the log of transactions says.
    every: BTreeSet<Key>,
    due_ms: i64,
    /// Written, and not yet replicated.
    sent: BTreeMap<Key, Sent>,
    /// A leader refused one for good: the coordinator gives up, and nobody ends the transaction until
    /// another broker takes over.
    stuck: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    leader_epoch: i32,
    end: i64,
}

enum Progress {
    Done,
    Waits,
    Refused,
}

impl Markers {
    pub fn new(every: BTreeSet<Key>, due_ms: i64) -> Self {
        Self { every, due_ms, sent: BTreeMap::new(), stuck: false }
    }
}

/// When coordinators look around next.
#[derive(Debug, Clone, Copy)]
pub struct CoordinatorTimers {
    timeout_check_ms: i64,
    expiration_check_ms: i64,
}

impl CoordinatorTimers {
    pub fn new(now_ms: i64) -> Self {
        Self {
            timeout_check_ms: now_ms + TIMEOUT_CHECK_MS,
            expiration_check_ms: now_ms + EXPIRATION_CHECK_MS,
        }
    }
}

impl State {
    pub(crate) fn moment(&self) -> Moment {
        Moment { now_ms: self.now_ms, markers_due_ms: self.now_ms + self.settings.marker_delay_ms }
    }

    /// From now on coordinators answer but do nothing by themselves: no marker is written, so that an
    /// ended transaction stays prepared and InitProducerId is told to come again, nothing is aborted,
    /// nothing expires.
    pub fn freeze_coordinators(&mut self, frozen: bool) {
        self.transactions.frozen = frozen;
        self.changed();
    }

    /// Forgets a transactional id as if its time were over: the next InitProducerId gives another
    /// producer id, and who holds the old one isn't fenced by it. False when it is unknown or in use.
    pub fn expire_transactional_id(&mut self, id: &str) -> bool {
        let idle = self.transactions.get(id).is_some_and(|transaction| {
            !transaction.status.is_prepared() && transaction.status != Status::Ongoing
        });
        if idle {
            self.transactions.known.remove(id);
        }
        idle
    }

    pub(crate) fn run_coordinators(&mut self) {
        if self.transactions.frozen {
            return;
        }
        let now_ms = self.now_ms;
        if now_ms >= self.coordinator_timers.timeout_check_ms {
            self.coordinator_timers.timeout_check_ms = now_ms + TIMEOUT_CHECK_MS;
            let at = self.moment();
            self.transactions.time_out(at);
        }
        if now_ms >= self.coordinator_timers.expiration_check_ms {
            self.coordinator_timers.expiration_check_ms = now_ms + EXPIRATION_CHECK_MS;
            self.transactions.expire(now_ms, self.settings.transactional_id_expiration_ms);
        }
        let due: Vec<String> = self.transactions.due(now_ms).map(str::to_owned).collect();
        for id in due {
            if self.coordinator(&id).is_none() {
                continue;
            }
            if let Some(mut transaction) = self.transactions.known.remove(&id) {
                self.write_markers(&mut transaction);
                if transaction.markers.is_none() {
                    self.transactions.ending.remove(&id);
                }
                self.transactions.known.insert(id, transaction);
                self.changed();
            }
        }
    }

    pub(crate) fn next_coordinator_timer_ms(&self) -> i64 {
        if self.transactions.frozen {
            return i64::MAX;
        }
        let CoordinatorTimers { timeout_check_ms, expiration_check_ms } = self.coordinator_timers;
        // Without a broker there is no coordinator.
        let ending = self.transactions.ending().filter(|_| !self.live().is_empty());
        let markers = ending.map(|(_, markers)| markers.due_ms).min();
        timeout_check_ms.min(expiration_check_ms).min(markers.unwrap_or(i64::MAX))
    }

    /// Who coordinates each transactional id.
    pub(crate) fn transaction_coordinators(&self) -> BTreeMap<String, Option<i32>> {
        self.transactions.iter().map(|(id, _)| (id.to_owned(), self.coordinator(id))).collect()
    }

    /// Transactional ids that `before` were coordinated by other brokers: whoever takes over reads what was
    /// prepared and sends all its markers again, those that were written before as well.
    pub(crate) fn hand_transactions_over(&mut self, before: BTreeMap<String, Option<i32>>) {
        let due_ms = self.moment().markers_due_ms;
        for (id, coordinator) in before {
            if self.coordinator(&id) == coordinator {
                continue;
            }
            let Some(transaction) = self.transactions.known.get_mut(&id) else { continue };
            transaction.coordinator_epoch += 1;
            if let Some(markers) = &mut transaction.markers {
                *markers = Markers::new(std::mem::take(&mut markers.every), due_ms);
                transaction.partitions = markers.every.clone();
            }
        }
    }

    fn write_markers(&mut self, transaction: &mut Transaction) {
        let Some(mut markers) = transaction.markers.take() else { return };
        let commit = transaction.status == Status::PrepareCommit;
        for key in transaction.partitions.clone() {
            let progress = match key.0 == OFFSETS_TOPIC {
                true => self.end_offsets(transaction.producer_id, commit),
                false => self.write_marker(transaction, &mut markers, &key, commit),
            };
            match progress {
                Progress::Done => drop(transaction.partitions.remove(&key)),
                Progress::Waits => {}
                Progress::Refused => markers.stuck = true,
            }
        }
        if transaction.partitions.is_empty() {
            transaction.status = if commit { Status::CompleteCommit } else { Status::CompleteAbort };
            transaction.updated_ms = self.now_ms;
        } else {
            markers.due_ms = self.now_ms + MARKER_RETRY_MS;
            transaction.markers = Some(markers);
        }
    }

    fn write_marker(
        &mut self,
        transaction: &Transaction,
        markers: &mut Markers,
        key: &Key,
        commit: bool,
    ) -> Progress {
        let (now_ms, copies) = (self.now_ms, self.settings.marker_copies);
        let Some(topic) = self.topics.get_mut(&key.0) else { return Progress::Done };
        let rules = topic.configs.rules();
        let partition = usize::try_from(key.1).ok().and_then(|index| topic.partitions.get_mut(index));
        let Some(partition) = partition else { return Progress::Done };
        if partition.leader.is_none()
            || partition.in_sync.len() < topic.configs.in_sync_min(partition.replicas.len())
        {
            return Progress::Waits;
        }
        let leader_epoch = partition.leader_epoch;
        let written = markers.sent.get(key).filter(|sent| sent.leader_epoch == leader_epoch);
        let end = match written {
            Some(sent) => sent.end,
            None => {
                let marker = Marker {
                    producer_id: transaction.producer_id,
                    producer_epoch: transaction.producer_epoch,
                    commit,
                    coordinator_epoch: transaction.coordinator_epoch,
                };
                for _ in 0..copies {
                    let high_watermark = partition.high_watermark();
                    let appended =
                        partition.log.append_marker(marker, &rules, leader_epoch, now_ms, high_watermark);
                    if appended.is_err() {
                        return Progress::Refused;
                    }
                }
                let end = partition.log.end();
                markers.sent.insert(key.clone(), Sent { leader_epoch, end });
                end
            }
        };
        if partition.high_watermark() >= end { Progress::Done } else { Progress::Waits }
    }

    /// The groups take what the producer left for them, whichever their partition.
    fn end_offsets(&mut self, producer_id: i64, commit: bool) -> Progress {
        self.groups.end_transaction(producer_id, commit);
        Progress::Done
    }
}

impl super::Transactions {
    fn ending(&self) -> impl Iterator<Item = (&str, &Markers)> {
        let markers =
            |id: &String| Some((self.known.get_key_value(id)?.0.as_str(), self.known[id].markers.as_ref()?));
        self.ending.iter().filter_map(markers).filter(|(_, markers)| !markers.stuck)
    }

    fn due(&self, now_ms: i64) -> impl Iterator<Item = &str> {
        self.ending().filter(move |(_, markers)| markers.due_ms <= now_ms).map(|(id, _)| id)
    }

    /// A broker that stops loses its block of producer ids.
    pub(crate) fn lose_ids(&mut self, broker: i32) {
        self.ids.lose(broker);
    }
}

//! The append lane of one mirror partition: what is queued, what is under way, what may go next.
//!
//! A pure value: the appender asks it and does as it says. The rules are those of idempotent
//! producers as brokers really apply them (DESIGN 2.5):
//!
//! - A broker that remembers us takes each batch once and only in order. It forgets by the
//!   newest record timestamp of our last batch, so a lane is *guarded* while that is fresh.
//! - Guarded: up to [`IN_FLIGHT_MAX`] batches under way. Not guarded: one, and none while a
//!   request from before may still arrive ([`Lane::quiet_from`]).
//! - A mirror at offset 0 that the broker remembers nothing of is the exception: whatever may
//!   still arrive there is a copy of its first batch with the same sequence, which the broker
//!   refuses once ours is in, as long as that is fresh. So a new mirror needs no waiting.
//! - A batch that no broker's memory guards goes only while this node holds its lease. Without one, what
//!   the broker is thought to remember must have been seen lately ([`GUARD_PROOF`]).
//! - Where another owner's batches are met, the one without lease stops, and the one with it sends nothing
//!   that makes the broker forget us until the other's proof has ended ([`Lane::met_another`]).
//! - The first batch of a run goes alone: with unknown state, a refused batch followed by an
//!   accepted one would put the second at the first's offset.
//!
//! A lane never retries. Whatever isn't a success at the expected offset stops it; its owner
//! looks at the log end and opens a new one.

mod end;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use catalog::ProducerIdentity;
use kafka::ErrorCode;
use kafka::batch::{OutgoingBatch, RawBatch};
use tokio::time::Instant;

use crate::credit::ShareCredit;
use crate::partition::machine::TAKEOVER_WAIT;

pub use end::{LaneEnd, LaneStop};

/// A broker recognises duplicates among the last five batches of a producer
/// (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub const IN_FLIGHT_MAX: usize = 5;

/// Taken off the broker's expiration time: clock skew between us and the broker, and the time a
/// request may be under way.
const FORGET_MARGIN: Duration = Duration::from_secs(3600);

/// How long it is trusted without a lease that the broker remembers us. Another owner that took over
/// after it was seen, or met our batches since, can't have made the broker forget us yet: before it sends
/// old data it waits longer ([`TAKEOVER_WAIT`]). A process that was frozen looks again.
pub const GUARD_PROOF: Duration = Duration::from_secs(20);

const _: () = assert!(GUARD_PROOF.as_millis() < TAKEOVER_WAIT.as_millis());

/// What a produce request with one batch holds beside it: client id, topic name, fixed fields.
const REQUEST_OVERHEAD_BYTES: usize = 1024;

/// How a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStart {
    pub producer: ProducerIdentity,
    /// The known log end offset of the mirror partition.
    pub position: i64,
    /// Sequence of the next record.
    pub next_sequence: i32,
    /// Newest record timestamp of our last batch, if the broker remembers one, ms since 1970.
    pub remembered_ms: Option<i64>,
    /// How long brokers remember a producer, ms.
    pub expiration_ms: i64,
    /// Brokers close the connection of a larger request without an answer.
    pub request_bytes_max: usize,
    /// From then on no request of an earlier run or owner can still arrive.
    pub quiet_from: Instant,
    /// When the broker was asked what it remembers, by the uptime clock.
    pub proven_at: Duration,
}

impl LaneStart {
    /// Nothing was ever appended, as far as the log and the broker's memory tell.
    pub fn is_new(&self) -> bool {
        self.position == 0 && self.remembered_ms.is_none()
    }
}

#[derive(Debug)]
struct Queued {
    batch: RawBatch,
    _credit: Arc<ShareCredit>,
}

#[derive(Debug)]
struct Flight {
    base_offset: i64,
    next_offset: i64,
    max_timestamp_ms: i64,
    size_bytes: usize,
    records: i64,
    _credit: Arc<ShareCredit>,
}

/// What lets batches go at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    /// The lease under which the run began is still held.
    pub has_lease: bool,
    pub uptime: Duration,
}

/// A batch that may be sent now.
#[derive(Debug)]
pub struct Next {
    pub batch: OutgoingBatch,
    /// Nothing but the lease keeps a second copy of it out.
    pub needs_lease: bool,
    /// Until when it may go without a lease, if it needs none.
    pub guarded_until: Duration,
}

/// What a taken answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub end_offset: i64,
    pub records: i64,
    pub bytes: usize,
    /// Of its newest record, milliseconds since 1970.
    pub newest_ms: i64,
}

#[derive(Debug)]
pub struct Lane {
    start: LaneStart,
    next_sequence: i32,
    queue: VecDeque<Queued>,
    in_flight: VecDeque<Flight>,
    remembered_ms: Option<i64>,
    /// One batch of this run was appended: the broker's state is what we think.
    proven: bool,
    /// Ends once the queue is empty.
    finishing: bool,
    /// It held something back until nothing from before could arrive.
    waited: bool,
    /// See [`LaneEnd::others_until`].
    others_until: Option<Instant>,
    stopped: Option<LaneEnd>,
}

impl Lane {
    pub fn new(start: LaneStart) -> Self {
        Self {
            start,
            next_sequence: start.next_sequence,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            remembered_ms: start.remembered_ms,
            proven: false,
            finishing: false,
            waited: false,
            others_until: None,
            stopped: None,
        }
    }

    /// Queues batches; they follow what was queued before without a hole.
    pub fn push(&mut self, batches: Vec<RawBatch>, credit: &Arc<ShareCredit>) {
        if self.stopped.is_none() {
            self.queue.extend(batches.into_iter().map(|batch| Queued { batch, _credit: credit.clone() }));
        }
    }

    /// The next batch to send now, if one may go. It then counts as under way.
    pub fn next(&mut self, now: Instant, now_ms: i64, permit: Permit) -> Option<Next> {
        let front = self.queue.front()?;
        let needs_lease = !self.keeps_guard(front, now_ms);
        if self.stopped.is_some() || !self.may_send(now, now_ms, needs_lease) {
            return None;
        }
        let guarded_until = self.start.proven_at + GUARD_PROOF;
        if !permit.has_lease && (needs_lease || permit.uptime >= guarded_until) {
            self.stop(if needs_lease { LaneStop::NoLease } else { LaneStop::Unproven }, false);
            return None;
        }
        if self.waited {
            self.stop(LaneStop::Quieted, false);
            return None;
        }
        let given = self.queue.front()?.batch.header.base_offset;
        let expected = self.in_flight.back().map_or(self.start.position, |f| f.next_offset);
        if given != expected {
            self.stop(LaneStop::OutOfOrder { expected, given }, false);
            return None;
        }
        let (bytes, request_bytes_max) = (self.front_bytes(), self.start.request_bytes_max);
        if bytes + REQUEST_OVERHEAD_BYTES > request_bytes_max {
            self.stop(LaneStop::TooLarge { offset: given, bytes, request_bytes_max }, false);
            return None;
        }
        let Queued { batch, _credit } = self.queue.pop_front()?;
        let ProducerIdentity { producer_id, producer_epoch } = self.start.producer;
        let outgoing = batch.readdress(producer_id, producer_epoch, self.next_sequence);
        let header = &batch.header;
        self.next_sequence = sequence_after(self.next_sequence, header.record_count);
        self.in_flight.push_back(Flight {
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            max_timestamp_ms: header.max_timestamp,
            size_bytes: batch.size_bytes(),
            records: i64::from(header.record_count),
            _credit,
        });
        Some(Next { batch: outgoing, needs_lease, guarded_until })
    }

    /// Size of the batch that goes next, when it may.
    pub fn front_bytes(&self) -> usize {
        self.queue.front().map_or(0, |queued| queued.batch.size_bytes())
    }

    /// The broker refuses a second copy of it. Sending old data makes the broker forget us.
    fn keeps_guard(&self, queued: &Queued, now_ms: i64) -> bool {
        (self.is_guarded(now_ms) || self.start.is_new())
            && self.is_fresh(queued.batch.header.max_timestamp, now_ms)
    }

    fn may_send(&mut self, now: Instant, now_ms: i64, needs_lease: bool) -> bool {
        // Unguarded only once nothing from before can arrive.
        if needs_lease && now < self.start.quiet_from {
            self.waited = true;
            return false;
        }
        self.in_flight.is_empty()
            || (self.proven
                && self.in_flight.len() < IN_FLIGHT_MAX
                && self.is_guarded(now_ms)
                && self.in_flight.iter().all(|f| self.is_fresh(f.max_timestamp_ms, now_ms)))
    }

    fn is_fresh(&self, timestamp_ms: i64, now_ms: i64) -> bool {
        let keep_ms = self.start.expiration_ms - FORGET_MARGIN.as_millis() as i64;
        now_ms.saturating_sub(timestamp_ms) < keep_ms
    }

    /// The broker remembers us and will for a while: a second copy of anything under way is
    /// refused by it.
    pub fn is_guarded(&self, now_ms: i64) -> bool {
        self.remembered_ms.is_some_and(|timestamp_ms| self.is_fresh(timestamp_ms, now_ms))
    }

    /// When a lane that holds back only for quiet may go on.
    pub fn quiet_from(&self) -> Option<Instant> {
        (self.stopped.is_none() && self.in_flight.is_empty() && !self.queue.is_empty())
            .then_some(self.start.quiet_from)
    }

    /// The broker had the oldest batch under way already. What we sent before may have brought it there;
    /// once that can't arrive any more, another owner did, who lags behind us or is ahead. Without a lease
    /// we are the one who must stop. Told before [`Lane::answered`].
    pub fn met_another(&mut self, now: Instant, has_lease: bool) {
        if has_lease {
            self.start.quiet_from = self.start.quiet_from.max(now + TAKEOVER_WAIT);
            self.others_until = Some(self.start.quiet_from);
            if let Some(end) = &mut self.stopped {
                end.others_until = self.others_until;
            }
        } else if now >= self.start.quiet_from {
            self.stop(LaneStop::AnotherOwner, false);
        }
    }

    /// Takes the broker's answer to the oldest batch under way, which was sent at `sent_at` by the
    /// uptime clock: when it was taken in is known no better.
    pub fn answered(
        &mut self,
        answer: Result<i64, (ErrorCode, String)>,
        sent_at: Duration,
    ) -> Option<Appended> {
        let flight = self.in_flight.pop_front().expect("an answer only to what was sent");
        match answer {
            Ok(given) if given == flight.base_offset && self.stopped.is_none() => {
                self.remembered_ms = Some(flight.max_timestamp_ms);
                self.proven = true;
                self.start.proven_at = self.start.proven_at.max(sent_at);
                self.start.position = flight.next_offset;
                self.end_if_finished();
                return Some(Appended {
                    end_offset: flight.next_offset,
                    records: flight.records,
                    bytes: flight.size_bytes,
                    newest_ms: flight.max_timestamp_ms,
                });
            }
            // Behind a stop, answers only tell that nothing is under way any more.
            Ok(given) if given == flight.base_offset => {}
            // The first place that nobody expected outweighs whatever error came before it.
            Ok(given) => {
                let stop = LaneStop::Displaced { expected: flight.base_offset, given };
                match &mut self.stopped {
                    Some(LaneEnd { stop: LaneStop::Displaced { .. }, .. }) => {}
                    Some(end) => end.stop = stop,
                    None => self.stop(stop, false),
                }
            }
            Err((code, message)) => {
                let in_doubt = may_have_appended(code);
                self.stop(LaneStop::Refused { offset: flight.base_offset, code, message }, in_doubt);
            }
        }
        None
    }

    /// The oldest batch under way was not sent after all.
    pub fn held_back(&mut self) {
        self.in_flight.pop_front();
        self.stop(LaneStop::HeldBack, false);
    }

    /// The connection is gone: whatever is under way is in doubt.
    pub fn lost(&mut self, reason: String) {
        let in_doubt = !self.in_flight.is_empty();
        self.in_flight.clear();
        self.stop(LaneStop::Lost { reason }, in_doubt);
        if in_doubt && let Some(end) = &mut self.stopped {
            end.in_doubt = true;
        }
    }

    /// Sends nothing more; what is under way is still awaited.
    pub fn close(&mut self) {
        self.stop(LaneStop::Closed, false);
    }

    /// Sends what is queued, then ends.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.end_if_finished();
    }

    fn end_if_finished(&mut self) {
        if self.finishing && self.queue.is_empty() && self.in_flight.is_empty() {
            self.close();
        }
    }

    /// The first reason stays; doubt adds up.
    fn stop(&mut self, stop: LaneStop, in_doubt: bool) {
        self.queue.clear();
        match &mut self.stopped {
            None => self.stopped = Some(LaneEnd { stop, in_doubt, others_until: self.others_until }),
            Some(end) => end.in_doubt |= in_doubt,
        }
    }

    /// A stopped lane with nothing under way has ended.
    pub fn end(&self) -> Option<&LaneEnd> {
        self.stopped.as_ref().filter(|_| self.in_flight.is_empty())
    }
}

/// Errors after which the batch may stand in the log all the same (measured: error 7 after three
/// seconds, everything appended).
fn may_have_appended(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
    )
}

/// The sequence `records` after `sequence`: brokers wrap at 2³¹ (`DefaultRecordBatch.incrementSequence`).
pub fn sequence_after(sequence: i32, records: i32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) % (1 << 31)) as i32
}

/// The sequence a partition starts with where the broker remembers nothing of us.
pub fn sequence_at(offset: i64) -> i32 {
    (offset % (1 << 31)) as i32
}

#[cfg(test)]
mod tests;

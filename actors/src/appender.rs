//! The appender: one connection to a destination broker, and the lanes of the mirror partitions
//! it leads.
//!
//! Owns when a request goes out and what is in it; each lane decides whether it has a batch to
//! give. Ends with its connection: every lane is told, and its partition opens a new one
//! elsewhere. Never retries, never decides where a partition stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka::batch::RawBatch;
use kafka::produce::{self, Part, PartAnswer};
use kafka::{Connection, Error};
use metrics::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::WallClock;
use crate::credit::ShareCredit;
use crate::fleet::lease::{LeaseKeeper, Pass};
use crate::lane::{Lane, LaneEnd, LaneStop, Permit};
use crate::observe::PartitionStats;
use crate::pace::Pace;
use crate::partition::Runner;
use crate::plane::PlaneMeters;

/// Produce requests under way on the connection. The broker works on one at a time: more than a
/// few only add latency.
const REQUESTS_MAX: usize = 5;

/// Requests under way whatever is in them: one that the broker works on, one that waits for it.
/// Beyond them only full ones go, or those that hold a batch of every lane: what comes meanwhile then
/// shares a request instead of costing the broker one each.
const REQUESTS_OF_ANY_SIZE: usize = 2;
const FULL_BYTES_MIN: usize = 512 * 1024;

/// A request is filled up to here, unless one batch is larger: large enough that per-request cost
/// vanishes, small enough that a partition's batch isn't kept waiting behind it.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Shares and orders that wait for the appender, which always takes them at once.
const ORDERS_MAX: usize = 256;

/// How long the broker may wait for its followers.
pub const PRODUCE_TIMEOUT: Duration = Duration::from_secs(10);

/// A mirror partition's name within one appender.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    /// The mirror topic at the destination.
    pub topic: Arc<str>,
    pub partition: i32,
}

/// A lane to open, with whom to tell.
pub struct OpenLane {
    pub key: LaneKey,
    pub lane: Lane,
    pub stats: Arc<PartitionStats>,
    pub owner: LaneOwner,
    pub meters: LaneMeters,
    /// The lease under which the run began, if there was one.
    pub pass: Option<Pass>,
}

/// Whom to tell of a lane's end. However the lane goes, even unopened, it is told once.
pub struct LaneOwner {
    runner: Runner,
    run: u64,
    told: bool,
}

impl LaneOwner {
    pub fn new(runner: Runner, run: u64) -> Self {
        Self { runner, run, told: false }
    }

    fn tell(&mut self, end: LaneEnd) {
        if !std::mem::replace(&mut self.told, true) {
            self.runner.lane_ended(self.run, end);
        }
    }
}

impl Drop for LaneOwner {
    fn drop(&mut self) {
        let stop = LaneStop::Lost { reason: "the appender ended".into() };
        self.tell(LaneEnd { stop, in_doubt: false, others_until: None });
    }
}

/// Counters of one mirror topic.
#[derive(Clone)]
pub struct LaneMeters {
    pub bytes: Counter,
    pub records: Counter,
    pub batches: Counter,
}

pub enum Order {
    Open(Box<OpenLane>),
    /// Send nothing more; the lane's end is reported once nothing is under way.
    Close {
        key: LaneKey,
        run: u64,
    },
    /// Send what is queued, then end.
    Finish {
        key: LaneKey,
        run: u64,
    },
    Share {
        key: LaneKey,
        run: u64,
        batches: Vec<RawBatch>,
        credit: Arc<ShareCredit>,
    },
}

/// Handle to an appender. When the last one is dropped it ends.
#[derive(Clone)]
pub struct Appender {
    orders: mpsc::Sender<Order>,
}

impl Appender {
    /// `broker_bytes_max`: what its brokers take in one request.
    pub fn start(
        connection: Connection,
        broker_bytes_max: usize,
        meters: PlaneMeters,
        clock: WallClock,
        lease: Arc<LeaseKeeper>,
        pace: Pace,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let task = Task {
            connection,
            request_bytes_max: REQUEST_BYTES_MAX.min(broker_bytes_max / 2),
            meters,
            clock,
            lease,
            pace,
            paced_until: None,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            held: BTreeSet::new(),
            under_way: VecDeque::new(),
        };
        tokio::spawn(task.run(inbox));
        Self { orders }
    }

    pub fn is_running(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Hands an order over; false when the appender has ended (its lanes were told).
    pub async fn order(&self, order: Order) -> bool {
        self.orders.send(order).await.is_ok()
    }
}

struct Entry {
    lane: Lane,
    stats: Arc<PartitionStats>,
    owner: LaneOwner,
    meters: LaneMeters,
    pass: Option<Pass>,
    /// Stands in `ready`.
    is_ready: bool,
}

impl Drop for Entry {
    /// A panic of the appender leaves requests in doubt: the owner must hear that.
    fn drop(&mut self) {
        self.lane.lost("the appender ended".into());
        if let Some(end) = self.lane.end() {
            self.owner.tell(end.clone());
        }
    }
}

/// What goes into one request.
struct Gathered {
    parts: Vec<Part>,
    /// Whose batches they are, with the run they belong to.
    runs: Vec<(LaneKey, u64)>,
    /// Until when it may go without a lease: zero if part of it isn't guarded.
    guarded_until: Duration,
    /// The lease that all of it began under; None: it goes by the guard alone.
    pass: Option<Pass>,
}

struct UnderWay {
    since: Instant,
    /// By the uptime clock.
    sent_at: Duration,
    reply: kafka::connection::Reply,
    /// Whose batches it carries, with the run they belong to.
    parts: Vec<(LaneKey, u64)>,
}

struct Task {
    connection: Connection,
    request_bytes_max: usize,
    meters: PlaneMeters,
    clock: WallClock,
    lease: Arc<LeaseKeeper>,
    pace: Pace,
    /// Nothing may go before.
    paced_until: Option<Instant>,
    lanes: BTreeMap<LaneKey, Entry>,
    /// Lanes that may have a batch to give, each once.
    ready: VecDeque<LaneKey>,
    /// Lanes that had a batch to give and held it back.
    held: BTreeSet<LaneKey>,
    under_way: VecDeque<UnderWay>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut orders = Vec::with_capacity(ORDERS_MAX);
        let error = loop {
            if let Err(error) = self.send_what_may_go().await {
                break error;
            }
            let wake = self.wake_at();
            tokio::select! {
                taken = inbox.recv_many(&mut orders, ORDERS_MAX) => {
                    if taken == 0 {
                        break Error::Closed { address: self.connection.address().into(), reason: "no longer used".into() };
                    }
                    orders.drain(..).for_each(|order| self.take(order));
                }
                answer = next_answer(&mut self.under_way) => {
                    if let Err(error) = self.answered(answer) {
                        break error;
                    }
                }
                () = sleep_until(wake) => self.ready_all_held(),
                error = self.connection.wait_closed(), if self.under_way.is_empty() => break error,
            }
        };
        // Closed before anyone is told: a share that comes now must not be taken.
        inbox.close();
        let reason = error.to_string();
        for entry in self.lanes.values_mut() {
            entry.lane.lost(reason.clone());
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Open(open) => {
                let OpenLane { key, lane, stats, owner, meters, pass } = *open;
                self.lanes.insert(key, Entry { lane, stats, owner, meters, pass, is_ready: false });
            }
            Order::Close { key, run } => {
                if let Some(entry) = self.lanes.get_mut(&key).filter(|e| e.owner.run == run) {
                    entry.lane.close();
                    self.reap(&key);
                }
            }
            Order::Finish { key, run } => {
                if let Some(entry) = self.lanes.get_mut(&key).filter(|e| e.owner.run == run) {
                    entry.lane.finish();
                    self.reap(&key);
                }
            }
            Order::Share { key, run, batches, credit } => {
                if let Some(entry) = self.lanes.get_mut(&key).filter(|e| e.owner.run == run) {
                    entry.lane.push(batches, &credit);
                    make_ready(&mut self.ready, &key, entry);
                }
            }
        }
    }

    /// Fills and sends requests while lanes have batches, places are free and the pace allows it.
    async fn send_what_may_go(&mut self) -> Result<(), Error> {
        self.paced_until = None;
        while self.under_way.len() < REQUESTS_OF_ANY_SIZE
            || (self.under_way.len() < REQUESTS_MAX && self.waits_for_place(FULL_BYTES_MIN))
        {
            if self.ready.is_empty() {
                break;
            }
            self.paced_until = self.pace.wait_until(Instant::now());
            if self.paced_until.is_some() {
                break;
            }
            let pass = self.lease.pass();
            let sent_at = self.lease.now();
            let Gathered { parts, runs, guarded_until, pass } = self.gather(pass, sent_at);
            if parts.is_empty() {
                break;
            }
            let since = Instant::now();
            let gate = self.lease.gate(pass, guarded_until);
            let bytes = parts.iter().map(|part| part.batch.size_bytes()).sum();
            self.pace.sent(bytes);
            let reply = produce::start(&self.connection, &parts, PRODUCE_TIMEOUT, Some(gate)).await?;
            self.under_way.push_back(UnderWay { since, sent_at, reply, parts: runs });
        }
        Ok(())
    }

    /// At least so many bytes could go at once, or nothing more could join them.
    fn waits_for_place(&self, bytes_min: usize) -> bool {
        let (mut bytes, mut batches) = (0, 0);
        self.ready.iter().filter_map(|key| self.lanes.get(key)).any(|entry| {
            let next = entry.lane.front_bytes();
            bytes += next;
            batches += usize::from(next > 0);
            bytes >= bytes_min || batches == self.lanes.len()
        })
    }

    /// One batch a lane, round robin, up to a request's fill. What needs a lease is taken under `pass`, and
    /// never with lanes that began without it: those mustn't go by it later on.
    fn gather(&mut self, pass: Option<Pass>, uptime: Duration) -> Gathered {
        let (now, now_ms) = (Instant::now(), self.clock.now_ms());
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut guarded_until = Duration::MAX;
        let mut first_has_lease = None;
        let bytes_max = self.request_bytes_max.min(self.pace.request_bytes_max());
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(entry) = self.lanes.get_mut(&key) else { continue };
            let has_lease = pass.is_some() && entry.pass == pass;
            let is_full = bytes + entry.lane.front_bytes() > bytes_max;
            if first_has_lease.is_some_and(|first| is_full || first != has_lease) {
                self.ready.push_front(key);
                break;
            }
            entry.is_ready = false;
            let Some(next) = entry.lane.next(now, now_ms, Permit { has_lease, uptime }) else {
                if entry.lane.quiet_from().is_some() {
                    self.held.insert(key.clone());
                }
                self.reap(&key);
                continue;
            };
            let batch = next.batch;
            guarded_until =
                guarded_until.min(if next.needs_lease { Duration::ZERO } else { next.guarded_until });
            bytes += batch.size_bytes();
            first_has_lease.get_or_insert(has_lease);
            make_ready(&mut self.ready, &key, entry);
            taken.push((key, entry.owner.run, batch));
        }
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        let part = |(key, run, batch): (LaneKey, u64, _)| {
            (Part { topic: key.topic.clone(), partition: key.partition, batch }, (key, run))
        };
        let (parts, runs) = taken.into_iter().map(part).unzip();
        let pass = pass.filter(|_| first_has_lease == Some(true));
        Gathered { parts, runs, guarded_until, pass }
    }

    fn answered(&mut self, answer: Result<bytes::Bytes, Error>) -> Result<(), Error> {
        let request = self.under_way.pop_front().expect("an answer only to what was sent");
        if let Err(Error::NotSent { .. }) = answer {
            for (key, run) in request.parts {
                if let Some(entry) = self.lanes.get_mut(&key).filter(|e| e.owner.run == run) {
                    entry.lane.held_back();
                }
                self.reap(&key);
            }
            return Ok(());
        }
        let answer = answer?;
        let took = request.since.elapsed();
        self.meters.produce_seconds.record(took);
        self.meters.destination_response_bytes.increment(answer.len() as u64);
        let (answers, throttle) = produce::answers(&self.connection, answer)?;
        let mut answers: BTreeMap<(String, i32), PartAnswer> =
            answers.into_iter().map(|a| ((a.topic.clone(), a.partition), a)).collect();
        let (now, now_ms, pass) = (Instant::now(), self.clock.now_ms(), self.lease.pass());
        self.pace.answered(now, took, throttle);
        let mut slowest_ms = None;
        for (key, run) in request.parts {
            let answer = answers.remove(&(key.topic.to_string(), key.partition));
            let answer = answer.ok_or_else(|| Error::Protocol {
                address: self.connection.address().into(),
                reason: format!("Produce response without {}[{}]", key.topic, key.partition),
            })?;
            let Some(entry) = self.lanes.get_mut(&key).filter(|e| e.owner.run == run) else { continue };
            if answer.is_repeat {
                entry.lane.met_another(now, pass.is_some() && entry.pass == pass);
            }
            if let Some(appended) = entry.lane.answered(answer.base_offset, request.sent_at) {
                entry.stats.appended_to(appended.end_offset, now_ms);
                entry.stats.guarded.store(entry.lane.is_guarded(now_ms), Ordering::Relaxed);
                entry.stats.appended_bytes.fetch_add(appended.bytes as u64, Ordering::Relaxed);
                entry.meters.bytes.increment(appended.bytes as u64);
                entry.meters.records.increment(appended.records as u64);
                entry.meters.batches.increment(1);
                // Records may have no timestamp (-1), and then nothing is known of their age.
                let waited_ms = (appended.newest_ms >= 0).then(|| now_ms - appended.newest_ms);
                slowest_ms = slowest_ms.max(waited_ms);
                make_ready(&mut self.ready, &key, entry);
            }
            self.reap(&key);
        }
        if let Some(slowest_ms) = slowest_ms {
            // A producer's clock may be ahead of ours.
            self.meters.end_to_end_seconds.record(slowest_ms.max(0) as f64 / 1_000.0);
        }
        Ok(())
    }

    /// Tells of a lane that has ended, and forgets it.
    fn reap(&mut self, key: &LaneKey) {
        if let Some(entry) = self.lanes.get_mut(key)
            && let Some(end) = entry.lane.end()
        {
            entry.owner.tell(end.clone());
            // A lane opened anew under this key must stand there once: a request takes one batch each.
            if entry.is_ready {
                self.ready.retain(|ready| ready != key);
            }
            self.held.remove(key);
            self.lanes.remove(key);
        }
    }

    /// The earliest moment at which a lane that waits for quiet may go on, or any by the pace; one that is past
    /// fires at once.
    fn wake_at(&self) -> Option<Instant> {
        let held = self.held.iter().filter_map(|key| self.lanes.get(key));
        let quiet = held.filter(|e| !e.is_ready).filter_map(|e| e.lane.quiet_from());
        quiet.chain(self.paced_until).min()
    }

    fn ready_all_held(&mut self) {
        for key in std::mem::take(&mut self.held) {
            if let Some(entry) = self.lanes.get_mut(&key) {
                make_ready(&mut self.ready, &key, entry);
            }
        }
    }
}

fn make_ready(ready: &mut VecDeque<LaneKey>, key: &LaneKey, entry: &mut Entry) {
    if !entry.is_ready {
        entry.is_ready = true;
        ready.push_back(key.clone());
    }
}

async fn next_answer(under_way: &mut VecDeque<UnderWay>) -> Result<bytes::Bytes, Error> {
    match under_way.front_mut() {
        Some(request) => request.reply.wait().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! The fetcher: one connection to a source broker, one fetch session over mirror partitions that it
//! leads and that one destination broker takes. Where the way is long, several run side by side
//! between the same two brokers ([`lanes`]), so that it is never empty.
//!
//! Reserves credit, asks, cuts each partition's share into checked batches and hands them to
//! that partition's appender. Ends with its connection: every partition is told. Never retries,
//! never decides where a partition stands: whatever isn't plain data stops the partition's run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka::batch::{self, Obstacle};
use kafka::fetch::{FetchLimits, Isolation, Position, Session, Share, TopicPartition};
use kafka::{Connection, Error, ErrorCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::appender::{Appender, LaneKey, Order};
use crate::clock::WallClock;
use crate::credit::{BrokerCredit, Enlisted, FrameCredit, ShareCredit};
use crate::observe::PartitionStats;
use crate::partition::Runner;
use crate::plane::PlaneMeters;
use crate::settings::FetchSettings;

/// Orders that wait for the fetcher; it looks between two fetches.
const ORDERS_MAX: usize = 256;

/// Fetches under way from a source broker, at most: a broker answers one at a time on a connection, so
/// each has its own. With the credit of a link that is 4 MiB each, which keeps a way of 80 ms fuller
/// than half as many of 8 MiB do (measured by `xtask bench`: 0.83 and 0.69 of the rate without it).
const LANES_MAX: u32 = 16;

/// A way as long as this is worth another fetch under way: a full response takes about as long.
const LANE_ROUND_TRIP: Duration = Duration::from_millis(5);

/// How many fetches to have under way over a way of `round_trip`, for each of `destination_brokers`.
/// Beside the broker one is enough, and its responses bring more partitions at a time, which makes
/// fuller requests.
pub fn lanes(round_trip: Option<Duration>, destination_brokers: usize) -> u32 {
    let more = round_trip.map_or(0, |way| way.as_millis() / LANE_ROUND_TRIP.as_millis());
    let wanted = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1);
    let brokers = u32::try_from(destination_brokers).unwrap_or(u32::MAX).max(1);
    wanted.min(LANES_MAX / brokers).max(1)
}

/// While a partition waits for credit the broker isn't asked to wait long for the others' data.
const CREDIT_WAIT_MS: i32 = 5;

/// A partition to fetch, with where its data goes.
pub struct Assign {
    pub source: TopicPartition,
    /// Where to fetch.
    pub position: Position,
    /// The first offset to hand on; at most below `position.offset` by the rest of one batch.
    pub next_offset: i64,
    pub lane: LaneKey,
    pub appender: Appender,
    pub stats: Arc<PartitionStats>,
    pub owner: FetchOwner,
}

/// Whom to tell when fetching stops. However it stops, it is told once.
pub struct FetchOwner {
    runner: Runner,
    run: u64,
    told: bool,
}

impl FetchOwner {
    pub fn new(runner: Runner, run: u64) -> Self {
        Self { runner, run, told: false }
    }

    pub fn tell(&mut self, stop: &FetchStop) {
        if !std::mem::replace(&mut self.told, true) {
            self.runner.fetch_stopped(self.run, stop);
        }
    }
}

impl Drop for FetchOwner {
    fn drop(&mut self) {
        self.tell(&FetchStop::Lost { reason: "the fetcher ended".into() });
    }
}

pub enum FetchOrder {
    Assign(Box<Assign>),
    Remove { source: TopicPartition, lane: LaneKey, run: u64 },
}

/// Why a partition's fetching stopped.
#[derive(Clone, Debug)]
pub enum FetchStop {
    /// The source broker answered with an error for this partition.
    Refused(ErrorCode),
    /// What comes next can't be mirrored as it is.
    Obstacle(Obstacle),
    /// The connection ended.
    Lost { reason: String },
    /// A filler has fed all it was to feed.
    Filled,
}

impl std::fmt::Display for FetchStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "the source refused the fetch: {code}"),
            Self::Obstacle(obstacle) => write!(f, "{obstacle:?}"),
            Self::Lost { reason } => f.write_str(reason),
            Self::Filled => f.write_str("filled"),
        }
    }
}

/// Handle to a fetcher. When the last one is dropped it ends.
#[derive(Clone)]
pub struct Fetcher {
    orders: mpsc::Sender<FetchOrder>,
}

impl Fetcher {
    pub fn start(
        connection: Connection,
        credit: BrokerCredit,
        settings: FetchSettings,
        meters: PlaneMeters,
        clock: WallClock,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let task = Task {
            connection,
            enlisted: None,
            credit,
            settings,
            meters,
            clock,
            session: Session::default(),
            entries: BTreeMap::new(),
        };
        tokio::spawn(task.run(inbox));
        Self { orders }
    }

    pub fn is_running(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Hands an order over; false when the fetcher has ended (its partitions were told).
    pub async fn order(&self, order: FetchOrder) -> bool {
        self.orders.send(order).await.is_ok()
    }
}

/// One source partition may feed several mirror topics of a link: each has an entry, and entries
/// of one source partition that stand at different offsets are fetched in turn.
type EntryKey = (TopicPartition, LaneKey);

/// For which mirrors' runs each source partition is asked for. One that has its fill gets nothing of what
/// the others get: it would hold more than its credit. Nor does a run that began meanwhile.
type Asking = BTreeMap<TopicPartition, Vec<(LaneKey, u64)>>;

struct Task {
    connection: Connection,
    credit: BrokerCredit,
    /// While there is anything to fetch.
    enlisted: Option<Enlisted>,
    settings: FetchSettings,
    meters: PlaneMeters,
    clock: WallClock,
    session: Session,
    entries: BTreeMap<EntryKey, Assign>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<FetchOrder>) {
        let error = loop {
            if self.entries.is_empty() {
                self.enlisted = None;
                match inbox.recv().await {
                    Some(order) => self.take(order),
                    None => return,
                }
            }
            loop {
                match inbox.try_recv() {
                    Ok(order) => self.take(order),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            if let Err(error) = self.fetch(&mut inbox).await {
                break error;
            }
        };
        inbox.close();
        let reason = error.to_string();
        for entry in self.entries.values_mut() {
            entry.owner.tell(&FetchStop::Lost { reason: reason.clone() });
        }
    }

    fn take(&mut self, order: FetchOrder) {
        match order {
            FetchOrder::Assign(assign) => {
                self.enlisted.get_or_insert_with(|| self.credit.enlist());
                let key = (assign.source.clone(), assign.lane.clone());
                self.entries.insert(key, *assign);
            }
            FetchOrder::Remove { source, lane, run } => {
                let key = (source, lane);
                if self.entries.get(&key).is_some_and(|e| e.owner.run == run)
                    && let Some(mut entry) = self.entries.remove(&key)
                {
                    // Its partition asked for it.
                    entry.owner.told = true;
                }
            }
        }
    }

    /// One fetch: what has room is asked for, what comes is handed on.
    async fn fetch(&mut self, inbox: &mut mpsc::Receiver<FetchOrder>) -> Result<(), Error> {
        let has_room = |e: &Assign| self.credit.has_room(e.stats.outstanding_bytes.load(Ordering::Relaxed));
        let waiting = self.entries.values().any(|e| !has_room(e));
        let mut wanted: BTreeMap<TopicPartition, Position> = BTreeMap::new();
        let mut asking = Asking::new();
        for ((source, lane), entry) in self.entries.iter().filter(|(_, e)| has_room(e)) {
            asking.entry(source.clone()).or_default().push((lane.clone(), entry.owner.run));
            // The one that is furthest behind goes first.
            let position = wanted.entry(source.clone()).or_insert(entry.position);
            if entry.position.offset < position.offset {
                *position = entry.position;
            }
        }
        if wanted.is_empty() {
            tokio::time::sleep(Duration::from_millis(CREDIT_WAIT_MS as u64)).await;
            return Ok(());
        }
        let response_bytes_max = self.credit.response_bytes_max(self.settings.response_bytes_max);
        let reserved = self.credit.reserve(response_bytes_max).await;
        let limits = FetchLimits {
            wait_max_ms: if waiting { CREDIT_WAIT_MS } else { self.settings.wait_max_ms },
            min_bytes: self.settings.min_bytes,
            isolation: Isolation::ReadCommitted,
            response_bytes_max: response_bytes_max as i32,
            partition_bytes_max: self.settings.partition_bytes_max(response_bytes_max, wanted.len()) as i32,
        };
        let asked = Instant::now();
        let body = self.session.start(&self.connection, &wanted, limits).await?.wait().await?;
        self.meters.fetch_seconds.record(asked.elapsed());
        self.meters.source_response_bytes.increment(body.len() as u64);
        let frame = reserved.fit(body.len());
        // What has ended while the broker waited for data isn't to hear of it.
        while let Ok(order) = inbox.try_recv() {
            self.take(order);
        }
        let now_ms = self.clock.now_ms();
        let shares = self.session.finish(&self.connection, body)?;
        // A partition the response leaves out has no news: its ends are as they were.
        for entry in self.entries.values().filter(|e| wanted.contains_key(&e.source)) {
            entry.stats.source_heard_ms.store(now_ms, Ordering::Relaxed);
        }
        for share in shares {
            self.hand_on(share, &asking, &frame, now_ms).await;
        }
        Ok(())
    }

    async fn hand_on(&mut self, share: Share, asking: &Asking, frame: &Arc<FrameCredit>, now_ms: i64) {
        for (lane, run) in asking.get(&share.partition).into_iter().flatten() {
            let key = (share.partition.clone(), lane.clone());
            let Some(entry) = self.entries.get_mut(&key).filter(|e| e.owner.run == *run) else { continue };
            let stop = match share.error {
                Some(code) => Some(FetchStop::Refused(code)),
                None => hand_on_to(entry, &share, frame, now_ms).await,
            };
            if let Some(stop) = stop
                && let Some(mut entry) = self.entries.remove(&key)
            {
                entry.owner.tell(&stop);
            }
        }
    }
}

/// Cuts a share for one mirror partition and hands it to its appender.
async fn hand_on_to(
    assign: &mut Assign,
    share: &Share,
    frame: &Arc<FrameCredit>,
    now_ms: i64,
) -> Option<FetchStop> {
    let stats = &assign.stats;
    stats.source_heard(share.high_watermark, share.last_stable_offset, now_ms);
    let cut = batch::cut(&share.records, assign.next_offset);
    if let Some(last) = cut.batches.last() {
        assign.next_offset = last.header.next_offset();
        assign.position.offset = assign.next_offset;
        stats.fetch_offset.store(assign.position.offset, Ordering::Relaxed);
        let credit = ShareCredit::new(frame, &stats.outstanding_bytes, share.records.len());
        let order =
            Order::Share { key: assign.lane.clone(), run: assign.owner.run, batches: cut.batches, credit };
        if !assign.appender.order(order).await {
            return Some(FetchStop::Lost { reason: "the appender ended".into() });
        }
    }
    cut.obstacle.map(FetchStop::Obstacle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_way_has_more_fetches_under_way() {
        let over = |ms, brokers| lanes(Some(Duration::from_millis(ms)), brokers);
        assert_eq!([over(0, 1), over(4, 1), over(5, 1), over(14, 1), over(80, 1)], [1, 1, 2, 3, 16]);
        assert_eq!([over(80, 3), over(80, 100), over(0, 0), over(100_000, 1)], [5, 1, 1, 16]);
        assert_eq!(lanes(None, 3), 1);
    }
}

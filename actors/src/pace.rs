//! When an appender may send, beside what its lanes say: the link's cap, the governor of the destination, and the
//! broker's own quota (KIP-124, KIP-219).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{Link, NodeId};
use tokio::time::Instant;

use crate::governor::{AtBroker, Bucket, Governor, Seat};

pub const CLIENTS_FIRST: &str = "throttle.client.writes.first";
pub const CAP: &str = "throughput.max.bytes.per.second";
/// Link configs that are heard here at once.
pub const KEYS: [&str; 2] = [CLIENTS_FIRST, CAP];

/// What is believed of a throttle time: brokers mean seconds (`quota.window.num`, `quota.window.size.seconds`).
const MUTED_MAX: Duration = Duration::from_secs(60);

/// A cap may be raised meanwhile.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What holds back the appenders of a link, and how long it did.
pub struct LinkPace {
    cap: Cap,
    /// None for a plane that sends no records.
    seat: Option<Seat>,
    /// The destination's own clients go first.
    minds_clients: AtomicBool,
    held_us: [AtomicU64; 3],
}

/// A link's `throughput.max.bytes.per.second`, as far as it is this node's.
struct Cap {
    began: Instant,
    bucket: Mutex<Option<Bucket>>,
}

/// Why nothing may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `throughput.max.bytes.per.second`.
    Cap,
    /// The destination's own clients go first.
    Clients,
    /// The destination's brokers told so.
    Quota,
}

/// One appender's.
pub struct Pace {
    link: Arc<LinkPace>,
    _at_broker: Option<AtBroker>,
    /// The broker doesn't hear this connection until then.
    muted_until: Option<Instant>,
    waiting: Option<(Instant, Reason)>,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::Cap, Self::Clients, Self::Quota];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::Clients => "clients",
            Self::Quota => "quota",
        }
    }
}

impl Default for Cap {
    fn default() -> Self {
        Self { began: Instant::now(), bucket: Mutex::default() }
    }
}

impl Cap {
    fn set(&self, bytes_per_second: Option<u64>) {
        let now = self.began.elapsed();
        let mut bucket = self.bucket();
        match (&mut *bucket, bytes_per_second) {
            (Some(bucket), Some(bytes_per_second)) => bucket.set(bytes_per_second, now),
            (bucket, bytes_per_second) => {
                *bucket = bytes_per_second.map(|bytes_per_second| Bucket::new(bytes_per_second, now));
            }
        }
    }

    fn wait(&self) -> Option<Duration> {
        let now = self.began.elapsed();
        self.bucket().as_mut()?.wait(now)
    }

    fn pay(&self, bytes: usize) {
        let now = self.began.elapsed();
        if let Some(bucket) = &mut *self.bucket() {
            bucket.pay(bytes, now);
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's part of a link's cap: by how many of its partitions it runs. None where it runs none, or where
/// there is no cap.
fn share(cap: Option<u64>, owned: usize, assigned: usize) -> Option<u64> {
    let part = cap? as f64 * owned as f64 / assigned.max(1) as f64;
    (owned > 0).then_some((part as u64).max(1))
}

impl LinkPace {
    pub fn new(seat: Option<Seat>) -> Arc<Self> {
        let minds_clients = AtomicBool::new(true);
        Arc::new(Self { cap: Cap::default(), seat, minds_clients, held_us: Default::default() })
    }

    /// As the link's configs say, of which `node` runs a part.
    pub fn set(&self, link: &Link, node: NodeId) {
        let minds_clients = link.configs.get(CLIENTS_FIRST).is_none_or(|value| value.trim() != "false");
        self.minds_clients.store(minds_clients, Ordering::Relaxed);
        let cap = link.configs.get(CAP).and_then(|value| value.trim().parse().ok());
        let assignments = || {
            let partitions = link.mirrors.values().flat_map(|mirror| &mirror.partitions);
            partitions.filter_map(|partition| partition.assignment.as_ref())
        };
        let owned = assignments().filter(|assignment| assignment.node == node).count();
        self.cap.set(share(cap, owned, assignments().count()));
    }

    /// None where the link doesn't mind clients.
    pub fn governor(&self) -> Option<&Governor> {
        let seat = self.seat.as_ref().filter(|_| self.minds_clients.load(Ordering::Relaxed))?;
        Some(&**seat.governor())
    }

    /// How long appenders were held back, all together.
    pub fn held(&self, reason: Reason) -> Duration {
        Duration::from_micros(self.held_us[reason as usize].load(Ordering::Relaxed))
    }
}

impl Pace {
    /// Of an appender at this broker.
    pub fn new(link: Arc<LinkPace>, broker: i32) -> Self {
        let _at_broker = link.seat.as_ref().map(|seat| seat.governor().at_broker(broker));
        Self { link, _at_broker, muted_until: None, waiting: None }
    }

    /// Until when nothing may be sent; to be asked again then. Asked only with something to send.
    pub fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        if let Some((since, reason)) = self.waiting.take() {
            let held_us = now.saturating_duration_since(since).as_micros() as u64;
            self.link.held_us[reason as usize].fetch_add(held_us, Ordering::Relaxed);
        }
        let muted = self.muted_until.map(|until| until.saturating_duration_since(now));
        let waits = [
            (muted, Reason::Quota),
            (self.link.cap.wait().map(|wait| wait.min(WAIT_MAX)), Reason::Cap),
            (self.link.governor().and_then(Governor::wait), Reason::Clients),
        ];
        let (wait, reason) = waits.into_iter().max_by_key(|(wait, _)| *wait)?;
        let wait = wait.filter(|wait| !wait.is_zero())?;
        self.waiting = Some((now, reason));
        Some(now + wait)
    }

    /// Of one request.
    pub fn request_bytes_max(&self) -> usize {
        self.link.governor().map_or(usize::MAX, Governor::request_bytes_max)
    }

    /// A request with so many bytes of records goes now.
    pub fn sent(&self, bytes: usize) {
        self.link.cap.pay(bytes);
        if let Some(governor) = self.link.governor() {
            governor.sent(bytes);
        }
    }

    /// One was answered after so long, with so much throttle time.
    pub fn answered(&mut self, now: Instant, after: Duration, throttle: Duration) {
        if !throttle.is_zero() {
            self.muted_until = Some(now + throttle.min(MUTED_MAX));
        }
        if let Some(governor) = self.link.governor() {
            governor.answered(after, throttle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, HERE};

    fn link_with(configs: &[(&str, &str)]) -> Link {
        let elsewhere = || fixture::owned_by(NodeId(9), false);
        let owned = vec![fixture::owned_by(HERE, false), elsewhere(), elsewhere(), elsewhere()];
        let mut link = fixture::link(&[("orders", owned)]);
        link.configs = configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        link
    }

    #[test]
    fn a_cap_is_shared_by_partitions() {
        assert_eq!(share(Some(1_000), 1, 4), Some(250));
        assert_eq!(share(Some(1_000), 4, 4), Some(1_000));
        assert_eq!(share(Some(1), 1, 4), Some(1), "never none at all");
        assert_eq!((share(None, 1, 4), share(Some(1_000), 0, 4)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_capped_link_waits_and_says_for_how_long_it_did() {
        let link = LinkPace::new(None);
        link.set(&link_with(&[(CAP, "4000000")]), HERE);
        let mut pace = Pace::new(link.clone(), 1);
        assert_eq!(pace.wait_until(Instant::now()), None);
        pace.sent(100_000);
        for _ in 0..2 {
            let until = pace.wait_until(Instant::now()).expect("a wait");
            assert_eq!(until - Instant::now(), WAIT_MAX, "of 100 ms");
            tokio::time::sleep_until(until).await;
        }
        assert_eq!(pace.wait_until(Instant::now()), None);
        assert_eq!((link.held(Reason::Cap), link.held(Reason::Clients)), (WAIT_MAX * 2, Duration::ZERO));
        // Raised and taken away while it runs.
        pace.sent(100_000);
        link.set(&link_with(&[]), HERE);
        assert_eq!(pace.wait_until(Instant::now()), None);
    }

    /// A broker that tells a throttle time doesn't hear the connection until it is over: what is sent meanwhile
    /// waits with its deadline running.
    #[tokio::test(start_paused = true)]
    async fn a_quotas_throttle_time_is_waited_out() {
        let link = LinkPace::new(None);
        let mut pace = Pace::new(link.clone(), 1);
        let now = Instant::now();
        pace.answered(now, Duration::from_millis(3), Duration::from_millis(700));
        let until = pace.wait_until(now).expect("a wait");
        assert_eq!(until - now, Duration::from_millis(700));
        assert_eq!(pace.wait_until(until), None);
        assert_eq!(link.held(Reason::Quota), Duration::from_millis(700));
    }

    /// Found by reading: a broker's word could have stopped an appender for 24 days.
    #[tokio::test(start_paused = true)]
    async fn a_throttle_time_is_believed_for_a_minute() {
        let mut pace = Pace::new(LinkPace::new(None), 1);
        let now = Instant::now();
        pace.answered(now, Duration::from_millis(3), Duration::from_millis(i32::MAX as u64));
        assert_eq!(pace.wait_until(now), Some(now + MUTED_MAX));
    }
}

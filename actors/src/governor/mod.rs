//! The governor: mirroring takes what a destination has to spare (SPEC section 6, ADR 11).
//!
//! One for each destination cluster on each node, over all links there. Looks at what clients write and hears how
//! long our requests take; `Control` makes a budget of it, which appenders ask before they send. Never in the way of
//! what is under way, never a reason for a partition to stop.

mod bucket;
mod clients;
mod control;
mod look;
mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kafka::Client;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

pub use bucket::Bucket;
pub use control::{Budget, Clients};

use crate::catalog_port::CatalogPort;
use control::{Control, STEP, Signs};
use queue::Queue;

/// Requests of what is limited: short enough for a client's to wait behind one.
const LIMITED_REQUEST_BYTES_MAX: usize = 512 * 1024;

/// A limit may rise meanwhile.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What is asked of a cluster for the governor's sake is answered by then, or not at all.
const REQUEST_MAX: Duration = Duration::from_secs(3);

/// The governors of a node, by the id of the cluster.
#[derive(Default)]
pub struct Governors(Mutex<BTreeMap<Arc<str>, Weak<Governor>>>);

/// One destination cluster's. Ends with its last link.
pub struct Governor {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// A link's place at a governor.
pub struct Seat {
    governor: Arc<Governor>,
    number: u64,
}

struct Shared {
    cluster_id: Arc<str>,
    catalog: Arc<dyn CatalogPort>,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    control: Control,
    bucket: Bucket,
    queue: Queue,
    /// Of the last look that told.
    clients: Clients,
    /// Not yet given to a step.
    news: Option<Clients>,
    throttled: bool,
    sent_bytes: u64,
    /// Brokers with appenders, by how many.
    brokers: BTreeMap<i32, usize>,
    seats: BTreeMap<u64, Client>,
    next_seat: u64,
}

/// Counts a broker as one that requests go to.
pub struct AtBroker {
    shared: Arc<Shared>,
    broker: i32,
}

impl Governors {
    /// The cluster's governor, which goes on as long as anybody has a seat. `client` is used for its questions,
    /// with connections of its own.
    pub fn seat(&self, cluster_id: &Arc<str>, client: &Client, catalog: &Arc<dyn CatalogPort>) -> Seat {
        let mut governors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        governors.retain(|_, governor| governor.strong_count() > 0);
        let governor = governors.get(cluster_id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let governor = Governor::start(cluster_id.clone(), catalog.clone());
            governors.insert(cluster_id.clone(), Arc::downgrade(&governor));
            governor
        });
        let number = governor.shared.state().seat(client.apart(REQUEST_MAX));
        Seat { governor, number }
    }
}

impl Seat {
    pub fn governor(&self) -> &Arc<Governor> {
        &self.governor
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.governor.shared.state().seats.remove(&self.number);
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Governor {
    fn start(cluster_id: Arc<str>, catalog: Arc<dyn CatalogPort>) -> Arc<Self> {
        let shared =
            Arc::new(Shared { cluster_id, catalog, began: Instant::now(), state: Mutex::new(State::new()) });
        let of = shared.clone();
        let task = tokio::spawn(async move {
            tokio::join!(step(&of), look::at_clients(&of));
        });
        Arc::new(Self { shared, task: task.abort_handle() })
    }

    pub fn budget(&self) -> Budget {
        self.shared.state().control.budget()
    }

    pub fn clients(&self) -> Clients {
        self.shared.state().clients
    }

    /// How long nothing may be sent yet; to be asked again then.
    pub fn wait(&self) -> Option<Duration> {
        let now = self.shared.now();
        self.shared.state().wait(now)
    }

    /// Of one request.
    pub fn request_bytes_max(&self) -> usize {
        match self.budget() {
            Budget::Free => usize::MAX,
            Budget::Limited { .. } => LIMITED_REQUEST_BYTES_MAX,
        }
    }

    /// A request of so many bytes of records goes now.
    pub fn sent(&self, bytes: usize) {
        let now = self.shared.now();
        let mut state = self.shared.state();
        state.bucket.pay(bytes, now);
        state.sent_bytes += bytes as u64;
    }

    /// One was answered after so long, with the throttle time of a quota, if there was one.
    pub fn answered(&self, after: Duration, throttle: Duration) {
        let now = self.shared.now();
        let mut state = self.shared.state();
        state.throttled |= throttle > Duration::ZERO;
        if state.control.budget() != Budget::Free {
            state.queue.took(now, after);
        }
    }

    pub fn at_broker(&self, broker: i32) -> AtBroker {
        *self.shared.state().brokers.entry(broker).or_default() += 1;
        AtBroker { shared: self.shared.clone(), broker }
    }
}

impl Drop for AtBroker {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(count) = state.brokers.get_mut(&self.broker) {
            *count -= 1;
            if *count == 0 {
                state.brokers.remove(&self.broker);
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the governor began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Of the link that came last: its settings are the newest.
    fn client(&self) -> Option<Client> {
        self.state().seats.values().next_back().cloned()
    }
}

impl State {
    fn new() -> Self {
        let control = Control::new(Duration::ZERO);
        let mut state = Self {
            bucket: Bucket::new(1, Duration::ZERO),
            control,
            queue: Queue::default(),
            clients: Clients::Unknown,
            news: None,
            throttled: false,
            sent_bytes: 0,
            brokers: BTreeMap::new(),
            seats: BTreeMap::new(),
            next_seat: 0,
        };
        state.fill_bucket(Duration::ZERO);
        state
    }

    fn seat(&mut self, client: Client) -> u64 {
        self.next_seat += 1;
        self.seats.insert(self.next_seat, client);
        self.next_seat
    }

    fn wait(&mut self, now: Duration) -> Option<Duration> {
        if self.control.budget() == Budget::Free {
            return None;
        }
        self.bucket.wait(now).map(|wait| wait.min(WAIT_MAX))
    }

    fn step(&mut self, now: Duration) {
        let brokers = self.brokers.len().max(1) as f64;
        let signs = Signs {
            clients: self.news.take(),
            queued: self.queue.length(now).map(|length| length / brokers),
            throttled: std::mem::take(&mut self.throttled),
            sent_bytes: std::mem::take(&mut self.sent_bytes),
        };
        let before = self.control.budget();
        let budget = self.control.step(now, &signs);
        tracing::trace!(?signs, ?budget, "governor");
        if before != budget {
            self.fill_bucket(now);
        }
    }

    fn fill_bucket(&mut self, now: Duration) {
        match self.control.budget() {
            // What was owed is forgotten with the limit.
            Budget::Free => self.bucket = Bucket::new(u64::MAX, now),
            Budget::Limited { bytes_per_second } => self.bucket.set(bytes_per_second, now),
        }
    }
}

async fn step(shared: &Shared) {
    let mut ticks = tokio::time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = shared.now();
        shared.state().step(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn without_clients_nothing_is_waited_for_whatever_went_before() {
        let mut state = State::new();
        state.bucket.pay(1_000_000_000, ms(0));
        assert_eq!(state.wait(ms(0)), Some(WAIT_MAX));
        state.news = Some(Clients::Quiet);
        for step in 1..40 {
            state.step(STEP * step);
        }
        assert_eq!((state.control.budget(), state.wait(ms(10_000))), (Budget::Free, None));
    }
}

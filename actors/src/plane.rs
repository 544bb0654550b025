//! What all mirror partitions of one link on this node share: the clients of both clusters, their
//! metadata, the fetchers and appenders by broker, the credit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka::fetch::TopicPartition;
use kafka::metadata::Metadata;
use kafka::{Client, Error, topics};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::sync::{Notify, watch};

use crate::appender::Appender;
use crate::clock::WallClock;
use crate::credit::{BrokerCredit, LinkCredit};
use crate::fetcher::Fetcher;
use crate::settings::LinkSettings;

/// Metadata is asked for at most this often, however many partitions want it fresher.
const REFRESH_MIN: Duration = Duration::from_millis(100);

const PRODUCER_EXPIRATION_KEY: &str = "producer.id.expiration.ms";

/// One look at both clusters.
#[derive(Clone, Debug, Default)]
pub struct LinkMetadata {
    pub source: Arc<Metadata>,
    pub destination: Arc<Metadata>,
    /// Why the last look failed, by side; what is above is from an earlier one then.
    pub source_error: Option<Error>,
    pub destination_error: Option<Error>,
}

impl LinkMetadata {
    /// A bootstrap answered as another cluster than the link was made with: a person must look.
    pub fn is_wrong_cluster(&self) -> bool {
        let errors = self.source_error.iter().chain(&self.destination_error);
        errors.into_iter().any(|e| matches!(e, Error::WrongCluster { .. }))
    }
}

/// Topics whose metadata is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    pub source: BTreeSet<Arc<str>>,
    pub destination: BTreeSet<Arc<str>>,
}

type Slots<K, T> = Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<Option<T>>>>>;

/// Which fetcher serves a partition. Only partitions of one destination broker share responses,
/// so that a slow broker holds up none of the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchLane {
    source_broker: i32,
    destination_broker: i32,
    lane: u32,
}

impl FetchLane {
    /// Partitions of a topic go round the lanes; topics of one partition spread by their names.
    pub fn new(source_broker: i32, destination_broker: i32, mirror: &TopicPartition, lanes: u32) -> Self {
        let first =
            mirror.topic.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let lane = first.wrapping_add(mirror.partition.unsigned_abs()) % lanes.max(1);
        Self { source_broker, destination_broker, lane }
    }
}

/// What the requests of one link cost (SPEC section 7).
#[derive(Clone)]
pub struct PlaneMeters {
    /// From asking to the answer, with the time the broker waited for data.
    pub fetch_seconds: Histogram,
    pub produce_seconds: Histogram,
    pub source_response_bytes: Counter,
    pub destination_response_bytes: Counter,
}

impl PlaneMeters {
    pub fn of_link(link: &str) -> Self {
        let labels = [("link", link.to_owned())];
        Self {
            fetch_seconds: histogram!("lockstep_fetch_seconds", &labels),
            produce_seconds: histogram!("lockstep_produce_seconds", &labels),
            source_response_bytes: counter!("lockstep_source_response_bytes_total", &labels),
            destination_response_bytes: counter!("lockstep_destination_response_bytes_total", &labels),
        }
    }
}

pub struct LinkPlane {
    meters: PlaneMeters,
    source: Client,
    destination: Client,
    settings: LinkSettings,
    clock: WallClock,
    credit: LinkCredit,
    broker_credits: Mutex<BTreeMap<i32, BrokerCredit>>,
    fetchers: Slots<FetchLane, Fetcher>,
    appenders: Slots<i32, Appender>,
    metadata: watch::Sender<LinkMetadata>,
    topics: watch::Sender<Topics>,
    refresh: Notify,
    producer_expiration_ms: AtomicI64,
}

impl LinkPlane {
    /// Shares nothing with other links. The caller runs [`keep_metadata`](Self::keep_metadata).
    pub fn new(
        meters: PlaneMeters,
        source: Client,
        destination: Client,
        settings: LinkSettings,
        clock: WallClock,
    ) -> Arc<Self> {
        let expiration_ms = kafka::producers::PRODUCER_ID_EXPIRATION_DEFAULT.as_millis() as i64;
        Arc::new(Self {
            meters,
            source,
            destination,
            settings,
            clock,
            credit: LinkCredit::new(settings.credit_bytes_max),
            broker_credits: Mutex::default(),
            fetchers: Slots::default(),
            appenders: Slots::default(),
            metadata: watch::Sender::default(),
            topics: watch::Sender::default(),
            refresh: Notify::new(),
            producer_expiration_ms: AtomicI64::new(expiration_ms),
        })
    }

    pub fn source(&self) -> &Client {
        &self.source
    }

    pub fn destination(&self) -> &Client {
        &self.destination
    }

    pub fn credit(&self) -> &LinkCredit {
        &self.credit
    }

    /// What a destination broker may hold of the link's credit.
    pub fn broker_credit(&self, broker: i32) -> BrokerCredit {
        let is_alone = self.metadata.borrow().destination.brokers.len() <= 1;
        let mut credits = self.broker_credits.lock().unwrap_or_else(PoisonError::into_inner);
        credits.entry(broker).or_insert_with(|| self.credit.of_broker(is_alone)).clone()
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub fn metadata(&self) -> LinkMetadata {
        self.metadata.borrow().clone()
    }

    pub fn watch_metadata(&self) -> watch::Receiver<LinkMetadata> {
        self.metadata.subscribe()
    }

    /// How long the destination's brokers remember a producer, ms.
    pub fn producer_expiration_ms(&self) -> i64 {
        self.producer_expiration_ms.load(Ordering::Relaxed)
    }

    /// Wants fresher metadata than there is.
    pub fn request_refresh(&self) {
        self.refresh.notify_one();
    }

    pub fn set_topics(&self, topics: Topics) {
        let changed = self.topics.send_if_modified(|current| {
            let changed = *current != topics;
            *current = topics;
            changed
        });
        if changed {
            self.request_refresh();
        }
    }

    /// The fetcher of a lane, connected.
    ///
    /// # Errors
    /// Dialling errors.
    pub async fn fetcher(&self, lane: FetchLane) -> Result<Fetcher, Error> {
        let slot = slot(&self.fetchers, lane);
        let mut slot = slot.lock().await;
        if let Some(fetcher) = slot.as_ref().filter(|f| f.is_running()) {
            return Ok(fetcher.clone());
        }
        let connection = self.source.dial_broker(lane.source_broker).await?;
        let credit = self.broker_credit(lane.destination_broker);
        let fetcher =
            Fetcher::start(connection, credit, self.settings.fetch, self.meters.clone(), self.clock.clone());
        *slot = Some(fetcher.clone());
        Ok(fetcher)
    }

    /// The appender of a destination broker, connected.
    ///
    /// # Errors
    /// Dialling errors.
    pub async fn appender(&self, broker: i32) -> Result<Appender, Error> {
        let slot = slot(&self.appenders, broker);
        let mut slot = slot.lock().await;
        if let Some(appender) = slot.as_ref().filter(|a| a.is_running()) {
            return Ok(appender.clone());
        }
        let appender = Appender::start(
            self.destination.dial_broker(broker).await?,
            self.meters.clone(),
            self.clock.clone(),
        );
        *slot = Some(appender.clone());
        Ok(appender)
    }

    /// Keeps the metadata fresh: every `metadata.max.age.ms`, and when somebody asks.
    pub async fn keep_metadata(self: Arc<Self>) {
        let mut knows_expiration = false;
        loop {
            let topics = self.topics.borrow().clone();
            let names = |set: &BTreeSet<Arc<str>>| set.iter().cloned().collect::<Vec<_>>();
            let (source_topics, destination_topics) = (names(&topics.source), names(&topics.destination));
            let (source, destination) = tokio::join!(
                look(&self.source, &source_topics),
                look(&self.destination, &destination_topics)
            );
            if let Ok(found) = &destination
                && !knows_expiration
            {
                knows_expiration = self.learn_expiration(found).await;
            }
            self.metadata.send_modify(|current| {
                keep(source, &mut current.source, &mut current.source_error);
                keep(destination, &mut current.destination, &mut current.destination_error);
            });
            tokio::time::sleep(REFRESH_MIN).await;
            let age = self.settings.metadata_max_age.saturating_sub(REFRESH_MIN);
            let _ = tokio::time::timeout(age, self.refresh.notified()).await;
        }
    }

    /// Without the right to read broker configs the default is assumed.
    async fn learn_expiration(&self, destination: &Metadata) -> bool {
        let Some(&broker) = destination.brokers.keys().next() else { return false };
        match topics::broker_configs(&self.destination, broker, &[PRODUCER_EXPIRATION_KEY]).await {
            Ok(configs) => {
                let value = configs.get(PRODUCER_EXPIRATION_KEY).and_then(|c| c.value.parse().ok());
                if let Some(expiration_ms) = value {
                    self.producer_expiration_ms.store(expiration_ms, Ordering::Relaxed);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "can't read {PRODUCER_EXPIRATION_KEY} of the destination; assuming one day");
                error.code().is_some()
            }
        }
    }
}

async fn look(client: &Client, topics: &[Arc<str>]) -> Result<Metadata, Error> {
    let names: Vec<&str> = topics.iter().map(|t| &**t).collect();
    client.metadata(Some(&names)).await
}

fn keep(found: Result<Metadata, Error>, slot: &mut Arc<Metadata>, error: &mut Option<Error>) {
    match found {
        Ok(metadata) => {
            *slot = Arc::new(metadata);
            *error = None;
        }
        Err(why) => {
            // What an impostor's brokers are called says nothing about ours.
            if matches!(why, Error::WrongCluster { .. }) {
                *slot = Arc::default();
            }
            *error = Some(why);
        }
    }
}

fn slot<K: Ord, T>(slots: &Slots<K, T>, key: K) -> Arc<tokio::sync::Mutex<Option<T>>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

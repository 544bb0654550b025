//! What all mirror partitions of one link on this node share: the clients of both clusters, their
//! metadata, the fetchers and appenders by broker, the credit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka::fetch::TopicPartition;
use kafka::metadata::Metadata;
use kafka::{Client, Error, topics};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::appender::Appender;
use crate::clock::WallClock;
use crate::credit::{BrokerCredit, CreditLimits, LinkCredit};
use crate::fetcher::Fetcher;
use crate::fleet::lease::LeaseKeeper;
use crate::pace::{LinkPace, Pace};
use crate::settings::LinkSettings;

/// Metadata is asked for at most this often, however many partitions want it fresher.
const REFRESH_MIN: Duration = Duration::from_millis(100);

const PRODUCER_EXPIRATION_KEY: &str = "producer.id.expiration.ms";
const REQUEST_BYTES_KEY: &str = "socket.request.max.bytes";

/// Brokers' configs may be changed while they run.
const LIMITS_EVERY: Duration = Duration::from_secs(60);
/// Metadata waits for them this long at most: a dead broker must not hold it up.
const LIMITS_WAIT: Duration = Duration::from_secs(3);

/// What the destination's brokers allow, each the smallest of all that told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerLimits {
    /// How long a producer is remembered after its newest record, ms.
    pub producer_expiration_ms: i64,
    /// A larger request closes its connection without an answer.
    pub request_bytes_max: usize,
}

impl Default for BrokerLimits {
    /// Kafka's own defaults: what is assumed without the right to read broker configs.
    fn default() -> Self {
        Self {
            producer_expiration_ms: kafka::producers::PRODUCER_ID_EXPIRATION_DEFAULT.as_millis() as i64,
            request_bytes_max: 100 * 1024 * 1024,
        }
    }
}

impl BrokerLimits {
    /// `told` holds each broker's configs, as text by key.
    fn of(told: &BTreeMap<i32, BTreeMap<String, String>>) -> Self {
        let default = Self::default();
        let smallest = |key: &str| {
            told.values().filter_map(|configs| configs.get(key)?.parse::<i64>().ok()).filter(|v| *v > 0).min()
        };
        Self {
            producer_expiration_ms: smallest(PRODUCER_EXPIRATION_KEY)
                .unwrap_or(default.producer_expiration_ms),
            request_bytes_max: smallest(REQUEST_BYTES_KEY)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(default.request_bytes_max),
        }
    }
}

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
    /// From the newest record's timestamp to the acknowledgement, of a request's slowest batch: what a
    /// reader of the mirror waits for live records. Copying old ones shows how old they are.
    pub end_to_end_seconds: Histogram,
    pub source_response_bytes: Counter,
    pub destination_response_bytes: Counter,
    /// Groups that were put somewhere at the destination, and those that couldn't be.
    pub group_commits: Counter,
    pub group_commits_failed: Counter,
}

impl PlaneMeters {
    pub fn of_link(link: &str) -> Self {
        let labels = [("link", link.to_owned())];
        let group_commits = |result| counter!("lockstep_consumer_offset_commits_total", "link" => link.to_owned(), "result" => result);
        Self {
            fetch_seconds: histogram!("lockstep_fetch_seconds", &labels),
            produce_seconds: histogram!("lockstep_produce_seconds", &labels),
            end_to_end_seconds: histogram!("lockstep_end_to_end_seconds", &labels),
            source_response_bytes: counter!("lockstep_source_response_bytes_total", &labels),
            destination_response_bytes: counter!("lockstep_destination_response_bytes_total", &labels),
            group_commits: group_commits("committed"),
            group_commits_failed: group_commits("failed"),
        }
    }
}

/// What a coordinator may take; a stop waits for commits under way.
const GROUP_REQUEST_MAX: Duration = Duration::from_secs(10);

/// What bounds a link's bytes: on their way, and a second.
pub struct Bounds {
    pub credit: CreditLimits,
    pub pace: Arc<LinkPace>,
}

pub struct LinkPlane {
    meters: PlaneMeters,
    source: Client,
    destination: Client,
    settings: LinkSettings,
    clock: WallClock,
    lease: Arc<LeaseKeeper>,
    credit: LinkCredit,
    pace: Arc<LinkPace>,
    /// By broker, and whether it was the only one then.
    broker_credits: Mutex<BTreeMap<(i32, bool), BrokerCredit>>,
    fetchers: Slots<FetchLane, Fetcher>,
    appenders: Slots<i32, Appender>,
    metadata: watch::Sender<LinkMetadata>,
    topics: watch::Sender<Topics>,
    refresh: Notify,
    limits: Mutex<BrokerLimits>,
    sync_writes: tokio::sync::RwLock<()>,
    /// For group offsets, at either end: a slow coordinator holds up nothing else.
    group_source: Client,
    group_destination: Client,
}

impl LinkPlane {
    /// Shares nothing with other links. The caller runs [`keep_metadata`](Self::keep_metadata).
    pub fn new(
        meters: PlaneMeters,
        source: Client,
        destination: Client,
        settings: LinkSettings,
        bounds: Bounds,
        clock: WallClock,
        lease: Arc<LeaseKeeper>,
    ) -> Arc<Self> {
        Arc::new(Self {
            group_source: source.apart(GROUP_REQUEST_MAX),
            group_destination: destination.apart(GROUP_REQUEST_MAX),
            meters,
            source,
            destination,
            settings,
            clock,
            lease,
            credit: LinkCredit::new(bounds.credit),
            pace: bounds.pace,
            broker_credits: Mutex::default(),
            fetchers: Slots::default(),
            appenders: Slots::default(),
            metadata: watch::Sender::default(),
            topics: watch::Sender::default(),
            refresh: Notify::new(),
            limits: Mutex::default(),
            sync_writes: tokio::sync::RwLock::default(),
        })
    }

    pub fn meters(&self) -> &PlaneMeters {
        &self.meters
    }

    pub fn source(&self) -> &Client {
        &self.source
    }

    pub fn destination(&self) -> &Client {
        &self.destination
    }

    pub fn group_source(&self) -> &Client {
        &self.group_source
    }

    pub fn group_destination(&self) -> &Client {
        &self.group_destination
    }

    pub fn credit(&self) -> &LinkCredit {
        &self.credit
    }

    pub fn pace(&self) -> &Arc<LinkPace> {
        &self.pace
    }

    /// What a destination broker may hold of the link's credit.
    pub fn broker_credit(&self, broker: i32) -> BrokerCredit {
        let is_alone = self.metadata.borrow().destination.brokers.len() <= 1;
        let mut credits = self.broker_credits.lock().unwrap_or_else(PoisonError::into_inner);
        credits.entry((broker, is_alone)).or_insert_with(|| self.credit.of_broker(is_alone)).clone()
    }

    /// Shared by syncs while they write to the destination, and held alone by a stop.
    pub fn sync_writes(&self) -> &tokio::sync::RwLock<()> {
        &self.sync_writes
    }

    pub fn lease(&self) -> &Arc<LeaseKeeper> {
        &self.lease
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

    pub fn limits(&self) -> BrokerLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until both clusters were asked once, whatever came of it: a supervisor that has just begun
    /// knows nothing yet.
    pub async fn first_metadata(&self) {
        let has_looked = |m: &LinkMetadata| {
            let one = |side: &Metadata, error: &Option<Error>| !side.brokers.is_empty() || error.is_some();
            one(&m.source, &m.source_error) && one(&m.destination, &m.destination_error)
        };
        // An error is impossible while `self` holds the sender.
        let _ = self.watch_metadata().wait_for(has_looked).await;
    }

    /// How often metadata is asked for when nobody wants it sooner.
    pub fn metadata_max_age(&self) -> Duration {
        self.settings.metadata_max_age
    }

    /// How long a topic may be gone before its partitions fail.
    pub fn topic_missing_max(&self) -> Duration {
        self.settings.topic_missing_max
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
            self.limits().request_bytes_max,
            self.meters.clone(),
            self.clock.clone(),
            self.lease.clone(),
            Pace::new(self.pace.clone(), broker),
        );
        *slot = Some(appender.clone());
        Ok(appender)
    }

    /// Keeps the metadata fresh: every `metadata.max.age.ms`, and when somebody asks.
    pub async fn keep_metadata(self: Arc<Self>) {
        let mut limits_at: Option<Instant> = None;
        // What each broker told last: one that is silent now may be the most forgetful.
        let mut told = BTreeMap::new();
        loop {
            let topics = self.topics.borrow().clone();
            let names = |set: &BTreeSet<Arc<str>>| set.iter().cloned().collect::<Vec<_>>();
            let (source_topics, destination_topics) = (names(&topics.source), names(&topics.destination));
            let (source, destination) = tokio::join!(
                look(&self.source, &source_topics),
                look(&self.destination, &destination_topics)
            );
            let brokers: Vec<i32> =
                destination.iter().flat_map(|found| found.brokers.keys()).copied().collect();
            // Nothing is begun before the limits are known; later they never hold metadata up.
            if limits_at.is_none() && !brokers.is_empty() {
                limits_at = Some(Instant::now());
                self.learn_limits(&brokers, &mut told).await;
            }
            self.metadata.send_modify(|current| {
                keep(source, &mut current.source, &mut current.source_error);
                keep(destination, &mut current.destination, &mut current.destination_error);
            });
            if limits_at.is_some_and(|at| at.elapsed() >= LIMITS_EVERY) && !brokers.is_empty() {
                limits_at = Some(Instant::now());
                self.learn_limits(&brokers, &mut told).await;
            }
            tokio::time::sleep(REFRESH_MIN).await;
            let age = self.settings.metadata_max_age.saturating_sub(REFRESH_MIN);
            let _ = tokio::time::timeout(age, self.refresh.notified()).await;
        }
    }

    /// Asks all brokers at once; what one doesn't tell is as it told last.
    async fn learn_limits(&self, brokers: &[i32], told: &mut BTreeMap<i32, BTreeMap<String, String>>) {
        let mut asked = JoinSet::new();
        for &broker in brokers {
            let client = self.destination.clone();
            asked.spawn(async move {
                let keys = [PRODUCER_EXPIRATION_KEY, REQUEST_BYTES_KEY];
                let configs = topics::broker_configs(&client, broker, &keys).await?;
                let values = configs.into_iter().map(|(key, config)| (key, config.value));
                Ok::<_, Error>((broker, values.collect()))
            });
        }
        let answers = async {
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok(Ok((broker, configs))) => drop(told.insert(broker, configs)),
                    Ok(Err(error)) => tracing::debug!(%error, "a broker's configs can't be read"),
                    Err(_) => {}
                }
            }
        };
        if tokio::time::timeout(LIMITS_WAIT, answers).await.is_err() {
            tracing::debug!("not all brokers told their configs within {LIMITS_WAIT:?}");
        }
        let limits = BrokerLimits::of(told);
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != limits {
            tracing::info!(?limits, "what the destination's brokers allow");
            *known = limits;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expiration: &str, bytes: &str) -> BTreeMap<String, String> {
        [(PRODUCER_EXPIRATION_KEY, expiration), (REQUEST_BYTES_KEY, bytes)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn the_most_forgetful_and_the_narrowest_broker_set_the_limits() {
        let limits =
            BrokerLimits::of(&[(1, told("86400000", "5000000")), (2, told("3600000", "104857600"))].into());
        assert_eq!(limits, BrokerLimits { producer_expiration_ms: 3_600_000, request_bytes_max: 5_000_000 });
    }

    #[test]
    fn what_is_not_told_is_as_kafka_has_it() {
        assert_eq!(BrokerLimits::of(&BTreeMap::new()), BrokerLimits::default());
        assert_eq!(BrokerLimits::of(&[(1, told("", "-1"))].into()), BrokerLimits::default());
    }
}

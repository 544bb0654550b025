//! One Kafka cluster: how to reach its brokers, and a shared connection to each for control
//! requests. Data lanes dial connections of their own.
//!
//! Never retries: a caller that sees an error knows that exactly one request was tried.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::config::ClientConfig;
use crate::connection::{Api, Connection, ConnectionOptions, METADATA_FRAME_BYTES_MAX};
use crate::dial::Dialer;
use crate::error::Error;
use crate::frame::FramePool;
use crate::metadata::Metadata;
use crate::shape;

pub use crate::dial::{Dial, DialFuture, TcpDial};

/// After a failed dial the same address is left alone for this long.
const DIAL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Frame buffers of one cluster's connections, in use and idle: as much as a link may have on its way.
const FRAME_BYTES_MAX: usize = 80 * 1024 * 1024;

static METADATA: Api = Api {
    key: ApiKey::Metadata as i16,
    name: "Metadata",
    versions: &[(12, true, shape::METADATA_V12), (9, true, shape::METADATA_V9)],
};

/// Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

struct Inner {
    config: ClientConfig,
    dialer: Dialer,
    /// One control connection a broker, and one to whichever bootstrap address answered.
    slots: Mutex<BTreeMap<Option<i32>, Slot>>,
    brokers: Mutex<BTreeMap<i32, Arc<str>>>,
    /// What the brokers must call their cluster, if that is known.
    cluster_id: Option<Arc<str>>,
    failed_dials: Mutex<BTreeMap<Arc<str>, (Instant, Error)>>,
}

impl Client {
    /// Of whatever cluster answers.
    pub fn new(config: ClientConfig, dial: Arc<dyn Dial>) -> Self {
        Self::with(config, dial, None)
    }

    /// Of one cluster: metadata of another is [`Error::WrongCluster`], and its brokers are never
    /// dialled.
    pub fn of_cluster(config: ClientConfig, dial: Arc<dyn Dial>, cluster_id: Arc<str>) -> Self {
        Self::with(config, dial, Some(cluster_id))
    }

    /// Of the same cluster, with connections of its own, whose requests wait for so long at most: what is slow
    /// there holds up nothing here.
    pub fn apart(&self, request_timeout_max: Duration) -> Self {
        let config = &self.inner.config;
        let request_timeout = config.request_timeout.min(request_timeout_max);
        let config = ClientConfig { request_timeout, ..config.clone() };
        Self::with(config, self.inner.dialer.way(), self.inner.cluster_id.clone())
    }

    fn with(config: ClientConfig, dial: Arc<dyn Dial>, cluster_id: Option<Arc<str>>) -> Self {
        let options = ConnectionOptions {
            client_id: config.client_id.clone(),
            request_timeout: config.request_timeout,
            frames: FramePool::new(FRAME_BYTES_MAX),
        };
        let dialer = Dialer::new(&config, dial, options);
        let inner = Inner {
            config,
            dialer,
            slots: Mutex::default(),
            brokers: Mutex::default(),
            cluster_id,
            failed_dials: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn request_timeout(&self) -> Duration {
        self.inner.config.request_timeout
    }

    /// As whom brokers know this client by default. None: it shows a certificate, of which each broker makes a name
    /// by rules of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for a reference that leads nowhere.
    pub async fn principal(&self) -> Result<Option<String>, Error> {
        self.inner.dialer.principal().await
    }

    /// Metadata of the named topics, or of all topics. Never creates a topic. Learns the
    /// brokers' addresses on the way.
    ///
    /// # Errors
    /// When neither a known broker nor any bootstrap address answers: the last one's error.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<Metadata, Error> {
        let topics = topics.map(|names| {
            let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            names.iter().map(topic).collect()
        });
        let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let connection = self.any_broker().await?;
        let timeout = self.request_timeout();
        let response =
            connection.call_bounded(&METADATA, &request, timeout, METADATA_FRAME_BYTES_MAX).await?;
        let metadata = Metadata::from(response);
        // What an impostor calls its brokers must never be dialled.
        if let (Some(expected), Some(found)) = (&self.inner.cluster_id, &metadata.cluster_id)
            && **expected != **found
        {
            return Err(Error::WrongCluster { expected: expected.to_string(), found: found.clone() });
        }
        *self.lock(&self.inner.brokers) = metadata.brokers.clone();
        Ok(metadata)
    }

    /// The shared control connection to a broker, dialled when there is none.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`] when metadata doesn't list it; dialling errors.
    pub async fn control(&self, broker: i32) -> Result<Connection, Error> {
        let slot = self.lock(&self.inner.slots).entry(Some(broker)).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| c.closed().is_none()) {
            return Ok(connection.clone());
        }
        let connection = self.dial_broker(broker).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// A connection of the caller's own to a broker.
    ///
    /// # Errors
    /// [`Error::UnknownBroker`] when metadata doesn't list it; dialling errors.
    pub async fn dial_broker(&self, broker: i32) -> Result<Connection, Error> {
        let address = self.lock(&self.inner.brokers).get(&broker).cloned();
        let address = match address {
            Some(address) => address,
            None => {
                let brokers = self.metadata(Some(&[])).await?.brokers;
                brokers.get(&broker).cloned().ok_or(Error::UnknownBroker(broker))?
            }
        };
        self.open(address).await
    }

    /// A control connection to whichever broker answers: a connected one, a known one, or the
    /// bootstrap list in order.
    ///
    /// # Errors
    /// The last address's error; the first that says that credentials or settings are wrong.
    pub async fn any_broker(&self) -> Result<Connection, Error> {
        let slots: Vec<Slot> = self.lock(&self.inner.slots).values().cloned().collect();
        for slot in slots {
            // A slot that is locked is being dialled: not the one to wait for.
            if let Ok(slot) = slot.try_lock()
                && let Some(connection) = slot.as_ref().filter(|c| c.closed().is_none())
            {
                return Ok(connection.clone());
            }
        }
        let slot = self.lock(&self.inner.slots).entry(None).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| c.closed().is_none()) {
            return Ok(connection.clone());
        }
        let known: Vec<Arc<str>> = self.lock(&self.inner.brokers).values().cloned().collect();
        let mut last = None;
        for address in self.inner.config.bootstrap.iter().chain(&known) {
            match self.open(address.clone()).await {
                Ok(connection) => {
                    *slot = Some(connection.clone());
                    return Ok(connection);
                }
                // Any other broker would be asked with the same; some lock users out for that.
                Err(error @ (Error::Authentication { .. } | Error::Config(_))) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::UnknownBroker(-1)))
    }

    /// Dials, unless that has just failed: those who waited for the same broker meanwhile take the
    /// same answer instead of each waiting for a dead host in turn.
    async fn open(&self, address: Arc<str>) -> Result<Connection, Error> {
        let failed = self.lock(&self.inner.failed_dials).get(&address).cloned();
        if let Some((at, error)) = failed
            && at.elapsed() < DIAL_AGAIN_AFTER
        {
            return Err(error);
        }
        let opened = self.inner.dialer.open(address.clone()).await;
        let mut failed_dials = self.lock(&self.inner.failed_dials);
        match &opened {
            Err(error @ (Error::Connect { .. } | Error::Deadline { .. })) => {
                failed_dials.insert(address, (Instant::now(), error.clone()));
            }
            // Settings and credentials may have been mended by now.
            Ok(_) | Err(_) => {
                failed_dials.remove(&address);
            }
        }
        opened
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

//! Live load through librdkafka: several producers at once, each with its own codec and batching,
//! whose records cover the shapes a log can hold. What brokers acknowledged is counted.
//!
//! The stream of records follows from the seed; how they fall into batches depends on time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::poll_until;

/// Above a broker's restart; a record not acknowledged by then fails the load.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);
const ADMIN_LIMIT: Duration = Duration::from_secs(30);
/// Leaves the number of copies to the brokers' `default.replication.factor`.
const REPLICATION_DEFAULT: i32 = -1;
const METADATA_POLL: Duration = Duration::from_millis(100);
/// Pause when librdkafka's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
/// Producers look at the stop flag this often.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Above the largest record of any test, and its batch's overhead: what a topic takes is for its
/// brokers to say.
const BATCH_BYTES_MAX: &str = "16000000";

/// Consecutive records for one partition, so that producers that linger fill real batches.
const BURST_RECORDS_MAX: u32 = 200;
/// Half of Kafka's default limit for a batch (1 MiB), so that no codec can push one over it.
const VALUE_BYTES_MAX: usize = 400 * 1024;
/// Backdated records stay well inside a day, the time a broker remembers producers by default.
const BACKDATED_MS_MAX: i64 = 60 * 60 * 1000;

/// How one producer sends.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub codec: &'static str,
    pub idempotent: bool,
    /// 0 sends most records in batches of one.
    pub linger_ms: u32,
    /// Records in a batch, at most.
    pub batch_records_max: u32,
}

/// As many as librdkafka puts into a batch by default.
const CROWD: u32 = 10_000;

/// Each codec, with and without idempotence, batches of one and of many.
pub const PROFILES: [Profile; 6] = [
    Profile { codec: "none", idempotent: false, linger_ms: 0, batch_records_max: CROWD },
    Profile { codec: "none", idempotent: true, linger_ms: 20, batch_records_max: CROWD },
    Profile { codec: "gzip", idempotent: false, linger_ms: 20, batch_records_max: CROWD },
    Profile { codec: "snappy", idempotent: true, linger_ms: 5, batch_records_max: CROWD },
    Profile { codec: "lz4", idempotent: false, linger_ms: 50, batch_records_max: CROWD },
    Profile { codec: "zstd", idempotent: true, linger_ms: 20, batch_records_max: CROWD },
];

/// Codecs as librdkafka calls them.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Each codec with idempotence and without.
pub fn every_profile() -> Vec<Profile> {
    let both = |codec| {
        [true, false].map(|idempotent| Profile { codec, idempotent, linger_ms: 20, batch_records_max: CROWD })
    };
    CODECS.into_iter().flat_map(both).collect()
}

/// What to send where.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    pub bootstrap: String,
    pub topic: String,
    pub partitions: i32,
    pub profiles: Vec<Profile>,
    /// Of all producers together.
    pub records_per_second: u32,
    pub seed: u64,
    /// How old the records say they are. Beyond a day brokers forget who mirrored them.
    pub age: Duration,
}

/// What was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    pub acknowledged: BTreeMap<i32, u64>,
    failures: Vec<String>,
}

impl LoadReport {
    pub fn total(&self) -> u64 {
        self.acknowledged.values().sum()
    }
}

/// Running producers; dropping them stops them without a report.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<LoadReport>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    pub fn start(config: &LoadConfig) -> Result<Load> {
        ensure!(!config.profiles.is_empty(), "a load needs a producer");
        let share = f64::from(config.records_per_second) / config.profiles.len() as f64;
        let mut load = Load { stop: Arc::default(), report: Arc::default(), threads: Vec::new() };
        for (index, profile) in config.profiles.iter().enumerate() {
            let worker = Worker {
                sender: Sender::new(&config.bootstrap, &config.topic, *profile, load.report.clone())?,
                partitions: config.partitions,
                records_per_second: share,
                rng: StdRng::seed_from_u64(config.seed.wrapping_add(index as u64)),
                stop: load.stop.clone(),
                age_ms: i64::try_from(config.age.as_millis()).context("an age of centuries")?,
            };
            load.threads.push(std::thread::spawn(move || worker.run()));
        }
        Ok(load)
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        lock(&self.report).total()
    }

    /// Waits until `count` records are acknowledged.
    pub fn wait_acknowledged(&self, count: u64, limit: Duration) -> Result<()> {
        poll_until(limit, STOP_POLL, || (self.acknowledged() >= count).then_some(())).with_context(|| {
            format!("{} of {count} records acknowledged after {limit:?}", self.acknowledged())
        })
    }

    /// Stops sending, waits for every acknowledgement, and fails when one was refused.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a producer thread panicked"))??;
        }
        all_acknowledged(&self.report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The report of producers that have been flushed.
pub(crate) fn all_acknowledged(report: &Mutex<LoadReport>) -> Result<LoadReport> {
    let report = lock(report).clone();
    if let Some(first) = report.failures.first() {
        bail!("{} records were not acknowledged, the first: {first}", report.failures.len());
    }
    Ok(report)
}

/// Counts are whole after each addition, so a panic elsewhere doesn't spoil them.
fn lock(report: &Mutex<LoadReport>) -> std::sync::MutexGuard<'_, LoadReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears from librdkafka what became of each record.
pub(crate) struct Acknowledgements(Arc<Mutex<LoadReport>>);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut report = lock(&self.0);
        match result {
            Ok(message) => *report.acknowledged.entry(message.partition()).or_default() += 1,
            Err((error, message)) => {
                let failure = format!("partition {}: {error}", message.partition());
                report.failures.push(failure);
            }
        }
    }
}

/// A producer for one topic, whose records are counted once brokers acknowledge them.
pub(crate) struct Sender {
    producer: ThreadedProducer<Acknowledgements>,
    topic: String,
}

impl Sender {
    pub(crate) fn new(
        bootstrap: &str,
        topic: &str,
        profile: Profile,
        report: Arc<Mutex<LoadReport>>,
    ) -> Result<Sender> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("compression.codec", profile.codec)
            .set("enable.idempotence", profile.idempotent.to_string())
            .set("linger.ms", profile.linger_ms.to_string())
            .set("batch.num.messages", profile.batch_records_max.to_string())
            .set("acks", "all")
            .set("message.max.bytes", BATCH_BYTES_MAX)
            .set("message.timeout.ms", DELIVERY_LIMIT.as_millis().to_string())
            .create_with_context(Acknowledgements(report))
            .with_context(|| format!("create a producer for {profile:?}"))?;
        Ok(Sender { producer, topic: topic.to_owned() })
    }

    pub(crate) fn send(&self, partition: i32, record: &Record) -> Result<()> {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        let mut pending = record.for_topic(&self.topic, partition);
        while let Err((error, back)) = self.producer.send(pending) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            if !full || Instant::now() >= deadline {
                return Err(error).context("hand a record to librdkafka");
            }
            pending = back;
            std::thread::sleep(QUEUE_FULL_PAUSE);
        }
        Ok(())
    }

    /// Waits until everything is acknowledged or refused.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(DELIVERY_LIMIT).context("wait for the last acknowledgements")
    }
}

struct Worker {
    sender: Sender,
    partitions: i32,
    records_per_second: f64,
    rng: StdRng,
    stop: Arc<AtomicBool>,
    age_ms: i64,
}

impl Worker {
    fn run(mut self) -> Result<()> {
        let started = Instant::now();
        let mut sent = 0u32;
        while !self.stopped() {
            let partition = self.rng.random_range(0..self.partitions);
            // Small bursts are as likely as large ones are long.
            let burst_max = self.rng.random_range(1..=BURST_RECORDS_MAX);
            for _ in 0..self.rng.random_range(1..=burst_max) {
                let record = Record::draw(&mut self.rng, self.age_ms);
                self.sender.send(partition, &record)?;
                sent += 1;
            }
            let due = Duration::from_secs_f64(f64::from(sent) / self.records_per_second);
            while started.elapsed() < due && !self.stopped() {
                std::thread::sleep(STOP_POLL);
            }
        }
        self.sender.flush()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One record to send.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Option<OwnedHeaders>,
    /// Now, when not given.
    pub(crate) timestamp_ms: Option<i64>,
}

impl Record {
    /// Mostly small, now and then empty, null or huge; times mostly now, some out of order.
    fn draw(rng: &mut StdRng, age_ms: i64) -> Record {
        let key = match rng.random_range(0..10) {
            0..3 => None,
            3 => Some(Vec::new()),
            _ => Some(format!("key-{}", rng.random_range(0..5_000)).into_bytes()),
        };
        let value = match rng.random_range(0..1_000) {
            0..50 => None,
            50..100 => Some(Vec::new()),
            100..150 => Some(bytes(rng, 1)),
            150..950 => Some(random_length(rng, 300)),
            950..997 => Some(random_length(rng, 16 * 1024)),
            _ => Some(random_length(rng, VALUE_BYTES_MAX)),
        };
        let headers = rng.random_bool(0.3).then(|| draw_headers(rng));
        let scattered = rng.random_bool(0.1).then(|| rng.random_range(0..BACKDATED_MS_MAX));
        let timestamp_ms = match age_ms {
            0 => scattered.map(|ms| now_ms() - ms),
            age_ms => Some(now_ms() - age_ms - scattered.unwrap_or(0)),
        };
        Record { key, value, headers, timestamp_ms }
    }

    fn for_topic<'a>(&'a self, topic: &'a str, partition: i32) -> BaseRecord<'a, [u8], [u8]> {
        let mut record = BaseRecord::to(topic).partition(partition);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.headers = self.headers.clone();
        record.timestamp = self.timestamp_ms;
        record
    }
}

fn draw_headers(rng: &mut StdRng) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for index in 0..rng.random_range(1..4) {
        let value = match rng.random_range(0..4) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(random_length(rng, 40)),
        };
        // Names repeat on purpose: Kafka allows it, maps don't.
        let key = if index % 2 == 0 { "trace" } else { "überschrift" };
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    headers
}

fn random_length(rng: &mut StdRng, bytes_max: usize) -> Vec<u8> {
    let count = rng.random_range(1..=bytes_max);
    bytes(rng, count)
}

/// Half of all values compress well, half not at all.
fn bytes(rng: &mut StdRng, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    if rng.random_bool(0.5) {
        rng.fill_bytes(&mut bytes);
    } else {
        let word = *b"lockstep";
        let shift = rng.random_range(0..word.len());
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = word[(at + shift) % word.len()]);
    }
    bytes
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292,277,026")
}

/// Creates a topic with the cluster's default replication and waits until every partition has a leader.
pub fn create_topic(bootstrap: &str, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().context("create an admin client")?;
    let mut request = NewTopic::new(topic, partitions, TopicReplication::Fixed(REPLICATION_DEFAULT));
    for (key, value) in configs {
        request = request.set(key, value);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_LIMIT)).request_timeout(Some(ADMIN_LIMIT));
    let results = runtime
        .block_on(admin.create_topics([&request], &options))
        .with_context(|| format!("create topic {topic}"))?;
    for result in results {
        result.map_err(|(name, code)| anyhow::anyhow!("create topic {name}: {code}"))?;
    }
    let ready = || {
        let metadata = admin.inner().fetch_metadata(Some(topic), ADMIN_LIMIT).ok()?;
        let found = metadata.topics().first()?;
        let leaders = found.partitions().iter().filter(|partition| partition.leader() >= 0).count();
        (i32::try_from(leaders) == Ok(partitions)).then_some(())
    };
    poll_until(ADMIN_LIMIT, METADATA_POLL, ready)
        .with_context(|| format!("topic {topic} has not all its leaders after {ADMIN_LIMIT:?}"))
}

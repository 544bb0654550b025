//! The producers of the source's topics, on one host: one task a partition, each with a connection and,
//! where its topic says so, a producer id of its own. They try again until they know, as Kafka's do: a
//! plain one may so write twice, and then the source has it twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest};

use crate::batches::{self, Identity, Record, Stored};
use crate::chance::Chance;
use crate::clients;
use crate::clusters::{Embedded, Side};
use crate::history::Key;
use crate::options::{Age, Options, SourceTopic};
use crate::oracle::Oracle;
use crate::stops::Stopped;
use crate::time::Time;
use crate::wire::{Wire, topic_name};

pub const HOST: &str = "producer";

const HOUR_MS: u64 = 3_600_000;
/// Older than brokers remember a producer, and up to a month.
const OLD_HOURS: std::ops::RangeInclusive<u64> = 25..=720;
const RECORDS_MAX: u64 = 30;
const VALUE_BYTES_MAX: u64 = 600;
/// Of a batch that is gone before anything runs.
const SMALL_RECORDS: usize = 500;
const BURST_MAX: u64 = 8;
/// Between two tries of a batch.
const AGAIN_MS: std::ops::RangeInclusive<u64> = 50..=800;
/// Then a batch is given up, and whether it was appended stays unknown.
const TRIES_MAX: u32 = 12;
/// How often partitions that were added are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a broker may wait for its followers.
const PRODUCE_TIMEOUT_MS: i32 = 3_000;

const OUT_OF_ORDER: i16 = 45;
const DUPLICATE: i16 = 46;
const INVALID_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER: i16 = 59;

#[derive(Clone)]
pub struct Producers {
    pub options: Arc<Options>,
    pub time: Time,
    pub oracle: Oracle,
    pub stopped: Stopped,
}

/// The producer of one partition.
pub struct Producer {
    pub side: Side,
    pub topic: SourceTopic,
    partition: i32,
    pub chance: Chance,
    time: Time,
    pub oracle: Oracle,
    until: Duration,
    wire: Option<Wire>,
    identity: Identity,
    /// Records, acknowledged or not.
    written: u64,
    /// One batch was acknowledged.
    has_written: bool,
}

impl Producers {
    /// Their host, as long as the busy time lasts.
    pub async fn run(self) -> turmoil::Result {
        let mut known: BTreeSet<Key> = BTreeSet::new();
        while self.time.elapsed() < self.options.busy {
            for topic in &self.options.topics {
                for partition in 0..partitions_of(&topic.name).await.unwrap_or_default() {
                    if known.insert((topic.name.clone(), partition)) {
                        tokio::task::spawn_local(self.producer(topic, partition).work());
                    }
                }
            }
            clients::come_to_what_has_stopped(&self);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if !self.options.stops.has_clients {
            return std::future::pending().await;
        }
        loop {
            clients::come_to_what_has_stopped(&self);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub fn producer(&self, topic: &SourceTopic, partition: i32) -> Producer {
        let purpose = format!("producer of {} {partition}", topic.name);
        let quiet_from = self.options.stops.quiet_from.get(&topic.name).copied();
        Producer {
            side: Side::Source,
            topic: topic.clone(),
            partition,
            chance: Chance::of(self.options.seed, &purpose),
            time: self.time.clone(),
            oracle: self.oracle.clone(),
            until: quiet_from.unwrap_or(self.options.busy),
            wire: None,
            identity: Identity::NONE,
            written: 0,
            has_written: false,
        }
    }

    /// What stands in the source before anything runs.
    pub fn preload(&self, source: &Embedded) {
        for topic in &self.options.topics {
            for partition in 0..topic.partitions {
                let mut producer = self.producer(topic, partition);
                // Its records are none of those that the producer will write.
                producer.chance =
                    Chance::of(self.options.seed, &format!("before {} {partition}", topic.name));
                producer.written = 1 << 32;
                let lost_batches = topic.lost.map_or(0, |lost| lost.batches);
                for _ in 0..lost_batches {
                    producer.preload_small(source);
                }
                let lost_to = producer.log_end(source);
                for _ in 0..producer.chance.between(0..=topic.preloaded_max) {
                    let records = producer.records();
                    producer.preload(source, &records);
                }
                if let Some(lost) = topic.lost {
                    producer.lose(source, lost_to, lost.percent);
                }
            }
        }
    }
}

impl Producer {
    fn preload(&mut self, source: &Embedded, records: &[Record]) {
        let batch = batches::write(records, Identity::NONE);
        let now_ms = self.time.wall_ms();
        let key = self.key();
        let base_offset = source.cluster.with(|state| {
            let rules = state.topic(&key.0)?.configs.rules();
            let log = &mut state.partition_mut(&key.0, key.1)?.log;
            log.append(&batch, &rules, 0, now_ms).ok().map(|appended| appended.base_offset)
        });
        if let Some(base_offset) = base_offset {
            self.acknowledge(base_offset, &batch);
        }
    }

    /// Many offsets in few bytes.
    fn preload_small(&mut self, source: &Embedded) {
        let timestamp_ms = self.time.wall_ms();
        let small = Record { timestamp_ms, key: None, value: Vec::new(), headers: Vec::new() };
        self.preload(source, &vec![small; SMALL_RECORDS]);
    }

    fn log_end(&self, source: &Embedded) -> i64 {
        let key = self.key();
        source.cluster.with(|state| state.partition(&key.0, key.1).map_or(0, |found| found.log.end()))
    }

    /// The log loses all below `from`, and of what is above so many hundredths. Long ago: no crash gives it
    /// back.
    fn lose(&self, source: &Embedded, from: i64, percent: u64) {
        let key = self.key();
        source.cluster.with(|state| {
            let Some(found) = state.partition_mut(&key.0, key.1) else { return };
            found.log.raise_start(from + (found.log.end() - from) * percent as i64 / 100);
            found.log.save_start();
        });
    }

    pub fn key(&self) -> Key {
        (self.topic.name.clone(), self.partition)
    }

    fn acknowledge(&self, base_offset: i64, batch: &Bytes) {
        let records = Stored::read(batch).and_then(|(stored, _)| stored.records()).unwrap_or_default();
        self.oracle.acknowledged(&self.key(), base_offset, &records);
    }

    pub fn records(&mut self) -> Vec<Record> {
        let old = match self.topic.age {
            Age::Fresh => false,
            Age::Old => true,
            Age::Mixed => self.chance.percent(50),
        };
        let age_ms = if old { self.chance.between(OLD_HOURS) * HOUR_MS } else { 0 };
        let now_ms = self.time.wall_ms() - age_ms as i64;
        (0..self.chance.between(1..=RECORDS_MAX)).map(|_| self.record(now_ms)).collect()
    }

    fn record(&mut self, now_ms: i64) -> Record {
        self.written += 1;
        let chance = &mut self.chance;
        let mut value = format!("{} {} {} ", self.topic.name, self.partition, self.written).into_bytes();
        value.resize(value.len() + chance.between(0..=VALUE_BYTES_MAX) as usize, b'.');
        let header = |number| (format!("header-{number}"), vec![number as u8; number as usize]);
        Record {
            timestamp_ms: now_ms + chance.between(0..=20) as i64 - 10,
            key: chance.percent(70).then(|| self.written.to_be_bytes().to_vec()),
            value,
            headers: (0..chance.between(0..=3)).map(header).collect(),
        }
    }

    async fn work(mut self) {
        while self.time.elapsed() < self.until {
            let twice_ms = u64::try_from(self.topic.pause.as_millis() * 2).unwrap_or(u64::MAX);
            tokio::time::sleep(Duration::from_millis(self.chance.between(0..=twice_ms))).await;
            for _ in 0..self.chance.between(1..=BURST_MAX) {
                let records = self.records();
                self.send(&records).await;
            }
        }
    }

    /// Until it is acknowledged; false when it can't be, or is given up.
    pub async fn send(&mut self, records: &[Record]) -> bool {
        if self.topic.is_idempotent && self.identity == Identity::NONE {
            let Some(identity) = self.identify().await else { return false };
            self.identity = identity;
        }
        let batch = batches::write(records, self.identity);
        for _ in 0..TRIES_MAX {
            match self.try_once(&batch).await {
                Some((0, base_offset)) => {
                    if !std::mem::replace(&mut self.has_written, true) {
                        let kind = if self.topic.is_idempotent { "an idempotent" } else { "a plain" };
                        let what = match self.side {
                            Side::Source => "producer of",
                            Side::Destination => "client of what has stopped,",
                        };
                        tracing::info!("{kind} {what} {}[{}] has written", self.topic.name, self.partition);
                    }
                    self.acknowledge(base_offset, &batch);
                    self.identity.base_sequence += records.len() as i32;
                    return true;
                }
                Some((OUT_OF_ORDER | DUPLICATE | INVALID_EPOCH | UNKNOWN_PRODUCER, _)) => break,
                Some(_) | None => self.wire = None,
            }
            let pause = Duration::from_millis(self.chance.between(AGAIN_MS));
            tokio::time::sleep(pause).await;
        }
        // A plain one goes on as if nothing were; an idempotent one begins anew.
        self.identity = Identity::NONE;
        false
    }

    async fn try_once(&mut self, batch: &Bytes) -> Option<(i16, i64)> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.leader().await?,
        };
        let data =
            PartitionProduceData::default().with_index(self.partition).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.topic.name))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(PRODUCE_TIMEOUT_MS)
            .with_topic_data(vec![topic]);
        let answer = wire.call(9, &request).await.ok()?;
        self.wire = Some(wire);
        let row = answer.responses.first()?.partition_responses.first()?;
        Some((row.error_code, row.base_offset))
    }

    /// A connection to the partition's leader.
    async fn leader(&mut self) -> Option<Wire> {
        let request = metadata_of(&self.topic.name);
        let answer =
            any_broker(self.side, |mut wire| async move { wire.call(9, &request.clone()).await.ok() });
        let answer = answer.await?;
        let topic = answer.topics.first()?;
        let found = topic.partitions.iter().find(|found| found.partition_index == self.partition)?;
        let place = usize::try_from(found.leader_id.0 - 1).ok()?;
        Wire::connect(self.side.registered().hosts.get(place)?, HOST).await.ok()
    }

    async fn identify(&mut self) -> Option<Identity> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1)
            .with_transaction_timeout_ms(60_000);
        let answer =
            any_broker(self.side, |mut wire| async move { wire.call(4, &request.clone()).await.ok() });
        let answer = answer.await?;
        let identity = Identity {
            producer_id: answer.producer_id.0,
            producer_epoch: answer.producer_epoch,
            base_sequence: 0,
        };
        (answer.error_code == 0).then_some(identity)
    }
}

fn metadata_of(topic: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
}

async fn partitions_of(topic: &str) -> Option<i32> {
    let request = metadata_of(topic);
    let answer =
        any_broker(Side::Source, |mut wire| async move { wire.call(9, &request.clone()).await.ok() });
    let answer = answer.await?;
    i32::try_from(answer.topics.first()?.partitions.len()).ok()
}

/// Asks one broker after the other until one answers.
async fn any_broker<T, F: Future<Output = Option<T>>>(
    side: Side,
    ask: impl FnOnce(Wire) -> F + Clone,
) -> Option<T> {
    for host in side.registered().hosts {
        let Ok(wire) = Wire::connect(host, HOST).await else { continue };
        if let Some(answer) = (ask.clone())(wire).await {
            return Some(answer);
        }
    }
    None
}

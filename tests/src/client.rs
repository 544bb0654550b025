//! What any client may do to a topic, through librdkafka: write plain records, delete records, add
//! partitions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::poll_until;
use crate::wire::RawReader;

const ADMIN_LIMIT: Duration = Duration::from_secs(30);
/// A million tiny records and a busy broker.
const PRODUCE_LIMIT: Duration = Duration::from_secs(60);
const PRODUCE_POLL: Duration = Duration::from_millis(10);

/// How records fall into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// As many in a batch as fit.
    Large,
    /// One after the other, each in a batch of its own.
    Single,
}

/// Writes `count` records to a partition to which nobody else writes, and returns their offsets.
/// The records are the same, but for their times.
pub fn write_records(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    count: u32,
    batching: Batching,
) -> Result<Range<i64>> {
    let (linger_ms, batch_records) = match batching {
        Batching::Large => ("100", "100000"),
        Batching::Single => ("0", "1"),
    };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger_ms)
        .set("batch.num.messages", batch_records)
        .set("queue.buffering.max.messages", "1000000")
        .set("message.timeout.ms", PRODUCE_LIMIT.as_millis().to_string())
        .create()
        .context("create a producer")?;
    let mut reader = RawReader::new(bootstrap)?;
    let before = reader.log_end(topic, partition)?;
    let deadline = Instant::now() + PRODUCE_LIMIT;
    for _ in 0..count {
        let mut pending = BaseRecord::<(), str>::to(topic).partition(partition).payload("tick");
        while let Err((error, back)) = producer.send(pending) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            if !full || Instant::now() >= deadline {
                return Err(error).context("hand a record to librdkafka");
            }
            pending = back;
            producer.poll(PRODUCE_POLL);
        }
    }
    producer.flush(PRODUCE_LIMIT).context("wait for the acknowledgements")?;
    let after = reader.log_end(topic, partition)?;
    ensure!(
        after - before == i64::from(count),
        "{count} records written to {topic}-{partition}, whose log end went from {before} to {after}"
    );
    Ok(before..after)
}

/// Writes these values one after the other, all of one time, so that another cluster can be given
/// the same records.
pub fn write_values(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    values: &[&[u8]],
    timestamp_ms: i64,
) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().context("create a producer")?;
    send_values(&producer, topic, partition, values, timestamp_ms)?;
    producer.flush(PRODUCE_LIMIT).context("wait for the acknowledgements")
}

/// [`write_values`] in a transaction that commits: its marker takes the offset behind them.
pub fn write_transaction(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    values: &[&[u8]],
    timestamp_ms: i64,
) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", format!("{topic}-{partition}"))
        .create()
        .context("create a producer")?;
    producer.init_transactions(PRODUCE_LIMIT).context("become transactional")?;
    producer.begin_transaction().context("begin a transaction")?;
    send_values(&producer, topic, partition, values, timestamp_ms)?;
    let mut reader = RawReader::new(bootstrap)?;
    producer.flush(PRODUCE_LIMIT).context("flush")?;
    let marker = reader.log_end(topic, partition)?;
    producer.commit_transaction(PRODUCE_LIMIT).context("commit")?;
    // A commit is answered before its marker is in the log; what is written next must come behind it.
    poll_until(PRODUCE_LIMIT, PRODUCE_POLL, || {
        reader.log_end(topic, partition).ok().filter(|end| *end > marker)
    })
    .with_context(|| format!("no marker in {topic}-{partition} at {marker}"))
    .map(drop)
}

fn send_values(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    values: &[&[u8]],
    timestamp_ms: i64,
) -> Result<()> {
    for value in values {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
        let sent = producer.send(record.timestamp(timestamp_ms));
        sent.map_err(|(error, _)| error).context("hand a record to librdkafka")?;
    }
    Ok(())
}

/// DeleteRecords: each partition's log starts at the given offset afterwards.
pub fn delete_records(bootstrap: &str, topic: &str, log_starts: &[(i32, i64)]) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in log_starts {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .with_context(|| format!("name {topic}-{partition}"))?;
    }
    let results = block_on(admin(bootstrap)?.delete_records(&list, &options()))?
        .with_context(|| format!("delete records of {topic}"))?;
    for element in results.elements() {
        element.error().with_context(|| format!("delete records of {topic}-{}", element.partition()))?;
    }
    let mut reader = RawReader::new(bootstrap)?;
    for (partition, offset) in log_starts {
        let found = reader.log_start(topic, *partition)?;
        ensure!(found == *offset, "{topic}-{partition} starts at {found} after records below {offset} went");
    }
    Ok(())
}

/// Deletes a topic, and waits until nobody tells of it.
pub fn delete_topic(bootstrap: &str, topic: &str) -> Result<()> {
    let results = block_on(admin(bootstrap)?.delete_topics(&[topic], &options()))?
        .with_context(|| format!("delete topic {topic}"))?;
    for result in results {
        if let Err((name, code)) = result {
            bail!("delete topic {name}: {code}");
        }
    }
    let mut reader = RawReader::new(bootstrap)?;
    let gone =
        poll_until(ADMIN_LIMIT, PRODUCE_POLL, || reader.ends_if_exists(topic).ok()?.is_none().then_some(()));
    gone.with_context(|| format!("topic {topic} is still there"))
}

/// Raises the number of a topic's partitions to `partitions`.
pub fn add_partitions(bootstrap: &str, topic: &str, partitions: usize) -> Result<()> {
    let request = NewPartitions::new(topic, partitions);
    let results = block_on(admin(bootstrap)?.create_partitions([&request], &options()))?
        .with_context(|| format!("add partitions to {topic}"))?;
    for result in results {
        if let Err((name, code)) = result {
            bail!("add partitions to {name}: {code}");
        }
    }
    Ok(())
}

/// The configs that are set on the topic itself.
pub fn own_topic_configs(bootstrap: &str, topic: &str) -> Result<BTreeMap<String, String>> {
    let topic = ResourceSpecifier::Topic(topic);
    let asked =
        block_on(admin(bootstrap)?.describe_configs([&topic], &options()))?.context("describe configs")?;
    let found = asked.into_iter().next().context("no answer")?.map_err(|code| anyhow::anyhow!("{code}"))?;
    let own = found.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    Ok(own.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().context("create an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_LIMIT)).request_timeout(Some(ADMIN_LIMIT))
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    Ok(runtime.block_on(future))
}

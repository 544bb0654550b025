//! Are two topics on two clusters the same? Asked twice, of witnesses that share no code: our own
//! reader compares raw batches, librdkafka compares records.
//!
//! The raw comparison is as strict as the raw path's promise: it also fails where batches hold the
//! same records but were cut differently.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Offset, TopicPartitionList};

use crate::wire::{RawBatch, RawReader};

/// Silence of a consumer that has neither reached the end nor delivered.
const CONSUMER_LIMIT: Duration = Duration::from_secs(30);
const CONSUMER_POLL: Duration = Duration::from_millis(500);
/// How much of a differing value an error shows.
const SHOWN_BYTES_MAX: usize = 48;

/// One end of a comparison.
#[derive(Clone, Debug)]
pub struct Side {
    /// How messages call it, such as "source".
    pub name: &'static str,
    pub bootstrap: String,
    pub topic: String,
}

/// How much was found equal; a test asserts that it isn't nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub partitions: usize,
    pub batches: u64,
    pub records: u64,
}

/// Batch by batch: offsets, counts, attributes (but for the transactional bit), times, and every
/// byte after the header; and the same first and next offset in each partition.
pub fn raw_batches(left: &Side, right: &Side) -> Result<Compared> {
    let mut left_reader = RawReader::new(&left.bootstrap)?;
    let mut right_reader = RawReader::new(&right.bootstrap)?;
    let left_ends = left_reader.ends(&left.topic)?;
    let right_ends = right_reader.ends(&right.topic)?;
    ensure!(
        left_ends == right_ends,
        "(first, next) offsets by partition differ:\n  {}: {left_ends:?}\n  {}: {right_ends:?}",
        left.name,
        right.name
    );
    let mut compared = Compared::default();
    for (partition, range) in left_ends {
        let found = raw_range((left, &mut left_reader), (right, &mut right_reader), partition, range)?;
        compared.partitions += 1;
        compared.batches += found.batches;
        compared.records += found.records;
    }
    Ok(compared)
}

/// Like [`raw_batches`], of each partition up to an offset.
pub fn raw_up_to(left: &Side, right: &Side, ends: &BTreeMap<i32, i64>) -> Result<Compared> {
    let mut left_reader = RawReader::new(&left.bootstrap)?;
    let mut right_reader = RawReader::new(&right.bootstrap)?;
    let mut compared = Compared::default();
    for (partition, end) in ends {
        let range = (0, *end);
        let found = raw_range((left, &mut left_reader), (right, &mut right_reader), *partition, range)?;
        compared.partitions += 1;
        compared.batches += found.batches;
        compared.records += found.records;
    }
    Ok(compared)
}

/// Like [`raw_batches`], of one partition alone.
pub fn raw_partition(left: &Side, right: &Side, partition: i32) -> Result<Compared> {
    let mut left_reader = RawReader::new(&left.bootstrap)?;
    let mut right_reader = RawReader::new(&right.bootstrap)?;
    let range =
        (left_reader.log_start(&left.topic, partition)?, left_reader.log_end(&left.topic, partition)?);
    let right_range =
        (right_reader.log_start(&right.topic, partition)?, right_reader.log_end(&right.topic, partition)?);
    ensure!(
        range == right_range,
        "(first, next) offset of partition {partition}: {range:?} at {}, {right_range:?} at {}",
        left.name,
        right.name
    );
    raw_range((left, &mut left_reader), (right, &mut right_reader), partition, range)
}

fn raw_range(
    (left, left_reader): (&Side, &mut RawReader),
    (right, right_reader): (&Side, &mut RawReader),
    partition: i32,
    (start, end): (i64, i64),
) -> Result<Compared> {
    let mut compared = Compared { partitions: 1, ..Compared::default() };
    let mut ones = left_reader.batches(&left.topic, partition, start..end);
    let mut twos = right_reader.batches(&right.topic, partition, start..end);
    loop {
        match (ones.next().transpose()?, twos.next().transpose()?) {
            (None, None) => return Ok(compared),
            (Some(one), Some(two)) => {
                same_batch((left.name, right.name), &one, &two)
                    .with_context(|| first_difference(partition, one.base_offset))?;
                compared.batches += 1;
                compared.records += u64::try_from(one.record_count).context("a negative count")?;
            }
            (Some(batch), None) => return Err(only_one_has(left, partition, batch.base_offset)),
            (None, Some(batch)) => return Err(only_one_has(right, partition, batch.base_offset)),
        }
    }
}

/// Record by record, as any client sees them: offset, time, key, value, headers.
pub fn records(left: &Side, right: &Side) -> Result<Compared> {
    let left_consumer = Records::new(left)?;
    let right_consumer = Records::new(right)?;
    let partitions = left_consumer.partitions()?;
    ensure!(
        partitions == right_consumer.partitions()?,
        "{} has {} partitions, {} another number",
        left.name,
        partitions.len(),
        right.name
    );
    let mut compared = Compared { partitions: partitions.len(), ..Compared::default() };
    for partition in partitions {
        left_consumer.start(partition)?;
        right_consumer.start(partition)?;
        loop {
            match (left_consumer.next()?, right_consumer.next()?) {
                (None, None) => break,
                (Some(one), Some(two)) => {
                    same_record((left.name, &one), (right.name, &two))
                        .with_context(|| first_difference(partition, one.offset()))?;
                    compared.records += 1;
                }
                (Some(record), None) => return Err(only_one_has(left, partition, record.offset())),
                (None, Some(record)) => return Err(only_one_has(right, partition, record.offset())),
            }
        }
    }
    Ok(compared)
}

fn first_difference(partition: i32, offset: i64) -> String {
    format!("first difference in partition {partition} at offset {offset}")
}

fn only_one_has(side: &Side, partition: i32, offset: i64) -> anyhow::Error {
    anyhow::anyhow!("only {} has what is there", side.name).context(first_difference(partition, offset))
}

/// Producer id, epoch, sequence and partition leader epoch are the destination's own and differ.
fn same_batch((left, right): (&str, &str), one: &RawBatch, two: &RawBatch) -> Result<()> {
    let fields = |batch: &RawBatch| {
        [
            ("base offset", batch.base_offset),
            ("last offset", batch.last_offset()),
            ("record count", i64::from(batch.record_count)),
            ("attributes", i64::from(batch.attributes_but_transactional())),
            ("base timestamp", batch.base_timestamp_ms),
            ("max timestamp", batch.max_timestamp_ms),
            ("bytes of records", i64::try_from(batch.payload.len()).unwrap_or(i64::MAX)),
        ]
    };
    for ((field, one), (_, two)) in fields(one).into_iter().zip(fields(two)) {
        ensure!(one == two, "{field}: {one} at {left}, {two} at {right}");
    }
    if one.payload == two.payload {
        return Ok(());
    }
    // Only now, as it takes many times longer in an unoptimised build.
    let differing = one.payload.iter().zip(&two.payload).position(|(one, two)| one != two);
    match differing {
        None => Ok(()),
        Some(at) => bail!(
            "byte {at} of the records: {:#04x} at {left}, {:#04x} at {right}",
            one.payload[at],
            two.payload[at]
        ),
    }
}

fn same_record(left: (&str, &BorrowedMessage), right: (&str, &BorrowedMessage)) -> Result<()> {
    for ((field, one), (_, two)) in fields(left.1).into_iter().zip(fields(right.1)) {
        ensure!(one == two, "{field}: {one} at {}, {two} at {}", left.0, right.0);
    }
    let same = left.1.key() == right.1.key()
        && left.1.payload() == right.1.payload()
        && headers(left.1).eq(headers(right.1));
    ensure!(same, "equal up to the first {SHOWN_BYTES_MAX} bytes of key, value or a header, then not");
    Ok(())
}

/// A record's parts, cut short for messages; the full comparison follows.
fn fields(message: &BorrowedMessage) -> [(&'static str, String); 5] {
    let shown_headers: Vec<String> =
        headers(message).map(|(name, value)| format!("{name}={}", shown(value))).collect();
    [
        ("offset", message.offset().to_string()),
        ("timestamp", format!("{:?}", message.timestamp())),
        ("key", shown(message.key())),
        ("value", shown(message.payload())),
        ("headers", format!("[{}]", shown_headers.join(", "))),
    ]
}

fn headers<'a>(message: &'a BorrowedMessage) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    all.map(|header| (header.key, header.value))
}

fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let start = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    format!("{} bytes \"{}\"", bytes.len(), start.escape_ascii())
}

/// librdkafka reading one partition at a time from its beginning to its end.
struct Records {
    consumer: BaseConsumer,
    side: Side,
}

impl Records {
    fn new(side: &Side) -> Result<Records> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &side.bootstrap)
            // Needed by librdkafka, used for nothing: no group is joined, no offset committed.
            .set("group.id", "lockstep-tests-compare")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            .create()
            .with_context(|| format!("create a consumer for {}", side.name))?;
        Ok(Records { consumer, side: side.clone() })
    }

    fn partitions(&self) -> Result<Vec<i32>> {
        let topic = &self.side.topic;
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), CONSUMER_LIMIT)
            .with_context(|| format!("metadata of {topic} at {}", self.side.name))?;
        let found = metadata.topics().first().context("metadata without a topic")?;
        if let Some(error) = found.error() {
            bail!("metadata of {topic} at {}: {error:?}", self.side.name);
        }
        let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn start(&self, partition: i32) -> Result<()> {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.side.topic, partition, Offset::Beginning)
            .context("assign the beginning")?;
        self.consumer.assign(&assignment).with_context(|| format!("read partition {partition}"))
    }

    /// The next record, or nothing at the end of the partition.
    fn next(&self) -> Result<Option<BorrowedMessage<'_>>> {
        let deadline = Instant::now() + CONSUMER_LIMIT;
        while Instant::now() < deadline {
            match self.consumer.poll(CONSUMER_POLL) {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                // Connections that break and come back are librdkafka's to mend until the deadline.
                Some(Err(error)) => eprintln!("consumer at {}: {error}", self.side.name),
                None => {}
            }
        }
        bail!("{}: neither a record nor the end of the partition in {CONSUMER_LIMIT:?}", self.side.name)
    }
}

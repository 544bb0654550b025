//! Records of every shape a log can hold, written once for each codec with idempotence and
//! without; and a census that proves they are in a log, taken by the raw reader.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rdkafka::message::{Header, OwnedHeaders};

use crate::load::{LoadReport, Profile, Record, Sender, all_acknowledged, every_profile};
use crate::wire::{RawBatch, RawReader, RawRecord};

/// In 1971; a broker keeps no producer in mind for records this old.
pub const LONG_AGO_MS: i64 = 31_536_000_000 + 86_400_000;
/// In 2100: brokers refuse it unless the topic allows it.
pub const FAR_AHEAD_MS: i64 = 4_102_444_800_000 + 86_400_000;

/// Of the largest record. The batch around it is larger by less than [`LARGE_ROOM_BYTES`].
pub const LARGE_VALUE_BYTES: usize = 8 * 1024 * 1024;
pub const LARGE_ROOM_BYTES: usize = 64 * 1024;
/// Compressible, so that librdkafka doesn't fall back to sending the batch without its codec.
const LARGE_TAIL_BYTES: usize = LARGE_VALUE_BYTES / 16;

/// Tiny records handed over at once: they fall into few batches.
const CROWD: usize = 6_000;
/// Not a divisor of the number of times and headers, so that all of them occur.
const ALONE_EVERY: usize = 7;
const CROWDED_BATCH_RECORDS_MIN: i32 = 1_000;

const WIDEST_MS: &str = "9223372036854775807";
/// What a topic must allow so that every time fits.
pub const TOPIC_CONFIGS: [(&str, &str); 3] = [
    // Retention by time would delete the old records at both ends, each in its own time.
    ("retention.ms", "-1"),
    ("message.timestamp.before.max.ms", WIDEST_MS),
    ("message.timestamp.after.max.ms", WIDEST_MS),
];

/// Room for the largest batch, for a topic (`max.message.bytes`) or a broker (`message.max.bytes`).
pub fn batch_bytes_max() -> String {
    (LARGE_VALUE_BYTES + LARGE_ROOM_BYTES).to_string()
}

/// Writes every shape to `partitions`, all profiles side by side, and returns how many records that
/// were.
pub fn write_every_shape(bootstrap: &str, topic: &str, partitions: Range<i32>, seed: u64) -> Result<u64> {
    let report: Arc<Mutex<LoadReport>> = Arc::default();
    let large_go_to = partitions.clone().cycle();
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (profile, large_to) in every_profile().into_iter().zip(large_go_to) {
            let (report, partitions) = (report.clone(), partitions.clone());
            writers.push(scope.spawn(move || {
                let sender = Sender::new(bootstrap, topic, profile, report.clone())?;
                write_together(&sender, partitions, large_to, seed)?;
                let alone = Profile { batch_records_max: 1, ..profile };
                write_alone(&Sender::new(bootstrap, topic, alone, report)?, large_to)
            }));
        }
        for writer in writers {
            writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(all_acknowledged(&report)?.total())
}

/// Every small record in each partition, and the large one and a crowd of tiny ones in one of them.
fn write_together(sender: &Sender, partitions: Range<i32>, large_to: i32, seed: u64) -> Result<()> {
    for partition in partitions {
        for record in small_records() {
            sender.send(partition, &record)?;
        }
    }
    sender.send(large_to, &large_record(seed))?;
    // So that the crowd doesn't share a batch with what came before.
    sender.flush()?;
    for _ in 0..CROWD {
        sender.send(large_to, &Record { value: Some(b"tick".to_vec()), ..Record::default() })?;
    }
    sender.flush()
}

/// Each record in a batch of its own.
fn write_alone(sender: &Sender, partition: i32) -> Result<()> {
    for record in small_records().iter().step_by(ALONE_EVERY) {
        sender.send(partition, record)?;
    }
    sender.flush()
}

/// Null, empty, one byte and more in every place, at two times far apart and now.
fn small_records() -> Vec<Record> {
    let texts = [None, Some(Vec::new()), Some(vec![7]), Some(b"lockstep".repeat(40))];
    let mut records = Vec::new();
    for key in &texts {
        for value in &texts {
            for timestamp_ms in [None, Some(LONG_AGO_MS), Some(FAR_AHEAD_MS)] {
                for headers in [None, Some(headers())] {
                    records.push(Record { key: key.clone(), value: value.clone(), headers, timestamp_ms });
                }
            }
        }
    }
    records
}

/// One name twice, as Kafka allows; a null, an empty and a plain value.
fn headers() -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "trace", value: None::<&[u8]> })
        .insert(Header { key: "trace", value: Some(&b""[..]) })
        .insert(Header { key: "überschrift", value: Some(&b"7"[..]) })
}

fn large_record(seed: u64) -> Record {
    let mut value = vec![0; LARGE_VALUE_BYTES];
    StdRng::seed_from_u64(seed).fill_bytes(&mut value[..LARGE_VALUE_BYTES - LARGE_TAIL_BYTES]);
    Record { key: Some(b"large".to_vec()), value: Some(value), ..Record::default() }
}

/// What was found in a topic, by reading every record of it.
#[derive(Clone, Debug, Default)]
pub struct Census {
    pub empty_partitions: u32,
    /// Numbers of codecs, by idempotence.
    pub codecs_plain: BTreeSet<i16>,
    pub codecs_idempotent: BTreeSet<i16>,
    /// Codecs of batches with a large record.
    pub codecs_large: BTreeSet<i16>,
    pub batches_of_one: u64,
    pub records_in_a_batch_max: i32,
    pub null_keys: u64,
    pub null_values: u64,
    pub empty_values: u64,
    pub values_of_one_byte: u64,
    pub with_headers: u64,
    pub long_ago: u64,
    pub far_ahead: u64,
}

impl Census {
    pub fn take(bootstrap: &str, topic: &str) -> Result<Census> {
        let mut census = Census::default();
        let mut reader = RawReader::new(bootstrap)?;
        for (partition, (start, end)) in reader.ends(topic)? {
            census.empty_partitions += u32::from(start == end);
            for batch in reader.batches(topic, partition, start..end) {
                census.add(&batch?)?;
            }
        }
        Ok(census)
    }

    fn add(&mut self, batch: &RawBatch) -> Result<()> {
        let codecs = if batch.producer_id < 0 { &mut self.codecs_plain } else { &mut self.codecs_idempotent };
        codecs.insert(batch.codec());
        self.batches_of_one += u64::from(batch.record_count == 1);
        self.records_in_a_batch_max = self.records_in_a_batch_max.max(batch.record_count);
        for record in batch.records()? {
            self.add_record(&record, batch.codec());
        }
        Ok(())
    }

    fn add_record(&mut self, record: &RawRecord, codec: i16) {
        let value_bytes = record.value.as_ref().map(Vec::len);
        self.null_keys += u64::from(record.key.is_none());
        self.null_values += u64::from(value_bytes.is_none());
        self.empty_values += u64::from(value_bytes == Some(0));
        self.values_of_one_byte += u64::from(value_bytes == Some(1));
        self.with_headers += u64::from(!record.headers.is_empty());
        self.long_ago += u64::from(record.timestamp_ms == LONG_AGO_MS);
        self.far_ahead += u64::from(record.timestamp_ms == FAR_AHEAD_MS);
        if value_bytes.is_some_and(|bytes| bytes >= LARGE_VALUE_BYTES) {
            self.codecs_large.insert(codec);
        }
    }

    /// A topic that lacks a shape would prove nothing of it.
    pub fn check_every_shape(&self) -> Result<()> {
        let all: BTreeSet<i16> = (0..5).collect();
        for codecs in [&self.codecs_plain, &self.codecs_idempotent, &self.codecs_large] {
            ensure!(*codecs == all, "not every codec in {self:#?}");
        }
        ensure!(self.records_in_a_batch_max >= CROWDED_BATCH_RECORDS_MIN, "no large batch in {self:#?}");
        let found = [
            self.batches_of_one,
            self.null_keys,
            self.null_values,
            self.empty_values,
            self.values_of_one_byte,
            self.with_headers,
            self.long_ago,
            self.far_ahead,
        ];
        ensure!(found.iter().all(|count| *count > 0), "a shape is missing in {self:#?}");
        Ok(())
    }
}

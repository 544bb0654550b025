//! `raw-path load`: fills a topic with batches of exactly one shape, which no client library does,
//! and prints one line of JSON that says how much that was.

use std::io::IoSlice;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::json;

use crate::append::write_all;
use crate::batch::{HEADER_BYTES, plain, record};
use crate::wire::{Connection, parse_produce, partition_head, read_frame};

const VALUE_BYTES: usize = 1024;
/// Enough that no cache sees the same bytes soon again, few enough to be made in no time.
const TEMPLATES: usize = 16;
pub const IN_FLIGHT_MAX: usize = 5;
const CODEC_NONE: i16 = 0;
const CODEC_ZSTD: i16 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Incompressible records of 1 KiB in batches of 256 KiB
    Large,
    /// The same records in batches of 16 KiB
    Small,
    /// JSON documents of about 1 KiB, 256 KiB of them in a batch, compressed by zstd
    Json,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// HOST:PORT of the only broker
    #[arg(long)]
    broker: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    #[arg(long, value_enum)]
    shape: Shape,
    /// At least this much, before compression
    #[arg(long)]
    bytes: u64,
    #[arg(long)]
    seed: u64,
}

/// A batch to be sent again and again.
pub struct Template {
    pub batch: Vec<u8>,
    records: u64,
    /// With its header, before compression.
    raw_bytes: u64,
}

#[derive(Default)]
struct Written {
    records: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Shape {
    /// Of a whole batch before compression.
    fn batch_bytes_max(self) -> usize {
        match self {
            Shape::Large | Shape::Json => 256 * 1024,
            Shape::Small => 16 * 1024,
        }
    }

    fn value(self, rng: &mut StdRng) -> Vec<u8> {
        match self {
            Shape::Large | Shape::Small => {
                let mut value = vec![0; VALUE_BYTES];
                rng.fill_bytes(&mut value);
                value
            }
            Shape::Json => document(rng),
        }
    }

    pub fn template(self, rng: &mut StdRng, timestamp_ms: i64) -> Result<Template> {
        let (mut records, mut count) = (Vec::new(), 0);
        loop {
            let next = record(&self.value(rng), i64::from(count));
            if HEADER_BYTES + records.len() + next.len() > self.batch_bytes_max() {
                break;
            }
            records.extend(next);
            count += 1;
        }
        let raw_bytes = (HEADER_BYTES + records.len()) as u64;
        let (codec, payload) = match self {
            Shape::Large | Shape::Small => (CODEC_NONE, records),
            Shape::Json => (CODEC_ZSTD, zstd::encode_all(&records[..], 0).context("compress")?),
        };
        let batch = plain(&payload, count, codec, timestamp_ms);
        Ok(Template { batch, records: u64::from(count.unsigned_abs()), raw_bytes })
    }
}

/// An event as services write it: names repeat, ids and numbers don't.
fn document(rng: &mut StdRng) -> Vec<u8> {
    const KINDS: [&str; 4] = ["order.created", "order.paid", "order.shipped", "order.returned"];
    const CITIES: [&str; 6] = ["Lisbon", "Osaka", "Nairobi", "Toronto", "Leipzig", "Montevideo"];
    const THINGS: [&str; 8] =
        ["shirt", "lamp", "bicycle pump", "teapot", "notebook", "scarf", "kettle", "chair"];
    const KINDS_OF: [&str; 8] =
        ["cotton", "steel", "small", "foldable", "blue", "hand made", "used", "large"];
    let mut item = || {
        json!({
            "sku": format!("{:010x}", rng.random_range(0..1u64 << 40)),
            "name": format!("{} {}", KINDS_OF[rng.random_range(0..8)], THINGS[rng.random_range(0..8)]),
            "quantity": rng.random_range(1..10),
            "price_cents": rng.random_range(100..100_000),
            "warehouse": format!("{:04}", rng.random_range(0..10_000)),
            "lot": format!("{:012x}", rng.random_range(0..1u64 << 48)),
        })
    };
    let items: Vec<_> = (0..6).map(|_| item()).collect();
    let document = json!({
        "event": KINDS[rng.random_range(0..KINDS.len())],
        "id": format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()),
        "customer": { "id": rng.random_range(0..50_000_000u32), "city": CITIES[rng.random_range(0..CITIES.len())] },
        "created_at_ms": 1_764_000_000_000u64 + rng.random_range(0..86_400_000),
        "items": items,
        "client": { "app": "shop-android", "version": format!("7.{}.{}", rng.random_range(0..30), rng.random_range(0..10)) },
        "trace": format!("{:016x}", rng.next_u64()),
    });
    document.to_string().into_bytes()
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let timestamp_ms = now_ms()?;
    let templates: Vec<Template> =
        (0..TEMPLATES).map(|_| arguments.shape.template(&mut rng, timestamp_ms)).collect::<Result<_>>()?;
    let mut connection = Connection::open(&arguments.broker)?;
    connection.log_ends(&arguments.topic, arguments.partitions)?;
    let (mut written, mut in_flight, mut number) = (Written::default(), 0, 0);
    while written.raw_bytes < arguments.bytes {
        if in_flight == IN_FLIGHT_MAX {
            settle(&mut connection, &arguments.topic)?;
            in_flight -= 1;
        }
        // One batch for every partition a request: brokers take no more.
        let chosen: Vec<&Template> = (0..arguments.partitions as usize)
            .map(|partition| &templates[(number + partition) % TEMPLATES])
            .collect();
        send(&mut connection, &arguments.topic, &chosen)?;
        for template in chosen {
            written.records += template.records;
            written.raw_bytes += template.raw_bytes;
            written.stored_bytes += template.batch.len() as u64;
        }
        in_flight += 1;
        number += 1;
    }
    for _ in 0..in_flight {
        settle(&mut connection, &arguments.topic)?;
    }
    let Written { records, raw_bytes, stored_bytes } = written;
    println!("{}", json!({ "records": records, "raw_bytes": raw_bytes, "stored_bytes": stored_bytes }));
    Ok(())
}

fn send(connection: &mut Connection, topic: &str, chosen: &[&Template]) -> Result<()> {
    let bytes = chosen.iter().map(|template| template.batch.len()).sum();
    let head = connection.produce_head(topic, chosen.len(), bytes);
    let heads: Vec<_> = (0..)
        .zip(chosen)
        .map(|(partition, template)| partition_head(partition, template.batch.len()))
        .collect();
    let mut slices = vec![IoSlice::new(&head)];
    for (head, template) in heads.iter().zip(chosen) {
        slices.push(IoSlice::new(head));
        slices.push(IoSlice::new(&template.batch));
    }
    write_all(&mut connection.stream, &mut slices).context("send a produce request")
}

/// Takes the oldest answer.
fn settle(connection: &mut Connection, topic: &str) -> Result<()> {
    let mut answer = Vec::new();
    read_frame(&mut connection.stream, &mut answer).context("receive a produce answer")?;
    for appended in parse_produce(&answer, topic) {
        let (partition, code) = (appended.partition, appended.error);
        ensure!(code == 0, "{topic}-{partition}: Produce answers error {code}");
    }
    Ok(())
}

pub fn now_ms() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
    i64::try_from(now.as_millis()).context("a clock beyond all time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(shape: Shape) -> Template {
        shape.template(&mut StdRng::seed_from_u64(1), 0).unwrap()
    }

    #[test]
    fn batches_have_the_size_they_are_named_after() {
        for (shape, records, kib) in [(Shape::Large, 253, 256), (Shape::Small, 15, 16)] {
            let template = template(shape);
            assert_eq!(template.records, records);
            assert_eq!(template.batch.len() as u64, template.raw_bytes);
            let missing = kib * 1024 - template.batch.len();
            assert!(missing < VALUE_BYTES + 16, "{missing} bytes missing");
        }
    }

    #[test]
    fn json_compresses_as_real_events_do() {
        let template = template(Shape::Json);
        let ratio = template.raw_bytes as f64 / template.batch.len() as f64;
        assert!((3.5..6.0).contains(&ratio), "compressed {ratio} times");
        assert!((200..400).contains(&template.records), "{} records", template.records);
    }
}

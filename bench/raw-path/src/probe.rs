//! `raw-path probe`: how long a record takes through a mirror at rest, whoever mirrors. Writes one
//! record after the other at the source, watches the destination, and prints one line of JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use crate::batch;
use crate::load::now_ms;
use crate::wire::{
    Connection, FetchLimits, PRODUCE_KEY, PRODUCE_VERSION, i16_at, i64_at, parse_fetch, partition_head,
    produce_body, read_frame,
};

const VALUE_BYTES: usize = 1024;
/// From the last record sent to the last one seen.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const LIMITS: FetchLimits = FetchLimits { bytes_max: 50 << 20, partition_bytes_max: 8 << 20 };

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// HOST:PORT of the source's only broker
    #[arg(long)]
    source: String,
    /// HOST:PORT of the destination's only broker
    #[arg(long)]
    destination: String,
    #[arg(long)]
    topic: String,
    /// The topic at the destination, when it has another name; it must have caught up
    #[arg(long)]
    destination_topic: Option<String>,
    #[arg(long)]
    partitions: i32,
    #[arg(long)]
    records: usize,
    /// Pause between two records
    #[arg(long)]
    gap_ms: u64,
}

type Place = (i32, i64);

struct Sent {
    at: Instant,
    acknowledged: Instant,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let topic = &arguments.topic;
    let destination_topic = arguments.destination_topic.clone().unwrap_or_else(|| topic.clone());
    let mut source = Connection::open(&arguments.source)?;
    let mut destination = Connection::open(&arguments.destination)?;
    let ends = destination.log_ends(&destination_topic, arguments.partitions)?;
    let source_ends = source.log_ends(topic, arguments.partitions)?;
    ensure!(ends == source_ends, "not caught up: source {source_ends:?}, destination {ends:?}");

    let wanted = arguments.records;
    let sending_takes = Duration::from_millis(arguments.gap_ms) * u32::try_from(wanted)?;
    let deadline = Instant::now() + 2 * sending_takes + SILENCE_LIMIT;
    let watcher = std::thread::spawn(move || watch(destination, &destination_topic, ends, wanted, deadline));
    let mut sent = BTreeMap::new();
    for number in 0..wanted {
        std::thread::sleep(Duration::from_millis(arguments.gap_ms));
        let partition = (number % arguments.partitions as usize) as i32;
        let (place, times) = send(&mut source, topic, partition, number)?;
        sent.insert(place, times);
    }
    let seen = watcher.join().map_err(|_| anyhow!("the watching thread panicked"))??;
    println!("{}", report(&sent, &seen)?);
    Ok(())
}

/// Writes one record and waits for its acknowledgement.
fn send(source: &mut Connection, topic: &str, partition: i32, number: usize) -> Result<(Place, Sent)> {
    let value = [b'a' + (number % 26) as u8; VALUE_BYTES];
    let batch = batch::plain(&batch::record(&value, 0), 1, 0, now_ms()?);
    let mut body = produce_body(topic, 1);
    body.extend(partition_head(partition, batch.len()));
    body.extend(batch);
    let at = Instant::now();
    let answer = source.call(PRODUCE_KEY, PRODUCE_VERSION, &body).context("Produce")?;
    let acknowledged = Instant::now();
    let start = 4 + 4 + 2 + topic.len() + 4;
    let code = i16_at(&answer, start + 4);
    ensure!(code == 0, "{topic}-{partition}: Produce answers error {code}");
    Ok(((partition, i64_at(&answer, start + 6)), Sent { at, acknowledged }))
}

/// Fetches from `ends` on until `wanted` records were seen; when each of them was.
fn watch(
    mut destination: Connection,
    topic: &str,
    mut ends: Vec<i64>,
    wanted: usize,
    deadline: Instant,
) -> Result<BTreeMap<Place, Instant>> {
    let mut seen = BTreeMap::new();
    let mut answer = Vec::new();
    while seen.len() < wanted {
        ensure!(Instant::now() < deadline, "{} of {wanted} records seen before the time was up", seen.len());
        let positions: Vec<Place> = (0..).zip(ends.iter().copied()).collect();
        destination.send_fetch(topic, &positions, LIMITS)?;
        let length = read_frame(&mut destination.stream, &mut answer).context("receive a fetch")?;
        let now = Instant::now();
        for share in parse_fetch(&answer[..length])? {
            let end = &mut ends[share.partition as usize];
            for found in batch::find(&answer, share.range, 0, i64::MIN) {
                for offset in (*end).max(found.base_offset)..found.next_offset {
                    seen.insert((share.partition, offset), now);
                }
                *end = (*end).max(found.next_offset);
            }
        }
    }
    Ok(seen)
}

/// Times in milliseconds, a list each, in the order of the records' places.
fn report(sent: &BTreeMap<Place, Sent>, seen: &BTreeMap<Place, Instant>) -> Result<serde_json::Value> {
    let (mut acknowledged_ms, mut mirrored_ms) = (Vec::new(), Vec::new());
    for (place, times) in sent {
        let seen = *seen.get(place).with_context(|| format!("the record at {place:?} was not seen"))?;
        acknowledged_ms.push(milliseconds(times.at, times.acknowledged));
        mirrored_ms.push(milliseconds(times.acknowledged, seen));
    }
    Ok(json!({ "produce_to_ack_ms": acknowledged_ms, "ack_to_visible_ms": mirrored_ms }))
}

/// Negative when a mirror is faster than the acknowledgement's way back.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(time) => time.as_secs_f64() * 1e3,
        None => -from.duration_since(to).as_secs_f64() * 1e3,
    }
}

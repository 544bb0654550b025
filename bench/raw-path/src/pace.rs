//! `raw-path pace`: a producer that sends when a batch is due, whether or not answers have come, so that a broker
//! that stands still is seen by every batch of that time. Latency counts from when a batch was due to its
//! acknowledgement. Prints a line of JSON a second, and one of the whole time.

use std::io::IoSlice;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::append::write_all;
use crate::load::{IN_FLIGHT_MAX, Shape, now_ms};
use crate::wire::{Connection, parse_produce, partition_head, read_frame};

/// What stands still for longer makes the producer wait; its batches are due all the same.
const IN_FLIGHT_MAX_PACED: usize = 100_000;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// HOST:PORT of the only broker
    #[arg(long)]
    broker: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    /// In batches of 16 KiB at even times; without it as much as is taken, a few requests under way
    #[arg(long, value_parser = clap::value_parser!(u64).range(100_000..))]
    bytes_per_second: Option<u64>,
    /// Its seconds are printed with negative numbers and left out of the whole
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    warm_up_seconds: u64,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    #[arg(long)]
    seed: u64,
}

/// Of some batches, in no order.
#[derive(Default)]
struct Latencies(Vec<Duration>);

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let batch = Shape::Small.template(&mut rng, now_ms()?)?.batch;
    let mut connection = Connection::open(&arguments.broker)?;
    connection.log_ends(&arguments.topic, arguments.partitions)?;
    let answers = connection.stream.try_clone().context("share the connection")?;
    let in_flight_max = arguments.bytes_per_second.map_or(IN_FLIGHT_MAX, |_| IN_FLIGHT_MAX_PACED);
    // The thread that takes answers holds one more.
    let (under_way, due) = sync_channel(in_flight_max - 1);
    let start = Instant::now();
    let begin = start + Duration::from_secs(arguments.warm_up_seconds);
    let (topic, batch_bytes) = (arguments.topic.clone(), batch.len());
    let measuring = std::thread::spawn(move || measure(answers, &topic, &due, begin, batch_bytes));
    let sent = send_all(arguments, connection, &batch, start, under_way);
    // Why there are no answers any more tells more than that they are missed.
    measuring.join().map_err(|_| anyhow!("the measuring thread panicked"))??;
    sent
}

fn send_all(
    arguments: &Arguments,
    mut connection: Connection,
    batch: &[u8],
    start: Instant,
    under_way: SyncSender<Instant>,
) -> Result<()> {
    let end = start + Duration::from_secs(arguments.warm_up_seconds + arguments.seconds);
    for number in 0.. {
        let due = match arguments.bytes_per_second {
            Some(rate) => due(start, number, batch.len(), rate),
            None => Instant::now(),
        };
        if due >= end {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        under_way.send(due).context("nobody takes answers any more")?;
        let partition = (number % arguments.partitions.unsigned_abs()).cast_signed();
        send(&mut connection, &arguments.topic, partition, batch)?;
    }
    Ok(())
}

/// Counted from the start, so that no pause adds up.
fn due(start: Instant, number: u32, batch_bytes: usize, bytes_per_second: u64) -> Instant {
    start + Duration::from_secs_f64(f64::from(number) * batch_bytes as f64 / bytes_per_second as f64)
}

fn send(connection: &mut Connection, topic: &str, partition: i32, batch: &[u8]) -> Result<()> {
    let head = connection.produce_head(topic, 1, batch.len());
    let partition_head = partition_head(partition, batch.len());
    let mut slices = [&head, &partition_head[..], batch].map(IoSlice::new);
    write_all(&mut connection.stream, &mut slices).context("send a produce request")
}

/// Takes an answer for each batch that was due, and prints what came of each second.
fn measure(
    mut answers: TcpStream,
    topic: &str,
    due: &Receiver<Instant>,
    begin: Instant,
    batch_bytes: usize,
) -> Result<()> {
    let (mut whole, mut second) = (Latencies::default(), Latencies::default());
    let (mut number, mut answer) = (None, Vec::new());
    for due in due {
        let length = read_frame(&mut answers, &mut answer).context("receive a produce answer")?;
        let latency = due.elapsed();
        for appended in parse_produce(&answer[..length], topic) {
            let (partition, code) = (appended.partition, appended.error);
            ensure!(code == 0, "{topic}-{partition}: Produce answers error {code}");
        }
        let of = second_of(due, begin);
        if let Some(before) = number.replace(of).filter(|before| *before != of) {
            println!("{}", std::mem::take(&mut second).of_second(before));
        }
        second.0.push(latency);
        if of >= 0 {
            whole.0.push(latency);
        }
    }
    println!("{}", second.of_second(number.context("no batch was sent")?));
    println!("{}", whole.of_all(batch_bytes));
    Ok(())
}

/// Since the warm-up's end.
fn second_of(due: Instant, begin: Instant) -> i64 {
    let after = due.saturating_duration_since(begin).as_nanos().cast_signed();
    let before = begin.saturating_duration_since(due).as_nanos().cast_signed();
    (after - before).div_euclid(NANOS_PER_SECOND) as i64
}

impl Latencies {
    fn of_second(mut self, second: i64) -> Value {
        self.0.sort_unstable();
        json!({
            "second": second,
            "batches": self.0.len(),
            "p50_ms": self.percentile_ms(50.0),
            "p99_ms": self.percentile_ms(99.0),
            "max_ms": self.percentile_ms(100.0),
        })
    }

    fn of_all(mut self, batch_bytes: usize) -> Value {
        self.0.sort_unstable();
        json!({
            "batches": self.0.len(),
            "bytes": self.0.len() * batch_bytes,
            "p50_ms": self.percentile_ms(50.0),
            "p99_ms": self.percentile_ms(99.0),
            "p999_ms": self.percentile_ms(99.9),
            "max_ms": self.percentile_ms(100.0),
        })
    }

    /// The smallest that at least `percent` of all don't exceed, once sorted. None of nothing.
    fn percentile_ms(&self, percent: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
        self.0.get(rank - 1).map(|latency| latency.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_due_at_even_times_whatever_came_before() {
        let start = Instant::now();
        let at = |number| due(start, number, 16_000, 1_600_000).duration_since(start);
        assert_eq!((at(0), at(1), at(250)), (Duration::ZERO, ms(10), ms(2_500)));
    }

    #[test]
    fn the_warm_up_has_negative_seconds() {
        let start = Instant::now();
        let of = |at: u64| second_of(start + ms(at), start + ms(2_000));
        assert_eq!([0, 999, 1_000, 1_999, 2_000, 2_999, 3_000].map(of), [-2, -2, -1, -1, 0, 0, 1]);
    }

    #[test]
    fn percentiles_are_latencies_that_were_measured() {
        let told = Latencies((1..=1_000).rev().map(ms).collect()).of_all(16);
        let expected = json!({
            "batches": 1_000, "bytes": 16_000, "p50_ms": 500.0, "p99_ms": 990.0, "p999_ms": 999.0, "max_ms": 1_000.0,
        });
        assert_eq!(told, expected);
        assert_eq!(Latencies::default().of_second(3)["p99_ms"], Value::Null);
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}

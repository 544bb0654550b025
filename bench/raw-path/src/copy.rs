//! `raw-path copy`: partitions in groups; each group has one connection to the source, one to the
//! destination, and a window that bounds the bytes between them.

use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use crate::append::{Appending, Event};
use crate::fetch::Fetching;
use crate::wire::{Connection, FetchLimits, Producer};

const MIB: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Batches stay as they are, under an idempotent producer's header
    Idem,
    /// Small neighbours are joined
    Coalesce,
}

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
    /// The topic at the destination, when it has another name
    #[arg(long)]
    destination_topic: Option<String>,
    #[arg(long)]
    partitions: i32,
    #[arg(long, value_enum, default_value = "idem")]
    mode: Mode,
    /// Stay at the log's end and copy what comes, until killed
    #[arg(long)]
    follow: bool,
    /// Partitions that share connections and threads
    #[arg(long, default_value_t = 16)]
    group_partitions: usize,
    /// Of a whole answer; with the next one's, the best of several tried
    #[arg(long, default_value_t = 16 * MIB as i32)]
    fetch_bytes_max: i32,
    /// Of one partition in an answer
    #[arg(long, default_value_t = 2 * MIB as i32)]
    partition_bytes_max: i32,
    /// Bytes of a group between fetch and acknowledgement, beyond which it doesn't fetch
    #[arg(long, default_value_t = 64 * MIB)]
    window_bytes: usize,
    /// Of a joined batch; below a broker's default of 1 MiB
    #[arg(long, default_value_t = 1_000_000)]
    batch_bytes_max: usize,
    /// Produce requests of a group under way
    #[arg(long, default_value_t = 5)]
    in_flight_max: usize,
}

/// What every thread of a copy knows.
pub struct Settings {
    pub source: String,
    pub destination: String,
    pub source_topic: String,
    pub destination_topic: String,
    pub mode: Mode,
    pub follow: bool,
    pub limits: FetchLimits,
    pub batch_bytes_max: usize,
    pub in_flight_max: usize,
    pub producer: Producer,
}

/// One partition's way.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    pub partition: i32,
    pub from: i64,
    pub end: i64,
}

#[derive(Default)]
pub struct Totals {
    pub bytes: u64,
    pub batches: u64,
    pub produce_requests: u64,
    pub fetches: u64,
}

/// Bytes between fetch and acknowledgement.
pub struct Window {
    used_bytes: Mutex<usize>,
    freed: Condvar,
    limit_bytes: usize,
}

impl Window {
    fn new(limit_bytes: usize) -> Window {
        Window { used_bytes: Mutex::default(), freed: Condvar::new(), limit_bytes }
    }

    /// Waits until the window is within its limit, then adds `bytes`: one answer may go over it.
    pub fn take(&self, bytes: usize) {
        let used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut usize| *used > self.limit_bytes;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
    }

    /// Joining changed what a part of an answer takes.
    pub fn resize(&self, before: usize, after: usize) {
        let mut used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *used = *used + after - before;
    }

    pub fn give_back(&self, bytes: usize) {
        *self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.freed.notify_one();
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut source = Connection::open(&arguments.source)?;
    let mut destination = Connection::open(&arguments.destination)?;
    let destination_topic = arguments.destination_topic.clone().unwrap_or_else(|| arguments.topic.clone());
    let ends = source.log_ends(&arguments.topic, arguments.partitions)?;
    let from = destination.log_ends(&destination_topic, arguments.partitions)?;
    let settings = Arc::new(Settings {
        source: arguments.source.clone(),
        destination: arguments.destination.clone(),
        source_topic: arguments.topic.clone(),
        destination_topic,
        mode: arguments.mode,
        follow: arguments.follow,
        limits: FetchLimits {
            bytes_max: arguments.fetch_bytes_max,
            partition_bytes_max: arguments.partition_bytes_max,
        },
        batch_bytes_max: arguments.batch_bytes_max,
        in_flight_max: arguments.in_flight_max,
        producer: destination.init_producer()?,
    });
    let lanes: Vec<Lane> = (0..arguments.partitions)
        .zip(from.into_iter().zip(ends))
        .map(|(partition, (from, end))| Lane { partition, from, end })
        .collect();
    let started = Instant::now();
    let mut groups = Vec::new();
    for lanes in lanes.chunks(arguments.group_partitions.max(1)) {
        let (settings, lanes, window_bytes) = (settings.clone(), lanes.to_vec(), arguments.window_bytes);
        groups.push(std::thread::spawn(move || copy_group(&settings, lanes, window_bytes)));
    }
    let mut totals = Totals::default();
    for group in groups {
        let of_group = group.join().map_err(|_| anyhow!("a group's thread panicked"))??;
        totals.bytes += of_group.bytes;
        totals.batches += of_group.batches;
        totals.produce_requests += of_group.produce_requests;
        totals.fetches += of_group.fetches;
    }
    println!("{}", summary(&totals, started.elapsed().as_secs_f64()));
    Ok(())
}

fn copy_group(settings: &Arc<Settings>, lanes: Vec<Lane>, window_bytes: usize) -> Result<Totals> {
    let (events, inbox) = channel();
    let window = Arc::new(Window::new(window_bytes));
    let fetching = Fetching::open(settings.clone(), lanes.clone(), window.clone(), events.clone())?;
    let failed = events.clone();
    let fetcher = std::thread::spawn(move || {
        fetching.run().inspect_err(|error| {
            // When the appending loop has ended nobody needs to know.
            let _ = failed.send(Event::Failed(anyhow!("{error:#}")));
        })
    });
    let mut totals = Appending::open(settings.clone(), lanes, window)?.run(events, &inbox)?;
    totals.fetches = fetcher.join().map_err(|_| anyhow!("the fetching thread panicked"))??;
    Ok(totals)
}

fn summary(totals: &Totals, seconds: f64) -> String {
    let megabytes = totals.bytes as f64 / 1e6;
    format!(
        "{megabytes:.0} MB in {seconds:.2} s, {:.1} MB/s; {} batches in {} produce requests, {} fetches",
        megabytes / seconds,
        totals.batches,
        totals.produce_requests,
        totals.fetches
    )
}

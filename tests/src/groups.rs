//! Consumer groups, through librdkafka: where they stand, put there by hand, and members that consume.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Positions by partition; a partition without one is left out.
pub type Positions = BTreeMap<i32, i64>;

/// Puts a group without members somewhere.
pub fn put(bootstrap: &str, group: &str, topic: &str, positions: &[(i32, i64)]) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in positions {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).context("an offset")?;
    }
    let consumer = consumer(bootstrap, group, &[])?;
    consumer.commit(&list, CommitMode::Sync).with_context(|| format!("commit {positions:?} for {group}"))
}

pub fn positions(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Result<Positions> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let found = consumer(bootstrap, group, &[])?
        .committed_offsets(list, LIMIT)
        .with_context(|| format!("where {group} stands"))?;
    let position = |(partition, offset)| match offset {
        Offset::Offset(offset) => Some((partition, offset)),
        _ => None,
    };
    let all = found.elements().into_iter().map(|element| (element.partition(), element.offset()));
    Ok(all.filter_map(position).collect())
}

/// A member of a group: it has partitions from when it is made until it leaves, and commits nothing.
pub struct Member {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<BTreeMap<i32, i64>>>,
}

impl Member {
    /// Returns once it has partitions. `configs`: such as `group.protocol`.
    pub fn join(bootstrap: &str, group: &str, topic: &str, configs: &[(&str, &str)]) -> Result<Self> {
        let consumer = consumer(bootstrap, group, configs)?;
        consumer.subscribe(&[topic]).context("subscribe")?;
        let mut first = BTreeMap::new();
        let begun = Instant::now();
        while consumer.assignment().context("assignment")?.count() == 0 {
            ensure!(begun.elapsed() < LIMIT, "a member of {group} has no partitions after {LIMIT:?}");
            read(&consumer, &mut first)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                read(&consumer, &mut first)?;
            }
            Ok(first)
        });
        Ok(Self { stop, thread })
    }

    /// The first offset that it read of each partition.
    pub fn leave(self) -> Result<BTreeMap<i32, i64>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(read) => read,
            Err(_) => bail!("a member's thread panicked"),
        }
    }
}

fn read(consumer: &BaseConsumer, first: &mut BTreeMap<i32, i64>) -> Result<()> {
    if let Some(message) = consumer.poll(POLL) {
        let message = message.context("consume")?;
        first.entry(message.partition()).or_insert(message.offset());
    }
    Ok(())
}

fn consumer(bootstrap: &str, group: &str, configs: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    for (key, value) in configs {
        config.set(*key, *value);
    }
    config.create().context("create a consumer")
}

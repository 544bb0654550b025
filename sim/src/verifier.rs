//! The verifier: a client that, when all has come to rest, reads both clusters' logs over the wire from
//! end to end. What it read is compared record by record, and with what producers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::stop::StoppedPartition;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, MetadataRequest};

use crate::batches::Stored;
use crate::clusters::Side;
use crate::history::Key;
use crate::mirrors::Mirrors;
use crate::oracle::Oracle;
use crate::stops::Stopped;
use crate::struck::Struck;
use crate::wire::{Wire, topic_name};

pub const HOST: &str = "verifier";

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const READ_BYTES_MAX: i32 = 1 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One partition's log as it was read.
#[derive(Clone, Debug, Default)]
struct Read {
    start: i64,
    end: i64,
    /// By offset, what is at or above the log start.
    records: BTreeMap<i64, u64>,
}

type Logs = BTreeMap<Key, Read>;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Verifier(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_asked: bool,
    /// The source's logs and the destination's.
    read: Option<Result<(Logs, Logs), String>>,
}

impl Verifier {
    /// Its host.
    pub async fn run(self) -> turmoil::Result {
        while !self.state().is_asked {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let read = async {
            let source = read_all(Side::Source).await?;
            Ok::<_, io::Error>((source, read_all(Side::Destination).await?))
        };
        let read = read.await.map_err(|error| error.to_string());
        tracing::info!("verifier: has read both clusters");
        self.state().read = Some(read);
        std::future::pending().await
    }

    /// To read everything now.
    pub fn ask(&self) {
        self.state().is_asked = true;
    }

    /// It was asked to, and hasn't yet.
    pub fn is_reading(&self) -> bool {
        let state = self.state();
        state.is_asked && state.read.is_none()
    }

    pub fn has_read(&self) -> bool {
        self.state().read.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares each of these mirror partitions with its source and with the oracle. Returns how many
    /// records were compared.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn compare(
        &self,
        wanted: &[Key],
        mirrors: &Mirrors,
        oracle: &Oracle,
        struck: &Struck,
    ) -> Result<usize, String> {
        let state = self.state();
        let (sources, destinations) = state.read.as_ref().ok_or("the verifier hasn't read yet")?.as_ref()?;
        let mut compared = 0;
        for key in wanted {
            let (topic, partition) = key;
            let source_topic = &mirrors.get(topic).ok_or("no such mirror")?.source_topic;
            let source_key = (source_topic.to_string(), *partition);
            let source = sources.get(&source_key).ok_or_else(|| format!("{source_key:?} can't be read"))?;
            let mirror =
                destinations.get(key).ok_or_else(|| format!("{topic}[{partition}] can't be read"))?;
            let may_start_above = struck.has_regained(source_topic, *partition);
            compared += equal(source, mirror, may_start_above)
                .map_err(|why| format!("{topic}[{partition}]: {why}"))?;
            if !struck.is_unclean_source(source_topic, *partition) {
                holds(mirror, &oracle.of(&source_key))
                    .map_err(|why| format!("{topic}[{partition}]: {why}"))?;
            }
        }
        Ok(compared)
    }
}

/// A partition that isn't a mirror's any more.
pub struct Ended {
    pub key: Key,
    pub source: Key,
    pub end: StoppedPartition,
}

impl Verifier {
    /// Compares each with its source as far as it was mirrored, and with what clients were told since.
    /// Returns how many records were compared with the source.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn compare_ended(
        &self,
        ended: &[Ended],
        struck: &Struck,
        stopped: &Stopped,
    ) -> Result<usize, String> {
        let state = self.state();
        let (sources, destinations) = state.read.as_ref().ok_or("the verifier hasn't read yet")?.as_ref()?;
        let mut compared = 0;
        for Ended { key, source, end } in ended {
            let (topic, partition) = key;
            // Its topic may be deleted by now.
            let Some(mirror) = destinations.get(key).filter(|_| !struck.is_unclean_mirror(topic, *partition))
            else {
                continue;
            };
            let in_words = |why| format!("{topic}[{partition}], which has stopped: {why}");
            if !struck.is_unclean_source(&source.0, source.1) {
                let source = sources.get(source).ok_or_else(|| format!("{source:?} can't be read"))?;
                let from = source.start.max(mirror.start);
                compared += equal_within(source, mirror, from..end.records_end).map_err(in_words)?;
            }
            holds(mirror, &stopped.acknowledged().of(key)).map_err(in_words)?;
            if stopped.is_idempotent(key) {
                once(mirror, |record| stopped.was_sent(key, record)).map_err(in_words)?;
            }
        }
        Ok(compared)
    }
}

/// No record of these stands there twice.
fn once(mirror: &Read, is_of_these: impl Fn(u64) -> bool) -> Result<(), String> {
    let mut met = BTreeSet::new();
    match mirror.records.iter().find(|(_, record)| is_of_these(**record) && !met.insert(**record)) {
        None => Ok(()),
        Some((offset, record)) => Err(format!("record {record:x} stands there again at offset {offset}")),
    }
}

/// From where both logs hold records on they are equal up to their ends, which are equal. The mirror lacks
/// none of its beginning, but where the source got records back that were gone. Returns how many records
/// are equal.
fn equal(source: &Read, mirror: &Read, may_start_above: bool) -> Result<usize, String> {
    if mirror.start > source.start && !may_start_above {
        return Err(format!("the source starts at offset {}, the mirror at {}", source.start, mirror.start));
    }
    if source.end != mirror.end {
        return Err(format!("the source ends at offset {}, the mirror at {}", source.end, mirror.end));
    }
    equal_within(source, mirror, source.start.max(mirror.start)..source.end)
}

fn equal_within(source: &Read, mirror: &Read, offsets: std::ops::Range<i64>) -> Result<usize, String> {
    let count = usize::try_from(offsets.end - offsets.start).unwrap_or_default();
    for offset in offsets {
        let (theirs, ours) = (source.records.get(&offset), mirror.records.get(&offset));
        if theirs != ours || ours.is_none() {
            return Err(format!("at offset {offset} the source has {theirs:x?}, the mirror {ours:x?}"));
        }
    }
    Ok(count)
}

/// All that was acknowledged from the mirror's log start on is in it.
fn holds(mirror: &Read, acknowledged: &BTreeMap<i64, u64>) -> Result<(), String> {
    match acknowledged
        .range(mirror.start..)
        .find(|(offset, record)| mirror.records.get(offset) != Some(record))
    {
        None => Ok(()),
        Some((offset, _)) => Err(format!("what was acknowledged at offset {offset} isn't there")),
    }
}

async fn read_all(side: Side) -> io::Result<Logs> {
    let mut wire = Wire::connect(side.host(1), HOST).await?;
    let found = wire.call(9, &MetadataRequest::default().with_topics(None)).await?;
    let mut logs = Logs::new();
    for topic in &found.topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        for partition in &topic.partitions {
            let mut leader = Wire::connect(side.host(partition.leader_id.0), HOST).await?;
            let key = (name.clone(), partition.partition_index);
            let read = read(&mut leader, &key).await?;
            logs.insert(key, read);
        }
    }
    Ok(logs)
}

async fn read(leader: &mut Wire, key: &Key) -> io::Result<Read> {
    let start = offset(leader, key, EARLIEST).await?;
    let end = offset(leader, key, LATEST).await?;
    let mut read = Read { start, end, records: BTreeMap::new() };
    let mut position = start;
    while position < end {
        let mut rest = fetch(leader, key, position).await?;
        let before = position;
        while let Some((batch, behind)) = Stored::read(&rest) {
            // Batches of fillers are compressed, and below the log start but for their last records.
            let records = batch.records().unwrap_or_default();
            let stored = (batch.base_offset..).zip(records).filter(|(offset, _)| *offset >= start);
            read.records.extend(stored);
            position = position.max(batch.next_offset());
            rest = behind;
        }
        if position == before {
            return Err(io::Error::other(format!(
                "nothing at offset {position} of {key:?}, which ends at {end}"
            )));
        }
    }
    Ok(read)
}

async fn offset(leader: &mut Wire, (topic, partition): &Key, at: i64) -> io::Result<i64> {
    let asked = ListOffsetsPartition::default().with_partition_index(*partition).with_timestamp(at);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let answer = leader.call(5, &request).await?;
    let row = answer.topics.first().and_then(|topic| topic.partitions.first());
    match row {
        Some(row) if row.error_code == 0 => Ok(row.offset),
        row => Err(io::Error::other(format!("ListOffsets: {row:?}"))),
    }
}

async fn fetch(leader: &mut Wire, (topic, partition): &Key, position: i64) -> io::Result<Bytes> {
    let asked = FetchPartition::default()
        .with_partition(*partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(position)
        .with_partition_max_bytes(READ_BYTES_MAX);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![asked]);
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(1)
        .with_min_bytes(1)
        .with_max_bytes(READ_BYTES_MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = leader.call(11, &request).await?;
    let row = answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
    match row {
        Some(row) if row.error_code == 0 => Ok(row.records.unwrap_or_default()),
        row => Err(io::Error::other(format!("Fetch: {row:?}"))),
    }
}

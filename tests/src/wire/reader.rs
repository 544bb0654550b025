//! Reads a topic's raw batches and log ends from the partition leaders of one cluster.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::batch::RawBatch;
use super::connection::{Api, Connection};
use super::cursor::{Cursor, put_string};
use super::metadata::{Broker, Metadata, TopicMetadata};
use super::stream::Batches;

const FETCH: Api = Api { name: "Fetch", key: 1, version: 11 };
const LIST_OFFSETS: Api = Api { name: "ListOffsets", key: 2, version: 2 };

/// One call; a broker under load on two cores answers within a second.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long errors that pass by themselves (a restart, a new leader) are retried.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

const FETCH_WAIT_MAX_MS: i32 = 100;
/// A broker sends at least one whole batch, however large, so this only bounds memory.
const FETCH_BYTES_MAX: i32 = 8 * 1024 * 1024;
/// A client, not a replica.
const REPLICA_ID: i32 = -1;
const READ_UNCOMMITTED: i8 = 0;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
/// REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
/// OFFSET_NOT_AVAILABLE: new metadata and another try may cure them.
const PASSING_ERRORS: [i16; 8] = [3, 5, 6, 9, 56, 74, 75, 78];

/// What to do about a failed call.
enum Trouble {
    /// A broker restarting, a leader moving: ask again with new metadata.
    Passing(anyhow::Error),
    /// The same answer would come again.
    Lasting(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Trouble {
        Trouble::Lasting(error)
    }
}

/// First and next offset of each partition.
pub type TopicEnds = BTreeMap<i32, (i64, i64)>;

/// A reader of one cluster.
#[derive(Debug)]
pub struct RawReader {
    bootstrap: Vec<SocketAddr>,
    brokers: BTreeMap<i32, SocketAddr>,
    topics: BTreeMap<String, TopicMetadata>,
    connections: BTreeMap<i32, Connection>,
}

impl RawReader {
    /// `bootstrap` as clients write it: `host:port` with commas between.
    pub fn new(bootstrap: &str) -> Result<RawReader> {
        let parse = |part: &str| part.parse().with_context(|| format!("{part:?} is not an address"));
        let bootstrap = bootstrap.split(',').map(parse).collect::<Result<Vec<SocketAddr>>>()?;
        Ok(RawReader {
            bootstrap,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            connections: BTreeMap::new(),
        })
    }

    /// The partitions of `topic`, once every one of them has a leader.
    pub fn partitions(&mut self, topic: &str) -> Result<Vec<i32>> {
        self.retrying(topic, |reader| {
            let found = reader.topic(topic).map_err(Trouble::Passing)?;
            Ok(found.partitions.keys().copied().collect())
        })
    }

    /// First and next offset of every partition.
    pub fn ends(&mut self, topic: &str) -> Result<TopicEnds> {
        let mut ends = TopicEnds::new();
        for partition in self.partitions(topic)? {
            let pair = (self.log_start(topic, partition)?, self.log_end(topic, partition)?);
            ends.insert(partition, pair);
        }
        Ok(ends)
    }

    /// Like [`RawReader::ends`], or nothing when the cluster has no such topic (yet).
    pub fn ends_if_exists(&mut self, topic: &str) -> Result<Option<TopicEnds>> {
        const UNKNOWN_TOPIC: i16 = 3;
        let found = self.fetch_metadata(topic)?;
        if found.is_none_or(|found| found.error_code == UNKNOWN_TOPIC) {
            return Ok(None);
        }
        // It may have grown since the last look.
        self.topics.remove(topic);
        self.ends(topic).map(Some)
    }

    /// The first offset the partition still has.
    pub fn log_start(&mut self, topic: &str, partition: i32) -> Result<i64> {
        self.list_offset(topic, partition, EARLIEST)
    }

    /// The offset the next record will get (for a client: the high watermark).
    pub fn log_end(&mut self, topic: &str, partition: i32) -> Result<i64> {
        self.list_offset(topic, partition, LATEST)
    }

    fn list_offset(&mut self, topic: &str, partition: i32, time: i64) -> Result<i64> {
        self.retrying(topic, |reader| {
            let mut body = Vec::new();
            body.extend(REPLICA_ID.to_be_bytes());
            body.extend(READ_UNCOMMITTED.to_be_bytes());
            put_one_partition(&mut body, topic, partition);
            body.extend(time.to_be_bytes());
            let answer =
                reader.call_leader(topic, partition, LIST_OFFSETS, &body).map_err(Trouble::Passing)?;

            let mut cursor = Cursor::new(&answer);
            cursor.i32()?; // throttle_time_ms
            take_one_partition(&mut cursor)?;
            check(cursor.i16()?, LIST_OFFSETS)?;
            cursor.i64()?; // timestamp
            Ok(cursor.i64()?)
        })
        .with_context(|| format!("look up an end of {topic}-{partition}"))
    }

    /// The whole batches from `offset` on; none when `offset` is the log end. The first batch may
    /// begin before `offset` when that lies inside it.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Result<Vec<RawBatch>> {
        let body = fetch_body(topic, partition, offset);
        self.retrying(topic, |reader| {
            let answer = reader.call_leader(topic, partition, FETCH, &body).map_err(Trouble::Passing)?;
            let mut cursor = Cursor::new(&answer);
            cursor.i32()?; // throttle_time_ms
            check(cursor.i16()?, FETCH)?;
            cursor.i32()?; // session_id
            take_one_partition(&mut cursor)?;
            check(cursor.i16()?, FETCH)?;
            cursor.i64()?; // high_watermark
            cursor.i64()?; // last_stable_offset
            cursor.i64()?; // log_start_offset
            cursor.list(|cursor| Ok((cursor.i64()?, cursor.i64()?)))?; // aborted_transactions
            cursor.i32()?; // preferred_read_replica
            Ok(RawBatch::parse_all(cursor.bytes()?.unwrap_or_default())?)
        })
        .with_context(|| format!("fetch {topic}-{partition} from offset {offset}"))
    }

    /// Every batch that begins in `range`, in order.
    pub fn batches<'a>(&'a mut self, topic: &'a str, partition: i32, range: Range<i64>) -> Batches<'a> {
        Batches::new(self, topic, partition, range)
    }

    /// Repeats `attempt` while its trouble is a passing one.
    fn retrying<T>(
        &mut self,
        topic: &str,
        mut attempt: impl FnMut(&mut RawReader) -> Result<T, Trouble>,
    ) -> Result<T> {
        let deadline = Instant::now() + RETRY_LIMIT;
        loop {
            match attempt(self) {
                Ok(value) => return Ok(value),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(error)) if Instant::now() >= deadline => {
                    return Err(error.context(format!("given up after {RETRY_LIMIT:?}")));
                }
                Err(Trouble::Passing(_)) => {}
            }
            self.topics.remove(topic);
            self.connections.clear();
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn topic(&mut self, topic: &str) -> Result<&TopicMetadata> {
        if !self.topics.contains_key(topic) {
            let found = self.fetch_metadata(topic)?.with_context(|| format!("no answer about {topic}"))?;
            if found.error_code != 0 {
                bail!("topic {topic}: error {}", found.error_code);
            }
            let leaderless = found.partitions.iter().find(|(_, partition)| partition.leader < 0);
            if let Some((number, partition)) = leaderless {
                bail!("{topic}-{number} has no leader (error {})", partition.error_code);
            }
            self.topics.insert(topic.to_owned(), found);
        }
        Ok(&self.topics[topic])
    }

    /// Asks the first broker that answers.
    fn fetch_metadata(&mut self, topic: &str) -> Result<Option<TopicMetadata>> {
        let mut failure = anyhow::anyhow!("no bootstrap address given");
        for address in self.bootstrap.clone() {
            let answer = Connection::open(address, CALL_LIMIT)
                .and_then(|mut connection| Metadata::fetch(&mut connection, &[topic]));
            match answer {
                Ok(mut metadata) => {
                    let pair = |broker: Broker| (broker.id, broker.address);
                    self.brokers = metadata.brokers.into_iter().map(pair).collect();
                    return Ok(metadata.topics.remove(topic));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn call_leader(&mut self, topic: &str, partition: i32, api: Api, body: &[u8]) -> Result<Vec<u8>> {
        let found = self.topic(topic)?.partitions.get(&partition);
        let leader = found.with_context(|| format!("{topic} has no partition {partition}"))?.leader;
        let address =
            *self.brokers.get(&leader).with_context(|| format!("broker {leader} has no address"))?;
        let connection = match self.connections.entry(leader) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) => slot.insert(Connection::open(address, CALL_LIMIT)?),
        };
        connection.call(api, body)
    }
}

fn fetch_body(topic: &str, partition: i32, offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(REPLICA_ID.to_be_bytes());
    body.extend(FETCH_WAIT_MAX_MS.to_be_bytes());
    body.extend(1i32.to_be_bytes()); // min_bytes
    body.extend(FETCH_BYTES_MAX.to_be_bytes());
    body.extend(READ_UNCOMMITTED.to_be_bytes());
    body.extend(0i32.to_be_bytes()); // session_id: none
    body.extend((-1i32).to_be_bytes()); // session_epoch: none
    put_one_partition(&mut body, topic, partition);
    body.extend((-1i32).to_be_bytes()); // current_leader_epoch: don't check
    body.extend(offset.to_be_bytes());
    body.extend((-1i64).to_be_bytes()); // log_start_offset: for replicas
    body.extend(FETCH_BYTES_MAX.to_be_bytes());
    body.extend(0i32.to_be_bytes()); // forgotten topics
    put_string(&mut body, Some("")); // rack_id
    body
}

/// The start of a request about one partition of one topic.
fn put_one_partition(body: &mut Vec<u8>, topic: &str, partition: i32) {
    body.extend(1i32.to_be_bytes());
    put_string(body, Some(topic));
    body.extend(1i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
}

/// The start of an answer about one partition of one topic.
fn take_one_partition(cursor: &mut Cursor) -> Result<()> {
    let topics = cursor.i32()?;
    cursor.string()?;
    let partitions = cursor.i32()?;
    cursor.i32()?;
    if (topics, partitions) != (1, 1) {
        bail!("asked about one partition, the answer has {topics} topics with {partitions} partitions");
    }
    Ok(())
}

fn check(code: i16, api: Api) -> Result<(), Trouble> {
    let error = || anyhow::anyhow!("{} answers error {code}", api.name);
    match code {
        0 => Ok(()),
        code if PASSING_ERRORS.contains(&code) => Err(Trouble::Passing(error())),
        _ => Err(Trouble::Lasting(error())),
    }
}

//! What the bench asks brokers: topics made and deleted, log ends read. Everything else that
//! touches a topic is a mirror or `raw-path`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::wire::{Api, Connection, Cursor, put_string};

const LIST_OFFSETS: Api = Api { name: "ListOffsets", key: 2, version: 2 };
const CREATE_TOPICS: Api = Api { name: "CreateTopics", key: 19, version: 4 };
const DELETE_TOPICS: Api = Api { name: "DeleteTopics", key: 20, version: 1 };

const CALL_LIMIT: Duration = Duration::from_secs(30);
const BROKER_LIMIT_MS: i32 = 20_000;
/// A deleted topic's name is free again within a moment.
const EXISTS_LIMIT: Duration = Duration::from_secs(10);
const EXISTS_PAUSE: Duration = Duration::from_millis(100);

const LATEST: i64 = -1;
const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// A connection to a cluster's only broker.
pub struct Client(Connection);

impl Client {
    pub fn open(address: &str) -> Result<Client> {
        let address: SocketAddr =
            address.parse().with_context(|| format!("{address:?} is not an address"))?;
        Ok(Client(Connection::open(address, CALL_LIMIT)?))
    }

    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let mut body = 1i32.to_be_bytes().to_vec();
        put_string(&mut body, Some(topic));
        body.extend(partitions.to_be_bytes());
        body.extend(1i16.to_be_bytes()); // replication_factor
        body.extend(0i32.to_be_bytes()); // assignments
        body.extend(0i32.to_be_bytes()); // configs
        body.extend(BROKER_LIMIT_MS.to_be_bytes());
        body.push(0); // validate_only
        let deadline = Instant::now() + EXISTS_LIMIT;
        loop {
            let answer = self.0.call(CREATE_TOPICS, &body)?;
            let mut cursor = Cursor::new(&answer);
            cursor.i32()?; // throttle_time_ms
            let results = cursor.list(|cursor| Ok((cursor.string()?, cursor.i16()?, cursor.string()?)))?;
            let (_, code, message) = results.into_iter().next().context("an empty answer")?;
            match code {
                0 => return Ok(()),
                TOPIC_ALREADY_EXISTS if Instant::now() < deadline => std::thread::sleep(EXISTS_PAUSE),
                code => bail!("create topic {topic}: error {code}: {}", message.unwrap_or_default()),
            }
        }
    }

    /// Deletes topics; one that isn't there is as good as deleted.
    pub fn delete_topics(&mut self, topics: &[String]) -> Result<()> {
        let mut body = i32::try_from(topics.len()).context("too many topics")?.to_be_bytes().to_vec();
        for topic in topics {
            put_string(&mut body, Some(topic));
        }
        body.extend(BROKER_LIMIT_MS.to_be_bytes());
        let answer = self.0.call(DELETE_TOPICS, &body)?;
        let mut cursor = Cursor::new(&answer);
        cursor.i32()?; // throttle_time_ms
        for (topic, code) in cursor.list(|cursor| Ok((cursor.string()?, cursor.i16()?)))? {
            ensure!(code == 0 || code == UNKNOWN_TOPIC, "delete topic {topic:?}: error {code}");
        }
        Ok(())
    }

    /// The log ends of all partitions added up; a partition that isn't there yet counts nothing.
    pub fn records(&mut self, topic: &str, partitions: i32) -> Result<i64> {
        let mut body = (-1i32).to_be_bytes().to_vec(); // replica_id: a client
        body.push(0); // read uncommitted
        body.extend(1i32.to_be_bytes());
        put_string(&mut body, Some(topic));
        body.extend(partitions.to_be_bytes());
        for partition in 0..partitions {
            body.extend(partition.to_be_bytes());
            body.extend(LATEST.to_be_bytes());
        }
        let answer = self.0.call(LIST_OFFSETS, &body)?;
        let mut cursor = Cursor::new(&answer);
        cursor.i32()?; // throttle_time_ms
        let topics = cursor.list(|cursor| {
            cursor.string()?;
            cursor.list(|cursor| {
                cursor.i32()?; // partition
                let code = cursor.i16()?;
                cursor.i64()?; // timestamp
                let end = cursor.i64()?;
                Ok(if code == 0 { end } else { 0 })
            })
        })?;
        Ok(topics.into_iter().flatten().sum())
    }
}

//! The Metadata request: brokers, and who leads which partition.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result};

use super::connection::{Api, Connection};
use super::cursor::{Cursor, put_string};

const METADATA: Api = Api { name: "Metadata", key: 3, version: 4 };

/// A broker as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub address: SocketAddr,
}

/// Who holds one partition; the leader is −1 while there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub error_code: i16,
    pub leader: i32,
    /// The first is the preferred leader.
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// One topic: its own error code, and its partitions by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub error_code: i16,
    pub partitions: BTreeMap<i32, PartitionMetadata>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub brokers: Vec<Broker>,
    pub cluster_id: Option<String>,
    pub topics: BTreeMap<String, TopicMetadata>,
}

impl Metadata {
    /// Asks about `topics` (none: brokers only) and creates none of them.
    pub fn fetch(connection: &mut Connection, topics: &[&str]) -> Result<Metadata> {
        let mut body = Vec::new();
        let count = i32::try_from(topics.len()).context("too many topics")?;
        body.extend(count.to_be_bytes());
        for topic in topics {
            put_string(&mut body, Some(topic));
        }
        body.push(0); // allow_auto_topic_creation
        let answer = connection.call(METADATA, &body)?;
        Metadata::parse(&answer).context("take the Metadata answer apart")
    }

    fn parse(answer: &[u8]) -> Result<Metadata> {
        let mut cursor = Cursor::new(answer);
        cursor.i32()?; // throttle_time_ms
        let brokers = cursor.list(parse_broker)?;
        let cluster_id = cursor.string()?;
        cursor.i32()?; // controller_id
        let topics = cursor.list(parse_topic)?.into_iter().collect();
        Ok(Metadata { brokers, cluster_id, topics })
    }
}

fn parse_broker(cursor: &mut Cursor) -> Result<Broker> {
    let id = cursor.i32()?;
    let host = cursor.string()?.context("a broker without a host")?;
    let port = u16::try_from(cursor.i32()?).context("a broker's port")?;
    cursor.string()?; // rack
    let address = (host.as_str(), port)
        .to_socket_addrs()
        .with_context(|| format!("resolve {host}:{port}"))?
        .next()
        .with_context(|| format!("{host}:{port} has no address"))?;
    Ok(Broker { id, address })
}

fn parse_topic(cursor: &mut Cursor) -> Result<(String, TopicMetadata)> {
    let error_code = cursor.i16()?;
    let name = cursor.string()?.context("a topic without a name")?;
    cursor.i8()?; // is_internal
    let partitions = cursor.list(|cursor| {
        let error_code = cursor.i16()?;
        let index = cursor.i32()?;
        let leader = cursor.i32()?;
        let replicas = cursor.list(Cursor::i32)?;
        let in_sync = cursor.list(Cursor::i32)?;
        Ok((index, PartitionMetadata { error_code, leader, replicas, in_sync }))
    })?;
    Ok((name, TopicMetadata { error_code, partitions: partitions.into_iter().collect() }))
}

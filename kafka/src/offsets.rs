//! Log start, high watermark and log end of partitions, asked of their partition leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, DeleteRecordsRequest, ListOffsetsRequest};

use crate::client::topic_name;
use crate::connection::{Api, Connection};
use crate::error::{Error, ErrorCode};
use crate::fetch::TopicPartition;
use crate::shape;

static LIST_OFFSETS: Api = Api {
    key: ApiKey::ListOffsets as i16,
    name: "ListOffsets",
    versions: &[(5, false, shape::LIST_OFFSETS_V5)],
};

static DELETE_RECORDS: Api = Api {
    key: ApiKey::DeleteRecords as i16,
    name: "DeleteRecords",
    versions: &[(1, false, shape::DELETE_RECORDS_V1)],
};

/// Brokers answer when every replica has taken the new log start, or after this.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);
/// Beyond [`DELETE_TIMEOUT`] by a broker's own overhead.
const DELETE_DEADLINE: Duration = Duration::from_secs(25);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// A consumer sees up to the high watermark; `DEBUGGING_REPLICA_ID` sees the true log end
/// (Kafka's `ReplicaManager.fetchOffset`, measured on 3.9 to 4.4).
const CONSUMER: BrokerId = BrokerId(-1);
const DEBUGGING_REPLICA: BrokerId = BrokerId(-2);

/// What a partition leader says of one partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    pub start_offset: i64,
    pub high_watermark: i64,
    /// The true log end, read just before the high watermark: above it while followers lag.
    pub end_offset: i64,
}

impl LogEnds {
    /// The log end offset, when it can be relied on: nothing above it waits for followers.
    pub fn known_end(&self) -> Option<i64> {
        (self.end_offset == self.high_watermark).then_some(self.end_offset)
    }
}

/// Log start, high watermark and log end, all three at this partition leader epoch.
///
/// # Errors
/// [`Error::Broker`] with `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH` or
/// `NOT_LEADER_OR_FOLLOWER` when the leader or its epoch is another by now.
pub async fn log_ends(
    connection: &Connection,
    topic: &str,
    partition: i32,
    leader_epoch: i32,
) -> Result<LogEnds, Error> {
    let ask =
        |replica, timestamp| list_offset(connection, topic, partition, leader_epoch, replica, timestamp);
    // Handed over in this order and answered in it: a high watermark that equals the log end read
    // before it has nothing between them.
    let (start_offset, end_offset, high_watermark) =
        tokio::try_join!(ask(CONSUMER, EARLIEST), ask(DEBUGGING_REPLICA, LATEST), ask(CONSUMER, LATEST))?;
    Ok(LogEnds { start_offset, high_watermark, end_offset })
}

async fn list_offset(
    connection: &Connection,
    topic: &str,
    partition: i32,
    leader_epoch: i32,
    replica: BrokerId,
    timestamp: i64,
) -> Result<i64, Error> {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(leader_epoch)
        .with_timestamp(timestamp);
    let topics = vec![ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted])];
    let request = ListOffsetsRequest::default().with_replica_id(replica).with_topics(topics);
    let (response, _) = connection.call(&LIST_OFFSETS, &request).await?;
    let answer = response.topics.first().and_then(|t| t.partitions.first());
    let answer = answer.filter(|p| p.partition_index == partition).ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: format!("ListOffsets response without {topic}[{partition}]"),
    })?;
    ErrorCode::check(answer.error_code, format!("ListOffsets of {topic}[{partition}]"))?;
    Ok(answer.offset)
}

/// True log ends of many partitions of one partition leader, by one request. A partition whose leader
/// or leader epoch is another by now is left out, as is one that has any other error.
///
/// # Errors
/// Those of [`Connection::call`].
pub async fn end_offsets(
    connection: &Connection,
    partitions: &[(TopicPartition, i32)],
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    latest(connection, partitions, DEBUGGING_REPLICA).await
}

/// As [`end_offsets`], high watermarks: nothing below one is lost with its partition leader.
///
/// # Errors
/// Those of [`Connection::call`].
pub async fn high_watermarks(
    connection: &Connection,
    partitions: &[(TopicPartition, i32)],
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    latest(connection, partitions, CONSUMER).await
}

async fn latest(
    connection: &Connection,
    partitions: &[(TopicPartition, i32)],
    replica: BrokerId,
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    let names: BTreeMap<&str, &Arc<str>> = partitions.iter().map(|(p, _)| (&*p.topic, &p.topic)).collect();
    let topic = |name: &&str| {
        let wanted = partitions.iter().filter(|(partition, _)| *partition.topic == **name);
        let wanted = wanted.map(|(partition, leader_epoch)| {
            ListOffsetsPartition::default()
                .with_partition_index(partition.partition)
                .with_current_leader_epoch(*leader_epoch)
                .with_timestamp(LATEST)
        });
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(wanted.collect())
    };
    let topics = names.keys().map(topic).collect();
    let request = ListOffsetsRequest::default().with_replica_id(replica).with_topics(topics);
    let (response, _) = connection.call(&LIST_OFFSETS, &request).await?;
    let mut ends = Vec::with_capacity(partitions.len());
    for topic in response.topics {
        let Some(name) = names.get(topic.name.as_str()) else { continue };
        let found = topic.partitions.iter().filter(|p| ErrorCode::of(p.error_code).is_none());
        ends.extend(
            found
                .map(|p| (TopicPartition { topic: (*name).clone(), partition: p.partition_index }, p.offset)),
        );
    }
    Ok(ends)
}

/// Moves the log start offset up (KIP-107). A broker killed within a minute may lose it: log start
/// offsets are checkpointed every `log.flush.start.offset.checkpoint.interval.ms`.
///
/// # Errors
/// [`Error::Broker`]: 1 above the high watermark, 29 without DELETE on the topic, 44 when the
/// topic's `cleanup.policy` doesn't contain `delete`.
pub async fn delete_records(
    connection: &Connection,
    topic: &str,
    partition: i32,
    log_start: i64,
) -> Result<(), Error> {
    let wanted = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(log_start);
    let topics =
        vec![DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted])];
    let request = DeleteRecordsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(DELETE_TIMEOUT.as_millis() as i32);
    let response = connection.call_within(&DELETE_RECORDS, &request, DELETE_DEADLINE).await?;
    let answer = response.topics.first().and_then(|t| t.partitions.first());
    let answer = answer.filter(|p| p.partition_index == partition).ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: format!("DeleteRecords response without {topic}[{partition}]"),
    })?;
    ErrorCode::check(answer.error_code, format!("DeleteRecords of {topic}[{partition}] up to {log_start}"))
}

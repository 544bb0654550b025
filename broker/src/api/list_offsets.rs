//! ListOffsets: log start and end, for consumers and for replicas, and look-ups by timestamp.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::log::TimestampedOffset;
use crate::partition::Partition;
use crate::state::State;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const MAX_TIMESTAMP_FROM_VERSION: i16 = 7;

const CONSUMER: i32 = -1;
/// Asks as a tool does: any replica answers, with its log end.
const DEBUGGING: i32 = -2;
const READ_COMMITTED: i8 = 1;

pub(crate) struct ListOffsets;

/// An offset with its timestamp and leader epoch; -1 where there is none.
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

const NOT_FOUND: Found = Found { timestamp: -1, offset: -1, leader_epoch: -1 };

impl Handler for ListOffsets {
    type Request = ListOffsetsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 1..=7;

    fn handle(state: &mut State, caller: &Caller, request: ListOffsetsRequest) -> Step<ListOffsetsResponse> {
        let mut asked = BTreeSet::new();
        let mut twice = BTreeSet::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                let key = (topic.name.to_string(), partition.partition_index);
                if !asked.insert(key.clone()) {
                    twice.insert(key);
                }
            }
        }
        let topics = request.topics.iter().map(|topic| {
            // What is asked for twice is answered once.
            let once = topic
                .partitions
                .iter()
                .filter(|partition| asked.remove(&(topic.name.to_string(), partition.partition_index)));
            let partitions = once.map(|partition| {
                let index = partition.partition_index;
                let found = if twice.contains(&(topic.name.to_string(), index)) {
                    Err(Code::InvalidRequest)
                } else {
                    look_up(state, caller, &request, &topic.name, partition)
                };
                let code = found.as_ref().err().map_or(0, Code::code);
                let found = found.unwrap_or(NOT_FOUND);
                let response = ListOffsetsPartitionResponse::default()
                    .with_partition_index(index)
                    .with_error_code(code)
                    .with_timestamp(found.timestamp)
                    .with_offset(found.offset);
                if caller.version < 4 { response } else { response.with_leader_epoch(found.leader_epoch) }
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        Step::Done(ListOffsetsResponse::default().with_topics(topics))
    }
}

fn look_up(
    state: &State,
    caller: &Caller,
    request: &ListOffsetsRequest,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<Found, Code> {
    if !is_supported(asked.timestamp, caller.version) {
        return Err(Code::UnsupportedVersion);
    }
    let (replica, index, epoch) = (request.replica_id.0, asked.partition_index, asked.current_leader_epoch);
    let partition = if replica == DEBUGGING {
        state.replica(caller.broker, topic, index, epoch)?
    } else {
        state.led(caller.broker, topic, index, epoch)?
    };
    let readable = match replica {
        CONSUMER if request.isolation_level == READ_COMMITTED => partition.last_stable_offset(),
        CONSUMER => partition.high_watermark(),
        _ => partition.log.end(),
    };
    Ok(match asked.timestamp {
        LATEST => Found { timestamp: -1, offset: readable, leader_epoch: partition.leader_epoch },
        EARLIEST => earliest(partition),
        MAX_TIMESTAMP => by_record(partition.log.youngest(), readable),
        timestamp => by_record(partition.log.at_timestamp(timestamp), readable),
    })
}

/// Negative timestamps have meanings, and each its first version.
fn is_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= MAX_TIMESTAMP_FROM_VERSION,
        other => other >= 0,
    }
}

fn earliest(partition: &Partition) -> Found {
    let offset = partition.log.start();
    let leader_epoch = partition.log.epoch_at(offset).unwrap_or(-1);
    Found { timestamp: -1, offset, leader_epoch }
}

fn by_record(found: Option<TimestampedOffset>, readable: i64) -> Found {
    match found.filter(|found| found.offset < readable) {
        None => NOT_FOUND,
        Some(TimestampedOffset { timestamp, offset, leader_epoch }) => {
            Found { timestamp, offset, leader_epoch }
        }
    }
}

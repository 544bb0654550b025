//! OffsetFetch: what a group has committed; of several groups from version 8 on.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::GroupOffsets;
use crate::state::State;

const SEVERAL_FROM_VERSION: i16 = 8;
const NO_OFFSET: i64 = -1;

pub(crate) struct OffsetFetch;

impl Handler for OffsetFetch {
    type Request = OffsetFetchRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 1..=9;

    fn handle(state: &mut State, caller: &Caller, request: OffsetFetchRequest) -> Step<OffsetFetchResponse> {
        let stable = request.require_stable;
        let response = if caller.version >= SEVERAL_FROM_VERSION {
            let groups = request.groups.iter().map(|group| fetch(state, caller, group, stable));
            OffsetFetchResponse::default().with_groups(groups.collect())
        } else {
            single(fetch(state, caller, &as_group(request), stable))
        };
        Step::Done(response)
    }
}

fn as_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let topic = |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)
}

fn single(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_error_code(group.error_code).with_topics(topics.collect())
}

/// An unknown group has committed nothing. `stable`: an offset that a transaction may still change is
/// refused.
fn fetch(
    state: &State,
    caller: &Caller,
    asked: &OffsetFetchRequestGroup,
    stable: bool,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
    if let Err(code) = state.check_coordinator(caller.broker, &asked.group_id) {
        return answer.with_error_code(code.code());
    }
    let offsets = state.groups.get(&asked.group_id).map(|group| &group.offsets);
    let wanted: Vec<(TopicName, Vec<i32>)> = match &asked.topics {
        Some(topics) => {
            topics.iter().map(|topic| (topic.name.clone(), topic.partition_indexes.clone())).collect()
        }
        None => all(offsets),
    };
    let topics = wanted.into_iter().map(|(name, partitions)| {
        let partitions =
            partitions.into_iter().map(|partition| fetch_one(offsets, &name, partition, stable)).collect();
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
    });
    answer.with_topics(topics.collect())
}

fn all(offsets: Option<&GroupOffsets>) -> Vec<(TopicName, Vec<i32>)> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for ((topic, partition), _) in offsets.into_iter().flat_map(GroupOffsets::iter) {
        topics.entry(topic).or_default().push(*partition);
    }
    let named = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
    topics.into_iter().map(|(name, partitions)| (named(name), partitions)).collect()
}

fn fetch_one(
    offsets: Option<&GroupOffsets>,
    topic: &str,
    partition: i32,
    stable: bool,
) -> OffsetFetchResponsePartitions {
    let row = OffsetFetchResponsePartitions::default()
        .with_partition_index(partition)
        .with_committed_offset(NO_OFFSET)
        .with_metadata(Some(StrBytes::default()));
    if stable && offsets.is_some_and(|offsets| offsets.is_pending(topic, partition)) {
        return row.with_error_code(Code::UnstableOffsetCommit.code());
    }
    match offsets.and_then(|offsets| offsets.get(topic, partition)) {
        None => row,
        Some(committed) => row
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(committed.metadata.clone())),
    }
}

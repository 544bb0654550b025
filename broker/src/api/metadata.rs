//! Metadata: brokers, topics with their ids, leaders with their epochs.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{ApiError, Handler, Step};
use crate::configs::TopicConfigs;
use crate::fault::Caller;
use crate::partition::Partition;
use crate::state::{State, Topic};

const BY_ID_FROM_VERSION: i16 = 12;
/// Authorized operations that weren't asked for.
pub(crate) const NOT_ASKED: i32 = i32::MIN;
/// Read, write, create, delete, alter, describe, and describe and alter configs, as bits.
const ALL_OPERATIONS: i32 = 0b1101_1111_1000;

pub(crate) struct Metadata;

impl Handler for Metadata {
    type Request = MetadataRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=12;

    fn handle(state: &mut State, caller: &Caller, request: MetadataRequest) -> Step<MetadataResponse> {
        let all = match &request.topics {
            None => true,
            Some(topics) => caller.version == 0 && topics.is_empty(),
        };
        let asked = || request.topics.iter().flatten();
        if caller.version < BY_ID_FROM_VERSION && asked().any(|topic| is_by_id(topic) || topic.name.is_none())
        {
            return Step::Done(refused(asked()));
        }
        let by_id = asked().any(is_by_id);
        let topics: Vec<MetadataResponseTopic> = if all {
            state.topics.iter().map(|(name, topic)| describe(state, name, topic)).collect()
        } else {
            let create = request.allow_auto_topic_creation || caller.version < 4;
            // One id, and names no longer count. What is asked for twice is answered once.
            let mut asked: Vec<&MetadataRequestTopic> =
                asked().filter(|topic| !by_id || is_by_id(topic)).collect();
            asked.sort_by(|one, other| (&one.name, one.topic_id).cmp(&(&other.name, other.topic_id)));
            asked.dedup();
            asked.into_iter().map(|topic| named(state, topic, create)).collect()
        };
        let topics = match request.include_topic_authorized_operations {
            false => topics,
            true => topics.into_iter().map(authorized).collect(),
        };
        let live = state.live();
        let brokers = live.iter().filter_map(|id| state.endpoint(*id)).map(|endpoint| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(endpoint.id))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
        });
        let response = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from_string(state.settings.cluster_id.clone())))
            .with_controller_id(BrokerId(live.first().copied().unwrap_or(-1)))
            .with_topics(topics);
        Step::Done(response)
    }
}

fn is_by_id(topic: &MetadataRequestTopic) -> bool {
    !topic.topic_id.is_nil()
}

fn authorized(topic: MetadataResponseTopic) -> MetadataResponseTopic {
    if topic.name.is_some() { topic.with_topic_authorized_operations(ALL_OPERATIONS) } else { topic }
}

/// The answer to a request that asks for what its version doesn't know.
fn refused<'a>(asked: impl Iterator<Item = &'a MetadataRequestTopic>) -> MetadataResponse {
    let topics = asked.map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(Code::InvalidRequest.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    });
    MetadataResponse::default().with_topics(topics.collect())
}

fn named(state: &mut State, asked: &MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let refused = |name: Option<TopicName>, code: Code| {
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(name)
            .with_topic_id(asked.topic_id)
            .with_topic_authorized_operations(NOT_ASKED)
    };
    let Some(name) = asked.name.as_ref().filter(|_| !is_by_id(asked)) else {
        let known = state.name_of(asked.topic_id).filter(|_| is_by_id(asked)).map(str::to_owned);
        let Some(name) = known else { return refused(None, Code::UnknownTopicId) };
        return describe(state, &name, &state.topics[&name]);
    };
    if let Some(topic) = state.topics.get(name.as_str()) {
        return describe(state, name, topic);
    }
    if !is_legal(name) {
        return refused(Some(name.clone()), Code::InvalidTopicException);
    }
    if create && state.settings.auto_create_topics {
        let (partitions, replication) =
            (state.settings.default_partitions, state.settings.default_replication);
        state.create_topic(name, partitions, replication, TopicConfigs::default());
        return refused(Some(name.clone()), Code::LeaderNotAvailable);
    }
    refused(Some(name.clone()), Code::UnknownTopicOrPartition)
}

fn is_legal(name: &str) -> bool {
    check_legal(name).is_ok()
}

/// Kafka's rule for topic names, and its words (`Topic.validate`).
///
/// # Errors
/// `INVALID_TOPIC_EXCEPTION`.
pub(crate) fn check_legal(name: &str) -> Result<(), ApiError> {
    const LENGTH_MAX: usize = 249;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if matches!(name, "." | "..") {
        format!("'{name}' is not allowed")
    } else if name.len() > LENGTH_MAX {
        format!("the length of '{name}' is longer than the max allowed length {LENGTH_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(ApiError::new(Code::InvalidTopicException, format!("Topic name is invalid: {why}")))
}

fn describe(state: &State, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| part(state, index, partition));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(NOT_ASKED)
}

fn part(state: &State, index: i32, partition: &Partition) -> MetadataResponsePartition {
    let ids = |brokers: &[i32]| brokers.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let offline: Vec<i32> = partition.replicas.iter().copied().filter(|id| !state.is_up(*id)).collect();
    let code = if partition.leader.is_some() { 0 } else { Code::LeaderNotAvailable.code() };
    MetadataResponsePartition::default()
        .with_error_code(code)
        .with_partition_index(index)
        .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.in_sync))
        .with_offline_replicas(ids(&offline))
}

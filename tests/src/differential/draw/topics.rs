//! Topics, their partitions and configs; Metadata and ApiVersions.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest, RequestKind,
};
use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::{one_of, text, topic_name, weighted};
use crate::differential::world::World;

const TIMEOUT_MS: i32 = 30_000;
const TOPIC_RESOURCE: i8 = 2;
const BY_ID_FROM_VERSION: i16 = 10;

/// What a topic of the sequence may be set to.
const CONFIGS: &[&[(&str, &str)]] = &[
    &[],
    &[],
    &[("message.timestamp.type", "LogAppendTime")],
    &[("cleanup.policy", "compact")],
    &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")],
    &[("max.message.bytes", "600")],
    &[("message.timestamp.before.max.ms", "86400000")],
    &[("min.insync.replicas", "2")],
    &[("compression.type", "producer"), ("segment.bytes", "2097152")],
];
/// Refused by every version.
const WRONG_CONFIGS: &[(&str, &str)] = &[
    ("retention.msx", "1"),
    ("retention.ms", "soon"),
    ("cleanup.policy", "drop"),
    ("max.message.bytes", "-1"),
    ("message.timestamp.type", "create"),
    ("min.insync.replicas", "0"),
];

pub fn create_topics(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let first = world.topics.is_empty();
    let count = if first { rng.random_range(2..=4) } else { rng.random_range(1..=2) };
    let topics = (0..count).map(|index| {
        let name = format!("{}t{}", world.prefix, world.topics.len() + index);
        let configs = one_of(rng, CONFIGS);
        let mut topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(rng.random_range(1..=3))
            .with_replication_factor(1)
            .with_configs(configs.iter().map(|(name, value)| config(name, value)).collect());
        if !first {
            vary(world, rng, &mut topic);
        }
        topic
    });
    let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
    RequestKind::CreateTopics(request.with_validate_only(!first && rng.random_bool(0.15)))
}

fn config(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
}

/// As the product and others create topics, and wrongly.
fn vary(world: &World, rng: &mut StdRng, topic: &mut CreatableTopic) {
    match rng.random_range(0..14) {
        0 => topic.name = topic_name(world.any_topic(rng)),
        1 => topic.replication_factor = 2,
        2 => topic.replication_factor = one_of(rng, &[0, -2]),
        3 => topic.num_partitions = one_of(rng, &[0, -2]),
        4 => (topic.num_partitions, topic.replication_factor) = (-1, -1),
        5 => {
            let (name, value) = one_of(rng, WRONG_CONFIGS);
            topic.configs.push(config(name, value));
        }
        6 => topic.name = topic_name(one_of(rng, &["", ".", "..", "a/b"])),
        7 => topic.name = topic_name("x".repeat(250)),
        8 | 9 => {
            (topic.num_partitions, topic.replication_factor) = (-1, -1);
            let broker = one_of(rng, &[1, 1, 1, 9]);
            let partitions = one_of(rng, &[1, 2]);
            topic.assignments = (0..partitions)
                .map(|index| {
                    CreatableReplicaAssignment::default()
                        .with_partition_index(index)
                        .with_broker_ids(vec![kafka_protocol::messages::BrokerId(broker)])
                })
                .collect();
        }
        _ => {}
    }
}

pub fn create_partitions(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let name = world.any_topic(rng);
    let now = world.topic(&name).and_then(|topic| topic.partitions).unwrap_or(1);
    let count = now + weighted(rng, &[(6, 1), (2, 2), (1, 0), (1, -1)]);
    let topic = CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count);
    RequestKind::CreatePartitions(
        CreatePartitionsRequest::default()
            .with_topics(vec![topic.with_assignments(None)])
            .with_timeout_ms(TIMEOUT_MS)
            .with_validate_only(rng.random_bool(0.15)),
    )
}

pub fn delete_topics(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let name = world.any_topic(rng);
    let request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
    if version < 6 {
        return RequestKind::DeleteTopics(request.with_topic_names(vec![topic_name(name)]));
    }
    let topic = match rng.random_range(0..5) {
        0 => DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(9)),
        1 => DeleteTopicState::default().with_name(None).with_topic_id(world.topic_id(&name)),
        _ => DeleteTopicState::default().with_name(Some(topic_name(name))),
    };
    RequestKind::DeleteTopics(request.with_topics(vec![topic]))
}

/// Configs that every version has with the same default.
const ASKED_CONFIGS: &[&str] = &[
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "no.such.config",
];

pub fn describe_configs(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let name = world.any_topic(rng);
    let keys = rng.random_bool(0.5).then(|| {
        let keys = ASKED_CONFIGS.iter().filter(|_| rng.random_bool(0.4));
        keys.map(|key| text(*key)).collect()
    });
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let synonyms = rng.random_bool(0.3);
    RequestKind::DescribeConfigs(if version >= 1 { request.with_include_synonyms(synonyms) } else { request })
}

pub fn alter_configs(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let name = world.any_topic(rng);
    let (key, value) = match rng.random_range(0..6) {
        0 => one_of(rng, WRONG_CONFIGS),
        1 => ("max.message.bytes", "5000"),
        2 => ("message.timestamp.type", "CreateTime"),
        3 => ("message.timestamp.type", "LogAppendTime"),
        4 => ("min.insync.replicas", "1"),
        _ => ("cleanup.policy", "delete"),
    };
    let delete = rng.random_bool(0.3);
    let altered = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(i8::from(delete))
        .with_value((!delete).then(|| text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configs(vec![altered]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    RequestKind::IncrementalAlterConfigs(request.with_validate_only(rng.random_bool(0.1)))
}

pub fn metadata(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let request = MetadataRequest::default();
    let request = if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request };
    if rng.random_bool(0.15) {
        return RequestKind::Metadata(request.with_topics(if version == 0 {
            Some(Vec::new())
        } else {
            None
        }));
    }
    let names: Vec<String> = world.any_places(rng, 3).into_iter().map(|(name, _)| name).collect();
    let topic = |name: String| match version >= BY_ID_FROM_VERSION && rng.random_bool(0.4) {
        true => MetadataRequestTopic::default().with_name(None).with_topic_id(world.topic_id(&name)),
        false => MetadataRequestTopic::default().with_name(Some(topic_name(name))),
    };
    let mut topics: Vec<MetadataRequestTopic> = names.into_iter().map(topic).collect();
    if version >= 1 && rng.random_bool(0.05) {
        topics.clear();
    }
    let request = request.with_topics(Some(topics));
    RequestKind::Metadata(match version >= 8 {
        true => request.with_include_topic_authorized_operations(rng.random_bool(0.1)),
        false => request,
    })
}

pub fn api_versions(_: &mut World, _: &mut StdRng, version: i16) -> RequestKind {
    let request = ApiVersionsRequest::default();
    RequestKind::ApiVersions(match version >= 3 {
        true => request.with_client_software_name(text("lockstep")).with_client_software_version(text("1.0")),
        false => request,
    })
}

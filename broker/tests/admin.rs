//! Topics and their configs, over the wire.

mod support;

use kafka_protocol::messages::alter_configs_request;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    OffsetForLeaderEpochRequest,
};
use support::{BatchOf, World, text, topic_name};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn wanted(name: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

fn with_config(topic: CreatableTopic, name: &str, value: Option<&str>) -> CreatableTopic {
    topic
        .with_configs(vec![CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))])
}

fn assigned(replicas: &[&[i32]]) -> CreatableTopic {
    let assignment = |(index, brokers): (usize, &&[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index as i32)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    };
    wanted("assigned", -1, -1).with_assignments(replicas.iter().enumerate().map(assignment).collect())
}

async fn codes_of_create(world: &World, topics: Vec<CreatableTopic>) -> Vec<i16> {
    let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(1_000);
    let response = world.connect(2).call(7, &request).await;
    response.topics.iter().map(|topic| topic.error_code).collect()
}

#[tokio::test]
async fn a_topic_is_created_by_any_broker_with_what_was_left_to_it() {
    let world = World::with(3, |settings| {
        settings.default_partitions = 4;
        settings.default_replication = 2;
    });
    let topic = with_config(wanted("orders", -1, -1), "retention.ms", Some("1000"));
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    for (validate_only, exists) in [(true, false), (false, true)] {
        let request = request.clone().with_validate_only(validate_only);
        let response = world.connect(3).call(7, &request).await;
        let answer = &response.topics[0];
        assert_eq!((answer.error_code, answer.num_partitions, answer.replication_factor), (0, 4, 2));
        let configs = answer.configs.as_ref().unwrap();
        let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
        let id = world.cluster.with(|state| state.topic("orders").map(|topic| topic.id));
        assert_eq!(id.is_some(), exists);
        assert_eq!(id.is_some_and(|id| id == answer.topic_id), exists);
    }
}

#[tokio::test]
async fn what_a_controller_refuses_is_refused_with_its_code() {
    let world = World::new(3);
    world.topic("taken.name", 1, 1);
    let cases = [
        (wanted("taken.name", 1, 1), 36),
        (wanted("taken_name", 1, 1), 17),
        (wanted("a b", 1, 1), 17),
        (wanted("none", 0, 1), 37),
        (wanted("none", 1, 0), 38),
        (wanted("none", 1, 4), 38),
        (wanted("none", 20_000, 1), 44),
        (with_config(wanted("none", 1, 1), "retention.msx", Some("1")), 40),
        (with_config(wanted("none", 1, 1), "retention.ms", Some("x")), 40),
        (with_config(wanted("none", 1, 1), "retention.ms", None), 40),
        (assigned(&[&[1, 9]]), 39),
        (assigned(&[&[1, 1]]), 39),
        (assigned(&[&[1, 2], &[3]]), 39),
        (assigned(&[&[]]), 39),
        (assigned(&[&[1]]).with_num_partitions(1), 42),
        (wanted("__cluster_metadata", 1, 1), 42),
    ];
    for (topic, code) in cases {
        assert_eq!(codes_of_create(&world, vec![topic.clone()]).await, [code], "{topic:?}");
    }
    let twice = vec![wanted("twice", 1, 1), wanted("fine", 1, 1), wanted("twice", 1, 1)];
    assert_eq!(codes_of_create(&world, twice).await, [0, 42]);
    assert_eq!(codes_of_create(&world, vec![assigned(&[&[3, 1], &[2, 3]])]).await, [0]);
    let replicas = world.cluster.with(|state| state.partition("assigned", 0).unwrap().replicas.clone());
    assert_eq!(replicas, [3, 1]);
}

#[tokio::test]
async fn a_request_for_more_than_ten_thousand_partitions_in_all_does_nothing() {
    let world = World::new(3);
    world.topic("orders", 1, 1);
    let large = |name| wanted(name, 5_001, 1);
    assert_eq!(codes_of_create(&world, vec![large("one"), large("other")]).await, [44, 44]);
    let widened = |count| CreatePartitionsTopic::default().with_name(topic_name("orders")).with_count(count);
    let request =
        CreatePartitionsRequest::default().with_topics(vec![widened(10_002).with_assignments(None)]);
    assert_eq!(world.connect(1).call(3, &request).await.results[0].error_code, 44);
    let partitions =
        world.cluster.with(|state| state.topics().map(|(_, topic)| topic.partitions.len()).sum());
    assert_eq!(1_usize, partitions);
}

#[tokio::test]
async fn a_topic_is_deleted_by_name_or_by_id() {
    let world = World::new(1);
    world.topic("first", 1, 1);
    world.topic("second", 1, 1);
    let id = world.cluster.with(|state| state.topic("second").unwrap().id);
    let state = |name: Option<&str>, id| {
        DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id)
    };
    let nil = uuid::Uuid::nil();
    let topics = vec![state(None, id), state(Some("gone"), nil), state(None, nil), state(Some("first"), id)];
    let response = world.connect(1).call(6, &DeleteTopicsRequest::default().with_topics(topics)).await;
    let mut codes: Vec<i16> = response.responses.iter().map(|answer| answer.error_code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 3, 42, 42]);
    let again = DeleteTopicsRequest::default().with_topics(vec![state(None, id)]);
    assert_eq!(world.connect(1).call(6, &again).await.responses[0].error_code, 100);
    let by_name = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("first")]);
    assert_eq!(world.connect(1).call(1, &by_name).await.responses[0].error_code, 0);
    assert_eq!(world.cluster.with(|state| state.topics().count()), 0);
}

#[tokio::test]
async fn partitions_are_added_and_never_taken_away() {
    let world = World::new(2);
    world.topic("orders", 2, 2);
    let mut wire = world.connect(1);
    for (name, count, validate_only, code) in [
        ("orders", 2, false, 37),
        ("orders", 1, false, 37),
        ("other", 3, false, 3),
        ("orders", 5, true, 0),
        ("orders", 3, false, 0),
    ] {
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![topic]).with_validate_only(validate_only);
        assert_eq!(wire.call(3, &request).await.results[0].error_code, code, "{name} {count}");
    }
    let replicas = world.cluster.with(|state| state.partition("orders", 2).unwrap().replicas.len());
    assert_eq!((replicas, world.cluster.with(|state| state.partition("orders", 3).is_some())), (2, false));
}

async fn describe(world: &World, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    let request =
        DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    world.connect(1).call(4, &request).await.results.remove(0)
}

#[tokio::test]
async fn configs_are_described_with_where_they_come_from() {
    let world = World::with(2, |settings| settings.producer_id_expiration_ms = 5_000);
    world.topic("orders", 1, 1);
    assert_eq!(alter(&world, "orders", &[("max.message.bytes", 0, Some("5"))]).await, 0);

    let described = describe(&world, TOPIC, "orders", Some(&["max.message.bytes"])).await;
    let config = &described.configs[0];
    assert_eq!((described.configs.len(), config.config_source, config.config_type), (1, 1, 3));
    assert!(!config.read_only && !config.is_sensitive);
    let synonyms: Vec<_> = config.synonyms.iter().map(|s| (s.name.as_str(), s.source)).collect();
    assert_eq!(synonyms, [("max.message.bytes", 1), ("message.max.bytes", 5)]);

    let keys = ["producer.id.expiration.ms", "socket.request.max.bytes", "ssl.keystore.password"];
    let described = describe(&world, BROKER, "1", Some(&keys)).await;
    let told: Vec<_> = described.configs.iter().map(|c| (c.value.as_deref(), c.config_source)).collect();
    assert_eq!(told, [(Some("5000"), 4), (Some("104857600"), 5), (None, 5)]);
    assert!(described.configs[2].is_sensitive && described.configs[0].read_only);

    assert!(describe(&world, TOPIC, "orders", None).await.configs.len() > 30);
    for (kind, name, code) in [(TOPIC, "gone", 3), (TOPIC, "a b", 17), (BROKER, "2", 42), (BROKER, "x", 42)] {
        assert_eq!(describe(&world, kind, name, None).await.error_code, code, "{name}");
    }
}

async fn alter(world: &World, topic: &str, changes: &[(&str, i8, Option<&str>)]) -> i16 {
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(changes.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    world.connect(1).call(1, &request).await.responses[0].error_code
}

#[tokio::test]
async fn configs_are_set_deleted_appended_and_refused() {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let own = |name: &str| {
        world.cluster.with(|state| state.topic("orders").unwrap().configs.explicit(name).map(str::to_owned))
    };
    assert_eq!(alter(&world, "orders", &[("cleanup.policy", APPEND, Some("compact"))]).await, 0);
    assert_eq!(own("cleanup.policy").as_deref(), Some("delete,compact"));
    assert_eq!(alter(&world, "orders", &[("cleanup.policy", SUBTRACT, Some("delete"))]).await, 0);
    assert_eq!(own("cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(alter(&world, "orders", &[("cleanup.policy", DELETE, None)]).await, 0);
    assert_eq!(own("cleanup.policy"), None);
    for (topic, changes, code) in [
        ("orders", &[("retention.ms", SET, Some("x"))][..], 40),
        ("orders", &[("retention.ms", APPEND, Some("1"))][..], 40),
        ("orders", &[("retention.ms", SET, None)][..], 42),
        ("orders", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))][..], 42),
        ("gone", &[("retention.ms", SET, Some("1"))][..], 3),
        // One wrong config, and none of them is set.
        ("orders", &[("retention.ms", SET, Some("1")), ("segment.bytes", SET, Some("1"))][..], 40),
    ] {
        assert_eq!(alter(&world, topic, changes).await, code, "{topic} {changes:?}");
    }
    assert_eq!(own("retention.ms"), None);

    assert_eq!(alter(&world, "orders", &[("retention.bytes", SET, Some("7"))]).await, 0);
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("flush.ms"))
        .with_value(Some(text("9")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("orders"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(world.connect(1).call(2, &request).await.responses[0].error_code, 0);
    assert_eq!((own("flush.ms").as_deref(), own("retention.bytes")), (Some("9"), None));
}

#[tokio::test]
async fn records_are_deleted_up_to_the_high_watermark_and_no_further() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut wire = world.connect(1);
    wire.produce("orders", &BatchOf::plain(&["a", "b", "c"])).await;
    for (topic, offset, expected) in [
        ("orders", 2, (0, 2)),
        ("orders", 1, (0, 2)),
        ("orders", 4, (1, -1)),
        ("orders", -2, (1, -1)),
        ("gone", 0, (3, -1)),
        ("orders", -1, (0, 3)),
    ] {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic =
            DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let response = wire.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
        let answer = &response.topics[0].partitions[0];
        assert_eq!((answer.error_code, answer.low_watermark), expected, "{offset}");
    }
    alter(&world, "orders", &[("cleanup.policy", 0, Some("compact"))]).await;
    let partition = DeleteRecordsPartition::default().with_offset(3);
    let topic =
        DeleteRecordsTopic::default().with_name(topic_name("orders")).with_partitions(vec![partition]);
    let response = wire.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 44);
}

#[tokio::test]
async fn the_end_of_a_leader_epoch_is_where_the_next_one_wrote() {
    let world = World::new(2);
    world.topic("orders", 1, 2);
    let mut first = world.connect(world.leader("orders"));
    first.produce("orders", &BatchOf::plain(&["a", "b"])).await;
    let other = 3 - world.leader("orders");
    assert!(world.cluster.with(|state| state.partition_mut("orders", 0).unwrap().lead(other)));
    let mut second = world.connect(other);
    second.produce("orders", &BatchOf::plain(&["c"])).await;
    let ask = |epoch, current| {
        let partition =
            OffsetForLeaderPartition::default().with_leader_epoch(epoch).with_current_leader_epoch(current);
        let topic =
            OffsetForLeaderTopic::default().with_topic(topic_name("orders")).with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
    };
    for (epoch, current, expected) in [
        (0, 1, (0, 0, 2)),
        (1, 1, (0, 1, 3)),
        (9, 1, (0, -1, -1)),
        (0, 0, (74, -1, -1)),
        (0, 2, (75, -1, -1)),
        (-1, 1, (0, -1, -1)),
    ] {
        let response = second.call(4, &ask(epoch, current)).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected, "{epoch} at {current}");
    }
    assert_eq!(first.call(4, &ask(0, -1)).await.topics[0].partitions[0].error_code, 6);
}

#[tokio::test]
async fn the_cluster_is_described_by_its_brokers_that_are_up() {
    let world = World::new(3);
    world.cluster.stop_broker(2, broker::Stop::Clean);
    let response = world.connect(3).call(1, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
    let brokers: Vec<i32> = response.brokers.iter().map(|broker| broker.broker_id.0).collect();
    assert_eq!((response.error_code, response.cluster_id.as_str(), brokers), (0, "cluster", vec![1, 3]));
    let response = world.connect(1).call(1, &DescribeClusterRequest::default().with_endpoint_type(2)).await;
    assert_eq!(response.error_code, 114);
}

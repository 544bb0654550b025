//! The product's own client does against this cluster all that it does against Kafka.
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use broker::{Settings, TcpCluster, system_clock};
use kafka::batch::{RawBatch, containing, cut};
use kafka::client::{Client, TcpDial};
use kafka::fetch::{FetchLimits, Isolation, Position, Session, TopicPartition, fetch_once};
use kafka::topics::CreateError;
use kafka::{ClientConfig, ErrorCode, offsets, produce, producers, topics};
use support::BatchOf;

const TOPIC: &str = "orders";

async fn cluster_and_client() -> (TcpCluster, Client) {
    let settings = |endpoints| Settings::new("cluster", endpoints, 7);
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let cluster = TcpCluster::listen(ip, &[0, 0, 0], settings, system_clock()).await.unwrap();
    let configs = BTreeMap::from([("bootstrap.servers".to_owned(), cluster.bootstrap.clone())]);
    let client = Client::new(ClientConfig::from_configs(&configs).unwrap(), Arc::new(TcpDial));
    (cluster, client)
}

async fn created(client: &Client, partitions: i32) -> uuid::Uuid {
    let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
    topics::create_topic(client, TOPIC, partitions, Some(2), &configs, false).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CreateError>) -> ErrorCode {
    match result {
        Err(CreateError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Three records as they would come from a source, with offsets from 0 on.
fn source_batch() -> RawBatch {
    let values = ["a", "b", "c"];
    let now_ms = (system_clock())();
    let bytes = BatchOf { timestamp_ms: now_ms, ..BatchOf::plain(&values) }.bytes();
    cut(&bytes, 0).batches.remove(0)
}

#[tokio::test]
async fn topics_are_created_described_widened_and_deleted() {
    let (_cluster, client) = cluster_and_client().await;
    let none = BTreeMap::new();
    topics::create_topic(&client, TOPIC, 2, None, &none, true).await.unwrap();
    assert!(client.metadata(Some(&[TOPIC])).await.unwrap().topics[TOPIC].is_err());
    let id = created(&client, 2).await;
    let again = topics::create_topic(&client, TOPIC, 2, None, &none, false).await;
    assert_eq!(refusal(again), ErrorCode::TOPIC_ALREADY_EXISTS);
    let wrong = BTreeMap::from([("retention.ms".to_owned(), "x".to_owned())]);
    assert_eq!(refusal(topics::create_topic(&client, "other", 1, None, &wrong, true).await).0, 40);

    topics::create_partitions(&client, TOPIC, 3).await.unwrap();
    assert_eq!(refusal(topics::create_partitions(&client, TOPIC, 3).await).0, 37);
    let metadata = client.metadata(None).await.unwrap();
    assert_eq!((metadata.cluster_id.as_deref(), metadata.brokers.len()), (Some("cluster"), 3));
    let topic = metadata.topics[TOPIC].as_ref().unwrap();
    assert_eq!((topic.topic_id, topic.partitions.len(), topic.is_internal), (id, 3, false));
    assert_eq!(topic.partitions[&2].in_sync_replicas.len(), 2);

    let configs = topics::topic_configs(&client, TOPIC).await.unwrap();
    assert!(configs["retention.ms"].is_own && configs["retention.ms"].value == "-1");
    assert!(!configs["max.message.bytes"].is_own && configs["max.message.bytes"].value == "1048588");
    let keys = ["producer.id.expiration.ms", "socket.request.max.bytes"];
    let limits = topics::broker_configs(&client, 2, &keys).await.unwrap();
    let values: Vec<&str> = limits.values().map(|config| config.value.as_str()).collect();
    assert_eq!(values, ["86400000", "104857600"]);

    topics::delete_topic(&client, id).await.unwrap();
    assert_eq!(refusal(topics::delete_topic(&client, id).await), ErrorCode::UNKNOWN_TOPIC_ID);
}

#[tokio::test]
async fn a_batch_is_produced_once_remembered_fetched_and_deleted() {
    let (_cluster, client) = cluster_and_client().await;
    let topic_id = created(&client, 1).await;
    let metadata = client.metadata(Some(&[TOPIC])).await.unwrap();
    let partition = metadata.topics[TOPIC].as_ref().unwrap().partitions[&0].clone();
    let connection = client.control(partition.leader.unwrap()).await.unwrap();
    let (producer_id, epoch) = producers::init_producer_id(&client, "mirror", None).await.unwrap();
    assert_eq!(producers::init_producer_id(&client, "mirror", None).await.unwrap(), (producer_id, epoch + 1));

    let source = source_batch();
    let batch = source.readdress(producer_id, epoch, 0);
    let part = produce::Part { topic: TOPIC.into(), partition: 0, batch };
    for _ in 0..2 {
        let parts = std::slice::from_ref(&part);
        let mut reply = produce::start(&connection, parts, Duration::from_secs(5), None).await.unwrap();
        let (answers, _) = produce::answers(&connection, reply.wait().await.unwrap()).unwrap();
        assert_eq!(answers[0].base_offset, Ok(0));
    }
    let ends = offsets::log_ends(&connection, TOPIC, 0, partition.leader_epoch).await.unwrap();
    assert_eq!((ends.start_offset, ends.known_end()), (0, Some(3)));

    let states = producers::describe_producers(&connection, TOPIC, 0).await.unwrap();
    assert_eq!((states[0].producer_id, states[0].producer_epoch), (producer_id, i32::from(epoch)));
    assert_eq!((states[0].last_sequence, states[0].last_timestamp_ms), (2, source.header.max_timestamp));

    let key = TopicPartition { topic: TOPIC.into(), partition: 0 };
    let at = |offset| Position { topic_id, offset, leader_epoch: partition.leader_epoch };
    let share = fetch_once(&connection, &key, at(1), 1 << 20).await.unwrap();
    assert_eq!(containing(&share.records, 1).unwrap().payload(), source.payload());

    offsets::delete_records(&connection, TOPIC, 0, 2).await.unwrap();
    let ends = offsets::log_ends(&connection, TOPIC, 0, partition.leader_epoch).await.unwrap();
    assert_eq!((ends.start_offset, ends.high_watermark), (2, 3));
    let beyond = offsets::delete_records(&connection, TOPIC, 0, 9).await;
    assert!(matches!(beyond, Err(kafka::Error::Broker { code: ErrorCode(1), .. })), "{beyond:?}");
    let all = offsets::end_offsets(&connection, &[(key.clone(), partition.leader_epoch)]).await.unwrap();
    assert_eq!(all, [(key, 3)]);
}

#[tokio::test]
async fn a_fetch_session_brings_what_is_new() {
    let (_cluster, client) = cluster_and_client().await;
    let topic_id = created(&client, 1).await;
    let metadata = client.metadata(Some(&[TOPIC])).await.unwrap();
    let partition = metadata.topics[TOPIC].as_ref().unwrap().partitions[&0].clone();
    let leader = partition.leader.unwrap();
    let (reader, writer) = (client.dial_broker(leader).await.unwrap(), client.control(leader).await.unwrap());
    let limits = FetchLimits {
        wait_max_ms: 5_000,
        min_bytes: 1,
        isolation: Isolation::ReadCommitted,
        response_bytes_max: 1 << 20,
        partition_bytes_max: 1 << 20,
    };
    let key = TopicPartition { topic: TOPIC.into(), partition: 0 };
    let source = source_batch();
    let mut session = Session::default();
    for round in 0..3 {
        let position = Position { topic_id, offset: round * 3, leader_epoch: partition.leader_epoch };
        // Asked before it is there: the broker keeps the answer until it is.
        let wanted = BTreeMap::from([(key.clone(), position)]);
        let mut reply = session.start(&reader, &wanted, limits).await.unwrap();
        let part = produce::Part {
            topic: TOPIC.into(),
            partition: 0,
            batch: source.readdress(7, 0, round as i32 * 3),
        };
        let mut produced = produce::start(&writer, &[part], Duration::from_secs(5), None).await.unwrap();
        let (answers, _) = produce::answers(&writer, produced.wait().await.unwrap()).unwrap();
        assert_eq!(answers[0].base_offset, Ok(round * 3));
        let shares = session.finish(&reader, reply.wait().await.unwrap()).unwrap();
        assert_eq!((shares.len(), shares[0].error, shares[0].high_watermark), (1, None, round * 3 + 3));
        assert_eq!(cut(&shares[0].records, round * 3).batches[0].payload(), source.payload());
    }
}

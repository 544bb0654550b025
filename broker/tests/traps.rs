//! What brokers do that surprises who mirrors through them: one test a fault, each of which a simulation
//! can draw.
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

mod support;

use std::time::Duration;

use broker::{Fault, Stop};
use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeProducersRequest, ListOffsetsRequest, ProduceRequest,
    ProduceResponse, ProducerId, WriteTxnMarkersRequest,
};
use support::{BatchOf, DAY_MS, START_MS, Wire, World, topic_name};
use tokio::time::Instant;

const TOPIC: &str = "orders";
const CONCURRENT_TRANSACTIONS: i16 = 51;

fn log_end(world: &World) -> i64 {
    world.cluster.with(|state| state.partition(TOPIC, 0).unwrap().log.end())
}

fn start_and_end(world: &World) -> (i64, i64) {
    world.cluster.with(|state| {
        let log = &state.partition(TOPIC, 0).unwrap().log;
        (log.start(), log.end())
    })
}

/// Producer ids that the leader remembers, with their epochs.
async fn remembered(wire: &mut Wire) -> Vec<(i64, i32)> {
    let topic = TopicRequest::default().with_name(topic_name(TOPIC)).with_partition_indexes(vec![0]);
    let response = wire.call(0, &DescribeProducersRequest::default().with_topics(vec![topic])).await;
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition
        .active_producers
        .iter()
        .map(|producer| (producer.producer_id.0, producer.producer_epoch))
        .collect()
}

async fn latest(wire: &mut Wire, replica: i32) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(replica)).with_topics(vec![topic]);
    wire.call(5, &request).await.topics[0].partitions[0].offset
}

async fn delete_records(wire: &mut Wire, offset: i64) -> i16 {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    let response = wire.call(1, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
    response.topics[0].partitions[0].error_code
}

#[tokio::test]
async fn a_coordinator_may_write_its_marker_several_times() {
    let world = World::with(1, |settings| settings.marker_copies = 6);
    world.topic(TOPIC, 1, 1);
    let mut producer = world.transactional().await;
    producer.add(TOPIC).await;
    assert_eq!(producer.end(true).await, 0);
    world.pass(5);
    // One empty transaction, six offsets.
    assert_eq!(log_end(&world), 6);
}

#[tokio::test]
async fn end_txn_is_answered_long_before_its_marker() {
    let world = World::with(1, |settings| settings.marker_delay_ms = 3_000);
    world.topic(TOPIC, 1, 1);
    let mut producer = world.transactional().await;
    producer.add(TOPIC).await;
    assert_eq!(producer.end(true).await, 0);
    world.pass(2_999);
    assert_eq!((log_end(&world), remembered(&mut producer.wire).await), (0, vec![]));
    world.pass(1);
    assert_eq!(log_end(&world), 1);
    assert_eq!(remembered(&mut producer.wire).await, [(producer.producer_id, i32::from(producer.epoch))]);
}

#[tokio::test]
async fn a_frozen_coordinator_answers_and_ends_nothing() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let mut producer = world.transactional().await;
    producer.add(TOPIC).await;
    world.cluster.with(|state| state.freeze_coordinators(true));
    assert_eq!(producer.end(true).await, 0);
    world.pass(DAY_MS);
    assert_eq!((log_end(&world), world.init(1_000).await.error_code), (0, CONCURRENT_TRANSACTIONS));
    world.cluster.with(|state| state.freeze_coordinators(false));
    world.pass(5);
    assert_eq!((log_end(&world), world.init(1_000).await.error_code), (1, 0));
}

#[tokio::test]
async fn a_foreign_marker_with_a_higher_epoch_wedges_the_coordinator() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let mut producer = world.transactional().await;
    producer.add(TOPIC).await;
    let topic =
        WritableTxnMarkerTopic::default().with_name(topic_name(TOPIC)).with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.epoch + 1)
        .with_topics(vec![topic]);
    producer.wire.call(1, &WriteTxnMarkersRequest::default().with_markers(vec![marker])).await;
    assert_eq!(producer.end(true).await, 0);
    world.pass(5);
    world.pass(DAY_MS);
    assert_eq!((log_end(&world), world.init(1_000).await.error_code), (1, CONCURRENT_TRANSACTIONS));
}

#[tokio::test]
async fn an_expired_transactional_id_comes_back_as_another_producer() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let first = world.init(1_000).await;
    let mut wire = world.connect(1);
    let batch = BatchOf::of(first.producer_id.0, first.producer_epoch, 0, &["a"]);
    assert_eq!(wire.produce(TOPIC, &batch).await.error_code, 0);
    world.pass(7 * DAY_MS + 3_600_000);
    let second = world.init(1_000).await;
    assert_eq!(second.error_code, 0);
    assert_ne!(second.producer_id, first.producer_id);
    // By a call, for those who can't wait a week; the first one isn't fenced by any of it.
    assert!(world.cluster.with(|state| state.expire_transactional_id("tx")));
    assert_ne!(world.init(1_000).await.producer_id, second.producer_id);
    let late = BatchOf::of(first.producer_id.0, first.producer_epoch, 1, &["b"]);
    assert_eq!(wire.produce(TOPIC, &late).await.error_code, 0);
}

#[tokio::test]
async fn an_error_is_answered_though_the_batch_was_appended() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let id = world.cluster.interceptors().add(|_, _: &ProduceRequest| {
        Fault::ApplyThenAnswer(Box::new(|mut response: ProduceResponse| {
            response.responses[0].partition_responses[0].error_code = Code::RequestTimedOut.code();
            response
        }))
    });
    let mut wire = world.connect(1);
    let batch = BatchOf::of(9, 0, 0, &["a"]);
    assert_eq!(wire.produce(TOPIC, &batch).await.error_code, Code::RequestTimedOut.code());
    assert_eq!(log_end(&world), 1);
    world.cluster.interceptors().remove(id);
    // Sent again, it is known.
    let again = wire.produce(TOPIC, &batch).await;
    assert_eq!((again.error_code, again.base_offset, log_end(&world)), (0, 0, 1));
}

#[tokio::test]
async fn a_connection_ends_though_the_batch_was_appended() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    world.cluster.interceptors().add(|_, _: &ProduceRequest| Fault::ApplyThenDrop);
    let request = support::produce_request(TOPIC, &BatchOf::plain(&["a"]));
    assert!(world.connect(1).try_call(9, &request).await.is_none());
    assert_eq!(log_end(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_over_its_quota_is_answered_at_once_and_heard_again_later() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let id = world.cluster.interceptors().add(|_, _: &ProduceRequest| {
        let told = |response: ProduceResponse| response.with_throttle_time_ms(3_000);
        Fault::Throttle(Duration::from_secs(3), Box::new(told))
    });
    let mut wire = world.connect(1);
    let began = Instant::now();
    assert_eq!(wire.produce(TOPIC, &BatchOf::plain(&["a"])).await.error_code, 0);
    assert!(began.elapsed() < Duration::from_secs(1), "answered at once");
    assert_eq!(log_end(&world), 1);
    world.cluster.interceptors().remove(id);
    // Nobody else waits for it.
    assert_eq!(world.connect(1).produce(TOPIC, &BatchOf::plain(&["b"])).await.error_code, 0);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(wire.produce(TOPIC, &BatchOf::plain(&["c"])).await.error_code, 0);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn deleted_records_come_back_when_the_broker_crashes_within_a_minute() {
    for (wait_ms, stop, start) in
        [(0, Stop::Crash, 0), (59_000, Stop::Crash, 0), (60_000, Stop::Crash, 2), (0, Stop::Clean, 2)]
    {
        let world = World::new(1);
        world.topic(TOPIC, 1, 1);
        let mut wire = world.connect(1);
        wire.produce(TOPIC, &BatchOf::plain(&["a", "b"])).await;
        wire.produce(TOPIC, &BatchOf::plain(&["c"])).await;
        assert_eq!(delete_records(&mut wire, 2).await, 0);
        assert_eq!(start_and_end(&world), (2, 3));
        world.pass(wait_ms);
        world.cluster.stop_broker(1, stop);
        world.cluster.start_broker(1);
        assert_eq!(start_and_end(&world), (start, 3), "{stop:?} after {wait_ms} ms");
    }
}

#[tokio::test]
async fn an_emptied_log_forgets_its_producers_when_its_broker_starts() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let mut wire = world.connect(1);
    wire.produce(TOPIC, &BatchOf::of(9, 4, 0, &["a"])).await;
    assert_eq!(delete_records(&mut wire, -1).await, 0);
    assert_eq!(remembered(&mut wire).await, [(9, 4)]);
    world.cluster.stop_broker(1, Stop::Clean);
    world.cluster.start_broker(1);
    let mut wire = world.connect(1);
    assert_eq!(remembered(&mut wire).await, []);
    // The same batch, and one of an epoch that was past: both are taken.
    assert_eq!(wire.produce(TOPIC, &BatchOf::of(9, 4, 0, &["a"])).await.base_offset, 1);
}

#[tokio::test]
async fn a_producer_is_forgotten_by_the_time_in_its_records() {
    let world = World::new(1);
    world.topic(TOPIC, 1, 1);
    let mut wire = world.connect(1);
    let old = BatchOf { timestamp_ms: START_MS - DAY_MS, ..BatchOf::of(9, 4, 0, &["a"]) };
    let young = BatchOf::of(10, 4, 0, &["a"]);
    wire.produce(TOPIC, &old).await;
    wire.produce(TOPIC, &young).await;
    // Both wrote just now; the next check is what it takes.
    world.pass(600_000);
    assert_eq!(remembered(&mut wire).await, [(10, 4)]);
    assert_eq!(wire.produce(TOPIC, &old).await.base_offset, 2, "the duplicate isn't known as one");
    assert_eq!(wire.produce(TOPIC, &young).await.base_offset, 1);
    let past = BatchOf { timestamp_ms: START_MS - DAY_MS, ..BatchOf::of(9, 3, 0, &["a"]) };
    world.pass(600_000);
    assert_eq!(wire.produce(TOPIC, &past).await.error_code, 0, "nor is an epoch that is past");
}

#[tokio::test]
async fn the_high_watermark_stays_behind_the_log_end_while_followers_stand_still() {
    let world = World::new(2);
    world.topic(TOPIC, 1, 2);
    let mut wire = world.connect(world.leader(TOPIC));
    wire.produce(TOPIC, &BatchOf::plain(&["a"])).await;
    world.cluster.with(|state| state.partition_mut(TOPIC, 0).unwrap().hold_followers());
    let mut writer = world.connect(world.leader(TOPIC));
    let batch = BatchOf::plain(&["b", "c"]);
    let write = tokio::spawn(async move { writer.produce(TOPIC, &batch).await.error_code });
    while log_end(&world) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((latest(&mut wire, -1).await, latest(&mut wire, -2).await), (1, 3));
    world.cluster.with(|state| state.partition_mut(TOPIC, 0).unwrap().release_followers());
    assert_eq!(write.await.unwrap(), 0);
    assert_eq!((latest(&mut wire, -1).await, latest(&mut wire, -2).await), (3, 3));
}

#[tokio::test]
async fn an_unclean_election_loses_what_was_acknowledged() {
    let world = World::new(2);
    world.topic(TOPIC, 1, 2);
    let leader = world.leader(TOPIC);
    let mut wire = world.connect(leader);
    for value in ["a", "b"] {
        assert_eq!(wire.produce(TOPIC, &BatchOf::plain(&[value])).await.error_code, 0);
    }
    let heir = 3 - leader;
    assert!(world.cluster.with(|state| state.partition_mut(TOPIC, 0).unwrap().lead_unclean(heir, 1)));
    assert_eq!(wire.produce(TOPIC, &BatchOf::plain(&["c"])).await.error_code, 6);
    let mut wire = world.connect(heir);
    assert_eq!((latest(&mut wire, -1).await, latest(&mut wire, -2).await), (1, 1));
    assert_eq!(wire.produce(TOPIC, &BatchOf::plain(&["c"])).await.base_offset, 1);
}

/// Found by the simulation: a producer of which more than five batches were lost was known, and none of its
/// batches with it, so that no sequence was the next one.
#[tokio::test]
async fn after_an_unclean_election_a_producer_goes_on_where_the_log_ends() {
    let world = World::new(2);
    world.topic(TOPIC, 1, 2);
    let leader = world.leader(TOPIC);
    let mut wire = world.connect(leader);
    for sequence in 0..9 {
        assert_eq!(wire.produce(TOPIC, &BatchOf::of(7, 0, sequence, &["a"])).await.error_code, 0);
    }
    let heir = 3 - leader;
    assert!(world.cluster.with(|state| state.partition_mut(TOPIC, 0).unwrap().lead_unclean(heir, 3)));
    let mut wire = world.connect(heir);
    assert_eq!(wire.produce(TOPIC, &BatchOf::of(7, 0, 9, &["a"])).await.error_code, 45);
    assert_eq!(wire.produce(TOPIC, &BatchOf::of(7, 0, 1, &["a"])).await.base_offset, 1, "a duplicate");
    assert_eq!(wire.produce(TOPIC, &BatchOf::of(7, 0, 3, &["a"])).await.base_offset, 3);
}

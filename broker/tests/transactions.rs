//! Producer ids and transactions, over the wire.
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

mod support;

use broker::Stop;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, DescribeTransactionsRequest, GroupId, InitProducerIdRequest,
    ListTransactionsRequest, MetadataRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
    WriteTxnMarkersRequest,
};
use support::transactional::{ID, transactional_id};
use support::{BatchOf, START_MS, World, produce_request, text, topic_name};
use uuid::Uuid;

const CONCURRENT_TRANSACTIONS: i16 = 51;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const UNKNOWN_TOPIC_ID: i16 = 100;
const TRANSACTION_ABORTABLE: i16 = 120;

fn ends(world: &World) -> (i64, i64, i64) {
    world.cluster.with(|state| {
        let partition = state.partition("orders", 0).unwrap();
        (partition.last_stable_offset(), partition.high_watermark(), partition.log.end())
    })
}

fn status(world: &World) -> &'static str {
    world.cluster.with(|state| state.transactions.get(ID).unwrap().status.name())
}

#[tokio::test]
async fn a_producer_without_a_transactional_id_gets_a_fresh_one_from_any_broker() {
    let world = World::new(2);
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let request = request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    let mut given = Vec::new();
    for broker in [1, 2, 1] {
        let response = world.connect(broker).call(4, &request).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        given.push(response.producer_id.0);
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 3);
}

#[tokio::test]
async fn only_the_coordinator_gives_a_transactional_producer_its_id() {
    let world = World::new(2);
    let other = 3 - world.cluster.with(|state| state.coordinator(ID)).unwrap();
    let ask = |id: &str, timeout_ms, producer_id, epoch| {
        InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
    };
    assert_eq!(world.connect(other).call(4, &ask(ID, 1_000, -1, -1)).await.error_code, 16);
    for (request, code) in [
        (ask("", 1_000, -1, -1), 42),
        (ask(ID, 0, -1, -1), 50),
        (ask(ID, 900_001, -1, -1), 50),
        (ask(ID, 1_000, 5, -1), 42),
        (ask(ID, 1_000, -1, -1), 0),
        (ask(ID, 1_000, 999_999, 0), 90),
    ] {
        let response = world.connect_coordinator().call(4, &request).await;
        assert_eq!(response.error_code, code, "{request:?}");
    }
    let old = world.connect_coordinator().call(3, &ask(ID, 1_000, 999_999, 0)).await;
    assert_eq!((old.error_code, old.producer_id.0, old.producer_epoch), (47, -1, -1));
}

#[tokio::test]
async fn a_transaction_is_read_once_its_marker_is_there() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    assert_eq!(producer.add("orders").await, 0);
    let batch = producer.batch(0, &["a", "b"]);
    assert_eq!(producer.wire.produce("orders", &batch).await.base_offset, 0);
    assert_eq!((ends(&world), status(&world)), ((0, 2, 2), "Ongoing"));
    assert_eq!(producer.end(true).await, 0);
    assert_eq!((ends(&world), status(&world)), ((0, 2, 2), "PrepareCommit"));
    assert_eq!(world.init(1_000).await.error_code, CONCURRENT_TRANSACTIONS);
    world.pass(5);
    assert_eq!((ends(&world), status(&world)), ((3, 3, 3), "CompleteCommit"));
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(producer.end(false).await, 48);
    let again = world.init(1_000).await;
    assert_eq!((again.producer_id.0, again.producer_epoch), (producer.producer_id, producer.epoch + 1));
    assert_eq!(producer.add("orders").await, 90);
}

/// Kafka 4.4.0, found by the comparison with it: seed 158836837, sequence 51.
#[tokio::test]
async fn an_open_transaction_whose_beginning_is_deleted_holds_readers_where_its_batch_begins() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    assert_eq!(producer.add("orders").await, 0);
    for (sequence, batch) in [(0, ["a", "b"]), (2, ["c", "d"])] {
        let batch = producer.batch(sequence, &batch);
        assert_eq!(producer.wire.produce("orders", &batch).await.error_code, 0);
    }
    for (start, stable) in [(1, 0), (2, 2), (3, 2), (4, 4)] {
        world.cluster.with(|state| state.partition_mut("orders", 0).unwrap().log.raise_start(start));
        assert_eq!(ends(&world), (stable, 4, 4), "deleted up to {start}");
    }
}

#[tokio::test]
async fn a_transactional_batch_needs_its_partition_in_the_transaction() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    let batch = producer.batch(0, &["a"]);
    for (version, code) in [(9, 48), (11, 120)] {
        let refused = producer.wire.produce("orders", &BatchOf { version, ..batch.clone() }).await;
        assert_eq!((refused.error_code, refused.base_offset), (code, -1), "Produce {version}");
    }
    assert_eq!(producer.add("gone").await, 3);
    assert_eq!(producer.add("orders").await, 0);
    let stale = BatchOf { producer: (producer.producer_id, producer.epoch + 1, 0), ..batch.clone() };
    assert_eq!(producer.wire.produce("orders", &stale).await.error_code, 47);
    let foreign = BatchOf { producer: (producer.producer_id + 1, 0, 0), ..batch.clone() };
    assert_eq!(producer.wire.produce("orders", &foreign).await.error_code, 49);
    assert_eq!(producer.wire.produce("orders", &batch).await.error_code, 0);
    producer.end(true).await;
    // Its own transaction still stands open here, so nobody is asked.
    let late = producer.batch(1, &["b"]);
    assert_eq!(producer.wire.produce("orders", &late).await.error_code, 0);
    world.pass(5);
    let (earlier, later) = (producer.batch(2, &["c"]), producer.batch(3, &["d"]));
    assert_eq!(producer.wire.produce("orders", &earlier).await.error_code, 48);
    // What was refused comes first, or nothing does.
    assert_eq!(producer.add("orders").await, 0);
    assert_eq!(producer.wire.produce("orders", &later).await.error_code, 45);
    assert_eq!(producer.wire.produce("orders", &earlier).await.error_code, 0);
    assert_eq!(producer.wire.produce("orders", &later).await.error_code, 0);
}

#[tokio::test]
async fn a_transaction_open_for_too_long_is_aborted_and_its_producer_fenced() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let given = world.init(3_000).await;
    let mut producer = world.transactional().await;
    assert_eq!(producer.producer_id, given.producer_id.0);
    producer.add("orders").await;
    let batch = producer.batch(0, &["a"]);
    producer.wire.produce("orders", &batch).await;
    world.pass(60_000);
    assert_eq!(status(&world), "Ongoing");
    world.pass(10_000);
    assert_eq!(status(&world), "PrepareAbort");
    world.pass(5);
    assert_eq!((ends(&world), status(&world)), ((2, 2, 2), "CompleteAbort"));
    let next = producer.batch(1, &["b"]);
    assert_eq!(producer.wire.produce("orders", &next).await.error_code, 47);
    assert_eq!(producer.end(true).await, 90);
    assert_eq!(world.init(1_000).await.producer_epoch, producer.epoch + 2);
}

#[tokio::test]
async fn what_was_prepared_is_ended_by_the_next_coordinator() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    producer.add("orders").await;
    let batch = producer.batch(0, &["a"]);
    producer.wire.produce("orders", &batch).await;
    assert_eq!(producer.end(true).await, 0);
    world.cluster.stop_broker(1, Stop::Clean);
    world.pass(1_000);
    assert_eq!(status(&world), "PrepareCommit");
    world.cluster.start_broker(1);
    world.pass(5);
    assert_eq!((ends(&world), status(&world)), ((2, 2, 2), "CompleteCommit"));
    assert_eq!(world.init(1_000).await.producer_id.0, producer.producer_id);
}

fn is_pending(world: &World) -> bool {
    world
        .cluster
        .with(|state| state.groups.get("group").is_some_and(|group| group.offsets.is_pending("orders", 0)))
}

#[tokio::test]
async fn offsets_of_a_group_count_when_their_transaction_is_committed() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    for (commit, expected) in [(false, None), (true, Some(7))] {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_committed_offset(7)
            .with_committed_leader_epoch(-1);
        let of = |topic: &str| {
            let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name(topic));
            vec![topic.with_partitions(vec![partition.clone()])]
        };
        let offsets = TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id())
            .with_group_id(GroupId(text("group")))
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.epoch)
            .with_generation_id(-1)
            .with_topics(of("orders"));
        let refused = producer.wire.call(3, &offsets).await;
        assert_eq!(refused.topics[0].partitions[0].error_code, 48);
        let add = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id())
            .with_group_id(GroupId(text("group")))
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.epoch);
        assert_eq!(producer.wire.call(3, &add).await.error_code, 0);
        let gone = producer.wire.call(3, &offsets.clone().with_topics(of("gone"))).await;
        assert_eq!(gone.topics[0].partitions[0].error_code, 3);
        assert_eq!(
            world.cluster.with(|state| state.groups.get("group").is_some()),
            commit,
            "no group for it"
        );
        assert_eq!(producer.wire.call(3, &offsets).await.topics[0].partitions[0].error_code, 0);
        assert!(is_pending(&world));
        assert_eq!(producer.end(commit).await, 0);
        world.pass(5);
        let committed =
            world.cluster.with(|state| Some(state.groups.get("group")?.offsets.get("orders", 0)?.offset));
        assert_eq!(committed, expected, "commit {commit}");
        assert!(!is_pending(&world));
    }
}

#[tokio::test]
async fn transactions_are_listed_and_described_by_their_coordinator() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut producer = world.transactional().await;
    producer.add("orders").await;
    let ids = vec![transactional_id(), TransactionalId(text("other"))];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let states = producer.wire.call(0, &request).await.transaction_states;
    assert_eq!((states[0].transaction_state.as_str(), states[0].transaction_timeout_ms), ("Ongoing", 60_000));
    assert_eq!((states[0].transaction_start_time_ms, states[0].topics[0].partitions[0]), (START_MS, 0));
    assert_eq!(states[1].error_code, 105);
    for (filter, duration_ms, count) in [("Ongoing", -1, 1), ("Empty", -1, 0), ("Ongoing", 10, 0)] {
        let request = ListTransactionsRequest::default()
            .with_state_filters(vec![text(filter), text("Odd")])
            .with_duration_filter(duration_ms);
        let response = producer.wire.call(1, &request).await;
        assert_eq!(response.transaction_states.len(), count, "{filter} {duration_ms}");
        assert_eq!(response.unknown_state_filters, vec![text("Odd")]);
    }
}

fn marker(producer_id: i64, epoch: i16, topic: &str, coordinator_epoch: i32) -> WritableTxnMarker {
    let topic =
        WritableTxnMarkerTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(epoch)
        .with_coordinator_epoch(coordinator_epoch)
        .with_topics(vec![topic])
}

#[tokio::test]
async fn markers_of_any_producer_take_one_offset_each() {
    let world = World::new(2);
    world.topic("orders", 1, 1);
    let leader = world.leader("orders");
    let write = |markers| WriteTxnMarkersRequest::default().with_markers(markers);
    let mut wire = world.connect(leader);
    let code = |response: kafka_protocol::messages::WriteTxnMarkersResponse| {
        assert_eq!(response.markers.len(), 1, "one entry a producer id");
        response.markers[0].topics[0].partitions[0].error_code
    };
    let many = vec![marker(77, 3, "orders", 5); 4];
    assert_eq!(code(wire.call(1, &write(many)).await), 0);
    assert_eq!(ends(&world), (4, 4, 4));
    for (marker, expected) in
        [(marker(77, 2, "orders", 5), 47), (marker(77, 3, "orders", 4), 52), (marker(77, 3, "gone", 5), 3)]
    {
        assert_eq!(code(wire.call(1, &write(vec![marker])).await), expected);
    }
    assert_eq!(code(world.connect(3 - leader).call(1, &write(vec![marker(77, 4, "orders", 5)])).await), 3);
    assert_eq!(ends(&world), (4, 4, 4));
    // A fenced producer can't write below the marker's epoch, and goes on above it.
    let stale = wire.produce("orders", &BatchOf::of(77, 2, 0, &["a"])).await;
    let fresh = wire.produce("orders", &BatchOf::of(77, 3, 0, &["a"])).await;
    assert_eq!((stale.error_code, fresh.error_code, fresh.base_offset), (47, 0, 4));
}

#[tokio::test]
async fn a_marker_of_no_producer_fails_the_request_and_all_that_is_not_written_by_then() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    let mut wire = world.connect(1);
    let mut codes = async |markers| {
        let request = WriteTxnMarkersRequest::default().with_markers(markers);
        let markers = wire.call(1, &request).await.markers;
        markers.iter().map(|marker| marker.topics[0].partitions[0].error_code).collect::<Vec<_>>()
    };
    let unnamed = || marker(77, -1, "orders", 0);
    assert_eq!(codes(vec![unnamed(), marker(78, 0, "orders", 0)]).await, [-1, -1]);
    assert_eq!(ends(&world), (0, 0, 0));
    assert_eq!(codes(vec![marker(76, 0, "orders", 0), unnamed()]).await, [-1, -1]);
    assert_eq!(ends(&world), (1, 1, 1));
    // Where there is no such partition nothing is written, so nothing fails.
    assert_eq!(codes(vec![marker(77, -1, "gone", 0)]).await, [3]);
}

#[tokio::test]
async fn in_the_newest_versions_a_batch_names_its_topic_by_id_and_joins_the_transaction_by_itself() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    world.topic("others", 1, 1);
    let mut producer = world.transactional().await;
    let mut wire = world.connect(1);
    let metadata = wire.call(12, &MetadataRequest::default().with_topics(None)).await;
    let produce = |topic, sequence, by_id: Option<Uuid>| {
        let mut request = produce_request(topic, &producer.batch(sequence, &["a"]));
        if let Some(id) = by_id {
            request.topic_data[0].name = topic_name("");
            request.topic_data[0].topic_id = id;
        }
        request
    };
    let id = metadata.topics.iter().find(|topic| topic.name == Some(topic_name("orders"))).unwrap().topic_id;
    for (version, request, code) in [
        (13, produce("orders", 0, Some(Uuid::from_u128(9))), UNKNOWN_TOPIC_ID),
        // A producer that the partition knows nothing of begins at the beginning.
        (13, produce("orders", 5, Some(id)), OUT_OF_ORDER_SEQUENCE_NUMBER),
        (13, produce("orders", 0, Some(id)), 0),
        (11, produce("others", 0, None), TRANSACTION_ABORTABLE),
        (12, produce("others", 0, None), 0),
    ] {
        let topic = &wire.call(version, &request).await.responses[0];
        assert_eq!(topic.partition_responses[0].error_code, code, "version {version}");
        assert_eq!(topic.topic_id, request.topic_data[0].topic_id);
    }
    assert_eq!((producer.end(true).await, status(&world)), (0, "PrepareCommit"));
}

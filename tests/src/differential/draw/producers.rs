//! Producer ids, transactions and their coordinator.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeProducersRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ProducerId, RequestKind, TransactionalId,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::{one_of, text, topic_name, weighted};
use crate::differential::ids::FOREIGN_PRODUCERS;
use crate::differential::world::World;

const BATCHED_FROM_VERSION: i16 = 4;
const EPOCHS_FROM_VERSION: i16 = 3;

pub fn describe_producers(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let places = world.any_places(rng, 3);
    let topics = places.into_iter().map(|(name, partitions)| {
        TopicRequest::default().with_name(topic_name(name)).with_partition_indexes(partitions)
    });
    RequestKind::DescribeProducers(DescribeProducersRequest::default().with_topics(topics.collect()))
}

pub fn init_producer_id(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let transactional_id = match rng.random_range(0..20) {
        0 => Some(String::new()),
        1..=8 => None,
        _ => Some(format!("{}txn-{}", world.prefix, rng.random_range(0..2))),
    };
    // With the epoch from before it was fenced, Kafka 4 lets a producer go on, Kafka 3.9 does not.
    let mut known = world.producers.iter().filter(|producer| !producer.fenced);
    let known = known.find(|producer| producer.transactional_id == transactional_id);
    let (id, epoch) = match (known, rng.random_range(0..10)) {
        (Some(known), 0..=2) => (known.id, known.epoch),
        (Some(known), 3) => (known.id, known.epoch.wrapping_add(1)),
        (Some(known), 4) => (known.id, known.epoch.wrapping_sub(1)),
        (_, 5) => (FOREIGN_PRODUCERS, 0),
        _ => (-1, -1),
    };
    let timeout_ms = weighted(rng, &[(16, 60_000), (1, 0), (1, -1), (1, i32::MAX)]);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_transaction_timeout_ms(timeout_ms);
    let request = match version >= EPOCHS_FROM_VERSION {
        true => request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
        false => request,
    };
    RequestKind::InitProducerId(request)
}

pub fn find_coordinator(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let kind = if version >= 1 { weighted(rng, &[(6, 0), (6, 1), (1, 9)]) } else { 0 };
    let key = format!("{}{}", world.prefix, one_of(rng, &["txn-0", "group"]));
    let request = FindCoordinatorRequest::default();
    let request = if version >= 1 { request.with_key_type(kind) } else { request };
    RequestKind::FindCoordinator(match version >= BATCHED_FROM_VERSION {
        true => request.with_coordinator_keys(vec![text(key)]),
        false => request.with_key(text(key)),
    })
}

/// Of a producer that has a transactional id; sometimes of another, or with an epoch that isn't its own.
pub fn identity(world: &World, rng: &mut StdRng) -> (String, i64, i16) {
    let with_id: Vec<_> =
        world.producers.iter().filter(|producer| producer.transactional_id.is_some()).collect();
    if with_id.is_empty() || rng.random_bool(0.04) {
        return (format!("{}nobody", world.prefix), FOREIGN_PRODUCERS, 0);
    }
    let producer = with_id[rng.random_range(0..with_id.len())];
    let transactional_id = producer.transactional_id.clone().unwrap_or_default();
    match rng.random_range(0..30) {
        0 => (transactional_id, producer.id, producer.epoch.wrapping_sub(1)),
        1 => (transactional_id, producer.id, producer.epoch.wrapping_add(1)),
        2 => (transactional_id, FOREIGN_PRODUCERS, producer.epoch),
        _ => (transactional_id, producer.id, producer.epoch),
    }
}

pub fn add_partitions(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let (transactional_id, id, epoch) = identity(world, rng);
    let places = world.any_places(rng, 4);
    let topics = places.into_iter().map(|(name, partitions)| {
        AddPartitionsToTxnTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    });
    debug_assert!(version < BATCHED_FROM_VERSION, "from version 4 on only brokers send it");
    RequestKind::AddPartitionsToTxn(
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(transactional_id)))
            .with_v3_and_below_producer_id(ProducerId(id))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(topics.collect()),
    )
}

pub fn end_txn(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let (transactional_id, id, epoch) = identity(world, rng);
    RequestKind::EndTxn(
        EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(transactional_id)))
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_committed(rng.random()),
    )
}

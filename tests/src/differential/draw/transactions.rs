//! What a transaction does beyond producing: offsets of groups, and markers as a coordinator or an
//! administrator writes them.

use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, GroupId, ProducerId, RequestKind, TransactionalId, TxnOffsetCommitRequest,
    WriteTxnMarkersRequest,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::producers::identity;
use super::{groups, members, one_of, text, topic_name, weighted};
use crate::differential::ids::FOREIGN_PRODUCERS;
use crate::differential::world::World;

const LEADER_EPOCH_FROM_VERSION: i16 = 2;
const MEMBERS_FROM_VERSION: i16 = 3;

pub fn add_offsets(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let (transactional_id, id, epoch) = identity(world, rng);
    RequestKind::AddOffsetsToTxn(
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(transactional_id)))
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_group_id(groups::group(world, rng)),
    )
}

pub fn commit_offsets(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let (transactional_id, id, epoch) = committer(world, rng);
    // Kafka 3.9 takes an epoch that nobody has into an open transaction, Kafka 4 does not.
    let own = world.producers.iter().find(|producer| producer.id == id).filter(|_| world.kafka_3);
    let epoch = own.map_or(epoch, |producer| epoch.min(producer.epoch));
    let group = added_group(world, rng, id);
    let places = world.any_places(rng, 3);
    let topics = places.into_iter().map(|(name, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            let row = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(weighted(rng, &[(8, 7), (4, 23), (1, -1)]))
                .with_committed_metadata(Some(text(one_of(rng, &["", "within"]))));
            let leader_epoch = one_of(rng, &[-1, 0]);
            match version >= LEADER_EPOCH_FROM_VERSION {
                true => row.with_committed_leader_epoch(leader_epoch),
                false => row,
            }
        });
        let rows = rows.collect();
        TxnOffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(rows)
    });
    let topics = topics.collect();
    let mut request = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text(transactional_id)))
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch)
        .with_topics(topics);
    if version >= MEMBERS_FROM_VERSION && rng.random_bool(0.6) {
        let membership = world.membership(&group).cloned().unwrap_or_default();
        let (generation, member, instance) = members::identity(&membership, rng, true);
        request.generation_id = generation;
        request.member_id = text(member);
        request.group_instance_id = instance.map(text);
    }
    RequestKind::TxnOffsetCommit(request.with_group_id(group))
}

/// Mostly a producer whose transaction holds offsets.
fn committer(world: &World, rng: &mut StdRng) -> (String, i64, i16) {
    let adding = world.producers.iter().find(|known| !known.added_groups.is_empty());
    match adding.filter(|_| rng.random_bool(0.7)) {
        Some(known) => (known.transactional_id.clone().unwrap_or_default(), known.id, known.epoch),
        None => identity(world, rng),
    }
}

/// Mostly one that is part of the producer's transaction.
fn added_group(world: &World, rng: &mut StdRng, producer: i64) -> GroupId {
    let owner = world.producers.iter().find(|known| known.id == producer);
    match owner.and_then(|owner| owner.added_groups.first()).filter(|_| rng.random_bool(0.9)) {
        Some(group) => group.clone(),
        None => groups::group(world, rng),
    }
}

pub fn write_markers(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let count = weighted(rng, &[(5, 1), (1, 2)]);
    let mut markers: Vec<WritableTxnMarker> = Vec::new();
    for _ in 0..count {
        let marker = marker(world, rng);
        // Of two markers of one producer, which is answered is up to a hash map; a marker that goes nowhere
        // behind one that is written keeps Kafka from ever answering.
        let unlike = markers.iter().all(|other| other.producer_id != marker.producer_id);
        if markers.is_empty() || (unlike && world.has_all(&marker.topics)) {
            markers.push(marker);
        }
    }
    RequestKind::WriteTxnMarkers(WriteTxnMarkersRequest::default().with_markers(markers))
}

fn marker(world: &World, rng: &mut StdRng) -> WritableTxnMarker {
    let topics = world.any_places(rng, 3).into_iter().map(|(name, partitions)| {
        WritableTxnMarkerTopic::default().with_name(topic_name(name)).with_partition_indexes(partitions)
    });
    let marker =
        WritableTxnMarker::default().with_topics(topics.collect()).with_transaction_result(rng.random());
    if world.producers.is_empty() || rng.random_bool(0.15) {
        return marker
            .with_producer_id(ProducerId(FOREIGN_PRODUCERS + i64::from(rng.random_range(0..3))))
            .with_producer_epoch(one_of(rng, &[0, 3]))
            .with_coordinator_epoch(one_of(rng, &[0, 0, 4, -1]));
    }
    let producer = &world.producers[rng.random_range(0..world.producers.len())];
    let marker = marker.with_producer_id(ProducerId(producer.id));
    // A marker from the future keeps a coordinator from ever writing its own.
    let coordinated = producer.transactional_id.is_some();
    let epoch = match rng.random_range(0..8) {
        0 => producer.epoch.wrapping_sub(1),
        1 if !coordinated => producer.epoch + 1,
        _ => producer.epoch,
    };
    let coordinator_epoch =
        if coordinated { one_of(rng, &[0, 0, -1]) } else { one_of(rng, &[0, 0, 4, 2, -1]) };
    marker.with_producer_epoch(epoch).with_coordinator_epoch(coordinator_epoch)
}

//! ListOffsets, DeleteRecords, OffsetForLeaderEpoch.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, RequestKind,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::{one_of, topic_name, weighted};
use crate::differential::world::World;

const CONSUMER: BrokerId = BrokerId(-1);
/// As a tool asks: log ends, not high watermarks.
const DEBUGGING: BrokerId = BrokerId(-2);

pub fn list_offsets(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let places = world.any_places(rng, 4);
    let topics = places.into_iter().map(|(name, partitions)| {
        let mut rows: Vec<ListOffsetsPartition> = partitions
            .into_iter()
            .map(|partition| {
                let row = ListOffsetsPartition::default().with_partition_index(partition);
                let row = row.with_timestamp(timestamp(world, rng));
                let epoch = weighted(rng, &[(10, -1), (10, 0), (1, 1), (1, 9)]);
                if version >= 4 { row.with_current_leader_epoch(epoch) } else { row }
            })
            .collect();
        if rng.random_bool(0.02) {
            rows.push(rows[0].clone());
        }
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(rows)
    });
    let request = ListOffsetsRequest::default().with_topics(topics.collect());
    let request = request.with_replica_id(weighted(rng, &[(5, CONSUMER), (1, DEBUGGING)]));
    let level = one_of(rng, &[0, 1]);
    let request = if version >= 2 { request.with_isolation_level(level) } else { request };
    let timeout_ms = 1_000;
    let request = if version >= 10 { request.with_timeout_ms(timeout_ms) } else { request };
    RequestKind::ListOffsets(request)
}

fn timestamp(world: &World, rng: &mut StdRng) -> i64 {
    let sent = world.sent.iter().rev().map(|sent| sent.batch.base_timestamp);
    let sent: Vec<i64> = sent.filter(|time| *time > 0).take(10).collect();
    match rng.random_range(0..20) {
        0..=5 => -1,
        6..=9 => -2,
        10 | 11 => -3,
        12 => -4,
        13 => -5,
        14 => one_of(rng, &[-6, -7, i64::MIN]),
        15 => 0,
        16 => i64::MAX,
        _ if sent.is_empty() => 1,
        _ => one_of(rng, &sent) + one_of(rng, &[-1, 0, 1, 20, 60]),
    }
}

pub fn delete_records(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let places = world.any_places(rng, 2);
    let topics = places.into_iter().map(|(name, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            let end = world.end(&(name.clone(), partition));
            let offset = match rng.random_range(0..10) {
                0 => end + 1,
                1 => -2,
                2 | 3 => -1,
                4 => end,
                5 => 0,
                _ => rng.random_range(0..=end),
            };
            DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset)
        });
        let rows = rows.collect();
        DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(rows)
    });
    let request = DeleteRecordsRequest::default().with_topics(topics.collect());
    RequestKind::DeleteRecords(request.with_timeout_ms(10_000))
}

pub fn offset_for_leader_epoch(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let places = world.any_places(rng, 3);
    let topics = places.into_iter().map(|(name, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(weighted(rng, &[(5, -1), (5, 0), (1, 1)]))
                .with_leader_epoch(one_of(rng, &[0, 0, 1, 5, -1]))
        });
        let rows = rows.collect();
        OffsetForLeaderTopic::default().with_topic(topic_name(name)).with_partitions(rows)
    });
    let request = OffsetForLeaderEpochRequest::default().with_topics(topics.collect());
    let request = if version >= 3 { request.with_replica_id(CONSUMER) } else { request };
    RequestKind::OffsetForLeaderEpoch(request)
}

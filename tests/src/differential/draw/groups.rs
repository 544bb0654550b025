//! Committed offsets, and groups of one member.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::{one_of, text, topic_name, weighted};
use crate::differential::world::World;

const LEADER_EPOCH_FROM_VERSION: i16 = 6;
const RETENTION_UP_TO_VERSION: i16 = 4;
const GROUPS_FROM_VERSION: i16 = 8;

fn group(world: &World, rng: &mut StdRng) -> GroupId {
    let [often, seldom] = world.groups();
    weighted(rng, &[(20, &often), (10, &seldom), (1, &GroupId::default())]).clone()
}

/// As a consumer does that assigns partitions to itself; sometimes as a member that nobody knows.
pub fn offset_commit(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let places = world.any_places(rng, 3);
    let topics = places.into_iter().map(|(name, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            let row = OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(weighted(rng, &[(8, 5), (4, 17), (1, -1)]))
                .with_committed_metadata(Some(text(one_of(rng, &["", "note"]))));
            let epoch = one_of(rng, &[-1, 0]);
            if version >= LEADER_EPOCH_FROM_VERSION { row.with_committed_leader_epoch(epoch) } else { row }
        });
        let rows = rows.collect();
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(rows)
    });
    let topics = topics.collect();
    let group = group(world, rng);
    // The group without a name is the real broker's in all sequences, so whether it is there already
    // must not matter.
    let strangers = if group.is_empty() { 0 } else { 1 };
    let members = [(10, (-1, "")), (strangers, (3, "nobody")), (strangers, (3, ""))];
    let (generation, member) = weighted(rng, &members);
    let request = OffsetCommitRequest::default()
        .with_group_id(group)
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(topics);
    RequestKind::OffsetCommit(match version <= RETENTION_UP_TO_VERSION {
        true => request.with_retention_time_ms(-1),
        false => request,
    })
}

pub fn offset_fetch(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let id = group(world, rng);
    let places = (version < 2 || rng.random_bool(0.8)).then(|| world.any_places(rng, 3));
    if version >= GROUPS_FROM_VERSION {
        let topics = places.map(|places| {
            let topic = |(name, partitions): (String, Vec<i32>)| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic_name(name))
                    .with_partition_indexes(partitions)
            };
            places.into_iter().map(topic).collect()
        });
        let group = OffsetFetchRequestGroup::default().with_group_id(id).with_topics(topics);
        return RequestKind::OffsetFetch(OffsetFetchRequest::default().with_groups(vec![group]));
    }
    let topics = places.map(|places| {
        let topic = |(name, partitions): (String, Vec<i32>)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(partitions)
        };
        places.into_iter().map(topic).collect()
    });
    RequestKind::OffsetFetch(OffsetFetchRequest::default().with_group_id(id).with_topics(topics))
}

/// Of a member that nobody knows.
pub fn heartbeat(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    RequestKind::Heartbeat(
        HeartbeatRequest::default()
            .with_group_id(group(world, rng))
            .with_generation_id(one_of(rng, &[-1, 0, 1]))
            .with_member_id(text(one_of(rng, &["", "nobody"]))),
    )
}

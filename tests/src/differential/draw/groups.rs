//! Committed offsets, within transactions and without, and what administrators ask of groups.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, RequestKind,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::members::identity;
use super::{one_of, text, topic_name, weighted};
use crate::differential::world::World;

const LEADER_EPOCH_FROM_VERSION: i16 = 6;
const RETENTION_UP_TO_VERSION: i16 = 4;
const GROUPS_FROM_VERSION: i16 = 8;
const STATIC_COMMITS_FROM_VERSION: i16 = 7;
const STABLE_FROM_VERSION: i16 = 7;
const OPERATIONS_FROM_VERSION: i16 = 3;
const STATES_FROM_VERSION: i16 = 4;
const TYPES_FROM_VERSION: i16 = 5;

pub fn group(world: &World, rng: &mut StdRng) -> GroupId {
    let [often, seldom] = world.groups();
    weighted(rng, &[(20, &often), (10, &seldom), (1, &GroupId::default())]).clone()
}

/// As a member, or as a consumer does that assigns partitions to itself; sometimes as a member that nobody
/// knows.
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
    let mut committer = (generation, member.to_owned(), None);
    let known = world.membership(&group).filter(|membership| !membership.members.is_empty());
    if let Some(membership) = known.filter(|_| rng.random_bool(0.8)) {
        committer = identity(membership, rng, version >= STATIC_COMMITS_FROM_VERSION);
    }
    let (generation, member, instance) = committer;
    let request = OffsetCommitRequest::default()
        .with_group_id(group)
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_topics(topics);
    RequestKind::OffsetCommit(match version <= RETENTION_UP_TO_VERSION {
        true => request.with_retention_time_ms(-1),
        false => request,
    })
}

pub fn offset_fetch(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let id = group(world, rng);
    let places = (version < 2 || rng.random_bool(0.8)).then(|| world.any_places(rng, 3));
    let stable = version >= STABLE_FROM_VERSION && rng.random_bool(0.3);
    let request = OffsetFetchRequest::default().with_require_stable(stable);
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
        return RequestKind::OffsetFetch(request.with_groups(vec![group]));
    }
    let topics = places.map(|places| {
        let topic = |(name, partitions): (String, Vec<i32>)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(partitions)
        };
        places.into_iter().map(topic).collect()
    });
    RequestKind::OffsetFetch(request.with_group_id(id).with_topics(topics))
}

/// One of the sequence's groups, or one that isn't there: the group without a name is shared by all
/// sequences at the real end.
fn own_group(world: &World, rng: &mut StdRng) -> GroupId {
    let [often, seldom] = world.groups();
    let missing = GroupId(text(format!("{}missing", world.prefix)));
    weighted(rng, &[(12, often), (6, seldom), (1, missing)].each_ref().map(|(weight, id)| (*weight, id)))
        .clone()
}

pub fn describe_groups(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let mut groups = vec![own_group(world, rng)];
    if rng.random_bool(0.3) {
        groups.push(own_group(world, rng));
        groups.dedup();
    }
    let operations = version >= OPERATIONS_FROM_VERSION && rng.random_bool(0.3);
    RequestKind::DescribeGroups(
        DescribeGroupsRequest::default().with_groups(groups).with_include_authorized_operations(operations),
    )
}

pub fn list_groups(_: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let states: &[&str] = one_of(rng, &[&[], &[], &["Stable"], &["empty", "Dead"], &["Thriving"]]);
    let types: &[&str] = one_of(rng, &[&[], &[], &["classic"], &["Consumer"], &["none"]]);
    let filter = |names: &[&str], from: i16| {
        names.iter().filter(|_| version >= from).map(|name| text(*name)).collect::<Vec<_>>()
    };
    RequestKind::ListGroups(
        ListGroupsRequest::default()
            .with_states_filter(filter(states, STATES_FROM_VERSION))
            .with_types_filter(filter(types, TYPES_FROM_VERSION)),
    )
}

pub fn delete_groups(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let group = own_group(world, rng);
    RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![group]))
}

pub fn offset_delete(world: &mut World, rng: &mut StdRng, _: i16) -> RequestKind {
    let topics = world.any_places(rng, 3).into_iter().map(|(name, partitions)| {
        let row = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
        OffsetDeleteRequestTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions.into_iter().map(row).collect())
    });
    let topics = topics.collect();
    let group = own_group(world, rng);
    RequestKind::OffsetDelete(OffsetDeleteRequest::default().with_group_id(group).with_topics(topics))
}

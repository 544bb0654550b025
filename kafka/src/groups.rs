//! Consumer groups from outside: which there are, where each stands, and where it is put. Never joins one.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{ApiKey, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::client::topic_name;
use crate::connection::{Api, Connection, Gate};
use crate::error::{Error, ErrorCode};
use crate::fetch::TopicPartition;
use crate::shape;

static LIST_GROUPS: Api = Api {
    key: ApiKey::ListGroups as i16,
    name: "ListGroups",
    versions: &[(4, true, shape::LIST_GROUPS_V4), (3, true, shape::LIST_GROUPS_V3)],
};
static OFFSET_FETCH: Api = Api {
    key: ApiKey::OffsetFetch as i16,
    name: "OffsetFetch",
    versions: &[(8, true, shape::OFFSET_FETCH_V8), (7, true, shape::OFFSET_FETCH_V7)],
};
static OFFSET_COMMIT: Api = Api {
    key: ApiKey::OffsetCommit as i16,
    name: "OffsetCommit",
    versions: &[(7, false, shape::OFFSET_COMMIT_V7)],
};

/// OffsetFetch of one group knows no more than one; several go together from this version on.
const SEVERAL_GROUPS: i16 = 8;
/// A broker writes a commit as one batch, which has a limit.
const PARTITIONS_A_COMMIT: usize = 1_000;
/// Positions of groups: some hundred thousand.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A commit by whoever is no member.
const NO_GENERATION: i32 = -1;
/// A reader at the destination then takes the offset as it is: the source's leader epochs mean nothing there.
const NO_LEADER_EPOCH: i32 = -1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub id: String,
    /// `consumer` for consumers of either protocol; empty for one that only holds offsets.
    pub protocol_type: String,
}

/// Groups that this broker coordinates.
///
/// # Errors
/// [`Error::Broker`]: 14 and 15 pass with time; without DESCRIBE on a group it is left out, silently.
pub async fn list(connection: &Connection) -> Result<Vec<ListedGroup>, Error> {
    let response = bounded(connection, &LIST_GROUPS, &ListGroupsRequest::default()).await?;
    ErrorCode::check(response.error_code, "ListGroups")?;
    let group = |group: kafka_protocol::messages::list_groups_response::ListedGroup| ListedGroup {
        id: group.group_id.0.to_string(),
        protocol_type: group.protocol_type.to_string(),
    };
    Ok(response.groups.into_iter().map(group).collect())
}

/// Where a group stands in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    pub offset: i64,
    pub metadata: String,
}

pub type GroupOffsets = BTreeMap<TopicPartition, GroupOffset>;

/// Where a group stands, asked of its coordinator.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub group: &'a str,
    /// None: everything that it has committed, but for topics without DESCRIBE, which are left out.
    pub partitions: Option<Vec<&'a TopicPartition>>,
}

impl Question<'_> {
    fn id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.to_owned()))
    }

    fn topics(&self) -> Option<BTreeMap<&str, Vec<i32>>> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for at in self.partitions.as_ref()? {
            topics.entry(&at.topic).or_default().push(at.partition);
        }
        Some(topics)
    }
}

/// Of each group what it has committed, or why that isn't told. A group without offsets has none; that is not
/// an error. `stable`: 88 is the answer where a transaction is about to change something (KIP-447).
///
/// # Errors
/// Those of [`Connection::call`].
pub async fn offsets(
    connection: &Connection,
    questions: &[Question<'_>],
    stable: bool,
) -> Result<BTreeMap<String, Result<GroupOffsets, ErrorCode>>, Error> {
    let request = OffsetFetchRequest::default().with_require_stable(stable);
    if connection.version(&OFFSET_FETCH)?.0 >= SEVERAL_GROUPS {
        let group = |question: &Question<'_>| {
            let topics = question.topics().map(|topics| {
                let topic = |(name, partitions)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(topic_name(name))
                        .with_partition_indexes(partitions)
                };
                topics.into_iter().map(topic).collect()
            });
            OffsetFetchRequestGroup::default().with_group_id(question.id()).with_topics(topics)
        };
        let request = request.with_groups(questions.iter().map(group).collect());
        let response = bounded(connection, &OFFSET_FETCH, &request).await?;
        let told = response.groups.into_iter().map(|group| {
            let partitions = group.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|p| {
                    let row = (p.partition_index, p.committed_offset, p.metadata.as_deref(), p.error_code);
                    (topic.name.as_str(), row)
                })
            });
            (group.group_id.0.to_string(), read(group.error_code, partitions))
        });
        return Ok(told.collect());
    }
    let mut told = BTreeMap::new();
    for question in questions {
        let topics = question.topics().map(|topics| {
            let topic = |(name, partitions)| {
                OffsetFetchRequestTopic::default()
                    .with_name(topic_name(name))
                    .with_partition_indexes(partitions)
            };
            topics.into_iter().map(topic).collect()
        });
        let request = request.clone().with_group_id(question.id()).with_topics(topics);
        let response = bounded(connection, &OFFSET_FETCH, &request).await?;
        let partitions = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|p| {
                let row = (p.partition_index, p.committed_offset, p.metadata.as_deref(), p.error_code);
                (topic.name.as_str(), row)
            })
        });
        told.insert(question.group.to_owned(), read(response.error_code, partitions));
    }
    Ok(told)
}

/// One group's rows. An error of one partition is the group's: half of it would look like a reset.
fn read<'a>(
    error_code: i16,
    partitions: impl Iterator<Item = (&'a str, (i32, i64, Option<&'a str>, i16))>,
) -> Result<GroupOffsets, ErrorCode> {
    if let Some(code) = ErrorCode::of(error_code) {
        return Err(code);
    }
    let mut offsets = GroupOffsets::new();
    for (topic, (partition, offset, metadata, code)) in partitions {
        if let Some(code) = ErrorCode::of(code) {
            return Err(code);
        }
        // Below zero: nothing is committed there.
        if offset >= 0 {
            let metadata = metadata.unwrap_or_default().to_owned();
            offsets
                .insert(TopicPartition { topic: topic.into(), partition }, GroupOffset { offset, metadata });
        }
    }
    Ok(offsets)
}

async fn bounded<R: Request>(
    connection: &Connection,
    api: &'static Api,
    request: &R,
) -> Result<R::Response, Error> {
    connection.call_bounded(api, request, connection.request_timeout(), FRAME_BYTES_MAX).await
}

/// Puts a group that has no members where it is to stand, asked of its coordinator. Sent only while `gate`, if
/// there is one, is open.
///
/// # Errors
/// [`Error::Broker`] of the first partition that is refused: 25 when it has members, 16 at another
/// coordinator, 30 without READ on the group, 29 without READ on a topic.
pub async fn commit(
    connection: &Connection,
    group: &str,
    offsets: &GroupOffsets,
    gate: Option<Gate>,
) -> Result<(), Error> {
    let all: Vec<_> = offsets.iter().collect();
    for some in all.chunks(PARTITIONS_A_COMMIT) {
        commit_some(connection, group, some, gate.clone()).await?;
    }
    Ok(())
}

async fn commit_some(
    connection: &Connection,
    group: &str,
    offsets: &[(&TopicPartition, &GroupOffset)],
    gate: Option<Gate>,
) -> Result<(), Error> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (at, GroupOffset { offset, metadata }) in offsets.iter().copied() {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(at.partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(NO_LEADER_EPOCH)
            .with_committed_metadata(Some(StrBytes::from_string(metadata.clone())));
        topics.entry(&at.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_generation_id_or_member_epoch(NO_GENERATION)
        .with_topics(topics.collect());
    let response = connection.call_gated(&OFFSET_COMMIT, &request, gate).await?;
    for topic in &response.topics {
        for partition in &topic.partitions {
            let what = format!(
                "OffsetCommit of group {group} in {}[{}]",
                topic.name.as_str(),
                partition.partition_index
            );
            ErrorCode::check(partition.error_code, what)?;
        }
    }
    Ok(())
}

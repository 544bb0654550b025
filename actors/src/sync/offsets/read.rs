//! What rounds read, in bulk: groups of the source, positions at both ends, the mirrors' log ends. What can't be
//! read is left out, and said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::{MirrorTopic, TopicId};
use kafka::fetch::TopicPartition;
use kafka::groups::{self, GroupOffsets, ListedGroup, Question};
use kafka::{Client, Error, ErrorCode, Metadata, coordinator, offsets};

use super::plan::Mirrored;
use crate::observe::TaskError;
use crate::partition::topic_partition;
use crate::plane::LinkPlane;
use crate::sync::all;
use crate::sync::filters::Filters;
use crate::sync::found::{Errors, tell};

/// Groups in one request.
pub const GROUPS_A_REQUEST: usize = 20;
const COORDINATORS_A_REQUEST: usize = 200;

/// Requests under way at once.
pub const REQUESTS_MAX: usize = 16;

/// Share groups (KIP-932) have no positions that could be carried over.
const SHARE_GROUP: &str = "share";

pub const GROUP_ID_NOT_FOUND: ErrorCode = ErrorCode(69);

type Positions = BTreeMap<String, Result<GroupOffsets, ErrorCode>>;

#[derive(Clone, Copy)]
pub enum Side {
    Source,
    Destination,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Both clusters as they are now, and which of the mirrors still are what they were set up for: positions go by
/// names, and another topic of a name is none of ours.
pub async fn look<'a>(
    plane: &LinkPlane,
    mirrors: &'a [Arc<MirrorTopic>],
) -> Result<(Metadata, Metadata, Vec<&'a Arc<MirrorTopic>>, Errors), TaskError> {
    let theirs: Vec<&str> = mirrors.iter().map(|mirror| &*mirror.source_topic).collect();
    let ours: Vec<&str> = mirrors.iter().map(|mirror| &*mirror.name).collect();
    let (source, destination) = tokio::join!(
        plane.group_source().metadata(Some(&theirs)),
        plane.group_destination().metadata(Some(&ours))
    );
    let source = source.map_err(|error| told(Side::Source, &error))?;
    let destination = destination.map_err(|error| told(Side::Destination, &error))?;
    let mut errors = Errors::new();
    let mut same = Vec::with_capacity(mirrors.len());
    for mirror in mirrors {
        let at_source = another(&source, &mirror.source_topic, mirror.source_topic_id, Side::Source);
        let another = at_source
            .or_else(|| another(&destination, &mirror.name, mirror.destination_topic_id, Side::Destination));
        match another {
            Some(error) => drop(errors.insert(mirror.name.clone(), error)),
            None => same.push(mirror),
        }
    }
    Ok((source, destination, same, errors))
}

/// Why the topic of that name isn't the one that is meant, if it isn't. Old sources have no ids.
fn another(metadata: &Metadata, topic: &str, id: TopicId, side: Side) -> Option<TaskError> {
    let side = side.name();
    let why = match metadata.topics.get(topic) {
        Some(Ok(found)) if id.is_none() || *found.topic_id.as_bytes() == id.0 => return None,
        Some(Ok(_)) => {
            format!("topic '{topic}' at the {side} is another one by now: its positions are left alone")
        }
        Some(Err(code)) => format!("topic '{topic}' at the {side}: {code}"),
        None => format!("topic '{topic}': the {side} doesn't tell of it"),
    };
    Some(TaskError::internal(why))
}

/// Groups that are meant, as far as the source tells.
#[derive(Default)]
pub struct AtSource {
    pub positions: BTreeMap<String, GroupOffsets>,
    pub listed: BTreeSet<String>,
    /// Every broker has told its groups.
    pub is_whole: bool,
    pub errors: Errors,
}

/// Where the groups that are meant stand at the source.
pub async fn at_source(source: &Client, brokers: &Metadata, filters: &Filters) -> AtSource {
    let brokers: Vec<i32> = brokers.brokers.keys().copied().collect();
    let listed = brokers.into_iter().map(|broker| list(source.clone(), broker)).collect();
    let mut found = AtSource { is_whole: true, ..AtSource::default() };
    let mut asked = Vec::new();
    for (broker, listed) in all(REQUESTS_MAX, listed).await {
        match listed {
            Ok(listed) => {
                let is_meant = |g: &ListedGroup| g.protocol_type != SHARE_GROUP && filters.includes(&g.id);
                let meant: Vec<String> = listed.into_iter().filter(is_meant).map(|group| group.id).collect();
                found.listed.extend(meant.iter().cloned());
                let some = meant.chunks(GROUPS_A_REQUEST);
                asked.extend(some.map(|some| positions(source.clone(), broker, some.to_vec())));
            }
            Err(error) => {
                found.is_whole = false;
                tell(&mut found.errors, told(Side::Source, &error));
            }
        }
    }
    for answer in all(REQUESTS_MAX, asked).await {
        match answer {
            Ok(groups) => {
                for (group, offsets) in groups {
                    match offsets {
                        Ok(offsets) => drop(found.positions.insert(group, offsets)),
                        Err(GROUP_ID_NOT_FOUND) => {}
                        Err(code) => drop(found.errors.insert(group.into(), of_group(Side::Source, code))),
                    }
                }
            }
            Err(error) => tell(&mut found.errors, told(Side::Source, &error)),
        }
    }
    found
}

/// Adds who coordinates each of these groups, as far as that isn't known yet.
pub async fn find_coordinators(
    destination: &Client,
    groups: &[&str],
    known: &mut BTreeMap<String, i32>,
) -> Errors {
    let mut errors = Errors::new();
    let unknown: Vec<&str> = groups.iter().copied().filter(|group| !known.contains_key(*group)).collect();
    for some in unknown.chunks(COORDINATORS_A_REQUEST) {
        match coordinator::of_groups(destination, some).await {
            Ok(found) => {
                for (group, coordinator) in found {
                    match coordinator {
                        Ok(broker) => drop(known.insert(group, broker)),
                        Err(code) => drop(errors.insert(group.into(), of_group(Side::Destination, code))),
                    }
                }
            }
            Err(error) => tell(&mut errors, told(Side::Destination, &error)),
        }
    }
    errors
}

/// Where the mirrors of the wanted source partitions end: high watermarks. Of a failed partition nothing is known
/// any more.
pub async fn log_ends(
    client: &Client,
    destination: &Metadata,
    mirrors: &[&Arc<MirrorTopic>],
    wanted: &BTreeSet<&TopicPartition>,
) -> (BTreeMap<TopicPartition, Vec<Mirrored>>, Errors) {
    let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
    let mut mirrored: Vec<(TopicPartition, TopicPartition)> = Vec::new();
    for mirror in mirrors {
        let found = destination.topics.get(&*mirror.name).and_then(|topic| topic.as_ref().ok());
        for (number, partition) in (0..).zip(&mirror.partitions) {
            let source = topic_partition(&mirror.source_topic, number);
            if partition.failure.is_some() || !wanted.contains(&source) {
                continue;
            }
            let at = topic_partition(&mirror.name, number);
            let leader = found.and_then(|topic| topic.partitions.get(&at.partition));
            if let Some((leader, leader_epoch)) = leader.and_then(|p| Some((p.leader?, p.leader_epoch))) {
                by_leader.entry(leader).or_default().push((at.clone(), leader_epoch));
            }
            mirrored.push((source, at));
        }
    }
    let asked = by_leader.into_iter();
    let asked = asked.map(|(leader, of)| high_watermarks(client.clone(), leader, of)).collect();
    let (mut ends, mut errors) = (BTreeMap::new(), Errors::new());
    for answer in all(REQUESTS_MAX, asked).await {
        match answer {
            Ok(some) => ends.extend(some),
            Err(error) => tell(&mut errors, told(Side::Destination, &error)),
        }
    }
    let mut by_source: BTreeMap<TopicPartition, Vec<Mirrored>> = BTreeMap::new();
    for (source, mirror) in mirrored {
        let log_end = ends.get(&mirror).copied();
        if log_end.is_none() {
            let message = format!(
                "where {}[{}] ends isn't known: positions in it wait",
                mirror.topic, mirror.partition
            );
            errors.entry(mirror.topic.clone()).or_insert_with(|| TaskError::internal(message));
        }
        by_source.entry(source).or_default().push(Mirrored { mirror, log_end });
    }
    (by_source, errors)
}

async fn list(client: Client, broker: i32) -> (i32, Result<Vec<ListedGroup>, Error>) {
    let listed = async { groups::list(&client.control(broker).await?).await };
    (broker, listed.await)
}

async fn positions(client: Client, broker: i32, groups: Vec<String>) -> Result<Positions, Error> {
    let question = |group| Question { group, partitions: None };
    let questions: Vec<Question<'_>> = groups.iter().map(|group| question(group)).collect();
    groups::offsets(&client.control(broker).await?, &questions, false).await
}

async fn high_watermarks(
    client: Client,
    leader: i32,
    of: Vec<(TopicPartition, i32)>,
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    offsets::high_watermarks(&client.control(leader).await?, &of).await
}

pub fn told(side: Side, error: &Error) -> TaskError {
    TaskError::internal(format!("the {}: {error}", side.name()))
}

pub fn of_group(side: Side, code: ErrorCode) -> TaskError {
    let message = format!("the {}: {code}", side.name());
    match code {
        ErrorCode::GROUP_AUTHORIZATION_FAILED => {
            TaskError::authorization(format!("{message}; grant DESCRIBE on the group"))
        }
        _ => TaskError::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use kafka::TopicMetadata;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn another_topic_of_the_name_is_told_where_brokers_have_ids() {
        let found = TopicMetadata {
            topic_id: Uuid::from_bytes([7; 16]),
            is_internal: false,
            partitions: BTreeMap::new(),
        };
        let topics = BTreeMap::from([("orders".to_owned(), Ok(found))]);
        let metadata = Metadata { topics, ..Metadata::default() };
        let why = |topic, id| another(&metadata, topic, id, Side::Source).map(|error| error.message);
        assert_eq!(why("orders", TopicId([7; 16])), None);
        assert_eq!(why("orders", TopicId::NONE), None, "it was set up where brokers had none");
        let told = why("orders", TopicId([8; 16])).expect("another one");
        assert!(told.contains("'orders' at the source is another one by now"), "{told}");
        assert!(why("gone", TopicId([7; 16])).expect("told").contains("doesn't tell of it"));
    }
}

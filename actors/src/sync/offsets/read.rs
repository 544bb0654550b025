//! What rounds read, in bulk: groups of the source, positions at both ends, the mirrors' log ends. What can't be
//! read is left out, and said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::MirrorTopic;
use kafka::fetch::TopicPartition;
use kafka::groups::{self, GroupOffsets, ListedGroup};
use kafka::{Client, Error, ErrorCode, offsets};

use super::filters::GroupFilters;
use super::plan::Mirrored;
use crate::observe::TaskError;
use crate::partition::topic_partition;
use crate::plane::LinkPlane;
use crate::sync::all;

/// Groups in one request.
const POSITIONS_A_REQUEST: usize = 20;
const COORDINATORS_A_REQUEST: usize = 200;

/// Requests under way at once.
const REQUESTS_MAX: usize = 16;

/// Share groups (KIP-932) have no positions that could be carried over.
const SHARE_GROUP: &str = "share";

const GROUP_ID_NOT_FOUND: ErrorCode = ErrorCode(69);

type Positions = BTreeMap<String, Result<GroupOffsets, ErrorCode>>;
type Errors = BTreeMap<Arc<str>, TaskError>;

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

/// Where the groups that are meant stand at the source.
pub async fn at_source(
    plane: &LinkPlane,
    filters: &GroupFilters,
) -> (BTreeMap<String, GroupOffsets>, Errors) {
    let brokers: Vec<i32> = plane.metadata().source.brokers.keys().copied().collect();
    let listed = brokers.into_iter().map(|broker| list(plane.source().clone(), broker)).collect();
    let mut errors = Errors::new();
    let mut by_broker: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (broker, listed) in all(REQUESTS_MAX, listed).await {
        match listed {
            Ok(listed) => {
                let meant =
                    listed.into_iter().filter(|g| g.protocol_type != SHARE_GROUP && filters.includes(&g.id));
                by_broker.insert(broker, meant.map(|group| group.id).collect());
            }
            Err(error) => drop(errors.insert("".into(), told(Side::Source, &error))),
        }
    }
    let (found, more) = offsets(plane.source(), Side::Source, by_broker).await;
    errors.extend(more);
    (found, errors)
}

/// All positions of these groups, by the broker that coordinates them.
pub async fn offsets(
    client: &Client,
    side: Side,
    by_broker: BTreeMap<i32, Vec<String>>,
) -> (BTreeMap<String, GroupOffsets>, Errors) {
    let some = by_broker
        .iter()
        .flat_map(|(broker, groups)| groups.chunks(POSITIONS_A_REQUEST).map(|some| (*broker, some.to_vec())));
    let asked = some.map(|(broker, some)| positions(client.clone(), broker, some)).collect();
    let (mut found, mut errors) = (BTreeMap::new(), Errors::new());
    for answer in all(REQUESTS_MAX, asked).await {
        match answer {
            Ok(groups) => {
                for (group, offsets) in groups {
                    match offsets {
                        Ok(offsets) => drop(found.insert(group, offsets)),
                        Err(GROUP_ID_NOT_FOUND) => drop(found.insert(group, GroupOffsets::new())),
                        Err(code) => drop(errors.insert(group.into(), of_group(side, code))),
                    }
                }
            }
            Err(error) => drop(errors.insert("".into(), told(side, &error))),
        }
    }
    (found, errors)
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
        match groups::coordinators(destination, some).await {
            Ok(found) => {
                for (group, coordinator) in found {
                    match coordinator {
                        Ok(broker) => drop(known.insert(group, broker)),
                        Err(code) => drop(errors.insert(group.into(), of_group(Side::Destination, code))),
                    }
                }
            }
            Err(error) => drop(errors.insert("".into(), told(Side::Destination, &error))),
        }
    }
    errors
}

/// Where the mirrors of the wanted source partitions end: high watermarks, and what follows a failure is
/// not the source's.
pub async fn log_ends(
    plane: &LinkPlane,
    mirrors: &[Arc<MirrorTopic>],
    wanted: &BTreeSet<&TopicPartition>,
) -> (BTreeMap<TopicPartition, Vec<Mirrored>>, Errors) {
    let metadata = plane.metadata().destination;
    let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
    let mut all_mirrored: Vec<(TopicPartition, Mirrored, Option<i64>)> = Vec::new();
    for mirror in mirrors {
        for (number, partition) in (0..).zip(&mirror.partitions) {
            let source = topic_partition(&mirror.source_topic, number);
            if !wanted.contains(&source) {
                continue;
            }
            let at = topic_partition(&mirror.name, number);
            let found = metadata.topics.get(&*mirror.name).and_then(|topic| topic.as_ref().ok());
            let found = found.and_then(|topic| topic.partitions.get(&at.partition));
            if let Some((leader, epoch)) = found.and_then(|p| Some((p.leader?, p.leader_epoch))) {
                by_leader.entry(leader).or_default().push((at.clone(), epoch));
            }
            let failed_at = partition.failure.as_ref().map(|failure| failure.offset);
            all_mirrored.push((source, Mirrored { mirror: at, log_end: None }, failed_at));
        }
    }
    let asked = by_leader.into_iter();
    let asked = asked.map(|(leader, of)| high_watermarks(plane.destination().clone(), leader, of)).collect();
    let (mut ends, mut errors) = (BTreeMap::new(), Errors::new());
    for answer in all(REQUESTS_MAX, asked).await {
        match answer {
            Ok(some) => ends.extend(some),
            Err(error) => drop(errors.insert("".into(), told(Side::Destination, &error))),
        }
    }
    let mut by_source: BTreeMap<TopicPartition, Vec<Mirrored>> = BTreeMap::new();
    for (source, mut mirrored, failed_at) in all_mirrored {
        let end: Option<&i64> = ends.get(&mirrored.mirror);
        mirrored.log_end = end.map(|end| failed_at.map_or(*end, |failed_at| failed_at.min(*end)));
        by_source.entry(source).or_default().push(mirrored);
    }
    (by_source, errors)
}

async fn list(client: Client, broker: i32) -> (i32, Result<Vec<ListedGroup>, Error>) {
    let listed = async { groups::list(&client.control(broker).await?).await };
    (broker, listed.await)
}

async fn positions(client: Client, broker: i32, groups: Vec<String>) -> Result<Positions, Error> {
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    groups::offsets(&client.control(broker).await?, &names).await
}

async fn high_watermarks(
    client: Client,
    leader: i32,
    of: Vec<(TopicPartition, i32)>,
) -> Result<Vec<(TopicPartition, i64)>, Error> {
    offsets::high_watermarks(&client.control(leader).await?, &of).await
}

fn told(side: Side, error: &Error) -> TaskError {
    TaskError::internal(format!("the {}: {error}", side.name()))
}

fn of_group(side: Side, code: ErrorCode) -> TaskError {
    let message = format!("the {}: {code}", side.name());
    match code {
        ErrorCode::GROUP_AUTHORIZATION_FAILED => {
            TaskError::authorization(format!("{message}; grant DESCRIBE on the group"))
        }
        _ => TaskError::internal(message),
    }
}

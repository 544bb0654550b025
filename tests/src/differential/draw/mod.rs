//! The requests of a sequence, drawn from its seed: those that the product, librdkafka and the Java client
//! send, and what comes out when one of their fields is wrong.

mod fetch;
mod groups;
mod members;
mod offsets;
mod produce;
mod producers;
mod topics;
mod transactions;

use std::collections::BTreeMap;

use kafka_protocol::messages::{ApiKey, RequestKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;
use rand::rngs::StdRng;

use super::connection::Call;
use super::world::World;

/// The lowest and the highest version spoken, by the number of an `ApiKey`.
pub type Versions = BTreeMap<i16, (i16, i16)>;

/// The world is told what the request holds when its answer will not say it.
#[derive(Clone, Copy)]
enum Draw {
    One(fn(&mut World, &mut StdRng, i16) -> RequestKind),
    /// Some of which wait for the others.
    Several(fn(&mut World, &mut StdRng, i16) -> Vec<RequestKind>),
}

/// A kind of request, how often it comes, and the version that the product itself sends.
struct Kind {
    weight: u32,
    api: ApiKey,
    products_version: Option<i16>,
    draw: Draw,
}

const fn kind(
    weight: u32,
    api: ApiKey,
    products_version: Option<i16>,
    draw: fn(&mut World, &mut StdRng, i16) -> RequestKind,
) -> Kind {
    Kind { weight, api, products_version, draw: Draw::One(draw) }
}

const fn several(
    weight: u32,
    api: ApiKey,
    draw: fn(&mut World, &mut StdRng, i16) -> Vec<RequestKind>,
) -> Kind {
    Kind { weight, api, products_version: None, draw: Draw::Several(draw) }
}

const KINDS: &[Kind] = &[
    kind(300, ApiKey::Produce, Some(8), produce::produce),
    kind(240, ApiKey::Fetch, Some(13), fetch::fetch),
    kind(100, ApiKey::ListOffsets, Some(5), offsets::list_offsets),
    kind(40, ApiKey::Metadata, Some(12), topics::metadata),
    kind(10, ApiKey::ApiVersions, None, topics::api_versions),
    kind(25, ApiKey::CreateTopics, Some(7), topics::create_topics),
    kind(15, ApiKey::CreatePartitions, Some(1), topics::create_partitions),
    kind(12, ApiKey::DeleteTopics, Some(6), topics::delete_topics),
    kind(25, ApiKey::DescribeConfigs, Some(2), topics::describe_configs),
    kind(12, ApiKey::IncrementalAlterConfigs, None, topics::alter_configs),
    kind(40, ApiKey::DeleteRecords, Some(1), offsets::delete_records),
    kind(25, ApiKey::OffsetForLeaderEpoch, None, offsets::offset_for_leader_epoch),
    kind(50, ApiKey::DescribeProducers, Some(0), producers::describe_producers),
    kind(50, ApiKey::InitProducerId, Some(1), producers::init_producer_id),
    kind(15, ApiKey::FindCoordinator, Some(2), producers::find_coordinator),
    kind(60, ApiKey::AddPartitionsToTxn, None, producers::add_partitions),
    kind(45, ApiKey::EndTxn, None, producers::end_txn),
    kind(25, ApiKey::OffsetCommit, None, groups::offset_commit),
    kind(25, ApiKey::OffsetFetch, None, groups::offset_fetch),
    several(110, ApiKey::JoinGroup, members::join_group),
    several(50, ApiKey::SyncGroup, members::sync_group),
    kind(25, ApiKey::Heartbeat, None, members::heartbeat),
    kind(18, ApiKey::LeaveGroup, None, members::leave_group),
    kind(20, ApiKey::DescribeGroups, None, groups::describe_groups),
    kind(10, ApiKey::ListGroups, None, groups::list_groups),
    kind(8, ApiKey::DeleteGroups, None, groups::delete_groups),
    kind(12, ApiKey::OffsetDelete, None, groups::offset_delete),
    kind(50, ApiKey::AddOffsetsToTxn, None, transactions::add_offsets),
    kind(45, ApiKey::TxnOffsetCommit, None, transactions::commit_offsets),
    kind(30, ApiKey::WriteTxnMarkers, None, transactions::write_markers),
];

/// The kinds that are drawn, for who wants to know what isn't spoken by both ends.
pub fn kinds() -> impl Iterator<Item = ApiKey> {
    KINDS.iter().map(|kind| kind.api)
}

/// Request number `number` of a sequence, with what it waits for: it begins with topics and producers.
pub fn draw(world: &mut World, rng: &mut StdRng, versions: &Versions, number: usize) -> Vec<Call> {
    world.just_sent = 0;
    let first = match number {
        0 => Some(ApiKey::CreateTopics),
        1 | 2 => Some(ApiKey::InitProducerId),
        _ => None,
    };
    let first = first.filter(|first| versions.contains_key(&(*first as i16)));
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|kind| {
            versions.contains_key(&(kind.api as i16)) && first.is_none_or(|first| first == kind.api)
        })
        .collect();
    let kind = weighted(rng, &kinds.iter().map(|kind| (kind.weight, *kind)).collect::<Vec<_>>());
    let (lowest, highest) = versions[&(kind.api as i16)];
    let version = match kind.products_version {
        Some(version) if version <= highest && rng.random_bool(0.3) => version,
        _ => rng.random_range(lowest..=highest),
    };
    let requests = match kind.draw {
        Draw::One(draw) => vec![draw(world, rng, version)],
        Draw::Several(draw) => draw(world, rng, version),
    };
    requests.into_iter().map(|request| Call { api: kind.api, version, request }).collect()
}

fn weighted<T: Copy>(rng: &mut StdRng, choices: &[(u32, T)]) -> T {
    let total: u32 = choices.iter().map(|(weight, _)| weight).sum();
    let mut at = rng.random_range(0..total);
    for (weight, choice) in choices {
        if at < *weight {
            return *choice;
        }
        at -= weight;
    }
    unreachable!("{at} is below the sum of all weights")
}

fn one_of<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn topic_name(name: impl Into<String>) -> TopicName {
    TopicName(text(name))
}

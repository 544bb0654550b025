//! The bytes of everything durable or sent between nodes: one version byte, then bincode 2
//! (standard configuration: variable-length integers, little endian).
//!
//! The only module that names bincode (unmaintained upstream, RUSTSEC-2025-0141), so that it can
//! be replaced. bincode is positional: new enum kinds go to the end, fields are never reordered;
//! any other change of shape is a new version.
//!
//! The catalog as a whole (in snapshots) has a version of its own, because its shape grows where
//! commands only get new kinds. A build reads every older version; a newer one it refuses.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::acls::AclRecord;
use crate::events::{Events, History};
use crate::fleet::{Authority, Fleet, FleetId, JoinToken, Node, PartitionKey};
use crate::model::{
    Catalog, Cluster, Link, LinkId, MirrorPartition, MirrorStatus, MirrorTopic, NodeId, ProducerIdentity,
    TopicId,
};

/// Version of every value but a whole catalog.
pub const VERSION: u8 = 1;

/// Version of a whole catalog as this build writes it. 1: a fleet of one, its nodes without address. 2: it
/// doesn't know which assignment epochs deleted mirrors had. 3: its mirror topics don't stop. 4: its
/// links forget which mirrors were deleted. 5: it doesn't know who wrote which ACLs. 6: it doesn't know what
/// has happened.
pub const CATALOG_VERSION: u8 = 7;

/// Decoding stops beyond this: a bound on what a corrupt length can make us allocate.
const DECODED_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("empty value: not even a version byte")]
    Empty,
    #[error("written in format {found}, this build reads up to {reads}: use a newer lockstep")]
    Version { found: u8, reads: u8 },
    #[error("not a valid value of its format")]
    Malformed(#[source] bincode::error::DecodeError),
    #[error("{0} bytes behind the value's end")]
    Trailing(usize),
}

impl CodecError {
    /// A newer build's kinds of commands, which come without a new version, look like this.
    pub fn may_be_a_newer_kind(&self) -> bool {
        use bincode::error::DecodeError::{OtherString, UnexpectedVariant};
        matches!(self, Self::Malformed(UnexpectedVariant { .. } | OtherString(_)))
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(VERSION, value)
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match version(bytes)? {
        (VERSION, body) => decode_body(body),
        (found, _) => Err(CodecError::Version { found, reads: VERSION }),
    }
}

/// As a build before this one can read it, as long as there is nothing in it that the other wouldn't know: a
/// fleet is upgraded node by node.
pub fn encode_catalog(catalog: &Catalog) -> Vec<u8> {
    let Catalog { nodes, clusters, links, fleet, forgotten, acls, events } = catalog;
    match (acls.is_empty(), forgotten.is_empty()) {
        _ if events.count > 0 => {
            let all = (nodes, clusters, links, fleet, forgotten, acls, events, histories(links));
            encode_as(CATALOG_VERSION, &all)
        }
        (false, _) => encode_as(6, &(nodes, clusters, links, fleet, forgotten, acls)),
        (true, false) => encode_as(5, &(nodes, clusters, links, fleet, forgotten)),
        (true, true) => encode_as(4, &(nodes, clusters, links, fleet)),
    }
}

/// # Errors
/// A newer version than [`CATALOG_VERSION`], or bytes that are none.
pub fn decode_catalog(bytes: &[u8]) -> Result<Catalog, CodecError> {
    match version(bytes)? {
        (CATALOG_VERSION, body) => decode_body::<CatalogV7>(body).map(Catalog::from),
        (6, body) => decode_body::<CatalogV6>(body).map(Catalog::from),
        (5, body) => decode_body::<CatalogV5>(body).map(Catalog::from),
        (4, body) => decode_body::<CatalogV4>(body).map(Catalog::from),
        (3, body) => decode_body::<CatalogV3>(body).map(Catalog::from),
        (2, body) => decode_body::<CatalogV2>(body).map(Catalog::from),
        (1, body) => decode_body::<CatalogV1>(body).map(Catalog::from),
        (found, _) => Err(CodecError::Version { found, reads: CATALOG_VERSION }),
    }
}

/// Whether a whole catalog that begins so is of a version that this build reads: all of it may still be on
/// its way.
///
/// # Errors
/// [`CodecError::Version`], [`CodecError::Empty`].
pub fn check_catalog_version(beginning: &[u8]) -> Result<(), CodecError> {
    match version(beginning)? {
        (1..=CATALOG_VERSION, _) => Ok(()),
        (found, _) => Err(CodecError::Version { found, reads: CATALOG_VERSION }),
    }
}

/// # Panics
/// Never for the types of this workspace: encoding to memory fails only for types that serde
/// can't size (none here).
fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(value, &mut bytes, config()).expect("encoding to memory");
    bytes
}

fn version(bytes: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    bytes.split_first().map(|(version, body)| (*version, body)).ok_or(CodecError::Empty)
}

fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(body, config()).map_err(CodecError::Malformed)?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    Ok(value)
}

#[derive(Serialize, Deserialize)]
struct CatalogV1 {
    nodes: BTreeMap<NodeId, NodeV1>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, LinkV3>,
}

#[derive(Serialize, Deserialize)]
struct NodeV1 {
    name: Arc<str>,
    starts: u64,
}

impl From<CatalogV1> for Catalog {
    fn from(old: CatalogV1) -> Self {
        let nodes = old
            .nodes
            .into_iter()
            .map(|(id, NodeV1 { name, starts })| (id, Node::of_level_1(name, starts)))
            .collect();
        Self { nodes, clusters: old.clusters, links: links(old.links), ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CatalogV2 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, LinkV3>,
    fleet: FleetV2,
}

#[derive(Serialize, Deserialize)]
struct FleetV2 {
    id: Option<FleetId>,
    authorities: Vec<Authority>,
    join_tokens: BTreeMap<Arc<str>, JoinToken>,
    removed: BTreeMap<NodeId, i64>,
    hand_overs: BTreeMap<PartitionKey, NodeId>,
}

impl From<CatalogV2> for Catalog {
    fn from(old: CatalogV2) -> Self {
        let FleetV2 { id, authorities, join_tokens, removed, hand_overs } = old.fleet;
        let fleet = Fleet { id, authorities, join_tokens, removed, hand_overs, deleted_epoch_max: 0 };
        Self { nodes: old.nodes, clusters: old.clusters, links: links(old.links), fleet, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CatalogV3 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, LinkV3>,
    fleet: Fleet,
}

#[derive(Serialize, Deserialize)]
struct LinkV3 {
    id: LinkId,
    name: Arc<str>,
    destination: Arc<str>,
    source: Option<Arc<str>>,
    source_cluster_id: Arc<str>,
    destination_cluster_id: Arc<str>,
    configs: BTreeMap<String, String>,
    mirrors: BTreeMap<Arc<str>, MirrorTopicV3>,
}

#[derive(Serialize, Deserialize)]
struct MirrorTopicV3 {
    name: Arc<str>,
    source_topic: Arc<str>,
    source_topic_id: TopicId,
    destination_topic_id: TopicId,
    replication_factor: Option<i16>,
    configs: BTreeMap<String, String>,
    status: MirrorStatus,
    status_since_ms: i64,
    producer: Option<ProducerIdentity>,
    partitions: Vec<MirrorPartition>,
}

impl From<CatalogV3> for Catalog {
    fn from(old: CatalogV3) -> Self {
        let CatalogV3 { nodes, clusters, links: old, fleet } = old;
        Self { nodes, clusters, links: links(old), fleet, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CatalogV4 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, Arc<Link>>,
    fleet: Fleet,
}

impl From<CatalogV4> for Catalog {
    fn from(old: CatalogV4) -> Self {
        let CatalogV4 { nodes, clusters, links, fleet } = old;
        Self { nodes, clusters, links, fleet, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CatalogV5 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, Arc<Link>>,
    fleet: Fleet,
    forgotten: BTreeMap<LinkId, Arc<BTreeSet<Arc<str>>>>,
}

impl From<CatalogV5> for Catalog {
    fn from(old: CatalogV5) -> Self {
        let CatalogV5 { nodes, clusters, links, fleet, forgotten } = old;
        Self { nodes, clusters, links, fleet, forgotten, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct CatalogV6 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, Arc<Link>>,
    fleet: Fleet,
    forgotten: BTreeMap<LinkId, Arc<BTreeSet<Arc<str>>>>,
    acls: BTreeMap<LinkId, Arc<AclRecord>>,
}

impl From<CatalogV6> for Catalog {
    fn from(old: CatalogV6) -> Self {
        let CatalogV6 { nodes, clusters, links, fleet, forgotten, acls } = old;
        Self { nodes, clusters, links, fleet, forgotten, acls, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct CatalogV7 {
    nodes: BTreeMap<NodeId, Node>,
    clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    links: BTreeMap<LinkId, Arc<Link>>,
    fleet: Fleet,
    forgotten: BTreeMap<LinkId, Arc<BTreeSet<Arc<str>>>>,
    acls: BTreeMap<LinkId, Arc<AclRecord>>,
    events: Arc<Events>,
    histories: BTreeMap<LinkId, BTreeMap<Arc<str>, History>>,
}

impl From<CatalogV7> for Catalog {
    fn from(read: CatalogV7) -> Self {
        let CatalogV7 { nodes, clusters, mut links, fleet, forgotten, acls, events, histories } = read;
        for (id, of_link) in histories {
            let Some(link) = links.get_mut(&id).map(Arc::make_mut) else { continue };
            for (topic, history) in of_link {
                if let Some(mirror) = link.mirrors.get_mut(&topic) {
                    Arc::make_mut(mirror).history = history;
                }
            }
        }
        Self { nodes, clusters, links, fleet, forgotten, acls, events }
    }
}

/// Of the mirror topics that have one.
fn histories(links: &BTreeMap<LinkId, Arc<Link>>) -> BTreeMap<&LinkId, BTreeMap<&Arc<str>, &History>> {
    let of = links.iter().map(|(id, link)| {
        let mirrors = link.mirrors.iter().map(|(topic, mirror)| (topic, &mirror.history));
        (id, mirrors.filter(|(_, history)| !history.is_empty()).collect::<BTreeMap<_, _>>())
    });
    of.filter(|(_, of_link)| !of_link.is_empty()).collect()
}

fn links(old: BTreeMap<LinkId, LinkV3>) -> BTreeMap<LinkId, Arc<Link>> {
    let link = |old: LinkV3| Link {
        id: old.id,
        name: old.name,
        destination: old.destination,
        source: old.source,
        source_cluster_id: old.source_cluster_id,
        destination_cluster_id: old.destination_cluster_id,
        configs: old.configs,
        mirrors: old.mirrors.into_iter().map(|(name, old)| (name, Arc::new(mirror(old)))).collect(),
    };
    old.into_iter().map(|(id, old)| (id, Arc::new(link(old)))).collect()
}

fn mirror(old: MirrorTopicV3) -> MirrorTopic {
    MirrorTopic {
        name: old.name,
        source_topic: old.source_topic,
        source_topic_id: old.source_topic_id,
        destination_topic_id: old.destination_topic_id,
        replication_factor: old.replication_factor,
        configs: old.configs,
        status: old.status,
        status_since_ms: old.status_since_ms,
        producer: old.producer,
        stop: None,
        partitions: old.partitions,
        history: History::new(),
    }
}

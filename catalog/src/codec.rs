//! The bytes of everything durable or sent between nodes: one version byte, then bincode 2
//! (standard configuration: variable-length integers, little endian).
//!
//! The only module that names bincode (unmaintained upstream, RUSTSEC-2025-0141), so that it can
//! be replaced. bincode is positional: new enum kinds go to the end, fields are never reordered;
//! any other change of shape is a new version.
//!
//! The catalog as a whole (in snapshots) has a version of its own, because its shape grows where
//! commands only get new kinds. A build reads every older version; a newer one it refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fleet::{Authority, Fleet, FleetId, JoinToken, Node, PartitionKey};
use crate::model::{
    Catalog, Cluster, Link, LinkId, MirrorPartition, MirrorStatus, MirrorTopic, NodeId, ProducerIdentity,
    TopicId,
};

/// Version of every value but a whole catalog.
pub const VERSION: u8 = 1;

/// Version of a whole catalog as this build writes it, where it must: what is of no use to the one before is left out
/// of its version, so that a build before this one can follow in a rolling upgrade. 1: a fleet of one, its nodes without address. 2: it
/// doesn't know which assignment epochs deleted mirrors had. 3: its mirror topics don't stop. 4: it
/// doesn't know who wrote which ACLs.
pub const CATALOG_VERSION: u8 = 5;

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

pub fn encode_catalog(catalog: &Catalog) -> Vec<u8> {
    let Catalog { nodes, clusters, links, fleet, acls } = catalog;
    match acls.is_empty() {
        true => encode_as(4, &(nodes, clusters, links, fleet)),
        false => encode_as(CATALOG_VERSION, catalog),
    }
}

/// # Errors
/// A newer version than [`CATALOG_VERSION`], or bytes that are none.
pub fn decode_catalog(bytes: &[u8]) -> Result<Catalog, CodecError> {
    match version(bytes)? {
        (CATALOG_VERSION, body) => decode_body(body),
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
        Self {
            nodes: old.nodes,
            clusters: old.clusters,
            links: links(old.links),
            fleet,
            acls: BTreeMap::new(),
        }
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
        Self { nodes, clusters, links: links(old), fleet, acls: BTreeMap::new() }
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
        Self { nodes, clusters, links, fleet, acls: BTreeMap::new() }
    }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acls::{AclBinding, AclRecord, AclState};
    use crate::stop::StopKind;

    #[test]
    fn a_catalog_of_the_fifth_version_is_written_and_read() {
        let acl = AclBinding {
            resource_type: 2,
            pattern_type: 3,
            resource_name: "t".into(),
            principal: "User:a".into(),
            host: "*".into(),
            operation: 4,
            permission: 3,
        };
        let record = AclRecord {
            acls: BTreeMap::from([(acl, AclState::Withheld)]),
            stopped: BTreeMap::from([("s".into(), StopKind::FailOver)]),
            stopped_unnamed: 6,
            as_of_ms: 7,
        };
        let acls = BTreeMap::from([(LinkId("l".into()), Arc::new(record))]);
        let catalog = Catalog { acls, ..Catalog::default() };
        let bytes = encode_catalog(&catalog);
        let mut written = vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'l', 1, 2, 3, 1, b't', 6];
        written.extend(b"User:a\x01*");
        written.extend([4, 3, 2, 1, 1, b's', 1, 6, 14]);
        assert_eq!(bytes, written, "as the fifth version wrote it");
        assert_eq!(decode_catalog(&bytes).expect("readable"), catalog);
    }

    #[test]
    fn a_catalog_of_the_fourth_version_is_read_and_without_acls_it_is_written() {
        let nodes = BTreeMap::from([(NodeId(7), Node::of_level_1("n".into(), 3))]);
        let (clusters, links) = (BTreeMap::new(), BTreeMap::new());
        let bytes = encode_as(4, &CatalogV4 { nodes, clusters, links, fleet: Fleet::default() });
        let written = [4, 1, 7, 1, b'n', 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes, written, "as the fourth version wrote it");
        let read = decode_catalog(&bytes).expect("readable");
        assert_eq!((read.nodes[&NodeId(7)].starts, read.acls.len()), (3, 0));
        assert_eq!(encode_catalog(&read), written, "a build before this one follows");
    }

    #[test]
    fn a_catalog_of_the_third_version_is_read() {
        let mirror = MirrorTopicV3 {
            name: "m".into(),
            source_topic: "s".into(),
            source_topic_id: TopicId([1; 16]),
            destination_topic_id: TopicId([2; 16]),
            replication_factor: None,
            configs: BTreeMap::new(),
            status: MirrorStatus::Paused,
            status_since_ms: 7,
            producer: Some(ProducerIdentity { producer_id: 5, producer_epoch: 1 }),
            partitions: vec![MirrorPartition::default()],
        };
        let link = LinkV3 {
            id: LinkId("l".into()),
            name: "n".into(),
            destination: "w".into(),
            source: None,
            source_cluster_id: "a".into(),
            destination_cluster_id: "b".into(),
            configs: BTreeMap::new(),
            mirrors: BTreeMap::from([("m".into(), mirror)]),
        };
        let old = CatalogV3 {
            nodes: BTreeMap::new(),
            clusters: BTreeMap::new(),
            links: BTreeMap::from([(LinkId("l".into()), link)]),
            fleet: Fleet::default(),
        };
        let bytes = encode_as(3, &old);
        let mut written = vec![3, 0, 0, 1, 1, b'l', 1, b'l', 1, b'n', 1, b'w', 0, 1, b'a', 1, b'b', 0, 1];
        written.extend([1, b'm', 1, b'm', 1, b's']);
        written.extend([[1; 16], [2; 16]].concat());
        written.extend([0, 0, 2, 14, 1, 10, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, written, "as the third version wrote it");
        let read = decode_catalog(&bytes).expect("readable");
        let mirror = &read.links[&LinkId("l".into())].mirrors["m"];
        assert_eq!((mirror.status, mirror.stop.as_ref()), (MirrorStatus::Paused, None));
        assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
    }

    #[test]
    fn a_catalog_of_the_second_version_is_read() {
        let removed = BTreeMap::from([(NodeId(9), 5)]);
        let fleet = FleetV2 {
            id: Some(FleetId("f".into())),
            authorities: Vec::new(),
            join_tokens: BTreeMap::new(),
            removed,
            hand_overs: BTreeMap::new(),
        };
        let (nodes, clusters, links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let bytes = encode_as(2, &CatalogV2 { nodes, clusters, links, fleet });
        assert_eq!(bytes, [2, 0, 0, 0, 1, 1, b'f', 0, 0, 1, 9, 10, 0], "as the second version wrote it");
        let read = decode_catalog(&bytes).expect("readable");
        assert_eq!((read.fleet.removed.get(&NodeId(9)), read.fleet.deleted_epoch_max), (Some(&5), 0));
        assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
    }

    #[test]
    fn a_catalog_of_the_first_version_is_read() {
        let nodes = BTreeMap::from([(NodeId(7), NodeV1 { name: "n".into(), starts: 3 })]);
        let old = CatalogV1 { nodes, clusters: BTreeMap::new(), links: BTreeMap::new() };
        let bytes = encode_as(1, &old);
        assert_eq!(bytes, [1, 1, 7, 1, b'n', 3, 0, 0], "as the first version wrote it");
        let read = decode_catalog(&bytes).expect("readable");
        assert_eq!((read.nodes[&NodeId(7)].starts, read.level()), (3, 1));
        assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
    }

    #[test]
    fn a_newer_version_is_refused_with_its_number() {
        let newer = [CATALOG_VERSION + 1, 0];
        check_catalog_version(&newer).expect_err("newer");
        check_catalog_version(&encode_catalog(&Catalog::default())[..1]).expect("this build's own");
        let refused = decode_catalog(&newer).expect_err("newer");
        assert_eq!(
            refused.to_string(),
            "written in format 6, this build reads up to 5: use a newer lockstep"
        );
    }
}

//! What the fleet agrees on. Plain data: every rule about how it may change is in [`crate::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::acls::AclRecord;
use crate::events::{Events, History};
use crate::fleet::{Fleet, Node};
use crate::stop::Stop;

/// Raft id of a node, drawn at its first start. The name is only a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A link's id: 22 characters of URL-safe base64, as Kafka writes its ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub Arc<str>);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Kafka's topic id (KIP-516). All zero bytes where the broker has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    pub const NONE: TopicId = TopicId([0; 16]);

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// One mirror topic: a link never has two of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MirrorKey {
    pub link: LinkId,
    pub topic: Arc<str>,
}

/// The replicated state. Values that can be large are behind an `Arc`, so that handing out the
/// applied catalog after each entry copies pointers, not contents. Its bytes are [`crate::codec`]'s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub nodes: BTreeMap<NodeId, Node>,
    /// By registered name.
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    pub links: BTreeMap<LinkId, Arc<Link>>,
    pub fleet: Fleet,
    /// Source topics whose mirrors were deleted while their link made mirrors by itself: it makes none of
    /// them again. By link.
    pub forgotten: BTreeMap<LinkId, Arc<BTreeSet<Arc<str>>>>,
    /// Of links whose ACLs follow the source, or did.
    pub acls: BTreeMap<LinkId, Arc<AclRecord>>,
    pub events: Arc<Events>,
}

/// A registered Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: Arc<str>,
    /// What the brokers call themselves; a bootstrap that later answers another id is refused.
    pub cluster_id: Arc<str>,
    /// Kafka client keys. Secrets stay what the user gave: references are not resolved here.
    pub configs: BTreeMap<String, String>,
}

impl Cluster {
    /// The key of how many links may lead to it.
    pub const LINKS_MAX_KEY: &str = "cluster.links.max";
    pub const LINKS_MAX_DEFAULT: usize = 10;

    /// Values were checked when they were set.
    pub fn links_max(&self) -> usize {
        let set = self.configs.get(Self::LINKS_MAX_KEY).and_then(|value| value.trim().parse().ok());
        set.unwrap_or(Self::LINKS_MAX_DEFAULT)
    }
}

/// A named bridge; lives on its destination cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub id: LinkId,
    pub name: Arc<str>,
    /// Registered name of the destination cluster.
    pub destination: Arc<str>,
    /// Registered name of the source cluster, unless `configs` carry its client keys.
    pub source: Option<Arc<str>>,
    pub source_cluster_id: Arc<str>,
    pub destination_cluster_id: Arc<str>,
    pub configs: BTreeMap<String, String>,
    /// By name of the topic at the destination.
    pub mirrors: BTreeMap<Arc<str>, Arc<MirrorTopic>>,
}

impl Link {
    /// The key that pauses a whole link.
    pub const PAUSED_KEY: &str = "cluster.link.paused";

    /// The key with which a link makes mirrors by itself.
    pub const AUTO_CREATE_KEY: &str = "auto.create.mirror.topics.enable";
    /// The key with which ACLs follow the source.
    pub const ACL_SYNC_KEY: &str = "acl.sync.enable";
    /// The key of what stands before the names of its mirror topics.
    pub const PREFIX_KEY: &str = "cluster.link.prefix";

    pub fn makes_mirrors(&self) -> bool {
        is_on(&self.configs, Self::AUTO_CREATE_KEY)
    }

    /// What a source topic's mirror is called unless it is said otherwise.
    pub fn mirror_name(&self, source_topic: &str) -> String {
        format!("{}{source_topic}", self.prefix())
    }

    pub fn prefix(&self) -> &str {
        self.configs.get(Self::PREFIX_KEY).map_or("", |value| value.trim())
    }

    /// Whether nothing is mirrored or synced on it for now, whatever its mirrors are.
    pub fn is_paused(&self) -> bool {
        Self::pauses(&self.configs)
    }

    pub(crate) fn pauses(configs: &BTreeMap<String, String>) -> bool {
        is_on(configs, Self::PAUSED_KEY)
    }

    /// Whether a mirror's partitions are to be mirrored for now, as far as each of them can.
    pub fn mirrors_now(&self, mirror: &MirrorTopic) -> bool {
        !self.is_paused() && mirror.is_mirrored()
    }
}

pub(crate) fn is_on(configs: &BTreeMap<String, String>, key: &str) -> bool {
    configs.get(key).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// Names as in SPEC section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorStatus {
    /// Accepted; the destination topic or its producer identity isn't there yet.
    PendingMirror,
    Active,
    Paused,
    /// At least one partition stopped for good; the others go on.
    Failed,
    /// To become STOPPED: still catching up (a promotion), or being fenced. [`MirrorTopic::stop`] says.
    PendingStopped,
    /// No mirror any more: its topic is an ordinary topic, and nothing of ours is written to it.
    Stopped,
}

/// Shown in place of ACTIVE while a missing prefix is being filled or its cut isn't safe yet.
const PENDING_SYNCHRONIZE: &str = "PENDING_SYNCHRONIZE";

impl MirrorStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::PendingMirror => "PENDING_MIRROR",
            Self::Active => "ACTIVE",
            Self::Paused => "PAUSED",
            Self::Failed => "FAILED",
            Self::PendingStopped => "PENDING_STOPPED",
            Self::Stopped => "STOPPED",
        }
    }
}

/// Why a mirror or one of its partitions stopped. Names as in SPEC section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MirrorError {
    SourceTopicMayBeDeleted,
    SourceTopicIdChanged,
    SourcePartitionsDecreased,
    UnexpectedTruncation,
    UnsupportedMessageFormat,
    RecordTooLarge,
    ForeignWrite,
    DestinationTopicChanged,
    DestinationLogDiverged,
    RetentionGap,
    GapFillRefused,
    AuthorizationError,
    IllegalState,
    Unknown,
}

impl MirrorError {
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceTopicMayBeDeleted => "SOURCE_TOPIC_MAY_BE_DELETED",
            Self::SourceTopicIdChanged => "SOURCE_TOPIC_ID_CHANGED",
            Self::SourcePartitionsDecreased => "SOURCE_PARTITIONS_DECREASED",
            Self::UnexpectedTruncation => "UNEXPECTED_TRUNCATION",
            Self::UnsupportedMessageFormat => "UNSUPPORTED_MESSAGE_FORMAT",
            Self::RecordTooLarge => "RECORD_TOO_LARGE",
            Self::ForeignWrite => "FOREIGN_WRITE",
            Self::DestinationTopicChanged => "DESTINATION_TOPIC_CHANGED",
            Self::DestinationLogDiverged => "DESTINATION_LOG_DIVERGED",
            Self::RetentionGap => "RETENTION_GAP",
            Self::GapFillRefused => "GAP_FILL_REFUSED",
            Self::AuthorizationError => "AUTHORIZATION_ERROR",
            Self::IllegalState => "ILLEGAL_STATE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What stopped one mirror partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub error: MirrorError,
    /// First offset that is not mirrored, or the first foreign one.
    pub offset: i64,
    pub message: String,
    pub at_ms: i64,
}

/// Producer id and producer epoch that every batch of a mirror topic carries, for the mirror's
/// whole life. From `InitProducerId` on a transactional id, so that no later client can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdentity {
    pub producer_id: i64,
    pub producer_epoch: i16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorTopic {
    pub name: Arc<str>,
    pub source_topic: Arc<str>,
    /// Recorded at creation; [`TopicId::NONE`] where the source has no topic ids.
    pub source_topic_id: TopicId,
    /// Known once the destination topic was created or adopted.
    pub destination_topic_id: TopicId,
    pub replication_factor: Option<i16>,
    /// Configs the user set at creation, on top of the synced ones.
    pub configs: BTreeMap<String, String>,
    pub status: MirrorStatus,
    pub status_since_ms: i64,
    pub producer: Option<ProducerIdentity>,
    /// Set while it is to stop, and when it has.
    pub stop: Option<Stop>,
    /// Index is the partition.
    pub partitions: Vec<MirrorPartition>,
    /// How it came to its status. In bytes it stands behind the links ([`crate::codec`]), whose shape stays what
    /// older builds know.
    #[serde(skip)]
    pub history: History,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPartition {
    pub assignment: Option<Assignment>,
    pub failure: Option<Failure>,
    /// Set when the source's log began above zero as the mirror did.
    pub prefix: Option<Prefix>,
}

/// Offsets before the source's log start: filled with filler records, then cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Where the mirror's log is to start. Everything below is filler and to be cut, again and
    /// again until the destination's brokers can't lose the cut any more.
    pub log_start: i64,
    /// The cut has outlived the brokers' checkpoint interval.
    pub settled: bool,
}

/// Who runs a mirror partition. Epochs only rise (CT-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub node: NodeId,
    pub epoch: u64,
    /// The owner before may still have requests under way: it was not seen to stop.
    pub unclean: bool,
}

impl Link {
    pub fn key(&self, topic: &Arc<str>) -> MirrorKey {
        MirrorKey { link: self.id.clone(), topic: topic.clone() }
    }
}

impl MirrorTopic {
    /// Of partition 0: whoever owns that sees to the topic.
    pub fn first_assignment(&self) -> Option<&Assignment> {
        self.partitions.first()?.assignment.as_ref()
    }

    pub fn is_seen_to_by(&self, node: NodeId) -> bool {
        self.first_assignment().is_some_and(|assignment| assignment.node == node)
    }

    /// Whether nothing more is to be appended, for good.
    pub fn is_fenced(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.fenced_at_ms.is_some())
    }

    /// Whether its partitions are to be mirrored, as far as each of them can.
    pub fn is_mirrored(&self) -> bool {
        match self.status {
            MirrorStatus::Active | MirrorStatus::Failed => self.producer.is_some(),
            MirrorStatus::PendingStopped => !self.is_fenced(),
            MirrorStatus::PendingMirror | MirrorStatus::Paused | MirrorStatus::Stopped => false,
        }
    }

    /// The status as users see it (SPEC section 4).
    pub fn shown_status(&self) -> &'static str {
        let unsettled = |p: &MirrorPartition| p.prefix.is_some_and(|prefix| !prefix.settled);
        match self.status {
            MirrorStatus::Active if self.partitions.iter().any(unsettled) => PENDING_SYNCHRONIZE,
            status => status.name(),
        }
    }

    /// The failure that the whole topic shows: that of its lowest failed partition.
    pub fn first_failure(&self) -> Option<(usize, &Failure)> {
        self.partitions.iter().enumerate().find_map(|(index, p)| p.failure.as_ref().map(|f| (index, f)))
    }
}

impl Catalog {
    /// Links of that name; more than one when several destinations use it.
    pub fn links_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Link>> {
        self.links.values().filter(move |link| &*link.name == name)
    }

    /// The link of that name on a destination given by registered name or by Kafka cluster id.
    pub fn link_on(&self, destination: &str, name: &str) -> Option<&Arc<Link>> {
        self.links.values().find(|l| {
            &*l.name == name && (&*l.destination == destination || &*l.destination_cluster_id == destination)
        })
    }

    /// A cluster by registered name or by Kafka cluster id.
    pub fn cluster(&self, name_or_id: &str) -> Option<&Arc<Cluster>> {
        self.clusters
            .get(name_or_id)
            .or_else(|| self.clusters.values().find(|cluster| &*cluster.cluster_id == name_or_id))
    }

    pub fn mirror(&self, key: &MirrorKey) -> Option<&Arc<MirrorTopic>> {
        self.links.get(&key.link)?.mirrors.get(&key.topic)
    }
}

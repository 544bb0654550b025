//! What may be asked of the catalog, and what it answers.
//!
//! A command carries what it expects (an absent name, a status, an assignment epoch) and is
//! refused otherwise, so that a command that was decided on an old catalog does no harm.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::acls::AclChange;
use crate::events::KEPT_FROM_LEVEL;
use crate::fleet::{Authority, Duty, FleetId, JoinToken, PartitionKey};
use crate::model::{Failure, Link, LinkId, MirrorKey, NodeId, ProducerIdentity, TopicId, is_on};
use crate::stop::StoppedPartition;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Wall clock of the proposer, milliseconds since 1970: `apply` reads no clock.
    pub at_ms: i64,
    pub action: Action,
}

/// New kinds go to the end: the encoding is positional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A node's process has started. Whatever it was assigned it takes over from its former
    /// process, which may have requests under way: those epochs rise, marked unclean.
    StartNode {
        node: NodeId,
        name: Arc<str>,
    },
    CreateCluster {
        name: Arc<str>,
        cluster_id: Arc<str>,
        configs: BTreeMap<String, String>,
    },
    /// Replaces the whole set, as [`Action::AlterLinkConfigs`] does.
    UpdateCluster {
        name: Arc<str>,
        expected: BTreeMap<String, String>,
        configs: BTreeMap<String, String>,
    },
    DeleteCluster {
        name: Arc<str>,
    },
    CreateLink(NewLink),
    /// Replaces the whole set: the proposer has merged and checked it. `expected` is the set it
    /// was merged with.
    AlterLinkConfigs {
        link: LinkId,
        expected: BTreeMap<String, String>,
        configs: BTreeMap<String, String>,
    },
    DeleteLink {
        link: LinkId,
    },
    CreateMirror(NewMirror),
    /// The destination topic stands and the producer identity was obtained.
    MirrorReady {
        mirror: MirrorKey,
        destination_topic_id: TopicId,
        producer: ProducerIdentity,
    },
    /// Each partition gets an owner: one that had none, or whose owner is lost.
    Assign {
        moves: Vec<Move>,
    },
    /// An owner stopped a partition for good.
    FailPartition {
        mirror: MirrorKey,
        partition: u32,
        assignment_epoch: u64,
        failure: Failure,
    },
    /// The whole mirror can't go on (source topic recreated, destination topic refused).
    FailMirror {
        mirror: MirrorKey,
        failure: Failure,
    },
    PauseMirror {
        mirror: MirrorKey,
    },
    /// Out of PAUSED, or out of FAILED for a fresh check of every stopped partition.
    ResumeMirror {
        mirror: MirrorKey,
    },
    /// Forgets the mirror; the destination topic stays.
    DeleteMirror {
        mirror: MirrorKey,
    },
    AddPartitions {
        mirror: MirrorKey,
        partitions: u32,
    },
    /// The source's log starts above the mirror, which holds no source record yet: it is to start
    /// there too. Recorded before the first filler is written.
    SetPrefix {
        mirror: MirrorKey,
        partition: u32,
        assignment_epoch: u64,
        log_start: i64,
    },
    /// The cut at `log_start` can't be lost any more.
    SettlePrefix {
        mirror: MirrorKey,
        partition: u32,
        log_start: i64,
    },
    // Level 2 from here on.
    /// Once in a fleet's life, by its founder.
    FoundFleet {
        fleet: FleetId,
        authority: Authority,
    },
    /// As [`Action::StartNode`], with what peers need to know of the member.
    RecordStart {
        node: NodeId,
        description: NodeDescription,
    },
    /// A new member, which has shown that it knows the secret of `token`; none: the secret that
    /// whoever set the nodes up gave to all of them.
    AdmitNode {
        node: NodeId,
        description: NodeDescription,
        token: Option<Arc<str>>,
    },
    SetDuty {
        node: NodeId,
        duty: Duty,
    },
    /// Its id never comes back. Refused while it owns partitions, unless it is lost for good
    /// (`lost`): then they are taken over as from a lost node.
    RemoveNode {
        node: NodeId,
        lost: bool,
    },
    IssueToken {
        id: Arc<str>,
        token: JoinToken,
    },
    /// The last one added signs from now on; all are trusted.
    AddAuthority {
        authority: Authority,
    },
    /// Its certificates aren't trusted any more. Never the last one.
    RemoveAuthority {
        certificate: Arc<[u8]>,
    },
    /// Each partition's owner is to stop it and release it to [`Move::node`]; to the owner itself:
    /// it may go on.
    HandOver {
        moves: Vec<Move>,
    },
    /// The owner has stopped partitions that it was to hand over.
    Release {
        node: NodeId,
        released: Vec<Released>,
    },
    // Level 3 from here on.
    /// Catch up with the source, then stop being a mirror.
    PromoteMirror {
        mirror: MirrorKey,
    },
    /// Back to what it was; only while it still catches up.
    CancelPromotion {
        mirror: MirrorKey,
    },
    /// Stop being a mirror with what is there, whatever the source does.
    FailOverMirror {
        mirror: MirrorKey,
    },
    /// A promotion has caught up: its owners are to stop, its producer identity is to be fenced.
    FenceMirror {
        mirror: MirrorKey,
        producer: ProducerIdentity,
        /// Of the promotion that was watched.
        asked_at_ms: i64,
    },
    /// The fence stands in every partition; nothing of ours can be written any more.
    MirrorStopped {
        mirror: MirrorKey,
        producer: ProducerIdentity,
        /// Of partition 0: whoever got it since puts the fence up again, and must not be overtaken.
        assignment_epoch: u64,
        /// Index is the partition.
        ends: Vec<StoppedPartition>,
        remarks: Vec<Arc<str>>,
    },
    // Level 4 from here on.
    /// By the link itself: refused unless it is to, and for a source topic that it had a mirror of before.
    CreateMirrorByItself(NewMirror),
    // Level 5 from here on.
    /// What a link's ACL sync is about to write, has deleted or withholds; at most
    /// [`crate::acls::ACL_CHANGES_MAX`]. Each change names what it was decided on.
    RecordAcls {
        link: LinkId,
        /// Given when the source was read whole for it; milliseconds since 1970.
        as_of_ms: Option<i64>,
        changes: Vec<AclChange>,
    },
    // Level 6 from here on.
    /// A person has asked for it, through the API of that node. Never of another of this kind.
    Asked {
        through: NodeId,
        #[serde(deserialize_with = "unnested")]
        action: Box<Action>,
    },
}

/// Refuses one within another while it is read: bytes that nest a million of them would use up the stack.
fn unnested<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Action>, D::Error> {
    thread_local! {
        static IS_WITHIN: Cell<bool> = const { Cell::new(false) };
    }
    if IS_WITHIN.replace(true) {
        return Err(D::Error::custom("a command says once who asked"));
    }
    let action = Box::deserialize(deserializer);
    IS_WITHIN.set(false);
    action
}

/// What a node says of itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    pub name: Arc<str>,
    /// `host:port` where peers reach it; none: it isn't reached (a fleet of one).
    pub address: Option<Arc<str>>,
    /// [`crate::fleet::LEVEL`] of its build.
    pub level: u32,
    pub version: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub key: PartitionKey,
    pub assignment_epoch: u64,
    /// A request of the owner's may still arrive at the destination.
    pub in_doubt: bool,
}

impl Action {
    /// The [`crate::fleet::LEVEL`] that a member must know to apply it.
    pub fn level(&self) -> u32 {
        match self {
            Self::CreateLink(NewLink { configs, .. }) | Self::AlterLinkConfigs { configs, .. } => {
                level_of(configs)
            }
            Self::StartNode { .. }
            | Self::CreateCluster { .. }
            | Self::UpdateCluster { .. }
            | Self::DeleteCluster { .. }
            | Self::DeleteLink { .. }
            | Self::CreateMirror(_)
            | Self::MirrorReady { .. }
            | Self::Assign { .. }
            | Self::FailPartition { .. }
            | Self::FailMirror { .. }
            | Self::PauseMirror { .. }
            | Self::ResumeMirror { .. }
            | Self::DeleteMirror { .. }
            | Self::AddPartitions { .. }
            | Self::SetPrefix { .. }
            | Self::SettlePrefix { .. } => 1,
            Self::FoundFleet { .. }
            | Self::RecordStart { .. }
            | Self::AdmitNode { .. }
            | Self::SetDuty { .. }
            | Self::RemoveNode { .. }
            | Self::IssueToken { .. }
            | Self::AddAuthority { .. }
            | Self::RemoveAuthority { .. }
            | Self::HandOver { .. }
            | Self::Release { .. } => 2,
            Self::PromoteMirror { .. }
            | Self::CancelPromotion { .. }
            | Self::FailOverMirror { .. }
            | Self::FenceMirror { .. }
            | Self::MirrorStopped { .. } => 3,
            Self::CreateMirrorByItself(_) => 4,
            Self::RecordAcls { .. } => 5,
            Self::Asked { action, .. } => action.level().max(KEPT_FROM_LEVEL),
        }
    }

    /// What is to be done, whoever asks.
    pub fn itself(&self) -> &Self {
        match self {
            Self::Asked { action, .. } => action,
            action => action,
        }
    }
}

/// What a link does by its configs may need commands, and a memory, that older builds don't have.
fn level_of(configs: &BTreeMap<String, String>) -> u32 {
    match (is_on(configs, Link::AUTO_CREATE_KEY), is_on(configs, Link::ACL_SYNC_KEY)) {
        (_, true) => 5,
        (true, false) => 4,
        (false, false) => 1,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLink {
    /// Drawn by the proposer.
    pub id: LinkId,
    pub name: Arc<str>,
    pub destination: Arc<str>,
    pub source: Option<Arc<str>>,
    pub source_cluster_id: Arc<str>,
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMirror {
    pub mirror: MirrorKey,
    pub source_topic: Arc<str>,
    pub source_topic_id: TopicId,
    pub partitions: u32,
    pub replication_factor: Option<i16>,
    pub configs: BTreeMap<String, String>,
}

/// One line of a placement plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub mirror: MirrorKey,
    pub partition: u32,
    pub node: NodeId,
    /// Epoch the planner saw; none for a partition that was never assigned.
    pub expected_epoch: Option<u64>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The command's wish already held.
    Unchanged,
}

/// Why a command did nothing. The message names the thing and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("{what} '{name}' exists already")]
    Exists { what: String, name: String },
    #[error("there is no {what} '{name}'")]
    NotFound { what: String, name: String },
    #[error("{what} '{name}' is still in use: {by}")]
    InUse { what: String, name: String, by: String },
    /// Decided on a catalog that has changed since: look again.
    #[error("{0} has changed meanwhile; try again")]
    Stale(String),
    #[error("{0}")]
    Illegal(String),
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
}

impl Refusal {
    pub(crate) fn exists(what: &str, name: &str) -> Self {
        Self::Exists { what: what.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::NotFound { what: what.to_owned(), name: name.to_owned() }
    }
}

//! Who the fleet is: its members, how they trust each other, and which partitions change hands.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{Action, Refusal};
use crate::events::KEPT_FROM_LEVEL;
use crate::model::{Catalog, MirrorKey, NodeId};

/// Kinds of commands that this build knows. A kind is proposed only when every member has said that
/// it knows its level: `apply` must do the same everywhere.
///
/// 1: one node is a whole fleet. 2: fleets of several nodes. 3: mirror topics stop. 4: links make mirrors by
/// themselves. 5: ACLs follow the source. 6: what happened is kept, with who asked.
pub const LEVEL: u32 = 6;

/// A fleet's id: 22 characters of URL-safe base64, drawn by its founder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FleetId(pub Arc<str>);

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// None until its founder has recorded it.
    pub id: Option<FleetId>,
    /// Who signs the members' certificates: all are trusted, the last one signs.
    pub authorities: Vec<Authority>,
    /// By id.
    pub join_tokens: BTreeMap<Arc<str>, JoinToken>,
    /// Nodes that were members, and when they were removed (ms since 1970). Their ids never come back.
    pub removed: BTreeMap<NodeId, i64>,
    /// Partitions whose owner is to stop, and who gets them then.
    pub hand_overs: BTreeMap<PartitionKey, NodeId>,
    /// The highest assignment epoch that a deleted mirror had: one that takes its name goes on above it, so
    /// that what an owner of the former says late is refused.
    pub deleted_epoch_max: u64,
}

/// One mirror partition of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionKey {
    pub mirror: MirrorKey,
    pub partition: u32,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// A label; no two members have the same.
    pub name: Arc<str>,
    /// How often it has started; a new start is a takeover from the process before it.
    pub starts: u64,
    /// `host:port` where peers reach it; none before it has said so.
    pub address: Option<Arc<str>>,
    pub duty: Duty,
    /// The [`LEVEL`] of the build that it runs.
    pub level: u32,
    /// The version of the build that it runs, for people.
    pub version: Arc<str>,
}

impl Node {
    /// A node of which no more is known: as the first level recorded them.
    pub fn of_level_1(name: Arc<str>, starts: u64) -> Self {
        Self { name, starts, address: None, duty: Duty::Mirrors, level: 1, version: "".into() }
    }
}

/// What a member is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    #[default]
    Mirrors,
    /// Told by an operator to hand everything over and take nothing, until told otherwise.
    Drains,
    /// It is about to stop and hands everything over; over with its next start.
    Stops,
}

impl Duty {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mirrors => "MIRRORS",
            Self::Drains => "DRAINS",
            Self::Stops => "STOPS",
        }
    }
}

/// A certificate authority of the fleet. Every member holds it: any of them can admit a node, and the
/// loss of the founder is not the end of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// X.509, DER.
    pub certificate: Arc<[u8]>,
    /// PKCS #8, DER.
    pub key: Arc<[u8]>,
}

/// Lets one node in, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub secret: Arc<[u8]>,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
    /// Who came in with it; only that node may use it again, whose answer may have been lost.
    pub used_by: Option<NodeId>,
}

// Neither ever prints its secret.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("certificate_bytes", &self.certificate.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expires_ms, used_by, .. } = self;
        f.debug_struct("JoinToken")
            .field("expires_ms", expires_ms)
            .field("used_by", used_by)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Kinds of commands that every member knows.
    pub fn level(&self) -> u32 {
        self.nodes.values().map(|node| node.level).min().unwrap_or(LEVEL)
    }

    /// Whether every member would understand the command. Asked by the Raft leader before it
    /// proposes.
    ///
    /// # Errors
    /// [`Refusal::Illegal`], naming a member that must be upgraded first.
    pub fn may_propose(&self, action: &Action) -> Result<(), Refusal> {
        let only_itself = |node: &NodeId| self.nodes.keys().all(|member| member == node);
        match action {
            // A fleet of one learns of its own upgrade by this.
            Action::RecordStart { node, .. } if only_itself(node) => return Ok(()),
            action if action.level() <= self.level() => return Ok(()),
            _ => {}
        }
        let old = self.nodes.values().find(|node| node.level < action.level());
        let name = old.map_or("?", |node| &node.name);
        Err(Refusal::Illegal(format!(
            "node '{name}' runs a version of lockstep that doesn't know this yet: upgrade it first"
        )))
    }

    /// The command with the word that a person asked for it through the API of that node; without it as long as a
    /// member doesn't know such words.
    pub fn asked(&self, through: NodeId, action: Action) -> Action {
        match self.level() < KEPT_FROM_LEVEL {
            true => action,
            false => Action::Asked { through, action: Box::new(action) },
        }
    }

    /// The member of that name, or of that id in hexadecimal.
    pub fn node_named(&self, name: &str) -> Option<(NodeId, &Node)> {
        let is_it = |(id, node): &(&NodeId, &Node)| &*node.name == name || id.to_string() == name;
        self.nodes.iter().find(is_it).map(|(id, node)| (*id, node))
    }
}

//! The fleet, its members, and how they trust each other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FleetBody {
    /// The node that answers.
    pub node_id: String,
    pub node_name: String,
    pub version: String,
    pub is_raft_leader: bool,
    pub raft_leader: Option<String>,
    pub raft_term: u64,
    pub applied_index: u64,
    /// Since a majority last confirmed this node as Raft leader; null on the others.
    pub quorum_ack_age_ms: Option<u64>,
    /// Why consensus on this node no longer runs.
    pub stopped: Option<String>,
    pub nodes: Vec<NodeRow>,
    pub clusters: u64,
    pub links: u64,
    pub mirror_topics: u64,
    pub mirror_partitions: u64,
}

/// A member of the fleet.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeRow {
    pub node_id: String,
    pub name: String,
    /// `host:port` where its peers reach it; null in a fleet of one.
    pub address: Option<String>,
    pub version: String,
    /// `LIVE`: it answers the node that was asked; `SILENT`: it doesn't.
    pub state: String,
    /// Why it counts as silent.
    pub state_message: Option<String>,
    /// `MIRRORS`, `DRAINS` (an operator's wish) or `STOPS`.
    pub duty: String,
    /// `LEADER`, `VOTER` or `LEARNER`.
    pub raft_role: String,
    /// How often it has started.
    pub starts: u64,
    /// Mirror partitions assigned to it.
    pub assignments: u64,
    /// Of these, how many are to be handed over to others.
    pub leaving: u64,
    /// Mirror partitions that come to it as soon as their owners have stopped them.
    pub coming: u64,
}

/// A certificate authority of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityRow {
    /// The SHA-256 fingerprint of its certificate, in hexadecimal.
    pub authority_id: String,
    /// RFC 3339.
    pub not_before: Option<String>,
    /// RFC 3339.
    pub not_after: Option<String>,
    /// Whether new certificates are of this one; the others are trusted until they are removed.
    pub signs: bool,
    /// Members whose certificates it signed.
    pub held_by: Vec<String>,
    /// Members of which it isn't known whose certificates they have: they don't answer.
    pub not_known_of: Vec<String>,
}

/// What a join token is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateJoinToken {
    /// How long it may be used, in seconds; 3600 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// A secret that lets one node in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenBody {
    /// For `lockstep server --join-token`; shown this once.
    pub token: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Addresses for `--join`.
    pub addresses: Vec<String>,
}

//! What has happened.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One event of the fleet. Names are as they were then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Rises by one with each; the newest is the highest.
    pub number: u64,
    /// Milliseconds since 1970, by the clock of the Raft leader of then.
    pub time_ms: i64,
    /// `LINK_CREATED`, `LINK_PAUSED`, `LINK_RESUMED`, `LINK_DELETED`, `MIRROR_CREATED`, `MIRROR_CHANGED`, `MIRROR_DELETED`,
    /// `NODE_JOINED`, `NODE_STARTED`, `NODE_DRAINS`, `NODE_UNDRAINED`, `NODE_STOPS`, `NODE_LOST`, `NODE_REMOVED`.
    pub kind: String,
    /// Registered name of the link's destination.
    pub cluster: Option<String>,
    pub link: Option<String>,
    /// The mirror topic.
    pub topic: Option<String>,
    /// The member that it is about.
    pub node: Option<String>,
    /// The mirror topic's status before.
    pub from: Option<String>,
    /// The mirror topic's status since.
    pub to: Option<String>,
    /// Of a mirror topic: what was asked or what came about, or the error that it failed with.
    pub cause: Option<String>,
    pub cause_message: Option<String>,
    /// `OPERATOR`, `NODE` (by itself), `COORDINATOR` (gives partitions to nodes) or `LINK` (makes its mirrors by itself).
    pub asked_by: String,
    /// Of an operator: whose API was called; of a node: which. Null when that isn't known.
    pub asked_at: Option<String>,
}

/// What went wrong with a mirror topic on its way from one status to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransitionErrorRow {
    pub error_code: String,
    pub error_message: String,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

//! What travels over the API: bodies of requests and answers, one definition for server and CLI.
//!
//! Names and shapes follow SPEC section 4. A value that isn't known is `null`, never a made-up
//! number. Nothing here decides anything.

mod events;
mod fleet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use events::{EventRow, TransitionErrorRow};
pub use fleet::{AuthorityRow, CreateJoinToken, FleetBody, JoinTokenBody, NodeRow};

/// Every answer that isn't a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The HTTP status, or the status and two digits that say more.
    pub error_code: u32,
    pub message: String,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub kind: String,
    pub metadata: PageMetadata,
    pub data: Vec<Resource<T>>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PageMetadata {
    #[serde(rename = "self")]
    pub path: String,
    /// Path and query of the next page.
    pub next: Option<String>,
}

/// One thing with its own path.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Resource<T> {
    pub kind: String,
    pub metadata: ResourceMetadata,
    #[serde(flatten)]
    pub body: T,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResourceMetadata {
    #[serde(rename = "self")]
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigEntry {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    pub name: String,
    /// Kafka client keys, `bootstrap.servers` among them.
    #[serde(default)]
    pub configs: Vec<ConfigEntry>,
    /// A guard: refused when the brokers answer another id. Required when they aren't asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterRow {
    pub name: String,
    pub cluster_id: String,
    /// `ACTIVE`, `UNAVAILABLE`, or `FAILED` when another cluster answers at the bootstrap.
    pub state: String,
    pub state_message: Option<String>,
    /// Secrets are hidden, references to them are not.
    pub configs: Vec<ConfigEntry>,
    /// What was left out of a new cluster's configs, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// A guard: refused when the source answers another id. Recorded when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_cluster_id: Option<String>,
    #[serde(default)]
    pub configs: Vec<ConfigEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LinkRow {
    pub link_name: String,
    pub cluster_link_id: String,
    /// Registered name; null when the link's own configs say where the source is.
    pub source_cluster: Option<String>,
    pub source_cluster_id: String,
    /// Registered name.
    pub destination_cluster: String,
    pub destination_cluster_id: String,
    pub topic_names: Vec<String>,
    pub link_state: String,
    pub link_error: String,
    pub link_error_message: Option<String>,
    pub tasks: Vec<TaskRow>,
    pub category_counts: Vec<CategoryCount>,
    /// What was left out of a new link's configs, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TaskRow {
    pub task_name: String,
    pub state: String,
    pub errors: Vec<ErrorRow>,
    /// What is to be known and isn't wrong, such as who is ahead of the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorRow {
    pub error_code: String,
    pub error_message: String,
}

/// Mirror topics of a link by status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CategoryCount {
    pub state_category: String,
    pub count: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LinkConfigRow {
    pub cluster_id: String,
    pub link_name: String,
    pub name: String,
    pub value: String,
    pub read_only: bool,
    pub sensitive: bool,
    /// `DYNAMIC_CLUSTER_LINK_CONFIG` where it was set, `DEFAULT_CONFIG` where it wasn't.
    pub source: String,
    pub synonyms: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConfigOperation {
    #[default]
    Set,
    /// Back to the default.
    Delete,
}

/// A change of one configuration key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    pub name: String,
    /// Required with SET, left out with DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// SET when left out.
    #[serde(default)]
    pub operation: ConfigOperation,
}

/// Changes that are made all together or not at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlterConfigs {
    pub data: Vec<ConfigChange>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    pub value: String,
}

/// What was altered, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlteredConfigs {
    pub kind: String,
    pub metadata: PageMetadata,
    pub data: Vec<Resource<LinkConfigRow>>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Changes of a registered cluster's client keys, made all together or not at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateCluster {
    pub configs: Vec<ConfigChange>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMirror {
    pub source_topic_name: String,
    /// The source topic's name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_topic_name: Option<String>,
    /// The destination's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i16>,
    /// Topic configs on top of the synced ones.
    #[serde(default)]
    pub configs: Vec<ConfigEntry>,
}

/// What creating a mirror would do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MirrorPlanBody {
    pub link_name: String,
    pub destination_cluster: String,
    pub source_topic_name: String,
    pub mirror_topic_name: String,
    pub num_partitions: u32,
    pub replication_factor: Option<i16>,
    pub configs: Vec<ConfigEntry>,
    pub partitions: Vec<PlannedPartition>,
    /// Offsets before the source's first one, over all partitions: kept as offsets without records.
    pub offsets_to_fill: i64,
    /// Offsets between the source's log start and its end, over all partitions.
    pub offsets_to_mirror: i64,
    /// An empty destination topic of the same shape is there already and would be used.
    pub adopts_existing: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlannedPartition {
    pub partition: u32,
    pub source_start_offset: i64,
    pub source_end_offset: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MirrorRow {
    pub link_name: String,
    /// Registered name.
    pub destination_cluster: String,
    pub mirror_topic_name: String,
    pub source_topic_name: String,
    pub num_partitions: u32,
    pub mirror_lags: Vec<LagRow>,
    pub mirror_status: String,
    pub mirror_topic_error: String,
    pub mirror_topic_error_message: Option<String>,
    /// When it entered this status, milliseconds since 1970.
    pub state_time_ms: i64,
    /// What couldn't be put right when it stopped; with `include_state_transition_errors` also each of its failures
    /// that is remembered. Newest first.
    pub mirror_state_transition_errors: Vec<TransitionErrorRow>,
    /// What a mirror that isn't ready yet, or is to stop, waits for.
    pub waiting_for: Option<String>,
}

/// A mirror that was forgotten, and what became of its topic.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeletedMirror {
    #[serde(flatten)]
    pub mirror: MirrorRow,
    pub topic_deleted: bool,
    /// Why the topic stays although its deletion was asked for.
    pub error_code: Option<u32>,
    pub error_message: Option<String>,
}

/// One mirror partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LagRow {
    pub partition: u32,
    /// Null when not known, never 0.
    pub lag: Option<i64>,
    pub last_source_fetch_offset: Option<i64>,
    pub lag_ms: Option<i64>,
    pub source_end_offset: Option<i64>,
    pub source_last_stable_offset: Option<i64>,
    pub mirror_end_offset: Option<i64>,
    /// Name of the node that runs it.
    pub node: Option<String>,
    pub state: String,
    pub guarded: Option<bool>,
    /// Its node took it over without the one before having been seen to stop.
    #[serde(default)]
    pub unclean: bool,
    /// Up to which offset a missing prefix is being filled; null when none is.
    #[serde(default)]
    pub fills_to: Option<i64>,
    pub error: Option<String>,
    pub error_message: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    /// RFC 3339.
    pub retry_at: Option<String>,
}

/// Which mirror topics to act on: names, or a pattern that must match the whole name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlterMirrors {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_topic_names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_topic_name_pattern: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlterMirrorRow {
    pub mirror_topic_name: String,
    pub error_code: Option<u32>,
    pub error_message: Option<String>,
}

//! Catalog and observed state as rows of an answer. Pure: what isn't observed stays unknown.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use actors::observe::{LinkView, Observatory, PartitionView};
use catalog::{Catalog, Cluster, Link, MirrorStatus, MirrorTopic};

use super::secrets;
use super::types::{
    CategoryCount, ClusterRow, ConfigEntry, LagRow, LinkRow, MirrorRow, Resource, ResourceMetadata, TaskRow,
};

pub const TASKS: [&str; 4] = ["ConsumerOffsetSync", "AclSync", "AutoCreateMirror", "TopicConfigsSync"];

/// Nothing of this version syncs anything yet.
pub const TASK_STATE: &str = "NOT_CONFIGURED";

pub fn resource<T>(kind: &str, path: String, body: T) -> Resource<T> {
    Resource { kind: kind.to_owned(), metadata: ResourceMetadata { path }, body }
}

pub fn cluster_path(cluster: &str) -> String {
    format!("/lockstep/v1/clusters/{cluster}")
}

pub fn link_path(link: &Link) -> String {
    format!("/kafka/v3/clusters/{}/links/{}", link.destination, link.name)
}

pub fn mirror_path(link: &Link, topic: &str) -> String {
    format!("{}/mirrors/{topic}", link_path(link))
}

/// Configs as they may be shown.
pub fn shown_configs(configs: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let entry = |(name, value): (&String, &String)| ConfigEntry {
        name: name.clone(),
        value: secrets::shown(name, value),
    };
    configs.iter().map(entry).collect()
}

pub fn cluster(cluster: &Cluster, state: &str, state_message: Option<String>) -> Resource<ClusterRow> {
    let row = ClusterRow {
        name: cluster.name.to_string(),
        cluster_id: cluster.cluster_id.to_string(),
        state: state.to_owned(),
        state_message,
        configs: shown_configs(&cluster.configs),
        warnings: Vec::new(),
    };
    resource("LockstepCluster", cluster_path(&cluster.name), row)
}

pub fn link(link: &Link, view: Option<LinkView>, include_tasks: bool) -> Resource<LinkRow> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for mirror in link.mirrors.values() {
        *counts.entry(status(view.as_ref(), mirror)).or_default() += 1;
    }
    let task =
        |name: &&str| TaskRow { task_name: (*name).to_owned(), state: TASK_STATE.into(), errors: vec![] };
    let (state, error, message) = match view {
        Some(view) => (view.state, view.error, view.error_message),
        None => ("UNKNOWN", "NO_ERROR", None),
    };
    let row = LinkRow {
        link_name: link.name.to_string(),
        cluster_link_id: link.id.to_string(),
        source_cluster: link.source.as_ref().map(ToString::to_string),
        source_cluster_id: link.source_cluster_id.to_string(),
        destination_cluster: link.destination.to_string(),
        destination_cluster_id: link.destination_cluster_id.to_string(),
        topic_names: link.mirrors.keys().map(ToString::to_string).collect(),
        link_state: state.to_owned(),
        link_error: error.to_owned(),
        link_error_message: message,
        tasks: if include_tasks { TASKS.iter().map(task).collect() } else { Vec::new() },
        category_counts: counts
            .into_iter()
            .map(|(status, count)| CategoryCount { state_category: status.to_owned(), count })
            .collect(),
        warnings: Vec::new(),
    };
    resource("KafkaLinkData", link_path(link), row)
}

/// A mirror topic's status as users see it: that of the catalog, unless its link has failed or its
/// source doesn't answer.
pub fn status(link: Option<&LinkView>, mirror: &MirrorTopic) -> &'static str {
    match link.filter(|_| mirror.status == MirrorStatus::Active) {
        Some(view) if view.state == "FAILED" => "LINK_FAILED",
        Some(view) if !view.source_available => "SOURCE_UNAVAILABLE",
        _ => mirror.shown_status(),
    }
}

/// What this node observes of a mirror topic.
#[derive(Default)]
pub struct Observed {
    pub link: Option<LinkView>,
    pub partitions: Vec<PartitionView>,
    pub waiting_for: Option<String>,
}

impl Observed {
    /// Nothing, while the data plane hasn't started.
    pub fn of(observatory: Option<&Observatory>, link: &Link, mirror: &MirrorTopic) -> Self {
        let Some(observatory) = observatory else { return Self::default() };
        let key = link.key(&mirror.name);
        Self {
            link: observatory.link(&link.id),
            partitions: observatory.partitions(&key),
            waiting_for: observatory.setup(&key),
        }
    }
}

pub fn mirror(
    catalog: &Catalog,
    link: &Link,
    mirror: &MirrorTopic,
    observed: Observed,
) -> Resource<MirrorRow> {
    let mut seen: BTreeMap<u32, PartitionView> =
        observed.partitions.into_iter().map(|view| (view.partition, view)).collect();
    let lags = (0..).zip(&mirror.partitions).map(|(index, partition)| {
        let node = partition.assignment.as_ref().and_then(|a| catalog.nodes.get(&a.node));
        let mut row = match seen.remove(&index) {
            Some(view) => observed_row(view),
            None => unobserved_row(index, mirror.status, node.is_some()),
        };
        row.node = node.map(|node| node.name.to_string());
        if let Some(failure) = &partition.failure {
            row.state = "FAILED".into();
            row.error = Some(failure.error.name().to_owned());
            row.error_message = Some(format!("at offset {}: {}", failure.offset, failure.message));
            row.since = rfc3339(failure.at_ms);
            row.retry_at = None;
        }
        row
    });
    let failure = mirror.first_failure();
    let row = MirrorRow {
        link_name: link.name.to_string(),
        destination_cluster: link.destination.to_string(),
        mirror_topic_name: mirror.name.to_string(),
        source_topic_name: mirror.source_topic.to_string(),
        num_partitions: mirror.partitions.len() as u32,
        mirror_lags: lags.collect(),
        mirror_status: status(observed.link.as_ref(), mirror).to_owned(),
        mirror_topic_error: failure.map_or("NO_ERROR", |(_, f)| f.error.name()).to_owned(),
        mirror_topic_error_message: failure
            .map(|(index, f)| format!("partition {index} at offset {}: {}", f.offset, f.message)),
        state_time_ms: mirror.status_since_ms,
        mirror_state_transition_errors: Vec::new(),
        waiting_for: observed.waiting_for.filter(|_| mirror.status == MirrorStatus::PendingMirror),
    };
    resource("KafkaMirrorData", mirror_path(link, &mirror.name), row)
}

fn observed_row(view: PartitionView) -> LagRow {
    let (error, error_message) = view.error.map(|(name, message)| (name.to_owned(), message)).unzip();
    LagRow {
        partition: view.partition,
        lag: view.lag,
        last_source_fetch_offset: view.last_source_fetch_offset,
        lag_ms: view.lag_ms,
        source_end_offset: view.source_end_offset,
        source_last_stable_offset: view.source_last_stable_offset,
        mirror_end_offset: view.mirror_end_offset,
        node: None,
        state: view.state.to_owned(),
        guarded: view.guarded,
        fills_to: view.fills_to,
        error,
        error_message,
        since: rfc3339(view.since_ms),
        retry_at: view.retry_at_ms.and_then(rfc3339),
    }
}

/// A partition that this node sees nothing of.
fn unobserved_row(partition: u32, status: MirrorStatus, assigned: bool) -> LagRow {
    let state = match status {
        MirrorStatus::PendingMirror => "PENDING",
        MirrorStatus::Paused => "PAUSED",
        _ if !assigned => "UNASSIGNED",
        _ => "UNKNOWN",
    };
    LagRow {
        partition,
        lag: None,
        last_source_fetch_offset: None,
        lag_ms: None,
        source_end_offset: None,
        source_last_stable_offset: None,
        mirror_end_offset: None,
        node: None,
        state: state.to_owned(),
        guarded: None,
        fills_to: None,
        error: None,
        error_message: None,
        since: None,
        retry_at: None,
    }
}

/// None for a time that isn't known.
fn rfc3339(ms: i64) -> Option<String> {
    let since_1970 = Duration::from_millis(u64::try_from(ms).ok()?);
    Some(humantime::format_rfc3339_millis(UNIX_EPOCH.checked_add(since_1970)?).to_string())
}

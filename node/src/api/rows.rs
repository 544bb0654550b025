//! Catalog and observed state as rows of an answer. Pure: what isn't observed stays unknown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use actors::observe::PartitionView;
use actors::sync::acls::settings::AclSettings;
use actors::sync::offsets::settings::OffsetSettings;
use catalog::{Catalog, Cluster, Link, MirrorStatus, MirrorTopic};

use super::secrets;
use super::types::{
    CategoryCount, ClusterRow, ConfigEntry, ErrorRow, LagRow, LinkRow, MirrorRow, Resource, ResourceMetadata,
    TaskRow, TransitionErrorRow,
};
use crate::status::seen::{Seen, SeenLink};

pub const TASKS: [&str; 4] = ["ConsumerOffsetSync", "AclSync", "AutoCreateMirror", "TopicConfigsSync"];

/// At most so many of a task's errors are shown, and of its remarks.
const TOLD_MAX: usize = 60;

/// A task as it stands (SPEC section 4). Those that this version doesn't do yet are NOT_CONFIGURED.
pub fn task(name: &str, link: &Link, seen: Option<&SeenLink>) -> TaskRow {
    let errors = seen.and_then(|link| link.tasks.get(name));
    let is_configured = match name {
        TOPIC_CONFIGS_SYNC => true,
        CONSUMER_OFFSET_SYNC => OffsetSettings::of(&link.configs).is_some(),
        ACL_SYNC => AclSettings::of(&link.configs).is_some(),
        AUTO_CREATE_MIRROR => link.makes_mirrors(),
        _ => false,
    };
    let state = match (seen.map(|link| link.state.as_str()), errors) {
        _ if !is_configured => "NOT_CONFIGURED",
        (Some("FAILED"), _) => "LINK_FAILED",
        _ if link.is_paused() => "LINK_PAUSED",
        (Some("UNAVAILABLE"), _) => "LINK_UNAVAILABLE",
        (_, Some(errors)) if !errors.is_empty() => "IN_ERROR",
        (_, Some(_)) => "ACTIVE",
        // Before its first round.
        (_, None) => "UNKNOWN",
    };
    let error = |(topic, error): (&String, &ErrorRow)| match topic.is_empty() {
        true => error.clone(),
        false => ErrorRow { error_message: format!("'{topic}': {}", error.error_message), ..error.clone() },
    };
    let more_errors = |count| ErrorRow {
        error_code: "INTERNAL_ERROR".into(),
        error_message: format!("and {count} errors more"),
    };
    let errors = first(errors.into_iter().flatten().map(error), more_errors);
    let remarks = seen.and_then(|link| link.remarks.get(name)).into_iter().flatten();
    let remark = |(what, remark): (&String, &String)| match what.is_empty() {
        true => remark.clone(),
        false => format!("'{what}': {remark}"),
    };
    let remarks = first(remarks.map(remark), |count| format!("and {count} remarks more"));
    TaskRow { task_name: name.to_owned(), state: state.to_owned(), errors, remarks }
}

/// The first of them, and a row in place of those that are left out.
pub fn first<T>(all: impl Iterator<Item = T>, left_out: impl Fn(usize) -> T) -> Vec<T> {
    let mut all = all;
    let mut shown: Vec<T> = all.by_ref().take(TOLD_MAX).collect();
    let more = all.count();
    shown.extend((more > 0).then(|| left_out(more)));
    shown
}

const TOPIC_CONFIGS_SYNC: &str = actors::sync::configs::TASK;
const CONSUMER_OFFSET_SYNC: &str = actors::sync::offsets::TASK;
const ACL_SYNC: &str = actors::sync::acls::TASK;
const AUTO_CREATE_MIRROR: &str = actors::sync::mirrors::TASK;

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

pub fn link(link: &Link, seen: Option<&SeenLink>, include_tasks: bool) -> Resource<LinkRow> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for mirror in link.mirrors.values() {
        *counts.entry(status(link, seen, mirror)).or_default() += 1;
    }
    let (state, error, message) = match seen {
        Some(seen) => {
            let is_paused = link.is_paused() && seen.state != "FAILED";
            let state = if is_paused { "PAUSED" } else { seen.state.as_str() };
            (state, seen.error.as_str(), seen.error_message.clone())
        }
        None if link.is_paused() => ("PAUSED", "NO_ERROR", None),
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
        tasks: if include_tasks {
            TASKS.iter().map(|name| task(name, link, seen)).collect()
        } else {
            Vec::new()
        },
        category_counts: counts
            .into_iter()
            .map(|(status, count)| CategoryCount { state_category: status.to_owned(), count })
            .collect(),
        warnings: Vec::new(),
    };
    resource("KafkaLinkData", link_path(link), row)
}

/// A mirror topic's status as users see it: that of the catalog, unless its link has failed or its
/// source doesn't answer, or it is paused with its link.
pub fn status(link: &Link, seen: Option<&SeenLink>, mirror: &MirrorTopic) -> &'static str {
    match seen.filter(|_| mirror.status == MirrorStatus::Active) {
        Some(seen) if seen.state == "FAILED" => "LINK_FAILED",
        _ if mirror.status == MirrorStatus::Active && link.is_paused() => "LINK_PAUSED",
        Some(seen) if !seen.source_available => "SOURCE_UNAVAILABLE",
        _ => mirror.shown_status(),
    }
}

pub fn mirror(catalog: &Catalog, link: &Link, mirror: &MirrorTopic, seen: &Seen) -> Resource<MirrorRow> {
    let mut observed = seen.partitions(link, mirror);
    let lags = (0..).zip(&mirror.partitions).map(|(index, partition)| {
        let owner = partition.assignment.as_ref().map(|a| a.node);
        let node = owner.and_then(|owner| catalog.nodes.get(&owner));
        let mut row = observed.remove(&index).unwrap_or_else(|| {
            let silence = owner.and_then(|owner| seen.silence(catalog, owner));
            unobserved(index, mirror.status, link.is_paused(), owner.is_some(), silence)
        });
        let end = mirror.stop.as_ref().and_then(|stop| stop.ends.get(index as usize));
        if let Some(end) = end {
            (row.lag, row.source_end_offset, row.mirror_end_offset) =
                (end.lost(), end.source_end, Some(end.records_end));
        }
        let is_paused = mirror.status == MirrorStatus::Paused || (link.is_paused() && mirror.is_mirrored());
        if row.state == "STOPPED" && is_paused {
            row.state = "PAUSED".into();
        }
        row.node = node.map(|node| node.name.to_string());
        row.unclean = partition.assignment.as_ref().is_some_and(|a| a.unclean);
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
        mirror_status: status(link, seen.link(&link.id), mirror).to_owned(),
        mirror_topic_error: failure.map_or("NO_ERROR", |(_, f)| f.error.name()).to_owned(),
        mirror_topic_error_message: failure
            .map(|(index, f)| format!("partition {index} at offset {}: {}", f.offset, f.message)),
        state_time_ms: mirror.status_since_ms,
        mirror_state_transition_errors: transition_errors(mirror),
        waiting_for: seen
            .waiting_for(&link.key(&mirror.name))
            .filter(|_| matches!(mirror.status, MirrorStatus::PendingMirror | MirrorStatus::PendingStopped)),
    };
    resource("KafkaMirrorData", mirror_path(link, &mirror.name), row)
}

/// What couldn't be put right when it stopped.
fn transition_errors(mirror: &MirrorTopic) -> Vec<TransitionErrorRow> {
    let remarks = mirror.stop.iter().flat_map(|stop| &stop.remarks);
    let row = |remark: &Arc<str>| TransitionErrorRow {
        error_code: "INTERNAL_ERROR".into(),
        error_message: remark.to_string(),
        time_ms: mirror.status_since_ms,
    };
    remarks.map(row).collect()
}

/// A partition as its owner sees it; whose it is, the catalog says.
pub fn observed(view: PartitionView) -> LagRow {
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
        unclean: false,
        fills_to: view.fills_to,
        error,
        error_message,
        since: rfc3339(view.since_ms),
        retry_at: view.retry_at_ms.and_then(rfc3339),
    }
}

/// A partition of which nothing is seen.
fn unobserved(
    partition: u32,
    status: MirrorStatus,
    paused: bool,
    assigned: bool,
    silence: Option<String>,
) -> LagRow {
    let state = match status {
        MirrorStatus::PendingMirror => "PENDING",
        MirrorStatus::Paused => "PAUSED",
        MirrorStatus::Stopped => "STOPPED",
        _ if paused => "PAUSED",
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
        unclean: false,
        fills_to: None,
        error: None,
        error_message: silence,
        since: None,
        retry_at: None,
    }
}

/// None for a time that isn't known.
fn rfc3339(ms: i64) -> Option<String> {
    let since_1970 = Duration::from_millis(u64::try_from(ms).ok()?);
    Some(humantime::format_rfc3339_millis(UNIX_EPOCH.checked_add(since_1970)?).to_string())
}

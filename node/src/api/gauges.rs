//! Gauges of the state as it is at the moment of the scrape.
//!
//! Written here and not kept in a registry: a series of what no longer exists, or isn't known,
//! must vanish.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use actors::governor::{Budget, Clients};
use actors::observe::Observatory;
use actors::pace::{LinkPace, Reason};
use catalog::Catalog;
use consensus::Status;

use super::rows;
use super::types::{LagRow, MirrorRow};
use crate::process;
use crate::status::seen::{Answer, Question, Seen};

/// Samples by metric name, in the order of their labels.
#[derive(Default)]
struct Gauges(BTreeMap<&'static str, BTreeMap<String, f64>>);

impl Gauges {
    fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.sample(name, labels) += value;
    }

    fn set(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.sample(name, labels) = value;
    }

    fn sample(&mut self, name: &'static str, labels: &[(&str, &str)]) -> &mut f64 {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            // Names are checked before they get here; nodes' names are not.
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(text, "{separator}{label}=\"{value}\"");
        }
        self.0.entry(name).or_default().entry(text).or_default()
    }
}

pub fn render(out: &mut String, catalog: &Catalog, status: &Status, observatory: Option<&Observatory>) {
    let mut gauges = Gauges::default();
    let seen = seen_here(catalog, status, observatory);
    raft(&mut gauges, status);
    for id in catalog.nodes.values() {
        gauges.add("lockstep_assignments", &[("node", &id.name)], 0.0);
    }
    for link in catalog.links.values() {
        let state = seen.link(&link.id).map_or("UNKNOWN", |seen| seen.state.as_str());
        gauges.add("lockstep_link_count", &[("state", state)], 1.0);
        // Two destinations may have links of one name.
        let labels = [("link", &*link.name), ("cluster", &*link.destination)];
        for task in rows::TASKS {
            let state = rows::task(task, link, seen.link(&link.id)).state;
            let labels = [labels[0], labels[1], ("task", task), ("state", &*state)];
            gauges.add("lockstep_link_task_count", &labels, 1.0);
        }
        if let Some(bytes) = observatory.and_then(|o| o.credit_in_use_bytes(&link.id)) {
            gauges.add("lockstep_credit_bytes_in_use", &labels, bytes as f64);
        }
        if let Some(pace) = observatory.and_then(|o| o.pace(&link.id)) {
            throttle(&mut gauges, labels, &pace);
        }
        for mirror in link.mirrors.values() {
            for assignment in mirror.partitions.iter().filter_map(|p| p.assignment.as_ref()) {
                let node = catalog.nodes.get(&assignment.node).map_or("", |node| &*node.name);
                gauges.add("lockstep_assignments", &[("node", node)], 1.0);
            }
            let row = rows::mirror(catalog, link, mirror, &seen).body;
            mirror_topic(&mut gauges, labels, &row, &status.node_name);
        }
    }
    if let Some(process) = process::read() {
        for (name, value) in process {
            gauges.add(name, &[], value);
        }
    }
    write(out, &gauges);
}

/// A scrape tells of this node; the others have scrapes of their own.
fn seen_here(catalog: &Catalog, status: &Status, observatory: Option<&Observatory>) -> Seen {
    let mut seen = Seen::default();
    let mirrors = catalog.links.values().flat_map(|link| link.mirrors.keys().map(|topic| link.key(topic)));
    let question =
        Question { links: catalog.links.keys().cloned().collect(), mirrors: mirrors.collect(), trust: false };
    if let Some(observatory) = observatory {
        seen.add(status.node_id, None, Answer::of(observatory, &question));
    }
    seen
}

fn raft(gauges: &mut Gauges, status: &Status) {
    let node = [("node", status.node_name.as_str())];
    gauges.add("lockstep_raft_leader", &node, f64::from(u8::from(status.is_leader)));
    gauges.add("lockstep_raft_term", &node, status.term as f64);
    gauges.add("lockstep_raft_commit_index", &node, status.last_applied as f64);
}

/// What holds this node back from a destination, and what clients do there.
fn throttle(gauges: &mut Gauges, labels: [(&str, &str); 2], pace: &LinkPace) {
    for reason in Reason::ALL {
        let labels = [labels[0], labels[1], ("reason", reason.name())];
        gauges.add("lockstep_throttle_seconds_total", &labels, pace.held(reason).as_secs_f64());
    }
    let Some(governor) = pace.governor() else { return };
    // No series where there is no limit.
    if let Budget::Limited { bytes_per_second } = governor.budget() {
        gauges.add("lockstep_throttle_budget_bytes_per_second", &labels, bytes_per_second as f64);
    }
    let written = match governor.clients() {
        Clients::Write(bytes_per_second) => bytes_per_second,
        Clients::Quiet => Some(0.0),
        Clients::Unknown => None,
    };
    if let Some(written) = written {
        // Of the cluster, whichever link tells.
        gauges.set("lockstep_destination_client_write_bytes_per_second", &labels[1..], written);
    }
}

/// What this node runs of a mirror topic, and what nobody runs.
fn mirror_topic(gauges: &mut Gauges, [link, cluster]: [(&str, &str); 2], row: &MirrorRow, node: &str) {
    let state = ("state", row.mirror_status.as_str());
    gauges.add("lockstep_mirror_topic_count", &[link, cluster, state], 1.0);
    let topic = [link, cluster, ("topic", row.mirror_topic_name.as_str())];
    let ours: Vec<&LagRow> =
        row.mirror_lags.iter().filter(|lag| lag.node.as_deref().is_none_or(|owner| owner == node)).collect();
    for lag in &ours {
        gauges.add("lockstep_mirror_partition_count", &[link, cluster, ("state", lag.state.as_str())], 1.0);
        let index = lag.partition.to_string();
        let labels = [topic[0], topic[1], topic[2], ("partition", index.as_str())];
        gauges.add("lockstep_mirror_lag_known", &labels, f64::from(u8::from(lag.lag.is_some())));
        if let Some(lag) = lag.lag {
            gauges.add("lockstep_mirror_lag_records", &labels, lag as f64);
        }
    }
    // The slowest partition's; a topic with an unknown one has no series.
    let lags: Option<Vec<i64>> = ours.iter().map(|lag| lag.lag_ms).collect();
    if let Some(slowest) = lags.unwrap_or_default().into_iter().max() {
        gauges.add("lockstep_mirror_lag_seconds", &topic, slowest as f64 / 1_000.0);
    }
}

fn write(out: &mut String, gauges: &Gauges) {
    for (name, samples) in &gauges.0 {
        // As Prometheus names them.
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = match labels.as_str() {
                "" => writeln!(out, "{name} {value}"),
                labels => writeln!(out, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

//! Gauges of the state as it is at the moment of the scrape (SPEC section 7).
//!
//! Written here and not kept in a registry: a series of what no longer exists, or isn't known,
//! must vanish.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use actors::observe::Observatory;
use catalog::Catalog;
use consensus::Status;

/// Samples by metric name, in the order of their labels.
#[derive(Default)]
struct Gauges(BTreeMap<&'static str, BTreeMap<String, f64>>);

impl Gauges {
    fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            // Names are checked before they get here; nodes' names are not.
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(text, "{separator}{label}=\"{value}\"");
        }
        *self.0.entry(name).or_default().entry(text).or_default() += value;
    }
}

pub fn render(out: &mut String, catalog: &Catalog, status: &Status, observatory: Option<&Observatory>) {
    let mut gauges = Gauges::default();
    raft(&mut gauges, status);
    for id in catalog.nodes.values() {
        gauges.add("lockstep_assignments", &[("node", &id.name)], 0.0);
    }
    for link in catalog.links.values() {
        let view = observatory.and_then(|o| o.link(&link.id));
        gauges.add("lockstep_link_count", &[("state", view.as_ref().map_or("UNKNOWN", |v| v.state))], 1.0);
        for mirror in link.mirrors.values() {
            // Two destinations may have links of one name.
            let (link_label, cluster_label) = (("link", &*link.name), ("cluster", &*link.destination));
            let state = ("state", super::rows::status(view.as_ref(), mirror));
            gauges.add("lockstep_mirror_topic_count", &[link_label, cluster_label, state], 1.0);
            for assignment in mirror.partitions.iter().filter_map(|p| p.assignment.as_ref()) {
                let node = catalog.nodes.get(&assignment.node).map_or("", |node| &*node.name);
                gauges.add("lockstep_assignments", &[("node", node)], 1.0);
            }
            let views = observatory.map(|o| o.partitions(&link.key(&mirror.name))).unwrap_or_default();
            let topic = [link_label, cluster_label, ("topic", &*mirror.name)];
            partitions(&mut gauges, &topic, &views);
        }
    }
    write(out, &gauges);
}

fn raft(gauges: &mut Gauges, status: &Status) {
    let node = [("node", status.node_name.as_str())];
    gauges.add("lockstep_raft_leader", &node, f64::from(u8::from(status.is_leader)));
    gauges.add("lockstep_raft_term", &node, status.term as f64);
    gauges.add("lockstep_raft_commit_index", &node, status.last_applied as f64);
}

fn partitions(gauges: &mut Gauges, topic: &[(&str, &str); 3], views: &[actors::observe::PartitionView]) {
    let [link, cluster, name] = *topic;
    for view in views {
        gauges.add("lockstep_mirror_partition_count", &[link, cluster, ("state", view.state)], 1.0);
        let index = view.partition.to_string();
        let labels = [link, cluster, name, ("partition", index.as_str())];
        gauges.add("lockstep_mirror_lag_known", &labels, f64::from(u8::from(view.lag.is_some())));
        if let Some(lag) = view.lag {
            gauges.add("lockstep_mirror_lag_records", &labels, lag as f64);
        }
    }
    // The slowest partition's; a topic with an unknown one has no series.
    let lags: Option<Vec<i64>> = views.iter().map(|view| view.lag_ms).collect();
    if let Some(slowest) = lags.unwrap_or_default().into_iter().max() {
        gauges.add("lockstep_mirror_lag_seconds", topic, slowest as f64 / 1_000.0);
    }
}

fn write(out: &mut String, gauges: &Gauges) {
    for (name, samples) in &gauges.0 {
        let _ = writeln!(out, "# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    }
}

//! What the node shows of its links and mirror partitions, as lines of the trace when it changes.

use std::collections::BTreeMap;

use actors::observe::Observatory;
use consensus::Applied;

/// By link, or by link, topic and partition.
#[derive(Default)]
pub struct Shown(BTreeMap<String, String>);

impl Shown {
    /// Tells what is new since the last look.
    pub fn look(&mut self, node: &str, applied: &Applied, observatory: Option<&Observatory>) {
        let now = observatory.map(|observatory| states(applied, observatory)).unwrap_or_default();
        for (what, state) in &now {
            if self.0.get(what) != Some(state) {
                tracing::info!("shown: {what} {state} ({node})");
            }
        }
        for what in self.0.keys().filter(|what| !now.contains_key(*what)) {
            tracing::info!("shown: {what} is gone ({node})");
        }
        self.0 = now;
    }
}

fn states(applied: &Applied, observatory: &Observatory) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    for link in applied.catalog.links.values() {
        if let Some(view) = observatory.link(&link.id) {
            states.insert(format!("link {}", link.name), view.state.to_owned());
        }
        for topic in link.mirrors.keys() {
            for row in observatory.partitions(&link.key(topic)) {
                let end = row.mirror_end_offset.map(|end| format!(" at {end}")).unwrap_or_default();
                let unguarded = if row.guarded == Some(false) { ", unguarded" } else { "" };
                states.insert(
                    format!("{}/{topic}[{}]", link.name, row.partition),
                    format!("{}{end}{unguarded}", row.state),
                );
            }
        }
    }
    states
}

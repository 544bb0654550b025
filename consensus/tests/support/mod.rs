//! A sequence of commands whose effect is known, and a disk that can lose power.

#![allow(dead_code, reason = "each test binary uses its share")]

pub mod chance;
pub mod disk;
pub mod fleet;
pub mod net;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, Catalog, Command, NodeId, Outcome};
use consensus::{Consensus, Options};

/// A node that the commands start again and again: a command applied twice shows as one start
/// too many.
const STARTED: NodeId = NodeId(9);

/// Command number `n` of the sequence. Each third starts a node, the others create a cluster.
pub fn action(n: u64) -> Action {
    if n.is_multiple_of(3) {
        return Action::StartNode { node: STARTED, name: format!("start-{n}").into() };
    }
    let configs = BTreeMap::from([
        ("bootstrap.servers".to_owned(), format!("broker-{n}:9092")),
        ("client.id".to_owned(), "x".repeat(100)),
    ]);
    Action::CreateCluster { name: format!("c{n}").into(), cluster_id: format!("id-{n}").into(), configs }
}

/// The catalog after the first `count` commands.
pub fn model(count: u64) -> Catalog {
    let mut catalog = Catalog::default();
    for n in 0..count {
        let applied = catalog.apply(Command { at_ms: 0, action: action(n) });
        assert_eq!(applied, Ok(Outcome::Done), "command {n}");
    }
    catalog
}

/// How many commands of the sequence the catalog holds, if it holds them wholly and in order.
pub fn held(catalog: &Catalog) -> u64 {
    let starts = catalog.nodes.get(&STARTED).map_or(0, |node| node.starts);
    let held = starts + catalog.clusters.len() as u64;
    assert_eq!(*catalog, model(held), "not the state after the first {held} commands");
    held
}

/// Snapshots and purges every few commands.
pub fn options(dir: &Path) -> Options {
    Options { snapshot_after_entries: 20, log_kept_entries: 5, ..Options::new(dir, "node-a") }
}

pub fn catalog(consensus: &Consensus) -> Catalog {
    consensus.watch().borrow().catalog.clone()
}

pub async fn submit_range(consensus: &Consensus, range: std::ops::Range<u64>) {
    for n in range {
        assert_eq!(consensus.submit(action(n)).await.expect("submit"), Outcome::Done, "command {n}");
    }
}

/// A fixed clock, for catalogs that must come out equal.
pub fn still_clock() -> consensus::Clock {
    Arc::new(|| 0)
}

pub const SECOND: Duration = Duration::from_secs(1);

//! When each node was last heard of: any frame of its own counts, in either direction of calling.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::NodeId;
use tokio::time::Instant;

/// Nodes that are remembered; the one that is silent for longest is forgotten first.
const NODES_MAX: usize = 1_000;

/// Cheap to clone; all clones know the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<NodeId, Instant>>>);

impl Heard {
    fn times(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has been silent; none: never heard of since this process started.
    pub fn since(&self, node: NodeId) -> Option<Duration> {
        self.times().get(&node).map(Instant::elapsed)
    }

    /// It was heard of just now.
    pub fn mark(&self, node: NodeId) {
        let mut times = self.times();
        times.insert(node, Instant::now());
        if times.len() > NODES_MAX
            && let Some((&oldest, _)) = times.iter().min_by_key(|(_, at)| **at)
        {
            times.remove(&oldest);
        }
    }

    pub(crate) fn keep(&self, keep: impl Fn(NodeId) -> bool) {
        self.times().retain(|node, _| keep(*node));
    }
}

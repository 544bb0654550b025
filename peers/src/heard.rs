//! When each node was last heard of: any frame of its own counts, in either direction of calling.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::NodeId;
use tokio::time::Instant;

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
        self.times().insert(node, Instant::now());
    }

    pub(crate) fn keep(&self, keep: impl Fn(NodeId) -> bool) {
        self.times().retain(|node, _| keep(*node));
    }
}

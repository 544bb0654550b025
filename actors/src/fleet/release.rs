//! Tells the catalog which partitions have stopped here for others to take: one command at a time, with
//! all that have stopped meanwhile, and at once when none is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::command::Released;
use catalog::placement::MOVES_MAX;
use catalog::{Action, Catalog, NodeId, PartitionKey};
use consensus::SubmitError;
use tokio::sync::Notify;

use crate::catalog_port::CatalogPort;

/// After a command whose fate isn't known.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Partitions that are to be released. A supervisor may say the same twice.
#[derive(Default)]
pub struct Releases {
    waiting: Mutex<BTreeMap<PartitionKey, (u64, bool)>>,
    added: Notify,
}

impl Releases {
    pub fn add(&self, released: impl IntoIterator<Item = Released>) {
        let mut waiting = self.lock();
        for Released { key, assignment_epoch, in_doubt } in released {
            waiting.insert(key, (assignment_epoch, in_doubt));
        }
        if !waiting.is_empty() {
            self.added.notify_one();
        }
    }

    /// The next command's worth of what the catalog still has as it was when it was added; what it
    /// hasn't is forgotten.
    fn next(&self, catalog: &Catalog, node: NodeId) -> Vec<Released> {
        let mut waiting = self.lock();
        waiting.retain(|key, (epoch, _)| is_to_be_released(catalog, node, key, *epoch));
        let released = |(key, (assignment_epoch, in_doubt)): (&PartitionKey, &(u64, bool))| Released {
            key: key.clone(),
            assignment_epoch: *assignment_epoch,
            in_doubt: *in_doubt,
        };
        waiting.iter().take(MOVES_MAX).map(released).collect()
    }

    /// Runs until consensus stops.
    pub async fn run(self: Arc<Self>, port: Arc<dyn CatalogPort>) {
        let node = port.node();
        loop {
            let released = self.next(&port.applied().catalog, node);
            if released.is_empty() {
                self.added.notified().await;
                continue;
            }
            match port.submit(Action::Release { node, released }).await {
                // Applied here: what it took is seen to be gone, what it left out too.
                Ok(_) | Err(SubmitError::Refused(_)) => {}
                Err(SubmitError::Stopped) => return,
                Err(error) => {
                    tracing::debug!(%error, "partitions that have stopped aren't released yet");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, (u64, bool)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_to_be_released(catalog: &Catalog, node: NodeId, key: &PartitionKey, epoch: u64) -> bool {
    let partition = catalog.mirror(&key.mirror).and_then(|m| m.partitions.get(key.partition as usize));
    let assignment = partition.and_then(|p| p.assignment.as_ref());
    catalog.fleet.hand_overs.contains_key(key)
        && assignment.is_some_and(|a| a.node == node && a.epoch == epoch)
}

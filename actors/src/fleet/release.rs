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
    waiting: Mutex<BTreeMap<PartitionKey, Waiting>>,
    added: Notify,
}

#[derive(Clone, Copy)]
struct Waiting {
    epoch: u64,
    in_doubt: bool,
    /// It was said, and how that ended isn't known yet.
    under_way: bool,
}

impl Releases {
    pub fn add(&self, released: impl IntoIterator<Item = Released>) {
        let mut waiting = self.lock();
        let mut is_news = false;
        for Released { key, assignment_epoch: epoch, in_doubt } in released {
            let known = waiting.get(&key).filter(|w| w.epoch == epoch);
            let under_way = known.is_some_and(|w| w.under_way);
            is_news |= known.is_none();
            waiting.insert(key, Waiting { epoch, in_doubt, under_way });
        }
        if is_news {
            self.added.notify_one();
        }
    }

    /// The partition is to start here again. False while it may be released all the same, at any moment.
    pub fn take_back(&self, key: &PartitionKey) -> bool {
        let mut waiting = self.lock();
        if waiting.get(key).is_some_and(|w| w.under_way) {
            return false;
        }
        waiting.remove(key);
        true
    }

    /// The next command's worth of what the catalog still has as it was when it was added; it then counts
    /// as under way. What the catalog hasn't is forgotten.
    fn next(&self, catalog: &Catalog, node: NodeId) -> Vec<Released> {
        let mut waiting = self.lock();
        waiting.retain(|key, w| is_to_be_released(catalog, node, key, w.epoch));
        let say = |(key, w): (&PartitionKey, &mut Waiting)| {
            w.under_way = true;
            Released { key: key.clone(), assignment_epoch: w.epoch, in_doubt: w.in_doubt }
        };
        waiting.iter_mut().take(MOVES_MAX).map(say).collect()
    }

    /// The command's end is known.
    fn settled(&self, released: &[Released]) {
        let mut waiting = self.lock();
        for Released { key, .. } in released {
            waiting.remove(key);
        }
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
            match port.submit(Action::Release { node, released: released.clone() }).await {
                // What it left out, another command has overtaken.
                Ok(_) | Err(SubmitError::Refused(_)) => self.settled(&released),
                Err(SubmitError::Stopped) => return,
                Err(error) => {
                    tracing::debug!(%error, "partitions that have stopped aren't released yet");
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_to_be_released(catalog: &Catalog, node: NodeId, key: &PartitionKey, epoch: u64) -> bool {
    let partition = catalog.mirror(&key.mirror).and_then(|m| m.partitions.get(key.partition as usize));
    let assignment = partition.and_then(|p| p.assignment.as_ref());
    catalog.fleet.hand_overs.contains_key(key)
        && assignment.is_some_and(|a| a.node == node && a.epoch == epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const HERE: NodeId = NodeId(1);
    const THERE: NodeId = NodeId(2);

    fn key(partition: u32) -> PartitionKey {
        PartitionKey { mirror: fixture::link(&[]).key(&"orders".into()), partition }
    }

    fn released(partition: u32) -> Released {
        Released { key: key(partition), assignment_epoch: 1, in_doubt: false }
    }

    /// All partitions are this node's, and these are to be handed over.
    fn catalog(partitions: u32, leaving: std::ops::Range<u32>) -> Catalog {
        let all = (0..partitions).map(|_| fixture::owned_by(HERE, false)).collect();
        let link = fixture::link(&[("orders", all)]);
        let mut catalog = Catalog::default();
        catalog.links.insert(link.id.clone(), Arc::new(link));
        catalog.fleet.hand_overs = leaving.map(|partition| (key(partition), THERE)).collect();
        catalog
    }

    #[test]
    fn what_has_stopped_goes_into_one_command_of_bounded_size() {
        let many = MOVES_MAX as u32 + 5;
        let (releases, catalog) = (Releases::default(), catalog(many, 0..many));
        releases.add((0..many).map(released));
        let first = releases.next(&catalog, HERE);
        assert_eq!(first.len(), MOVES_MAX);
        releases.settled(&first);
        assert_eq!(releases.next(&catalog, HERE).len(), 5);
    }

    #[test]
    fn what_the_catalog_no_longer_wants_is_not_said() {
        let releases = Releases::default();
        releases.add([released(0), released(1)]);
        assert_eq!(releases.next(&catalog(2, 1..2), HERE), [released(1)]);
        assert!(releases.next(&catalog(2, 1..2), THERE).is_empty());
    }

    /// Else it would be given away, as stopped in order, while it runs.
    #[test]
    fn a_partition_does_not_start_again_while_its_release_may_be_under_way() {
        let (releases, catalog) = (Releases::default(), catalog(1, 0..1));
        releases.add([released(0)]);
        let said = releases.next(&catalog, HERE);
        assert!(!releases.take_back(&key(0)));
        releases.add([released(0)]);
        assert!(!releases.take_back(&key(0)), "said again, and still under way");
        releases.settled(&said);
        assert!(releases.take_back(&key(0)));
        releases.add([released(0)]);
        assert!(releases.take_back(&key(0)), "not said yet");
        assert!(releases.next(&catalog, HERE).is_empty());
    }
}

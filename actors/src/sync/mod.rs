//! A link's tasks beside its records: what else is kept in step with the source.
//!
//! - [`configs`]: topic configs. [`offsets`]: group offsets. [`acls`]: ACLs. [`mirrors`]: mirrors of new topics.
//! - [`filters`]: which groups, which topics.

pub mod acls;
pub mod configs;
pub mod filters;
mod found;
pub mod mirrors;
pub mod offsets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Duty, Link, LinkId, MirrorTopic, NodeId, ProducerIdentity};
use kafka::connection::Gate;
use tokio::sync::RwLockReadGuard;
use tokio::task::{JoinError, JoinSet};

use crate::catalog_port::CatalogPort;
use crate::pace;
use crate::plane::LinkPlane;

/// Who writes, and until when.
#[derive(Clone)]
pub enum Writer {
    /// A sync: while the mirrors are this node's and mirrored.
    Sync { catalog: Arc<dyn CatalogPort>, link: LinkId, node: NodeId },
    /// A stop, which holds off the syncs: while its gate is open.
    Stop(Gate),
}

/// Mirrors that something is written for, as the writer knows them.
pub type Producers = BTreeMap<Arc<str>, Option<ProducerIdentity>>;

impl Writer {
    /// Open while all of these mirrors may be written for, and the link is as `wanted` says.
    fn gate(
        &self,
        plane: &LinkPlane,
        mirrors: Producers,
        wanted: impl Fn(&Link) -> bool + Send + Sync + 'static,
    ) -> Gate {
        match self {
            Self::Stop(gate) => gate.clone(),
            Self::Sync { catalog, link, node } => {
                let lease = plane.lease().gate(plane.lease().pass(), Duration::ZERO);
                let (applied, link, node) = (catalog.watch(), link.clone(), *node);
                Arc::new(move || {
                    let applied = applied.borrow();
                    let link = applied.catalog.links.get(&link);
                    let Some(link) = link else { return false };
                    let is_as_known = |(topic, producer): (&Arc<str>, &Option<ProducerIdentity>)| {
                        let mirror = link.mirrors.get(topic);
                        mirror.is_some_and(|m| m.producer == *producer && is_ours(link, m, node))
                    };
                    lease() && wanted(link) && mirrors.iter().all(is_as_known)
                })
            }
        }
    }

    /// To be held while something is written: a stop says that nothing comes any more, and never before what is
    /// under way has ended.
    async fn turn<'a>(&self, plane: &'a LinkPlane) -> Option<RwLockReadGuard<'a, ()>> {
        match self {
            Self::Sync { .. } => Some(plane.sync_writes().read().await),
            Self::Stop(_) => None,
        }
    }
}

/// Whether a running link doesn't have to begin anew for a change of the key: who does something by it reads it
/// anew each time.
pub fn is_live(key: &str) -> bool {
    let live = [&offsets::settings::KEYS[..], &mirrors::KEYS[..], &acls::settings::KEYS[..], &pace::KEYS[..]];
    key == Link::PAUSED_KEY || live.into_iter().flatten().any(|known| *known == key)
}

/// Whether this node syncs what belongs to the mirror, as it would stop it.
fn is_ours(link: &Link, mirror: &MirrorTopic, node: NodeId) -> bool {
    link.mirrors_now(mirror) && mirror.is_seen_to_by(node)
}

/// The node that does what one node does for a whole link: whoever has its first partition that anybody has,
/// otherwise the first node that runs mirrors, which looks after links that nobody owns anything of.
pub(crate) fn keeper(catalog: &Catalog, link: &Link) -> Option<NodeId> {
    let partitions = link.mirrors.values().flat_map(|mirror| &mirror.partitions);
    let owner = partitions.filter_map(|partition| partition.assignment.as_ref()).next();
    owner.map(|assignment| assignment.node).or_else(|| {
        let runs = catalog.nodes.iter().find(|(_, node)| node.duty == Duty::Mirrors);
        runs.or_else(|| catalog.nodes.iter().next()).map(|(id, _)| *id)
    })
}

/// What all of these futures came to, in the order in which they ended; so many of them at once.
async fn all<F>(at_once: usize, futures: Vec<F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let (mut running, mut ended) = (JoinSet::new(), Vec::new());
    for future in futures {
        if running.len() >= at_once {
            ended.extend(running.join_next().await.and_then(outcome));
        }
        running.spawn(future);
    }
    while let Some(one) = running.join_next().await {
        ended.extend(outcome(one));
    }
    ended
}

/// None is that of a runtime that ends.
fn outcome<T>(joined: Result<T, JoinError>) -> Option<T> {
    joined.map_err(|error| error.try_into_panic().map(std::panic::resume_unwind)).ok()
}

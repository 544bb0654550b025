//! OW-1: the loss of one node stops nothing of another's. A partition is taken from its owner without that
//! one's release only if something was in the way of the owner: its process, its disk, its network.

use std::collections::BTreeSet;

use catalog::{Catalog, NodeId, PartitionKey};
use consensus::Applied;

use super::Invariant;
use crate::judge::Seen;

/// As of the highest index seen.
#[derive(Default)]
pub struct Untouched(Option<Applied>);

impl Invariant for Untouched {
    fn id(&self) -> &'static str {
        "OW-1"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let Seen::Owners(applied, well) = seen else { return Ok(()) };
        let before = self.0.replace(applied.clone());
        // A hand-over can begin and end between two looks: then nobody knows which it was.
        match before.filter(|before| before.index + 1 == applied.index) {
            Some(before) => nothing_taken(&before.catalog, &applied.catalog, well),
            None => Ok(()),
        }
    }
}

fn nothing_taken(before: &Catalog, after: &Catalog, well: &BTreeSet<NodeId>) -> Result<(), String> {
    for link in before.links.values() {
        for mirror in link.mirrors.values() {
            let key = link.key(&mirror.name);
            let Some(now) = after.mirror(&key) else { continue };
            for (partition, (was, is)) in (0..).zip(mirror.partitions.iter().zip(&now.partitions)) {
                let (Some(was), Some(is)) = (&was.assignment, &is.assignment) else { continue };
                let place = PartitionKey { mirror: key.clone(), partition };
                let is_handed_over = before.fleet.hand_overs.contains_key(&place);
                if was.node != is.node && !is_handed_over && well.contains(&was.node) {
                    let (topic, from, to) = (&mirror.name, was.node, is.node);
                    return Err(format!(
                        "{topic}[{partition}] was taken from {from}, which is well, by {to}"
                    ));
                }
            }
        }
    }
    Ok(())
}

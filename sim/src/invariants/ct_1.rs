//! CT-1: equal applied index means equal catalog, also when it was reached by another start.

use std::collections::BTreeMap;

use catalog::codec;

use super::Invariant;
use crate::disk::Fnv;
use crate::judge::Seen;

/// Hash of the catalog's bytes by applied index.
#[derive(Default)]
pub struct EqualIndex(BTreeMap<u64, u64>);

impl Invariant for EqualIndex {
    fn id(&self) -> &'static str {
        "CT-1"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let (Seen::Settled(applied) | Seen::Applied(applied)) = seen else { return Ok(()) };
        let mut hash = Fnv::default();
        hash.add(&codec::encode_catalog(&applied.catalog));
        match *self.0.entry(applied.index).or_insert(hash.0) {
            before if before == hash.0 => Ok(()),
            before => {
                Err(format!("at index {} the catalog was {before:016x}, now {:016x}", applied.index, hash.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Catalog, Node, NodeId};
    use consensus::Applied;

    use super::*;

    #[test]
    fn another_catalog_at_the_same_index_is_seen() {
        let mut invariant = EqualIndex::default();
        let mut applied = Applied { index: 3, catalog: Catalog::default() };
        assert_eq!(invariant.see(Seen::Applied(&applied)), Ok(()));
        assert_eq!(invariant.see(Seen::Settled(&applied)), Ok(()));
        applied.catalog.nodes.insert(NodeId(1), Node::of_level_1("a".into(), 1));
        assert!(invariant.see(Seen::Settled(&applied)).is_err());
        assert_eq!(invariant.see(Seen::Applied(&Applied { index: 4, ..applied })), Ok(()));
    }
}

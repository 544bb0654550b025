//! CT-2: at most one current assignment a mirror partition, and its epoch only rises. That it is one is
//! in the catalog's type; what is watched is that it never goes back and never changes under one epoch.

use std::collections::BTreeMap;

use catalog::{Catalog, MirrorKey, NodeId};

use super::Invariant;
use crate::judge::Seen;

type Assignments = BTreeMap<(MirrorKey, usize), (u64, NodeId)>;

/// As of the highest index seen: a node that starts again comes through older ones.
#[derive(Default)]
pub struct EpochsRise {
    index: u64,
    assignments: Assignments,
}

fn assignments(catalog: &Catalog) -> Assignments {
    let mirrors =
        catalog.links.values().flat_map(|link| link.mirrors.values().map(move |m| (link.key(&m.name), m)));
    let partitions = mirrors.flat_map(|(key, mirror)| {
        mirror
            .partitions
            .iter()
            .enumerate()
            .map(move |(index, p)| ((key.clone(), index), p.assignment.as_ref()))
    });
    partitions.filter_map(|(key, found)| Some((key, found.map(|a| (a.epoch, a.node))?))).collect()
}

impl Invariant for EpochsRise {
    fn id(&self) -> &'static str {
        "CT-2"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let (Seen::Settled(applied) | Seen::Applied(applied)) = seen else { return Ok(()) };
        if applied.index <= self.index {
            return Ok(());
        }
        let found = assignments(&applied.catalog);
        for (key, before) in &self.assignments {
            let Some(now) = found.get(key) else { continue };
            if now.0 < before.0 || (now.0 == before.0 && now.1 != before.1) {
                let ((mirror, partition), index) = (key, applied.index);
                return Err(format!(
                    "{}[{partition}] went from epoch {} on {} to epoch {} on {} at index {index}",
                    mirror.topic, before.0, before.1, now.0, now.1
                ));
            }
        }
        (self.index, self.assignments) = (applied.index, found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use catalog::command::{Move, NewLink, NewMirror};
    use catalog::{Action, Command, LinkId, TopicId};
    use consensus::Applied;

    use super::*;

    fn assigned() -> Catalog {
        let mut catalog = Catalog::default();
        let mirror = MirrorKey { link: LinkId("l".into()), topic: "t".into() };
        let cluster = |name: &str| Action::CreateCluster {
            name: name.into(),
            cluster_id: name.into(),
            configs: BTreeMap::new(),
        };
        let link = NewLink {
            id: mirror.link.clone(),
            name: "l".into(),
            destination: "b".into(),
            source: Some("a".into()),
            source_cluster_id: "a".into(),
            configs: BTreeMap::new(),
        };
        let new = NewMirror {
            mirror: mirror.clone(),
            source_topic: "t".into(),
            source_topic_id: TopicId::NONE,
            partitions: 1,
            replication_factor: None,
            configs: BTreeMap::new(),
        };
        let start = |id: u64| Action::StartNode { node: NodeId(id), name: "n".into() };
        let moves = vec![Move { mirror, partition: 0, node: NodeId(1), expected_epoch: None }];
        for action in [
            cluster("a"),
            cluster("b"),
            Action::CreateLink(link),
            Action::CreateMirror(new),
            start(1),
            start(2),
            Action::Assign { moves },
        ] {
            catalog.apply(Command { at_ms: 0, action }).expect("taken");
        }
        catalog
    }

    fn reassigned(catalog: &Catalog, epoch: u64, node: u64) -> Catalog {
        let mut catalog = catalog.clone();
        for mirror in catalog.links.values_mut().flat_map(|link| Arc::make_mut(link).mirrors.values_mut()) {
            let assignment = Arc::make_mut(mirror).partitions[0].assignment.as_mut().expect("assigned");
            (assignment.epoch, assignment.node) = (epoch, NodeId(node));
        }
        catalog
    }

    #[test]
    fn an_epoch_that_falls_or_has_two_owners_is_seen() {
        let catalog = assigned();
        let after = |epoch, node| {
            let mut invariant = EpochsRise::default();
            for (index, catalog) in [(1, reassigned(&catalog, 5, 1)), (2, reassigned(&catalog, epoch, node))]
            {
                invariant.see(Seen::Applied(&Applied { index, catalog }))?;
            }
            Ok::<(), String>(())
        };
        assert_eq!(after(5, 1), Ok(()));
        assert_eq!(after(6, 2), Ok(()));
        assert!(after(5, 2).is_err());
        assert!(after(4, 1).is_err());
    }
}

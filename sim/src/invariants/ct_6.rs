//! CT-6: an acknowledged command survives any minority of losses. In a fleet of one that is none, and
//! crashes aren't losses.
//!
//! The record is a model catalog to which every acknowledged command was applied. A command whose answer
//! was lost may have been taken or not, until nothing is under way any more and the catalog shows which.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Action, Catalog, Cluster, Command, Link, MirrorStatus, MirrorTopic};

use super::Invariant;
use crate::judge::Seen;

#[derive(Default)]
pub struct Durable {
    model: Catalog,
    /// Submitted, and not answered yet or never.
    open: Option<Action>,
}

/// What commands of people decide, a line each. The rest of the catalog is the node's own to change.
fn asked(catalog: &Catalog) -> BTreeSet<String> {
    let cluster = |c: &Arc<Cluster>| format!("cluster {} ({}) {:?}", c.name, c.cluster_id, c.configs);
    let link = |l: &Arc<Link>| {
        let Link { id, name, source, destination, configs, .. } = &**l;
        format!("link {id} {name} from {source:?} to {destination} {configs:?}")
    };
    let mirror = |l: &Arc<Link>, m: &Arc<MirrorTopic>| {
        let paused = if m.status == MirrorStatus::Paused { ", paused" } else { "" };
        format!("mirror {}/{} of {}{paused}", l.name, m.name, m.source_topic)
    };
    let links = catalog.links.values();
    let mirrors = links.clone().flat_map(|l| l.mirrors.values().map(move |m| mirror(l, m)));
    catalog.clusters.values().map(cluster).chain(links.map(link)).chain(mirrors).collect()
}

impl Durable {
    fn with(&self, action: &Action) -> Option<Catalog> {
        let mut catalog = self.model.clone();
        catalog.apply(Command { at_ms: 0, action: action.clone() }).is_ok().then_some(catalog)
    }

    fn differs(&self, found: &Catalog) -> Result<(), String> {
        let (found, expected) = (asked(found), asked(&self.model));
        if found == expected {
            Ok(())
        } else {
            Err(format!("acknowledged was {expected:?}, found {found:?}"))
        }
    }
}

impl Invariant for Durable {
    fn id(&self) -> &'static str {
        "CT-6"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Submitting(action) => self.open = Some(action.clone()),
            Seen::NotProposed => self.open = None,
            Seen::Refused(refusal) => {
                let action = self.open.take().ok_or("an answer to nothing")?;
                // What the node itself found out about a mirror may forbid this one.
                if !matches!(action, Action::PauseMirror { .. }) && self.with(&action).is_some() {
                    return Err(format!("{action:?} was refused, and could be taken: {refusal}"));
                }
            }
            Seen::Acknowledged(applied) => {
                let action = self.open.take().ok_or("an answer to nothing")?;
                self.model =
                    self.with(&action).ok_or_else(|| format!("{action:?} was taken, and can't be"))?;
                self.differs(&applied.catalog)?;
            }
            Seen::Settled(applied) => {
                let with = self.open.take().and_then(|action| self.with(&action));
                if let Some(with) = with.filter(|with| asked(with) == asked(&applied.catalog)) {
                    self.model = with;
                }
                self.differs(&applied.catalog)?;
            }
            Seen::Applied(_) | Seen::Logs(_) | Seen::Shown(_) | Seen::End(..) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use catalog::Refusal;
    use consensus::Applied;

    use super::*;

    fn cluster(name: &str) -> Action {
        Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs: BTreeMap::new() }
    }

    fn holding(names: &[&str]) -> Applied {
        let mut catalog = Catalog::default();
        for name in names {
            catalog.apply(Command { at_ms: 5, action: cluster(name) }).expect("taken");
        }
        Applied { index: 1, catalog }
    }

    /// After `a` was acknowledged and `b` was begun.
    fn opened_with(names: &[&str]) -> Result<(), String> {
        let mut invariant = Durable::default();
        invariant.see(Seen::Submitting(&cluster("a")))?;
        invariant.see(Seen::Acknowledged(&holding(&["a"])))?;
        invariant.see(Seen::Submitting(&cluster("b")))?;
        invariant.see(Seen::Settled(&holding(names)))
    }

    #[test]
    fn what_was_acknowledged_is_missed_and_what_was_not_may_be_there() {
        assert_eq!(opened_with(&["a"]), Ok(()));
        assert_eq!(opened_with(&["a", "b"]), Ok(()));
        for wrong in [&[][..], &["b"], &["a", "c"]] {
            assert!(opened_with(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_without_a_reason_is_seen() {
        let refusal = Refusal::Exists { what: "cluster".into(), name: "a".into() };
        let mut invariant = Durable::default();
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert!(invariant.see(Seen::Refused(&refusal)).is_err());
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert_eq!(invariant.see(Seen::Acknowledged(&holding(&["a"]))), Ok(()));
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert_eq!(invariant.see(Seen::Refused(&refusal)), Ok(()));
    }
}

//! CT-6: an acknowledged command survives any minority of losses, whichever node acknowledged it. Crashes
//! aren't losses.
//!
//! The record is a model catalog to which every acknowledged command was applied. A command whose answer
//! was lost may have been taken, or will be, or never: the catalog shows which, and when.

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
    /// Those of which nobody knows what became, oldest first.
    doubts: Vec<Action>,
}

/// More are taken for lost: none was ever under way so long.
const DOUBTS_MAX: usize = 6;

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
    /// It may still be taken.
    fn doubt(&mut self) {
        self.doubts.extend(self.open.take());
        let surplus = self.doubts.len().saturating_sub(DOUBTS_MAX);
        self.doubts.drain(..surplus);
    }

    /// What the catalog may be with any of the doubts taken by now; first without them.
    fn possible(&self) -> impl Iterator<Item = (Catalog, Vec<Action>)> {
        (0..1_u32 << self.doubts.len()).filter_map(|taken| {
            let (mut catalog, mut left) = (self.model.clone(), Vec::new());
            for (place, action) in self.doubts.iter().enumerate() {
                if taken & (1 << place) == 0 {
                    left.push(action.clone());
                } else if !apply(&mut catalog, action) {
                    return None;
                }
            }
            Some((catalog, left))
        })
    }

    /// With `action` (if there is one) taken at last, this was found.
    fn found(&mut self, action: Option<&Action>, found: &Catalog) -> Result<(), String> {
        let wanted = asked(found);
        let with = |(mut catalog, left): (Catalog, Vec<Action>)| {
            let is_taken = action.is_none_or(|action| apply(&mut catalog, action));
            is_taken.then_some((catalog, left))
        };
        let matching = self.possible().filter_map(with).find(|(catalog, _)| asked(catalog) == wanted);
        let Some((model, doubts)) = matching else {
            let expected = asked(&self.model);
            return Err(format!("acknowledged was {expected:?}, then {action:?}; found {wanted:?}"));
        };
        (self.model, self.doubts) = (model, doubts);
        Ok(())
    }
}

fn apply(catalog: &mut Catalog, action: &Action) -> bool {
    catalog.apply(Command { at_ms: 0, action: action.clone() }).is_ok()
}

impl Invariant for Durable {
    fn id(&self) -> &'static str {
        "CT-6"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Submitting(action) => {
                self.doubt();
                self.open = Some(action.clone());
            }
            Seen::NotProposed => self.open = None,
            Seen::Refused(refusal) => {
                let action = self.open.take().ok_or("an answer to nothing")?;
                // What the node itself found out about a mirror may forbid this one.
                let may_be = matches!(action, Action::PauseMirror { .. })
                    || self.possible().any(|(mut catalog, _)| !apply(&mut catalog, &action));
                if !may_be {
                    return Err(format!("{action:?} was refused, and could be taken: {refusal}"));
                }
            }
            Seen::Acknowledged(applied) => {
                let action = self.open.take().ok_or("an answer to nothing")?;
                self.found(Some(&action), &applied.catalog)?;
            }
            Seen::Settled(applied) => {
                self.doubt();
                self.found(None, &applied.catalog)?;
            }
            Seen::Applied(_) | Seen::Owners(..) | Seen::Logs(_) | Seen::Shown(_) | Seen::End(..) => {}
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

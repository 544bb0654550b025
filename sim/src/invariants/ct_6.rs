//! CT-6: an acknowledged command survives any minority of losses, whichever node acknowledged it. Crashes
//! aren't losses.
//!
//! The record is a model catalog to which everything was applied that the API acknowledged, by the names that
//! it was asked for with. What was asked for and not answered may have been taken, or will be, or never: the
//! catalog shows which, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::{Catalog, Cluster, Link, LinkId, MirrorTopic};

use super::Invariant;
use crate::asked::{Asked, LinkName, mirror};
use crate::judge::Seen;
use crate::life::{self, Way};

#[derive(Default)]
pub struct Durable {
    model: Catalog,
    /// Asked for, and not answered yet or never.
    open: Option<Submitted>,
    /// Acknowledged by a process that was gone before its catalog was seen.
    certain: Option<Submitted>,
    /// Those of which nobody knows what became, oldest first.
    doubts: Vec<Submitted>,
    /// Of links: drawn by the API, once and for all.
    ids: BTreeMap<String, LinkId>,
}

#[derive(Clone, Debug)]
struct Submitted {
    asked: Asked,
    /// What a link's configs may have been when the API merged the change with them.
    over: Vec<BTreeMap<String, String>>,
}

impl Submitted {
    fn apply(&self, catalog: &mut Catalog) -> bool {
        self.asked.apply(catalog, &self.over)
    }
}

/// There is no such mirror.
const NOT_FOUND: u64 = 404;
/// More are taken for lost: none was ever under way so long.
const DOUBTS_MAX: usize = 6;

/// What may have become of a doubt by now: nothing yet, or it was taken; or taken after what was asked for
/// later.
const NOT_YET: usize = 0;
const BEFORE: usize = 1;
const WAYS_ALONE: usize = 2;
const WAYS_WITH_ANOTHER: usize = 3;

fn mirrors(catalog: &Catalog) -> BTreeSet<String> {
    let links = catalog.links.values();
    let names = links.flat_map(|l| l.mirrors.values().map(|m| mirror(&l.name, &m.name, &m.source_topic)));
    names.collect()
}

/// What commands of people decide, a line each. The rest of the catalog is the node's own to change.
fn asked(catalog: &Catalog) -> BTreeSet<String> {
    let cluster = |c: &Arc<Cluster>| format!("cluster {} ({}) {:?}", c.name, c.cluster_id, c.configs);
    let link = |l: &Arc<Link>| {
        let Link { name, source, destination, configs, .. } = &**l;
        format!("link {name} from {source:?} to {destination} {configs:?}")
    };
    let mirror = |l: &Arc<Link>, m: &Arc<MirrorTopic>| {
        let way = match life::way(m) {
            Way::Runs => "",
            Way::Paused => ", paused",
            Way::CatchesUp => ", is promoted",
            Way::Ends => ", is stopped for good",
        };
        format!("{}{way}", mirror(&l.name, &m.name, &m.source_topic))
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

    /// What the catalog may be by now, and what is in doubt then: with `then` taken, if there is that, and
    /// with any of the doubts before or after it; first without them.
    fn possible<'a>(
        &'a self,
        then: Option<&'a Submitted>,
    ) -> impl Iterator<Item = (Catalog, Vec<Submitted>)> + 'a {
        let ways = if then.is_some() { WAYS_WITH_ANOTHER } else { WAYS_ALONE };
        let all = (0..self.doubts.len()).fold(1, |all, _| all * ways);
        (0..all).filter_map(move |number| self.in_this_way(number, ways, then))
    }

    fn in_this_way(
        &self,
        mut number: usize,
        ways: usize,
        then: Option<&Submitted>,
    ) -> Option<(Catalog, Vec<Submitted>)> {
        let (mut catalog, mut left, mut after) = (self.model.clone(), Vec::new(), Vec::new());
        for doubt in &self.doubts {
            match number % ways {
                NOT_YET => left.push(doubt.clone()),
                BEFORE if doubt.apply(&mut catalog) => {}
                BEFORE => return None,
                _ => after.push(doubt),
            }
            number /= ways;
        }
        let is_taken = then.into_iter().chain(after).all(|taken| taken.apply(&mut catalog));
        is_taken.then_some((catalog, left))
    }

    /// With `then` taken at last, this was found.
    fn found(&mut self, then: Option<&Submitted>, found: &Catalog) -> Result<(), String> {
        let wanted = asked(found);
        let matching = self.possible(then).find_map(|(mut catalog, doubts)| {
            life::follow(&mut catalog, found);
            (asked(&catalog) == wanted).then_some((catalog, doubts))
        });
        let Some((model, doubts)) = matching else {
            let expected = asked(&self.model);
            return Err(format!("acknowledged was {expected:?}, then {then:?}; found {wanted:?}"));
        };
        (self.model, self.doubts) = (model, doubts);
        for link in found.links.values() {
            let LinkName { destination, name } = LinkName::of(link);
            let known = self.ids.entry(format!("{destination}/{name}")).or_insert_with(|| link.id.clone());
            if *known != link.id {
                return Err(format!("link {name} was {known}, and is {}", link.id));
            }
        }
        Ok(())
    }
}

impl Invariant for Durable {
    fn id(&self) -> &'static str {
        "CT-6"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Submitting(asked) => {
                self.doubt();
                let over = self.possible(None).filter_map(|(catalog, _)| asked.merged_with(&catalog));
                self.open = Some(Submitted { over: over.collect(), asked: asked.clone() });
            }
            Seen::NotProposed => self.open = None,
            Seen::Refused(code, refusal) => {
                let refused = self.open.take().ok_or("an answer to nothing")?;
                // What the product does with a mirror by itself may forbid these: `mirror_states.rs` knows.
                let may_be = (refused.asked.mirror().is_some() && code != NOT_FOUND)
                    || self.possible(None).any(|(mut catalog, _)| !refused.apply(&mut catalog));
                if !may_be {
                    return Err(format!("{:?} was refused, and could be taken: {refusal}", refused.asked));
                }
            }
            Seen::Acknowledged(applied) => {
                let taken = self.open.take().ok_or("an answer to nothing")?;
                match applied {
                    Some(applied) => self.found(Some(&taken), &applied.catalog)?,
                    None => self.certain = Some(taken),
                }
            }
            Seen::Settled(applied) => {
                self.doubt();
                let certain = self.certain.take();
                self.found(certain.as_ref(), &applied.catalog)?;
            }
            Seen::Listed(listed) => {
                if !self.possible(None).any(|(catalog, _)| mirrors(&catalog) == *listed) {
                    let expected = mirrors(&self.model);
                    return Err(format!("acknowledged was {expected:?}; the API lists {listed:?}"));
                }
            }
            Seen::Asking
            | Seen::Applied(_)
            | Seen::Owners(..)
            | Seen::Logs(_)
            | Seen::Shown(_)
            | Seen::End(..) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Action, Command};
    use consensus::Applied;

    use super::*;
    use crate::asked::MirrorName;

    fn cluster(name: &str) -> Asked {
        Asked::CreateCluster { name: name.into(), cluster_id: name.into(), configs: BTreeMap::new() }
    }

    fn holding(names: &[&str]) -> Applied {
        let mut catalog = Catalog::default();
        for name in names {
            let (cluster_id, name) = ((*name).into(), (*name).into());
            let action = Action::CreateCluster { name, cluster_id, configs: BTreeMap::new() };
            catalog.apply(Command { at_ms: 5, action }).expect("taken");
        }
        Applied { index: 1, catalog }
    }

    /// After `a` was acknowledged and `b` was begun.
    fn opened_with(names: &[&str]) -> Result<(), String> {
        let mut invariant = Durable::default();
        invariant.see(Seen::Submitting(&cluster("a")))?;
        invariant.see(Seen::Acknowledged(Some(&holding(&["a"]))))?;
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
    fn what_a_process_acknowledged_before_it_ended_is_missed_too() {
        for (names, is_right) in [(&["a"][..], true), (&[], false), (&["b"], false)] {
            let mut invariant = Durable::default();
            assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
            assert_eq!(invariant.see(Seen::Acknowledged(None)), Ok(()));
            assert_eq!(invariant.see(Seen::Settled(&holding(names))).is_ok(), is_right, "{names:?}");
        }
    }

    #[test]
    fn a_refusal_without_a_reason_is_seen() {
        let mut invariant = Durable::default();
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert!(invariant.see(Seen::Refused(409, "exists")).is_err());
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert_eq!(invariant.see(Seen::Acknowledged(Some(&holding(&["a"])))), Ok(()));
        assert_eq!(invariant.see(Seen::Submitting(&cluster("a"))), Ok(()));
        assert_eq!(invariant.see(Seen::Refused(409, "exists")), Ok(()));
    }

    fn link(id: &str, age_ms: &str) -> Applied {
        let mut applied = holding(&["a", "b"]);
        let action = Action::CreateLink(catalog::command::NewLink {
            id: LinkId(id.into()),
            name: "l".into(),
            destination: "b".into(),
            source: Some("a".into()),
            source_cluster_id: "a".into(),
            configs: BTreeMap::from([("age".to_owned(), age_ms.to_owned())]),
        });
        applied.catalog.apply(Command { at_ms: 5, action }).expect("taken");
        applied
    }

    fn name() -> LinkName {
        LinkName { destination: "b".into(), name: "l".into() }
    }

    fn alter(age_ms: &str) -> Asked {
        Asked::AlterLink { link: name(), key: "age".into(), value: age_ms.into() }
    }

    /// After clusters and a link were made.
    fn with_link() -> Durable {
        let mut invariant = Durable::default();
        for (asked, applied) in [
            (cluster("a"), holding(&["a"])),
            (cluster("b"), holding(&["a", "b"])),
            (
                Asked::CreateLink {
                    link: name(),
                    source: "a".into(),
                    configs: BTreeMap::from([("age".to_owned(), "1".to_owned())]),
                },
                link("x", "1"),
            ),
        ] {
            assert_eq!(invariant.see(Seen::Submitting(&asked)), Ok(()));
            assert_eq!(invariant.see(Seen::Acknowledged(Some(&applied))), Ok(()));
        }
        invariant
    }

    #[test]
    fn a_link_keeps_its_id() {
        assert_eq!(with_link().see(Seen::Settled(&link("x", "1"))), Ok(()));
        assert!(with_link().see(Seen::Settled(&link("y", "1"))).is_err());
    }

    #[test]
    fn a_change_in_doubt_never_undoes_one_that_was_made_over_another_state() {
        let mut invariant = with_link();
        // In doubt.
        assert_eq!(invariant.see(Seen::Submitting(&alter("2"))), Ok(()));
        assert_eq!(invariant.see(Seen::Submitting(&alter("3"))), Ok(()));
        assert_eq!(invariant.see(Seen::Acknowledged(Some(&link("x", "3")))), Ok(()));
        assert!(invariant.see(Seen::Settled(&link("x", "2"))).is_err());
    }

    #[test]
    fn a_list_that_lacks_a_mirror_is_seen() {
        let mut invariant = with_link();
        let orders = MirrorName { link: name(), topic: "orders".into() };
        let asked = Asked::CreateMirror { mirror: orders, source_topic: "o".into() };
        assert_eq!(invariant.see(Seen::Submitting(&asked)), Ok(()));
        let all = BTreeSet::from([mirror("l", "orders", "o")]);
        for listed in [&all, &BTreeSet::new()] {
            // Not known yet whether it is there.
            invariant.doubt();
            assert_eq!(invariant.see(Seen::Listed(listed)), Ok(()));
        }
        let mut invariant = with_link();
        assert!(invariant.see(Seen::Listed(&all)).is_err());
    }

    #[test]
    fn a_promotion_that_was_acknowledged_ends_or_is_cancelled_or_fails() {
        let promote = Asked::PromoteMirror(life::tests::name());
        let found = |catalog| {
            let mut invariant = Durable::default();
            let founding = life::tests::founding();
            for (count, asked) in founding.iter().enumerate() {
                let mut catalog = Catalog::default();
                assert!(founding[..=count].iter().all(|asked| asked.apply(&mut catalog, &[])));
                invariant.see(Seen::Submitting(asked))?;
                invariant.see(Seen::Acknowledged(Some(&Applied { index: 1, catalog })))?;
            }
            invariant.see(Seen::Submitting(&promote))?;
            invariant.see(Seen::Acknowledged(None))?;
            invariant.see(Seen::Settled(&Applied { index: 2, catalog }))
        };
        let mut promoted = life::tests::after(std::slice::from_ref(&promote));
        assert_eq!(found(promoted.clone()), Ok(()));
        life::tests::fence(&mut promoted);
        assert_eq!(found(promoted), Ok(()));
        assert!(found(life::tests::after(&[])).is_err(), "nobody cancelled it");
    }
}

//! What ACLs have to do with the mirror topics of a destination: which grant writing to one that is still
//! mirrored, and which are about one that has stopped. And which node syncs an ACL.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::stop::StopKind;
use catalog::{Catalog, Link, MirrorStatus, MirrorTopic, NodeId};
use kafka::acls::{Acl, Operation, PatternType, Permission, ResourceType};

use crate::sync::keeper;

/// LITERAL, it is every name.
pub const EVERY_NAME: &str = "*";

/// Mirror topics of a destination, of whichever link, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Not STOPPED.
    pub mirrored: BTreeSet<Arc<str>>,
    /// STOPPED, or about to be, or that had stopped when the mirror was deleted: only a stop writes for them.
    pub stopped: BTreeSet<Arc<str>>,
    /// That had stopped, and are too many to be known by name.
    pub stopped_unnamed: u64,
    /// One of the link's was failed over: clients may work at the destination, and what was revoked at the
    /// source may be what was lost there.
    pub has_failed_over: bool,
}

impl Mirrors {
    pub fn of(catalog: &Catalog, link: &Link) -> Self {
        let mut all = Self::default();
        let same = |other: &&Arc<Link>| other.destination_cluster_id == link.destination_cluster_id;
        let links = || catalog.links.values().filter(same);
        let records = links().filter_map(|link| catalog.acls.get(&link.id));
        for record in records {
            all.stopped.extend(record.stopped.keys().cloned());
            all.stopped_unnamed += record.stopped_unnamed;
        }
        for mirror in links().flat_map(|link| link.mirrors.values()) {
            if mirror.status != MirrorStatus::Stopped {
                all.mirrored.insert(mirror.name.clone());
            }
            match mirror.status == MirrorStatus::Stopped || mirror.is_fenced() {
                true => drop(all.stopped.insert(mirror.name.clone())),
                // Of another link, which the one that it had stopped on doesn't know of.
                false => drop(all.stopped.remove(&mirror.name)),
            }
        }
        let failed_over =
            |m: &Arc<MirrorTopic>| m.stop.as_ref().is_some_and(|stop| stop.kind == StopKind::FailOver);
        let kinds = catalog.acls.get(&link.id).into_iter().flat_map(|record| record.stopped.values());
        all.has_failed_over = link.mirrors.values().any(failed_over)
            || kinds.into_iter().any(|kind| *kind == StopKind::FailOver);
        all
    }

    /// A mirror that is still mirrored, and that the ACL lets others write to.
    pub fn written_by(&self, acl: &Acl) -> Option<&Arc<str>> {
        grants_write(acl).then(|| first(&self.mirrored, acl)).flatten()
    }

    /// A mirror that has stopped, or is about to, and that the ACL is about: it is the destination's.
    pub fn freezes(&self, acl: &Acl) -> Option<&Arc<str>> {
        first(&self.stopped, acl)
    }

    /// Whether it names a mirror whose stop goes on.
    pub fn is_of_a_stop(&self, acl: &Acl) -> bool {
        let name = &acl.resource_name;
        names(acl, name) && self.mirrored.contains(name) && self.stopped.contains(name)
    }
}

/// Whether the ACL is about this topic alone.
pub fn names(acl: &Acl, topic: &str) -> bool {
    let is_literal = (acl.resource_type, acl.pattern_type) == (ResourceType::Topic, PatternType::Literal);
    is_literal && &*acl.resource_name == topic && topic != EVERY_NAME
}

/// What lets others write to this topic, for it alone: an ACL of a pattern would open every mirror that there will be
/// under it.
pub fn narrowed(acl: &Acl, topic: &Arc<str>) -> Option<Acl> {
    let only = BTreeSet::from([topic.clone()]);
    let is_about_it = grants_write(acl) && first(&only, acl).is_some();
    let (pattern_type, resource_name) = (PatternType::Literal, topic.clone());
    is_about_it.then(|| Acl { pattern_type, resource_name, ..acl.clone() })
}

fn grants_write(acl: &Acl) -> bool {
    acl.resource_type == ResourceType::Topic
        && acl.permission == Permission::Allow
        && matches!(acl.operation, Operation::Write | Operation::All)
}

fn first<'a>(topics: &'a BTreeSet<Arc<str>>, acl: &Acl) -> Option<&'a Arc<str>> {
    all(topics, acl).next()
}

/// Those of the topics that the ACL is about.
fn all<'a>(topics: &'a BTreeSet<Arc<str>>, acl: &Acl) -> impl Iterator<Item = &'a Arc<str>> {
    let name = &acl.resource_name;
    let is_topic = acl.resource_type == ResourceType::Topic;
    let is_every = acl.pattern_type == PatternType::Literal && &**name == EVERY_NAME;
    let exactly = acl.pattern_type == PatternType::Literal && !is_every;
    let from = if is_every { "".into() } else { name.clone() };
    let topics = topics.range(from..).take_while({
        let name = name.clone();
        move |topic| is_every || if exactly { **topic == name } else { topic.starts_with(&*name) }
    });
    topics.filter(move |_| is_topic)
}

/// The node that syncs an ACL. One that names a mirror of the link is synced by whoever would stop that mirror,
/// so that nothing of ours follows STOPPED; the others by one node of the link.
pub fn syncs(catalog: &Catalog, link: &Link, acl: &Acl) -> Option<NodeId> {
    let is_named = acl.resource_type == ResourceType::Topic && acl.pattern_type == PatternType::Literal;
    let named = link.mirrors.get(&acl.resource_name).filter(|_| is_named);
    named.and_then(|mirror| owner(mirror)).or_else(|| keeper(catalog, link))
}

/// Whether the node may have anything to sync.
pub fn has_part(catalog: &Catalog, link: &Link, node: NodeId) -> bool {
    keeper(catalog, link) == Some(node) || link.mirrors.values().any(|mirror| owner(mirror) == Some(node))
}

fn owner(mirror: &MirrorTopic) -> Option<NodeId> {
    mirror.first_assignment().map(|assignment| assignment.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::sync::acls::fixture::acl;

    fn mirrors(mirrored: &[&str], stopped: &[&str]) -> Mirrors {
        let set = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        Mirrors { mirrored: set(mirrored), stopped: set(stopped), ..Mirrors::default() }
    }

    fn allow(what: &str) -> Acl {
        acl(&format!("ALLOW User:a {what} *"))
    }

    #[test]
    fn writing_to_a_mirror_is_granted_by_name_by_prefix_and_to_all() {
        let mirrors = mirrors(&["orders", "team-a"], &[]);
        for (text, expected) in [
            ("WRITE TOPIC LITERAL orders", Some("orders")),
            ("ALL TOPIC LITERAL orders", Some("orders")),
            ("WRITE TOPIC LITERAL *", Some("orders")),
            ("WRITE TOPIC PREFIXED team-", Some("team-a")),
            ("WRITE TOPIC PREFIXED team-a", Some("team-a")),
            ("WRITE TOPIC LITERAL team-", None),
            ("WRITE TOPIC PREFIXED team-ab", None),
            ("WRITE TOPIC PREFIXED *", None),
            ("READ TOPIC LITERAL orders", None),
            ("CREATE TOPIC LITERAL orders", None),
            ("WRITE GROUP LITERAL orders", None),
            ("ALL TRANSACTIONAL_ID LITERAL *", None),
            ("WRITE TOPIC LITERAL other", None),
        ] {
            assert_eq!(mirrors.written_by(&allow(text)).map(|topic| &**topic), expected, "{text}");
        }
        assert_eq!(mirrors.written_by(&acl("DENY User:a WRITE TOPIC LITERAL orders *")), None);
    }

    #[test]
    fn whatever_is_about_a_stopped_mirror_is_the_destinations() {
        let mirrors = mirrors(&["team-b"], &["team-a"]);
        for text in ["READ TOPIC LITERAL team-a", "WRITE TOPIC PREFIXED team-", "DESCRIBE TOPIC LITERAL *"] {
            assert_eq!(mirrors.freezes(&allow(text)).map(|topic| &**topic), Some("team-a"), "{text}");
        }
        for text in ["READ TOPIC LITERAL team-b", "READ GROUP LITERAL team-a", "READ GROUP LITERAL *"] {
            assert_eq!(mirrors.freezes(&allow(text)), None, "{text}");
        }
    }

    #[test]
    fn what_lets_others_write_is_for_one_topic_alone_when_that_has_stopped() {
        for (text, expected) in [
            ("WRITE TOPIC LITERAL team-a", true),
            ("WRITE TOPIC PREFIXED team-", true),
            ("WRITE TOPIC LITERAL *", true),
            ("WRITE TOPIC PREFIXED team-a", true),
            ("WRITE TOPIC LITERAL team-b", false),
            ("WRITE TOPIC PREFIXED *", false),
            ("READ TOPIC LITERAL team-a", false),
            ("WRITE GROUP LITERAL team-a", false),
        ] {
            let found = narrowed(&allow(text), &"team-a".into());
            assert_eq!(found, expected.then(|| allow("WRITE TOPIC LITERAL team-a")), "{text}");
        }
    }

    /// A link with a mirror, in a catalog that remembers stopped ones of another link with the same destination.
    fn remembering(stopped: &[(&str, StopKind)], mirrored: &[&str]) -> (Catalog, Link) {
        let mut catalog = Catalog::default();
        let of: Vec<_> = mirrored.iter().map(|name| (*name, Vec::new())).collect();
        let link = fixture::link(&of);
        let other = Link { id: catalog::LinkId("other".into()), ..fixture::link(&[]) };
        let stopped = stopped.iter().map(|(name, kind)| ((*name).into(), *kind)).collect();
        let record = catalog::acls::AclRecord { stopped, stopped_unnamed: 3, ..Default::default() };
        catalog.acls.insert(other.id.clone(), record.into());
        for link in [&link, &other] {
            catalog.links.insert(link.id.clone(), link.clone().into());
        }
        (catalog, link)
    }

    #[test]
    fn a_stopped_mirror_is_the_destinations_also_when_it_was_deleted() {
        let (catalog, link) = remembering(&[("gone", StopKind::Promote)], &["here"]);
        let mirrors = Mirrors::of(&catalog, &link);
        assert!(mirrors.freezes(&allow("READ TOPIC LITERAL gone")).is_some());
        assert_eq!((mirrors.stopped_unnamed, mirrors.has_failed_over), (3, false));
        let (catalog, link) = remembering(&[("here", StopKind::Promote)], &["here"]);
        assert!(Mirrors::of(&catalog, &link).stopped.is_empty(), "it is a mirror again");
    }

    #[test]
    fn that_a_mirror_was_failed_over_is_known_of_its_own_link_also_when_it_was_deleted() {
        let (mut catalog, link) = remembering(&[("gone", StopKind::FailOver)], &[]);
        assert!(!Mirrors::of(&catalog, &link).has_failed_over);
        let record = catalog.acls.values().next().cloned().expect("one");
        catalog.acls.insert(link.id.clone(), record);
        assert!(Mirrors::of(&catalog, &link).has_failed_over);
    }

    #[test]
    fn who_stops_a_mirror_syncs_what_names_it_and_one_node_the_rest() {
        let mut catalog = Catalog::default();
        for id in [1, 2, 3] {
            catalog.nodes.insert(NodeId(id), catalog::Node::of_level_1("n".into(), 1));
        }
        let owned = |id| vec![fixture::owned_by(NodeId(id), false), fixture::owned_by(NodeId(1), false)];
        let link = fixture::link(&[("a", owned(2)), ("b", owned(3))]);
        let by = |link: &Link, what: &str| syncs(&catalog, link, &allow(what)).expect("one").0;
        assert_eq!(by(&link, "READ TOPIC LITERAL b"), 3);
        for rest in ["READ TOPIC PREFIXED b", "READ TOPIC LITERAL c", "READ GROUP LITERAL b"] {
            assert_eq!(by(&link, rest), 2, "{rest}");
        }
        assert_eq!([1, 2, 3].map(|id| has_part(&catalog, &link, NodeId(id))), [false, true, true]);
        assert_eq!(by(&fixture::link(&[]), "READ TOPIC LITERAL b"), 1);
    }
}

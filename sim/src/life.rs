//! The life of a mirror as people decide it, and what the product does of it by itself meanwhile.

use std::sync::Arc;

use catalog::{Catalog, MirrorKey, MirrorStatus, MirrorTopic};

/// What nobody asks for, of a mirror that is to stop.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// A partition failed while it caught up: it isn't to stop any more.
    IsOff,
    HasStopped,
}

/// How far a mirror is on its way to its end, as far as people decide it: from the fence on nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Runs,
    Paused,
    CatchesUp,
    Ends,
}

pub fn way(mirror: &MirrorTopic) -> Way {
    match mirror.status {
        MirrorStatus::Paused => Way::Paused,
        MirrorStatus::PendingStopped if !mirror.is_fenced() => Way::CatchesUp,
        MirrorStatus::PendingStopped | MirrorStatus::Stopped => Way::Ends,
        MirrorStatus::PendingMirror | MirrorStatus::Active | MirrorStatus::Failed => Way::Runs,
    }
}

/// Does that in a catalog that only holds what was asked for; false when it can't be.
pub fn step(catalog: &mut Catalog, key: &MirrorKey, own: Own) -> bool {
    let Some(mirror) = mirror_mut(catalog, key) else { return false };
    match (own, way(mirror)) {
        (Own::IsOff, Way::CatchesUp) => (mirror.status, mirror.stop) = (MirrorStatus::Active, None),
        (Own::HasStopped, Way::CatchesUp | Way::Ends) => {
            let fenced = mirror.stop.as_mut().map(|stop| &mut stop.fenced_at_ms);
            fenced.into_iter().for_each(|at_ms| *at_ms = Some(0));
            mirror.status = MirrorStatus::Stopped;
        }
        _ => return false,
    }
    true
}

/// Does of each mirror what it must have done by itself, to be as it was found.
pub fn follow(model: &mut Catalog, found: &Catalog) {
    let links: Vec<_> = model.links.values().cloned().collect();
    for link in links {
        let Some(there) = found.link_on(&link.destination, &link.name) else { continue };
        for (topic, mirror) in link.mirrors.iter().filter(|(_, mirror)| mirror.stop.is_some()) {
            let Some(found) = there.mirrors.get(topic) else { continue };
            let own = match way(found) {
                Way::Runs if found.status == MirrorStatus::Failed => Own::IsOff,
                Way::Ends if mirror.status != MirrorStatus::Stopped => Own::HasStopped,
                _ => continue,
            };
            step(model, &link.key(topic), own);
        }
    }
}

fn mirror_mut<'a>(catalog: &'a mut Catalog, key: &MirrorKey) -> Option<&'a mut MirrorTopic> {
    let link = Arc::make_mut(catalog.links.get_mut(&key.link)?);
    link.mirrors.get_mut(&key.topic).map(Arc::make_mut)
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use catalog::{Action, Command};

    use super::*;
    use crate::asked::{Asked, LinkName, MirrorName};

    pub fn name() -> MirrorName {
        let link = LinkName { destination: "b".into(), name: "l".into() };
        MirrorName { link, topic: "orders".into() }
    }

    /// What a catalog must hold before anything can become of a mirror.
    pub fn founding() -> Vec<Asked> {
        let cluster = |name: &str| Asked::CreateCluster {
            name: name.into(),
            cluster_id: name.into(),
            configs: BTreeMap::new(),
        };
        let link = Asked::CreateLink { link: name().link, source: "a".into(), configs: BTreeMap::new() };
        let mirror = Asked::CreateMirror { mirror: name(), source_topic: "o".into() };
        vec![cluster("a"), cluster("b"), link, mirror]
    }

    pub fn after(asked: &[Asked]) -> Catalog {
        let mut catalog = Catalog::default();
        for asked in founding().iter().chain(asked) {
            assert!(asked.apply(&mut catalog, &[]), "{asked:?}");
        }
        catalog
    }

    pub fn key(catalog: &Catalog) -> MirrorKey {
        catalog.links.values().next().expect("a link").key(&"orders".into())
    }

    fn way_of(catalog: &Catalog) -> Option<Way> {
        name().find(catalog).map(|mirror| way(mirror))
    }

    /// Its promotion is found to have caught up.
    pub fn fence(catalog: &mut Catalog) {
        let mirror = key(catalog);
        let producer = name().find(catalog).and_then(|mirror| mirror.producer).expect("set up");
        let action = Action::FenceMirror { mirror, producer, asked_at_ms: 0 };
        catalog.apply(Command { at_ms: 1, action }).expect("taken");
    }

    #[test]
    fn a_mirror_goes_its_way_by_what_is_asked_for_and_by_itself() {
        let promote = Asked::PromoteMirror(name());
        assert_eq!(way_of(&after(&[])), Some(Way::Runs));
        let mut promoted = after(std::slice::from_ref(&promote));
        assert_eq!(way_of(&promoted), Some(Way::CatchesUp));
        let mut model = promoted.clone();
        fence(&mut promoted);
        follow(&mut model, &promoted);
        assert_eq!(way_of(&model), Some(Way::Ends));
        let failed_over = after(&[promote.clone(), Asked::FailOverMirror(name())]);
        assert_eq!(way_of(&failed_over), Some(Way::Ends));
        let gone = after(&[promote, Asked::DeleteMirror(name())]);
        assert_eq!(way_of(&gone), None, "it may have stopped before it was deleted");
    }

    #[test]
    fn a_promotion_that_was_taken_is_not_off_without_a_failure() {
        let mut model = after(&[Asked::PromoteMirror(name())]);
        follow(&mut model, &after(&[]));
        assert_eq!(way_of(&model), Some(Way::CatchesUp));
        let mut failed = after(&[]);
        let key = key(&failed);
        mirror_mut(&mut failed, &key).expect("there").status = MirrorStatus::Failed;
        follow(&mut model, &failed);
        assert_eq!(way_of(&model), Some(Way::Runs));
    }
}

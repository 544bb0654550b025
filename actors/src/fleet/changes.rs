//! When each partition's owner last changed, and since when others are to hand theirs over, as this node
//! has seen it in the applied catalog. Pure.
//!
//! Every node watches, whoever is Raft leader: the next coordinator knows what has just moved without
//! being told, and nothing is stored for it. What is seen late, or was there before the first look, counts
//! as changed when it is seen, so that a partition rests too long rather than too short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::placement::REST;
use catalog::{Catalog, Link, MirrorTopic, NodeId, PartitionKey};
use consensus::Applied;

#[derive(Default)]
pub struct Changes {
    seen: Arc<Applied>,
    changed: BTreeMap<PartitionKey, Duration>,
    handing_over: BTreeMap<PartitionKey, HandingOver>,
}

struct HandingOver {
    since: Duration,
    /// One that was called off and begun again has another.
    assignment_epoch: u64,
}

impl Changes {
    /// What is applied as of now; older than what was seen says nothing.
    pub fn look(&mut self, now: Duration, applied: &Arc<Applied>) {
        self.changed.retain(|_, at| now < *at + REST);
        if applied.index > self.seen.index {
            let seen = std::mem::replace(&mut self.seen, applied.clone());
            let news = news(&seen.catalog, &applied.catalog);
            self.changed.extend(news.into_iter().map(|key| (key, now)));
            self.follow_hand_overs(now);
        }
    }

    fn follow_hand_overs(&mut self, now: Duration) {
        let catalog = &self.seen.catalog;
        let mut before = std::mem::take(&mut self.handing_over);
        let under_way = catalog.fleet.hand_overs.keys().filter_map(|key| {
            let partition = catalog.mirror(&key.mirror)?.partitions.get(key.partition as usize)?;
            let assignment_epoch = partition.assignment.as_ref()?.epoch;
            let same = before.remove(key).filter(|before| before.assignment_epoch == assignment_epoch);
            let since = same.map_or(now, |before| before.since);
            Some((key.clone(), HandingOver { since, assignment_epoch }))
        });
        self.handing_over = under_way.collect();
    }

    /// Partitions that are to be handed over, and since when.
    pub fn handing_over(&self) -> BTreeMap<PartitionKey, Duration> {
        self.handing_over.iter().map(|(key, under_way)| (key.clone(), under_way.since)).collect()
    }

    /// Within [`REST`] before the last look.
    pub fn recent(&self) -> &BTreeMap<PartitionKey, Duration> {
        &self.changed
    }
}

/// Partitions that have another owner than before, and those whose hand-over was called off: they have
/// stopped and started, too. What is shared with the catalog of before is passed over.
fn news(before: &Catalog, now: &Catalog) -> Vec<PartitionKey> {
    let mut news = Vec::new();
    for link in now.links.values() {
        let was = before.links.get(&link.id);
        if !was.is_some_and(|was| Arc::ptr_eq(was, link)) {
            let changed = |mirror: &&Arc<MirrorTopic>| {
                let was = was.and_then(|was| was.mirrors.get(&mirror.name));
                !was.is_some_and(|was| Arc::ptr_eq(was, mirror))
            };
            link.mirrors.values().filter(changed).for_each(|mirror| of_mirror(was, link, mirror, &mut news));
        }
    }
    let ended = before.fleet.hand_overs.keys().filter(|key| !now.fleet.hand_overs.contains_key(key));
    news.extend(ended.filter(|key| now.owner(key).is_some()).cloned());
    news
}

fn of_mirror(was: Option<&Arc<Link>>, link: &Link, mirror: &MirrorTopic, news: &mut Vec<PartitionKey>) {
    let owners = |mirror: &MirrorTopic| -> Vec<Option<NodeId>> {
        mirror.partitions.iter().map(|p| p.assignment.as_ref().map(|a| a.node)).collect()
    };
    let before = was.and_then(|was| was.mirrors.get(&mirror.name)).map(|m| owners(m)).unwrap_or_default();
    for (partition, owner) in (0u32..).zip(owners(mirror)) {
        let had = before.get(partition as usize).copied().flatten();
        if owner.is_some() && owner != had {
            news.push(PartitionKey { mirror: link.key(&mirror.name), partition });
        }
    }
}

#[cfg(test)]
mod tests {
    use catalog::model::MirrorPartition;

    use super::*;
    use crate::fixture;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(partition: u32) -> PartitionKey {
        PartitionKey { mirror: fixture::link(&[]).key(&"orders".into()), partition }
    }

    /// So many owners, 0 for none; these are handed over.
    fn applied(index: u64, owners: &[u64], hand_overs: &[u32]) -> Arc<Applied> {
        let partition = |owner: &u64| match owner {
            0 => MirrorPartition::default(),
            owner => fixture::owned_by(NodeId(*owner), false),
        };
        let link = fixture::link(&[("orders", owners.iter().map(partition).collect())]);
        let mut catalog = Catalog::default();
        catalog.links.insert(link.id.clone(), Arc::new(link));
        catalog.fleet.hand_overs = hand_overs.iter().map(|partition| (key(*partition), NodeId(9))).collect();
        Arc::new(Applied { index, catalog })
    }

    fn recent(changes: &Changes) -> Vec<(u32, Duration)> {
        changes.recent().iter().map(|(key, at)| (key.partition, *at)).collect()
    }

    #[test]
    fn an_owner_that_changes_is_remembered_for_as_long_as_its_partition_rests() {
        let mut changes = Changes::default();
        changes.look(SECOND, &applied(1, &[1, 1, 0], &[]));
        assert_eq!(recent(&changes), [(0, SECOND), (1, SECOND)], "it isn't known since when");
        changes.look(SECOND + REST, &applied(1, &[1, 1, 0], &[]));
        assert_eq!(recent(&changes), []);
        let later = 2 * REST;
        changes.look(later, &applied(2, &[1, 2, 0], &[]));
        changes.look(later + SECOND, &applied(3, &[1, 2, 1], &[]));
        assert_eq!(recent(&changes), [(1, later), (2, later + SECOND)]);
        changes.look(later + REST, &applied(3, &[1, 2, 1], &[]));
        assert_eq!(recent(&changes), [(2, later + SECOND)]);
    }

    #[test]
    fn a_hand_over_that_was_called_off_counts_and_one_under_way_does_not_yet() {
        let mut changes = Changes::default();
        changes.look(SECOND, &applied(1, &[1, 1], &[]));
        let later = 2 * REST;
        changes.look(later, &applied(2, &[1, 1], &[0, 1]));
        assert_eq!(recent(&changes), []);
        changes.look(later + SECOND, &applied(3, &[1, 2], &[]));
        assert_eq!(recent(&changes), [(0, later + SECOND), (1, later + SECOND)]);
    }

    #[test]
    fn a_hand_over_counts_from_when_it_was_first_seen_and_from_anew_when_it_is_another() {
        let mut changes = Changes::default();
        let since = |changes: &Changes| changes.handing_over().into_values().collect::<Vec<_>>();
        changes.look(SECOND, &applied(1, &[1, 1], &[0]));
        changes.look(2 * SECOND, &applied(2, &[1, 1], &[0, 1]));
        assert_eq!(since(&changes), [SECOND, 2 * SECOND]);
        let mut again = (*applied(3, &[1, 1], &[0])).clone();
        let link = again.catalog.links.values_mut().next().map(Arc::make_mut).expect("a link");
        let mirror = link.mirrors.values_mut().next().map(Arc::make_mut).expect("a mirror");
        mirror.partitions[0].assignment.as_mut().expect("an owner").epoch += 1;
        changes.look(3 * SECOND, &Arc::new(again));
        assert_eq!(since(&changes), [3 * SECOND]);
    }

    #[test]
    fn what_was_applied_before_changes_nothing() {
        let mut changes = Changes::default();
        changes.look(SECOND, &applied(5, &[1], &[]));
        let later = 2 * REST;
        changes.look(later, &applied(4, &[2], &[]));
        assert_eq!(recent(&changes), []);
    }
}

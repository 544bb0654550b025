//! The mirrors that the catalog has ever had between the two clusters with data: which topic at the
//! destination is whose image, for as long as that topic is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::State;
use catalog::Prefix;
use consensus::Applied;

use crate::clusters::DESTINATION;

/// By mirror topic. The operator gives no name twice.
#[derive(Debug, Default)]
pub struct Mirrors(BTreeMap<Arc<str>, Mirror>);

#[derive(Debug)]
pub struct Mirror {
    pub source_topic: Arc<str>,
    /// What follows its fence's marker isn't the mirror's.
    is_fenced: bool,
    /// Where that stands, by partition; it may be deleted since.
    fences: BTreeMap<i32, i64>,
    /// Below it there are no records, by partition: the source had none any more.
    fill_to: BTreeMap<i32, i64>,
}

impl Mirrors {
    #[cfg(test)]
    pub fn of(topic: &str, source_topic: &str) -> Self {
        let mirror = Mirror::new(source_topic.into());
        Self(BTreeMap::from([(topic.into(), mirror)]))
    }

    /// Whether a prefix is new, and is about to be filled.
    pub fn learn(&mut self, applied: &Applied) -> bool {
        let mut is_new = false;
        let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
        for mirror in links.flat_map(|link| link.mirrors.values()) {
            let new = || Mirror::new(mirror.source_topic.clone());
            let known = self.0.entry(mirror.name.clone()).or_insert_with(new);
            known.is_fenced |= mirror.is_fenced();
            for (index, partition) in (0..).zip(&mirror.partitions) {
                let Some(Prefix { log_start, .. }) = partition.prefix else { continue };
                let fill_to = known.fill_to.entry(index).or_default();
                is_new |= log_start > *fill_to;
                *fill_to = log_start.max(*fill_to);
            }
        }
        is_new
    }

    /// Where the first marker stands in each log of a mirror that is fenced.
    pub fn look_for_fences(&mut self, destination: &State) {
        for (name, mirror) in self.0.iter_mut().filter(|(_, mirror)| mirror.is_fenced) {
            let partitions = destination.topic(name).map(|topic| &topic.partitions).into_iter().flatten();
            for (index, partition) in (0..).zip(partitions) {
                // What wasn't replicated is lost with a leader.
                if mirror.fences.get(&index).is_some_and(|at| *at >= partition.log.end()) {
                    mirror.fences.remove(&index);
                }
                if !mirror.fences.contains_key(&index)
                    && let Some(marker) = partition.log.batches().find(|batch| batch.header.is_control())
                {
                    mirror.fences.insert(index, marker.header.base_offset);
                }
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Mirror)> {
        self.0.iter()
    }

    pub fn get(&self, topic: &str) -> Option<&Mirror> {
        self.0.get(topic)
    }
}

impl Mirror {
    fn new(source_topic: Arc<str>) -> Self {
        Self { source_topic, is_fenced: false, fences: BTreeMap::new(), fill_to: BTreeMap::new() }
    }

    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// From there on what stands in the log isn't the mirror's.
    pub fn fence(&self, partition: i32) -> Option<i64> {
        self.fences.get(&partition).copied()
    }

    pub fn fill_to(&self, partition: i32) -> i64 {
        self.fill_to.get(&partition).copied().unwrap_or_default()
    }
}

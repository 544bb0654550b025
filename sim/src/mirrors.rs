//! The mirrors that the catalog has ever had between the two clusters with data: which topic at the
//! destination is whose image, for as long as that topic is there.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    pub is_fenced: bool,
    /// Below it there are no records, by partition: the source had none any more.
    fill_to: BTreeMap<i32, i64>,
}

impl Mirrors {
    #[cfg(test)]
    pub fn of(topic: &str, source_topic: &str) -> Self {
        let mirror = Mirror { source_topic: source_topic.into(), is_fenced: false, fill_to: BTreeMap::new() };
        Self(BTreeMap::from([(topic.into(), mirror)]))
    }

    /// Whether a prefix is new, and is about to be filled.
    pub fn learn(&mut self, applied: &Applied) -> bool {
        let mut is_new = false;
        let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
        for mirror in links.flat_map(|link| link.mirrors.values()) {
            let source_topic = mirror.source_topic.clone();
            let new = || Mirror { source_topic, is_fenced: false, fill_to: BTreeMap::new() };
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

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Mirror)> {
        self.0.iter()
    }

    pub fn get(&self, topic: &str) -> Option<&Mirror> {
        self.0.get(topic)
    }
}

impl Mirror {
    pub fn fill_to(&self, partition: i32) -> i64 {
        self.fill_to.get(&partition).copied().unwrap_or_default()
    }
}

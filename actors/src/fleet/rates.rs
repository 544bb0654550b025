//! How much each mirror partition carries: measured where it runs, told in steps, kept by the
//! coordinator. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::{Catalog, NodeId, PartitionKey};

/// How often bytes are counted. A rate is the mean of the last few counts.
pub const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Weight of the newest count: a change shows after half a minute, a burst hardly.
const NEWEST_PERCENT: u64 = 20;

/// Less than this isn't worth a move, nor a word.
const STEP_MIN_BYTES_PER_S: u64 = 64 * 1024;
/// What has changed by less than a quarter of what was said stays as it was said.
const STEP_DIVISOR: u64 = 4;

/// Rates in one report, at most: some 50 KiB. All of 20,000 busy partitions are told within 16 s.
const TOLD_MAX: usize = 512;

/// How long a coordinator hears before it goes by rates.
pub const ALL_TOLD_AFTER: Duration = Duration::from_secs(20);

/// What a node measures, and what it has told.
#[derive(Debug, Default)]
pub struct Measured {
    partitions: BTreeMap<PartitionKey, Counted>,
    counted_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct Counted {
    bytes: u64,
    rate: u64,
    told: u64,
}

impl Measured {
    pub fn is_due(&self, now: Duration) -> bool {
        self.counted_at.is_none_or(|at| now >= at + COUNT_EVERY)
    }

    /// What each partition that runs here has appended since its process began.
    pub fn count(&mut self, now: Duration, totals: impl IntoIterator<Item = (PartitionKey, u64)>) {
        let since = self.counted_at.replace(now).map(|at| now.saturating_sub(at));
        let ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut before = std::mem::take(&mut self.partitions);
        for (key, bytes) in totals {
            let is_new = !before.contains_key(&key);
            let mut counted = before.remove(&key).unwrap_or_default();
            if ms > 0 && !is_new {
                let now_rate = bytes.saturating_sub(counted.bytes).saturating_mul(1_000) / ms;
                counted.rate = (counted.rate * (100 - NEWEST_PERCENT) + now_rate * NEWEST_PERCENT) / 100;
            }
            counted.bytes = bytes;
            self.partitions.insert(key, counted);
        }
    }

    /// What is to be told now; it then counts as told.
    pub fn to_tell(&mut self) -> Vec<(PartitionKey, u64)> {
        let news = self.partitions.iter_mut().filter(|(_, c)| is_step(c.told, c.rate));
        let tell = |(key, counted): (&PartitionKey, &mut Counted)| {
            counted.told = counted.rate;
            (key.clone(), counted.rate)
        };
        news.take(TOLD_MAX).map(tell).collect()
    }

    /// Another coordinator knows nothing yet; nor does one that may not have heard the last report.
    pub fn forget_told(&mut self) {
        self.partitions.values_mut().for_each(|counted| counted.told = 0);
    }
}

fn is_step(told: u64, rate: u64) -> bool {
    told.abs_diff(rate) >= (told.max(rate) / STEP_DIVISOR).max(STEP_MIN_BYTES_PER_S)
}

/// What a coordinator was told.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<PartitionKey, (NodeId, u64)>);

impl Told {
    /// Of partitions that the node owns; its keys share the catalog's names.
    pub fn hear(&mut self, catalog: &Catalog, node: NodeId, rates: Vec<(PartitionKey, u64)>) {
        for (key, rate) in rates {
            if catalog.owner(&key) != Some(node) {
                continue;
            }
            let Some(link) = catalog.links.get(&key.mirror.link) else { continue };
            let Some(mirror) = link.mirrors.get(&key.mirror.topic) else { continue };
            let key = PartitionKey { mirror: link.key(&mirror.name), partition: key.partition };
            if rate == 0 {
                self.0.remove(&key);
            } else {
                self.0.insert(key, (node, rate));
            }
        }
    }

    /// As of now. What moved keeps its rate until the new owner has measured it.
    pub fn rates(&mut self, catalog: &Catalog) -> BTreeMap<PartitionKey, u64> {
        self.0.retain(|key, _| catalog.owner(key).is_some());
        self.0.iter().map(|(key, (_, rate))| (key.clone(), *rate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn key(partition: u32) -> PartitionKey {
        let link = fixture::link(&[]);
        PartitionKey { mirror: link.key(&"orders".into()), partition }
    }

    fn after(measured: &mut Measured, seconds: u64, totals: &[(u32, u64)]) -> Vec<(u32, u64)> {
        let totals = totals.iter().map(|(partition, bytes)| (key(*partition), *bytes));
        measured.count(Duration::from_secs(seconds), totals);
        measured.to_tell().into_iter().map(|(key, rate)| (key.partition, rate)).collect()
    }

    #[test]
    fn only_steps_are_told_and_nothing_at_rest() {
        let mut measured = Measured::default();
        const MB: u64 = 1_000_000;
        assert_eq!(after(&mut measured, 0, &[(0, 50 * MB), (1, 7)]), [], "what was before says nothing");
        assert_eq!(after(&mut measured, 2, &[(0, 52 * MB), (1, 7)]), [(0, MB / 5)]);
        let steady = |n: u64| [(0, (52 + n) * MB), (1, 7)];
        let told: Vec<_> = (1..40).flat_map(|n| after(&mut measured, 2 + n, &steady(n))).collect();
        assert!(told.len() < 10, "a steady rate is soon told: {told:?}");
        assert!(told.last().is_some_and(|(_, rate)| (750_000..=MB).contains(rate)), "{told:?}");
        let at_rest: Vec<_> = (0..60).flat_map(|n| after(&mut measured, 50 + n, &steady(40))).collect();
        assert!(at_rest.last().is_some_and(|(_, rate)| *rate < STEP_MIN_BYTES_PER_S), "{at_rest:?}");
        assert_eq!(after(&mut measured, 200, &steady(40)), []);
    }

    #[test]
    fn another_coordinator_is_told_anew_a_part_at_a_time() {
        let mut measured = Measured::default();
        let totals = |n: u64| (0..600).map(|partition| (partition, n * 10_000_000)).collect::<Vec<_>>();
        after(&mut measured, 0, &totals(0));
        assert_eq!(after(&mut measured, 2, &totals(1)).len(), TOLD_MAX);
        assert_eq!(measured.to_tell().len(), 600 - TOLD_MAX);
        assert_eq!(measured.to_tell().len(), 0);
        measured.forget_told();
        assert_eq!(measured.to_tell().len(), TOLD_MAX);
    }

    #[test]
    fn only_the_owner_is_believed() {
        let link = fixture::link(&[("orders", vec![fixture::owned_by(NodeId(1), false)])]);
        let mut catalog = Catalog::default();
        catalog.links.insert(link.id.clone(), std::sync::Arc::new(link));
        let mut told = Told::default();
        told.hear(&catalog, NodeId(2), vec![(key(0), 9)]);
        told.hear(&catalog, NodeId(1), vec![(key(0), 5), (key(7), 5)]);
        assert_eq!(told.rates(&catalog), BTreeMap::from([(key(0), 5)]));
        told.hear(&catalog, NodeId(1), vec![(key(0), 0)]);
        assert_eq!(told.rates(&catalog), BTreeMap::new());
    }
}

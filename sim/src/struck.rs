//! What the faults of a run have made right that is wrong otherwise: where acknowledged records were lost,
//! the product must stop and say so, and until then its mirror isn't an image.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Key;
use crate::refusal::GivenUp;

#[derive(Debug, Default)]
pub struct Struck {
    /// Partitions of mirror topics whose broker lost acknowledged records.
    unclean_mirrors: BTreeSet<Key>,
    /// With which errors mirrors of a source partition may stop.
    sources: BTreeMap<Key, BTreeSet<&'static str>>,
    /// With which errors a mirror topic, or one partition of it, may stop after what its broker said.
    given_up: BTreeMap<(String, Option<i32>), BTreeSet<&'static str>>,
}

/// What the product says of a mirror that lost what it had acknowledged.
const LOST_AT_DESTINATION: [&str; 2] = ["DESTINATION_LOG_DIVERGED", "FOREIGN_WRITE"];
const LOST_AT_SOURCE: [&str; 2] = ["UNEXPECTED_TRUNCATION", "DESTINATION_LOG_DIVERGED"];

impl Struck {
    /// Acknowledged records of a mirror topic's partition are gone.
    pub fn unclean_mirror(&mut self, key: Key) {
        self.unclean_mirrors.insert(key);
    }

    /// Acknowledged records of a source partition are gone, and others may come to stand there.
    pub fn unclean_source(&mut self, key: Key) {
        self.sources.entry(key).or_default().extend(LOST_AT_SOURCE);
    }

    /// Records were deleted that some mirror doesn't hold.
    pub fn overtaken(&mut self, key: Key) {
        self.sources.entry(key).or_default().insert("RETENTION_GAP");
    }

    /// A crash gave deleted records back.
    pub fn undeleted(&mut self, key: Key) {
        self.sources.entry(key).or_default().insert("UNEXPECTED_TRUNCATION");
    }

    pub fn given_up(&mut self, (topic, partition, error): GivenUp) {
        self.given_up.entry((topic, partition)).or_default().insert(error);
    }

    pub fn is_unclean_mirror(&self, topic: &str, partition: i32) -> bool {
        self.unclean_mirrors.contains(&(topic.to_owned(), partition))
    }

    pub fn is_unclean_source(&self, topic: &str, partition: i32) -> bool {
        let found = self.sources.get(&(topic.to_owned(), partition));
        found.is_some_and(|errors| errors.contains(LOST_AT_SOURCE[1]))
    }

    /// Records that were gone from a source partition may be there again.
    pub fn has_regained(&self, topic: &str, partition: i32) -> bool {
        let found = self.sources.get(&(topic.to_owned(), partition));
        found.is_some_and(|errors| errors.contains(LOST_AT_SOURCE[0]))
    }

    /// Whether a mirror partition may have stopped with this error.
    pub fn allows(&self, mirror: &Key, source: &Key, error: &str) -> bool {
        (self.unclean_mirrors.contains(mirror) && LOST_AT_DESTINATION.contains(&error))
            || self.sources.get(source).is_some_and(|errors| errors.contains(error))
            || self.was_told(&mirror.0, Some(mirror.1), error)
            || self.was_told(&mirror.0, None, error)
    }

    fn was_told(&self, topic: &str, partition: Option<i32>, error: &str) -> bool {
        let found = self.given_up.get(&(topic.to_owned(), partition));
        found.is_some_and(|errors| errors.contains(error))
    }
}

//! A segment's offset index, for the one thing that it shows to clients: how far the list of aborted
//! transactions of a fetch reaches.

/// `index.interval.bytes`: at least so much lies between two entries.
const INTERVAL_BYTES: u64 = 4_096;

#[derive(Debug, Clone, Copy)]
struct Entry {
    position: u64,
    last_offset: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Of the whole segment, also of what is deleted from its beginning.
    bytes: u64,
    since_entry: u64,
}

impl Index {
    /// A batch of so many bytes comes to the segment's end; where it stands.
    pub fn take_in(&mut self, bytes: u64, last_offset: i64) -> u64 {
        let position = self.bytes;
        if self.since_entry > INTERVAL_BYTES {
            self.entries.push(Entry { position, last_offset });
            self.since_entry = 0;
        }
        self.since_entry += bytes;
        self.bytes += bytes;
        position
    }

    /// The offset of the first entry at or behind `position`.
    pub fn bound(&self, position: u64) -> Option<i64> {
        self.entries.iter().find(|entry| entry.position >= position).map(|entry| entry.last_offset)
    }

    pub fn truncate(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.entries.retain(|entry| entry.position < bytes);
        self.since_entry = bytes - self.entries.last().map_or(0, |entry| entry.position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_follows_every_interval_and_bounds_what_ends_before_it() {
        let mut index = Index::default();
        for last_offset in 0..4 {
            index.take_in(3_000, last_offset);
        }
        // Two batches lie between entries: the third, at 6,000, has the only one.
        assert_eq!((index.bound(0), index.bound(6_000), index.bound(6_001)), (Some(2), Some(2), None));
        index.truncate(6_000);
        assert_eq!(index.bound(0), None);
    }
}

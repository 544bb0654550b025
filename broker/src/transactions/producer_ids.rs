//! Producer ids: the controller hands them out in blocks, and a broker that stops loses the rest of its.

use std::collections::BTreeMap;
use std::ops::Range;

/// `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`.
const BLOCK: i64 = 1_000;

#[derive(Debug, Default)]
pub struct ProducerIds {
    next_block: i64,
    held: BTreeMap<i32, Range<i64>>,
}

impl ProducerIds {
    pub fn next(&mut self, broker: i32) -> i64 {
        let held = self.held.entry(broker).or_default();
        held.next().unwrap_or_else(|| {
            let first = self.next_block;
            self.next_block += BLOCK;
            *held = first + 1..self.next_block;
            first
        })
    }

    pub fn lose(&mut self, broker: i32) {
        self.held.remove(&broker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_given_twice() {
        let mut ids = ProducerIds::default();
        assert_eq!([ids.next(1), ids.next(2), ids.next(1)], [0, 1_000, 1]);
        ids.lose(1);
        assert_eq!(ids.next(1), 2_000);
        assert_eq!((0..BLOCK).map(|_| ids.next(2)).last(), Some(3_000));
    }
}

//! Transactions that have ended: which were aborted (a `read_committed` fetch lists them), and which
//! markers the followers don't have yet.

/// As a fetch response lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Of its marker.
    pub last_offset: i64,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    first_offset: i64,
    marker: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Aborted {
    aborted: Vec<AbortedTransaction>,
    /// Committed or aborted; those whose marker was replicated are dropped as the watermark is asked for.
    ended: Vec<Ended>,
}

impl Aborted {
    pub fn ended(
        &mut self,
        producer_id: i64,
        first_offset: i64,
        marker: i64,
        committed: bool,
        replicated: i64,
    ) {
        self.ended.retain(|ended| ended.marker >= replicated);
        self.ended.push(Ended { first_offset, marker });
        if !committed {
            self.aborted.push(AbortedTransaction { producer_id, first_offset, last_offset: marker });
        }
    }

    pub fn first_unreplicated(&self, high_watermark: i64) -> Option<i64> {
        let waiting = self.ended.iter().filter(|ended| ended.marker >= high_watermark);
        waiting.map(|ended| ended.first_offset).min()
    }

    /// Those with a record in `from..to`, by their first offset.
    pub fn within(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let mut found: Vec<_> = self
            .aborted
            .iter()
            .filter(|aborted| aborted.last_offset >= from && aborted.first_offset < to)
            .copied()
            .collect();
        found.sort_by_key(|aborted| (aborted.first_offset, aborted.producer_id));
        found
    }

    pub fn forget_below(&mut self, start: i64) {
        self.aborted.retain(|aborted| aborted.last_offset >= start);
        self.ended.retain(|ended| ended.marker >= start);
    }

    pub fn truncate(&mut self, end: i64) {
        self.aborted.retain(|aborted| aborted.last_offset < end);
        self.ended.retain(|ended| ended.marker < end);
    }
}

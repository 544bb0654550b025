//! What producers were told is in the source: the record that the mirrors are judged by in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::history::Key;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Oracle(Arc<Mutex<BTreeMap<Key, BTreeMap<i64, u64>>>>);

impl Oracle {
    /// A batch was acknowledged at this offset.
    pub fn acknowledged(&self, key: &Key, base_offset: i64, records: &[u64]) {
        let mut state = self.state();
        let known = state.entry(key.clone()).or_default();
        known.extend((base_offset..).zip(records.iter().copied()));
    }

    /// An unclean election took what stood from `end` on.
    pub fn cut(&self, key: &Key, end: i64) {
        if let Some(known) = self.state().get_mut(key) {
            known.split_off(&end);
        }
    }

    /// Acknowledged records by offset.
    pub fn of(&self, key: &Key) -> BTreeMap<i64, u64> {
        self.state().get(key).cloned().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeMap<i64, u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

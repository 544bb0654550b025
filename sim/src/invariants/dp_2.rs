//! DP-2: no record appears twice in a mirror, whatever crashes, hangs or stale owners do; that is, no more
//! often than in its source, where a producer without a producer id may have written it twice.
//!
//! Counts records by what they say, wherever they stand: DP-1 can't be what makes this hold.

use std::collections::BTreeMap;

use super::walk::{Judging, New};
use crate::judge::Image;

/// How often each record was met.
#[derive(Default)]
pub struct NoneTwice(BTreeMap<u64, usize>);

impl Judging for NoneTwice {
    const ID: &'static str = "DP-2";

    fn judge(&mut self, image: &Image<'_>, new: &New) -> Result<(), String> {
        for stored in &new.batches {
            for (offset, record) in (stored.base_offset..).zip(stored.records().unwrap_or_default()) {
                let count = self.0.entry(record).or_default();
                *count += 1;
                let allowed = image.source.count(record);
                if *count > allowed {
                    return Err(format!(
                        "record {record:x} appears {count} times up to offset {offset}, at the source {allowed} times"
                    ));
                }
            }
        }
        Ok(())
    }
}

//! DP-2: no record appears twice in a mirror, whatever crashes, hangs or stale owners do; that is, no more
//! often than in its source, where a producer without a producer id may have written it twice.
//!
//! Counts records by what they say, wherever they stand: DP-1 can't be what makes this hold.

use std::collections::BTreeMap;

use super::Invariant;
use crate::batches::Stored;
use crate::history::Key;
use crate::judge::{Image, Seen};

#[derive(Default)]
pub struct NoneTwice(BTreeMap<Key, Counted>);

#[derive(Default)]
struct Counted {
    to: i64,
    counts: BTreeMap<u64, usize>,
}

impl Invariant for NoneTwice {
    fn id(&self) -> &'static str {
        "DP-2"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let (Seen::Logs(logs) | Seen::End(logs, _)) = seen else { return Ok(()) };
        for image in logs.images() {
            let counted = self.0.entry(image.key.clone()).or_default();
            let (topic, partition) = &image.key;
            counted.count(&image).map_err(|why| format!("{topic}[{partition}]: {why}"))?;
        }
        Ok(())
    }
}

impl Counted {
    fn count(&mut self, image: &Image<'_>) -> Result<(), String> {
        let log = &image.partition.log;
        if log.end() < self.to {
            // What wasn't replicated was cut off: what is left is counted anew.
            *self = Self::default();
        }
        let new: Vec<_> =
            log.batches().rev().take_while(|batch| batch.header.last_offset() >= self.to).collect();
        for batch in new.into_iter().rev() {
            let Some((stored, _)) = Stored::read(&batch.bytes) else { continue };
            for (offset, record) in (stored.base_offset..).zip(stored.records().unwrap_or_default()) {
                let count = self.counts.entry(record).or_default();
                *count += 1;
                let allowed = image.source.count(record);
                if *count > allowed {
                    return Err(format!(
                        "record {record:x} appears {count} times up to offset {offset}, at the source {allowed} times"
                    ));
                }
            }
            self.to = stored.next_offset();
        }
        Ok(())
    }
}

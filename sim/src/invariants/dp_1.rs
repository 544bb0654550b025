//! DP-1: the mirror is an in-order image of the source up to its log end: same offset, same record;
//! offsets without a record stay without one.
//!
//! The record is all that the source has ever shown ([`History`](crate::history::History)): each record of
//! a mirror's log must have been seen there, at the same offset.

use std::collections::BTreeMap;

use super::Invariant;
use crate::batches::Stored;
use crate::history::Key;
use crate::judge::{Image, Seen};

/// Up to where each mirror partition was judged.
#[derive(Default)]
pub struct InOrderImage(BTreeMap<Key, i64>);

impl Invariant for InOrderImage {
    fn id(&self) -> &'static str {
        "DP-1"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let logs = match seen {
            Seen::Logs(logs) => logs,
            // In the end from the first offset on: what was judged once may have changed since.
            Seen::End(logs, _) => {
                self.0.clear();
                logs
            }
            _ => return Ok(()),
        };
        for image in logs.images() {
            let judged_to = self.0.entry(image.key.clone()).or_default();
            let (topic, partition) = &image.key;
            *judged_to = judge(&image, *judged_to).map_err(|why| format!("{topic}[{partition}]: {why}"))?;
        }
        Ok(())
    }
}

/// Judges what stands above; returns up to where.
fn judge(image: &Image<'_>, judged_to: i64) -> Result<i64, String> {
    let log = &image.partition.log;
    let mut next = judged_to.min(log.end());
    let new: Vec<_> = log.batches().rev().take_while(|batch| batch.header.last_offset() >= next).collect();
    let mut is_first = true;
    for batch in new.into_iter().rev() {
        let (stored, _) = Stored::read(&batch.bytes).ok_or("half a batch")?;
        // What stood before may be deleted by now.
        if stored.base_offset != next && !(is_first && stored.base_offset <= log.start()) {
            return Err(format!("a batch at offset {} where {next} should follow", stored.base_offset));
        }
        is_first = false;
        record_by_record(image, &stored)?;
        next = stored.next_offset();
    }
    // All of it may be deleted, and then nothing needs to be stored.
    if next == log.end() || log.start() == log.end() {
        Ok(log.end())
    } else {
        Err(format!("the last batch ends at offset {next}, the log at {}", log.end()))
    }
}

fn record_by_record(image: &Image<'_>, stored: &Stored) -> Result<(), String> {
    let fill_to = image.mirror.fill_to(image.key.1);
    let records = match stored.records() {
        Some(records) => records,
        None if stored.last_offset < fill_to => return Ok(()),
        None => return Err(format!("no plain batch at offset {}", stored.base_offset)),
    };
    for (offset, record) in (stored.base_offset..).zip(&records) {
        let found = image.source.records_at(offset);
        if !found.contains(record) {
            return Err(format!(
                "at offset {offset} stands record {record:x}, the source had {found:x?} there"
            ));
        }
    }
    Ok(())
}

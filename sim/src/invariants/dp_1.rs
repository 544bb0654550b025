//! DP-1: the mirror is an in-order image of the source up to its log end: same offset, same record;
//! offsets without a record stay without one, and nothing of the image is cut off again.
//!
//! The record is all that the source has ever shown ([`History`](crate::history::History)): each record of
//! a mirror's log must have been seen there, at the same offset. Where fillers may stand is also the
//! source's to say: below a log start that it had, and below any record of the mirror. What the product
//! says of its prefixes isn't asked.

use std::collections::BTreeMap;

use super::Invariant;
use super::walk::{Judging, New};
use crate::batches::Stored;
use crate::history::Key;
use crate::judge::{Image, Seen};

#[derive(Default)]
pub struct InOrderImage {
    /// A record of the source was met: no filler may follow.
    has_record: bool,
}

impl Judging for InOrderImage {
    const ID: &'static str = "DP-1";

    fn judge(&mut self, image: &Image<'_>, new: &New) -> Result<(), String> {
        let log = &image.partition.log;
        let mut next = new.from;
        for (place, stored) in new.batches.iter().enumerate() {
            // What stood before may be deleted by now.
            if stored.base_offset != next && !(place == 0 && stored.base_offset <= log.start()) {
                return Err(format!("a batch at offset {} where {next} should follow", stored.base_offset));
            }
            self.record_by_record(image, stored)?;
            next = stored.next_offset();
        }
        // All of it may be deleted, and then nothing needs to be stored.
        if next == image.end || log.start() >= image.end {
            Ok(())
        } else {
            Err(format!("the last batch ends at offset {next}, the mirror at {}", image.end))
        }
    }
}

impl InOrderImage {
    fn record_by_record(&mut self, image: &Image<'_>, stored: &Stored) -> Result<(), String> {
        let records = match stored.records() {
            Some(records) => records,
            None if !self.has_record && image.may_be_filler(stored) => return Ok(()),
            None => return Err(format!("no plain batch at offset {}", stored.base_offset)),
        };
        self.has_record = true;
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
}

/// A mirror that holds a record of its source is cut no more: its log start is none that the source had
/// only afterwards.
#[derive(Default)]
pub struct NothingCut(BTreeMap<Key, FirstRecord>);

struct FirstRecord {
    offset: i64,
    /// The highest log start that the source had had when the record was first seen in the mirror.
    source_start: i64,
}

impl Invariant for NothingCut {
    fn id(&self) -> &'static str {
        "DP-1"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let (Seen::Logs(logs) | Seen::End(logs, _)) = seen else { return Ok(()) };
        for image in logs.images() {
            let log = &image.partition.log;
            // What wasn't replicated is lost with a leader: then it holds none again.
            if self.0.get(&image.key).is_some_and(|first| image.end <= first.offset) {
                self.0.remove(&image.key);
            }
            if !self.0.contains_key(&image.key) {
                let Some(offset) = first_record(&image) else { continue };
                let first = FirstRecord { offset, source_start: image.source.highest_start() };
                self.0.insert(image.key.clone(), first);
            }
            let allowed = self.0[&image.key].source_start;
            if log.start() > allowed {
                let ((topic, partition), start) = (&image.key, log.start());
                return Err(format!(
                    "{topic}[{partition}]: the log starts at offset {start}, its first record came when the source's \
                     started at {allowed}"
                ));
            }
        }
        Ok(())
    }
}

fn first_record(image: &Image<'_>) -> Option<i64> {
    let batches = image.partition.log.batches().take_while(|batch| batch.header.base_offset < image.end);
    let stored = batches.filter_map(|batch| Some(Stored::read(&batch.bytes)?.0));
    stored.filter(|stored| !stored.is_compressed()).map(|stored| stored.base_offset).next()
}

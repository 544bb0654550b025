//! The walk that DP-1 to DP-3 share: over what is new in each mirror partition's log since the last look.
//! In the end, and when a log has lost its end, all of it is walked anew: what was judged once may have
//! changed since.

use std::collections::BTreeMap;

use super::Invariant;
use crate::batches::Stored;
use crate::history::Key;
use crate::judge::{Image, Seen};

/// Judges the log of one mirror partition, from its first batch to its last.
pub trait Judging: Default + Send {
    const ID: &'static str;

    /// # Errors
    /// What is wrong, in words.
    fn judge(&mut self, image: &Image<'_>, new: &New) -> Result<(), String>;
}

/// What stands above what was walked before.
pub struct New {
    /// Where the walk before ended.
    pub from: i64,
    pub batches: Vec<Stored>,
}

/// The invariant that each mirror partition's log is as a [`Judging`] has it.
#[derive(Default)]
pub struct OfEach<J>(BTreeMap<Key, Walked<J>>);

#[derive(Default)]
struct Walked<J> {
    to: i64,
    judging: J,
}

impl<J: Judging> Invariant for OfEach<J> {
    fn id(&self) -> &'static str {
        J::ID
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let logs = match seen {
            Seen::Logs(logs) => logs,
            Seen::End(logs, _) => {
                self.0.clear();
                logs
            }
            _ => return Ok(()),
        };
        for image in logs.images() {
            let (topic, partition) = &image.key;
            let walked = self.0.entry(image.key.clone()).or_default();
            walked.walk(&image).map_err(|why| format!("{topic}[{partition}]: {why}"))?;
        }
        Ok(())
    }
}

impl<J: Judging> Walked<J> {
    fn walk(&mut self, image: &Image<'_>) -> Result<(), String> {
        let log = &image.partition.log;
        if image.end < self.to {
            *self = Self::default();
        }
        let from = self.to;
        let mut batches = Vec::new();
        let new = log.batches().rev().take_while(|batch| batch.header.last_offset() >= from);
        for batch in new.filter(|batch| batch.header.base_offset < image.end) {
            batches.push(Stored::read(&batch.bytes).ok_or("half a batch")?.0);
        }
        batches.reverse();
        self.to = image.end;
        self.judging.judge(image, &New { from, batches })
    }
}

//! The batches of one partition, one after the other, with one fetch in memory.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::batch::RawBatch;
use super::reader::RawReader;

/// Below a log end just read, records are there at once; this only covers a broker's restart.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Made by [`RawReader::batches`].
pub struct Batches<'a> {
    reader: &'a mut RawReader,
    topic: &'a str,
    partition: i32,
    range: Range<i64>,
    fetched: std::vec::IntoIter<RawBatch>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(
        reader: &'a mut RawReader,
        topic: &'a str,
        partition: i32,
        range: Range<i64>,
    ) -> Batches<'a> {
        Batches { reader, topic, partition, range, fetched: Vec::new().into_iter() }
    }

    fn fetch(&mut self) -> Result<Option<RawBatch>> {
        let deadline = Instant::now() + SILENCE_LIMIT;
        while !self.range.is_empty() {
            let batches = self.reader.fetch(self.topic, self.partition, self.range.start)?;
            if !batches.is_empty() {
                self.fetched = batches.into_iter();
                return Ok(self.fetched.next());
            }
            if Instant::now() >= deadline {
                let Range { start, end } = self.range;
                bail!(
                    "{}-{}: nothing at offset {start}, though the log end is {end}",
                    self.topic,
                    self.partition
                );
            }
        }
        Ok(None)
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<RawBatch>;

    fn next(&mut self) -> Option<Result<RawBatch>> {
        let batch = match self.fetched.next() {
            Some(batch) => batch,
            None => match self.fetch() {
                Ok(found) => found?,
                Err(error) => {
                    self.range.start = self.range.end;
                    return Some(Err(error));
                }
            },
        };
        if batch.base_offset >= self.range.end {
            self.range.start = self.range.end;
            self.fetched = Vec::new().into_iter();
            return None;
        }
        self.range.start = batch.last_offset() + 1;
        Some(Ok(batch))
    }
}

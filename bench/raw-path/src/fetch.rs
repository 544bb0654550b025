//! The fetching thread: asks, gives what came another header, hands it on; the next fetch is under
//! way meanwhile.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};

use crate::append::{Chunk, Event};
use crate::batch::{self, Found};
use crate::buffer::{Buffer, Pool};
use crate::copy::{Lane, Mode, Settings, Window};
use crate::wire::{Connection, parse_fetch, read_frame};

pub struct Fetching {
    settings: Arc<Settings>,
    lanes: Vec<Lane>,
    window: Arc<Window>,
    events: Sender<Event>,
    connection: Connection,
    answers: Pool,
    joined: Pool,
    /// How many lanes the next request is turned by: a broker fills its answer in the order asked.
    turn: usize,
}

impl Fetching {
    pub fn open(
        settings: Arc<Settings>,
        lanes: Vec<Lane>,
        window: Arc<Window>,
        events: Sender<Event>,
    ) -> Result<Fetching> {
        let connection = Connection::open(&settings.source)?;
        let (answers, joined) = (Pool::default(), Pool::default());
        Ok(Fetching { settings, lanes, window, events, connection, answers, joined, turn: 0 })
    }

    /// Fetches to the ends, or on and on when following; returns the number of fetches.
    pub fn run(mut self) -> Result<u64> {
        let mut fetches = 0;
        let mut under_way = self.ask()?;
        while under_way {
            let mut answer = self.answers.take();
            let length =
                read_frame(&mut self.connection.stream, &mut answer.bytes).context("receive a fetch")?;
            fetches += 1;
            let found = self.find(&answer[..length])?;
            self.window.take(found.iter().map(|batch| batch.range.len()).sum());
            under_way = self.ask()?;
            let chunks = match self.settings.mode {
                Mode::Idem => self.readdress(answer, found),
                Mode::Coalesce => self.coalesce(&answer, &found),
            };
            if !chunks.is_empty() && self.events.send(Event::Fetched(chunks)).is_err() {
                break; // the appender ended and says why
            }
        }
        Ok(fetches)
    }

    /// Sends a fetch for the lanes that are not at their end; false when there are none.
    fn ask(&mut self) -> Result<bool> {
        let follow = self.settings.follow;
        let wanted = self.lanes.iter().filter(|lane| follow || lane.from < lane.end);
        let mut wanted: Vec<(i32, i64)> = wanted.map(|lane| (lane.partition, lane.from)).collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        let turn = self.turn % wanted.len();
        wanted.rotate_left(turn);
        self.turn += 1;
        self.connection.send_fetch(&self.settings.source_topic, &wanted, self.settings.limits)?;
        Ok(true)
    }

    fn find(&mut self, answer: &[u8]) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for share in parse_fetch(answer)? {
            let index = self.lanes.iter().position(|lane| lane.partition == share.partition);
            let index = index.with_context(|| format!("partition {} was not asked for", share.partition))?;
            let found = batch::find(answer, share.range, index, self.lanes[index].from);
            if let Some(last) = found.last() {
                self.lanes[index].from = last.next_offset;
            }
            all.extend(found);
        }
        Ok(all)
    }

    fn readdress(&self, mut answer: Buffer, found: Vec<Found>) -> Vec<Chunk> {
        for batch in &found {
            batch::readdress(&mut answer.bytes[batch.range.clone()], self.settings.producer);
        }
        let buffer = Arc::new(answer);
        let chunk = |batch: Found| Chunk {
            buffer: buffer.clone(),
            lane: batch.partition,
            range: batch.range,
            base_offset: batch.base_offset,
            next_offset: batch.next_offset,
        };
        found.into_iter().map(chunk).collect()
    }

    fn coalesce(&self, answer: &[u8], found: &[Found]) -> Vec<Chunk> {
        let mut out = self.joined.take();
        out.bytes.clear();
        let mut ranges = Vec::new();
        for run in batch::runs(answer, found, self.settings.batch_bytes_max) {
            let start = out.bytes.len();
            match &found[run.clone()] {
                [alone] => {
                    out.bytes.extend_from_slice(&answer[alone.range.clone()]);
                    batch::readdress(&mut out.bytes[start..], self.settings.producer);
                }
                several => batch::coalesce(answer, several, &mut out.bytes, self.settings.producer),
            }
            ranges.push((run, start..out.bytes.len()));
        }
        self.window.resize(found.iter().map(|batch| batch.range.len()).sum(), out.bytes.len());
        let buffer = Arc::new(out);
        let chunk = |(run, range): (std::ops::Range<usize>, _)| Chunk {
            buffer: buffer.clone(),
            lane: found[run.start].partition,
            range,
            base_offset: found[run.start].base_offset,
            next_offset: found[run.end - 1].next_offset,
        };
        ranges.into_iter().map(chunk).collect()
    }
}

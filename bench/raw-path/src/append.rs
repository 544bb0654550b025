//! The appending loop: one batch of each partition a request, several requests under way, answers
//! read by a thread of their own.

use std::collections::VecDeque;
use std::io::{IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use anyhow::{Context, Error, Result, ensure};

use crate::buffer::Buffer;
use crate::copy::{Lane, Settings, Totals, Window};
use crate::wire::{Connection, parse_produce, partition_head, read_frame};

/// One batch on its way.
pub struct Chunk {
    pub buffer: Arc<Buffer>,
    pub range: Range<usize>,
    /// Index of its partition among those of the group.
    pub lane: usize,
    pub base_offset: i64,
    pub next_offset: i64,
}

pub enum Event {
    Fetched(Vec<Chunk>),
    /// An answer to the oldest request under way.
    Answered(Vec<u8>),
    Failed(Error),
}

pub struct Appending {
    settings: Arc<Settings>,
    /// `from` is the next offset at the destination.
    lanes: Vec<Lane>,
    window: Arc<Window>,
    connection: Connection,
    queues: Vec<VecDeque<Chunk>>,
    under_way: VecDeque<Vec<Chunk>>,
    totals: Totals,
}

impl Appending {
    pub fn open(settings: Arc<Settings>, lanes: Vec<Lane>, window: Arc<Window>) -> Result<Appending> {
        let connection = Connection::open(&settings.destination)?;
        // Answers come when there is something to answer: no limit while following.
        connection.stream.set_read_timeout(None).context("clear the read timeout")?;
        let queues = lanes.iter().map(|_| VecDeque::new()).collect();
        let (under_way, totals) = (VecDeque::new(), Totals::default());
        Ok(Appending { settings, lanes, window, connection, queues, under_way, totals })
    }

    /// Appends to the ends, or on and on when following.
    pub fn run(mut self, events: Sender<Event>, inbox: &Receiver<Event>) -> Result<Totals> {
        let stream = self.connection.stream.try_clone().context("share the connection")?;
        std::thread::spawn(move || read_answers(stream, &events));
        while self.settings.follow || self.lanes.iter().any(|lane| lane.from < lane.end) {
            self.take(inbox.recv().context("all threads of the group ended")?)?;
            while let Ok(event) = inbox.try_recv() {
                self.take(event)?;
            }
            while self.under_way.len() < self.settings.in_flight_max && self.send()? {}
        }
        self.connection.stream.shutdown(Shutdown::Both).context("close the connection")?;
        Ok(self.totals)
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Fetched(chunks) => {
                for chunk in chunks {
                    self.queues[chunk.lane].push_back(chunk);
                }
                Ok(())
            }
            Event::Answered(answer) => self.settle(&answer),
            Event::Failed(error) => Err(error),
        }
    }

    /// Every batch must have got the offset it had.
    fn settle(&mut self, answer: &[u8]) -> Result<()> {
        let sent = self.under_way.pop_front().context("an answer without a request")?;
        for appended in parse_produce(answer, &self.settings.destination_topic) {
            let partition = appended.partition;
            let chunk = sent.iter().find(|chunk| self.lanes[chunk.lane].partition == partition);
            let chunk = chunk.with_context(|| format!("partition {partition} was not appended to"))?;
            let wanted = chunk.base_offset;
            ensure!(
                appended.error == 0,
                "partition {partition}, offset {wanted}: Produce answers error {}",
                appended.error
            );
            ensure!(
                appended.base_offset == wanted,
                "partition {partition}: offset {wanted} became {}",
                appended.base_offset
            );
            self.lanes[chunk.lane].from = chunk.next_offset;
            self.window.give_back(chunk.range.len());
        }
        Ok(())
    }

    /// Sends the oldest chunk of every partition that has one; false when none has.
    fn send(&mut self) -> Result<bool> {
        let chunks: Vec<Chunk> = self.queues.iter_mut().filter_map(VecDeque::pop_front).collect();
        if chunks.is_empty() {
            return Ok(false);
        }
        let bytes = chunks.iter().map(|chunk| chunk.range.len()).sum();
        let head = self.connection.produce_head(&self.settings.destination_topic, chunks.len(), bytes);
        let partition = |chunk: &Chunk| self.lanes[chunk.lane].partition;
        let heads: Vec<_> =
            chunks.iter().map(|chunk| partition_head(partition(chunk), chunk.range.len())).collect();
        let mut slices = vec![IoSlice::new(&head)];
        for (chunk, head) in chunks.iter().zip(&heads) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(&chunk.buffer[chunk.range.clone()]));
        }
        write_all(&mut self.connection.stream, &mut slices).context("send a produce request")?;
        self.totals.bytes += bytes as u64;
        self.totals.batches += chunks.len() as u64;
        self.totals.produce_requests += 1;
        self.under_way.push_back(chunks);
        Ok(true)
    }
}

pub fn write_all(stream: &mut TcpStream, mut slices: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    while !slices.is_empty() {
        match stream.write_vectored(slices)? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut slices, written),
        }
    }
    Ok(())
}

/// Ends with the connection, or with the loop that takes the answers.
fn read_answers(mut stream: TcpStream, events: &Sender<Event>) {
    loop {
        let mut answer = Vec::new();
        let event = match read_frame(&mut stream, &mut answer) {
            Ok(_) => Event::Answered(answer),
            Err(error) => Event::Failed(Error::new(error).context("receive a produce answer")),
        };
        let failed = matches!(event, Event::Failed(_));
        if events.send(event).is_err() || failed {
            return;
        }
    }
}

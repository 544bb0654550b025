//! Just enough of Kafka's protocol, over a blocking socket: requests written by hand, answers read
//! at fixed places. A broker that answers nonsense makes it panic, which is fine for a floor.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const CLIENT_ID: &str = "raw-path";
/// Above the longest wait of any request (a fetch: half a second) and a broker under load.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// A just created topic has no leader yet, and a just started broker no coordinator.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
const FETCH_WAIT_MAX_MS: i32 = 500;
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
const ACKS_ALL: i16 = -1;
const COORDINATOR_LOADING: i16 = 14;
const LATEST: i64 = -1;

pub fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array(bytes, at))
}

pub fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array(bytes, at))
}

pub fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the array's length")
}

/// A length or count from the wire; null (−1) is none.
fn length_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(i32_at(bytes, at)).unwrap_or(0)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// A request up to its body, with room for its length.
fn head(key: i16, version: i16, correlation: i32) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(correlation.to_be_bytes());
    put_text(&mut frame, CLIENT_ID);
    frame
}

/// Fills the length of a frame to which `more` bytes will be added on the wire.
fn seal(frame: &mut [u8], more: usize) {
    let length = (frame.len() - 4 + more) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// Reads one answer into the beginning of `buffer`, which only grows; returns the answer's length.
pub fn read_frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let length = u32::from_be_bytes(prefix) as usize;
    if buffer.len() < length {
        buffer.resize(length + length / 8, 0);
    }
    stream.read_exact(&mut buffer[..length])?;
    Ok(length)
}

/// Who appends, as idempotent producers are known.
#[derive(Clone, Copy, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

pub struct Connection {
    pub stream: TcpStream,
    correlation: i32,
}

/// How much one fetch may bring.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    pub bytes_max: i32,
    pub partition_bytes_max: i32,
}

/// What came of one partition in a fetch: where its batches lie in the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    pub partition: i32,
    pub range: Range<usize>,
}

/// What a broker says to one appended batch.
#[derive(Debug)]
pub struct Appended {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

impl Connection {
    pub fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_read_timeout(Some(CALL_LIMIT)).context("set the read timeout")?;
        stream.set_write_timeout(Some(CALL_LIMIT)).context("set the write timeout")?;
        Ok(Connection { stream, correlation: 0 })
    }

    pub fn call(&mut self, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
        self.correlation += 1;
        let mut frame = head(key, version, self.correlation);
        frame.extend(body);
        seal(&mut frame, 0);
        self.stream.write_all(&frame).context("send")?;
        let mut answer = Vec::new();
        let length = read_frame(&mut self.stream, &mut answer).context("receive")?;
        answer.truncate(length);
        Ok(answer)
    }

    /// The log end offset of partitions 0 to `count` − 1, once all of them have a leader.
    pub fn log_ends(&mut self, topic: &str, count: i32) -> Result<Vec<i64>> {
        let mut body = (-1i32).to_be_bytes().to_vec();
        body.push(0);
        body.extend(1i32.to_be_bytes());
        put_text(&mut body, topic);
        body.extend(count.to_be_bytes());
        for partition in 0..count {
            body.extend(partition.to_be_bytes());
            body.extend(LATEST.to_be_bytes());
        }
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let answer = self.call(2, 2, &body).context("ListOffsets")?;
            match parse_log_ends(&answer, topic, count) {
                Ok(ends) => return Ok(ends),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(SETTLE_PAUSE),
            }
        }
    }

    pub fn init_producer(&mut self) -> Result<Producer> {
        let mut body = (-1i16).to_be_bytes().to_vec();
        body.extend(60_000i32.to_be_bytes());
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let answer = self.call(22, 0, &body).context("InitProducerId")?;
            match i16_at(&answer, 8) {
                0 => return Ok(Producer { id: i64_at(&answer, 10), epoch: i16_at(&answer, 18) }),
                COORDINATOR_LOADING if Instant::now() < deadline => std::thread::sleep(SETTLE_PAUSE),
                code => bail!("InitProducerId: error {code}"),
            }
        }
    }

    /// Asks for what follows each (partition, offset); [`parse_fetch`] reads the answer.
    pub fn send_fetch(&mut self, topic: &str, wanted: &[(i32, i64)], limits: FetchLimits) -> Result<()> {
        self.correlation += 1;
        let mut frame = head(1, 11, self.correlation);
        frame.extend((-1i32).to_be_bytes()); // replica_id: a client
        frame.extend(FETCH_WAIT_MAX_MS.to_be_bytes());
        frame.extend(1i32.to_be_bytes()); // min_bytes
        frame.extend(limits.bytes_max.to_be_bytes());
        frame.push(0); // read uncommitted
        frame.extend(0i32.to_be_bytes()); // session_id: none
        frame.extend((-1i32).to_be_bytes()); // session_epoch: none
        frame.extend(1i32.to_be_bytes());
        put_text(&mut frame, topic);
        frame.extend((wanted.len() as i32).to_be_bytes());
        for (partition, offset) in wanted {
            frame.extend(partition.to_be_bytes());
            frame.extend((-1i32).to_be_bytes()); // current_leader_epoch: don't check
            frame.extend(offset.to_be_bytes());
            frame.extend((-1i64).to_be_bytes()); // log_start_offset: for replicas
            frame.extend(limits.partition_bytes_max.to_be_bytes());
        }
        frame.extend(0i32.to_be_bytes()); // forgotten topics
        put_text(&mut frame, ""); // rack_id
        seal(&mut frame, 0);
        self.stream.write_all(&frame).context("send a fetch")
    }

    /// The beginning of a produce request; `count` partitions with `batch_bytes` in all follow,
    /// each as a [`partition_head`] and a batch.
    pub fn produce_head(&mut self, topic: &str, count: usize, batch_bytes: usize) -> Vec<u8> {
        self.correlation += 1;
        let mut frame = head(PRODUCE_KEY, PRODUCE_VERSION, self.correlation);
        frame.extend(produce_body(topic, count));
        seal(&mut frame, count * PARTITION_HEAD_BYTES + batch_bytes);
        frame
    }
}

pub const PRODUCE_KEY: i16 = 0;
/// The first that takes zstd.
pub const PRODUCE_VERSION: i16 = 7;

/// The body of a produce request up to its partitions.
pub fn produce_body(topic: &str, partitions: usize) -> Vec<u8> {
    let mut body = (-1i16).to_be_bytes().to_vec(); // transactional_id: null
    body.extend(ACKS_ALL.to_be_bytes());
    body.extend(PRODUCE_TIMEOUT_MS.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    put_text(&mut body, topic);
    body.extend((partitions as i32).to_be_bytes());
    body
}

const PARTITION_HEAD_BYTES: usize = 8;

pub fn partition_head(partition: i32, batch_bytes: usize) -> [u8; PARTITION_HEAD_BYTES] {
    let mut head = [0; PARTITION_HEAD_BYTES];
    head[..4].copy_from_slice(&partition.to_be_bytes());
    head[4..].copy_from_slice(&(batch_bytes as i32).to_be_bytes());
    head
}

fn parse_log_ends(answer: &[u8], topic: &str, count: i32) -> Result<Vec<i64>> {
    let mut at = 4 + 4 + 4 + 2 + topic.len();
    let mut ends = vec![0; length_at(answer, at)];
    ensure!(ends.len() == count as usize, "{} partitions of {topic} answered, not {count}", ends.len());
    at += 4;
    for _ in 0..count {
        let (partition, code) = (i32_at(answer, at), i16_at(answer, at + 4));
        ensure!(code == 0, "{topic}-{partition}: ListOffsets answers error {code}");
        ends[partition as usize] = i64_at(answer, at + 14);
        at += 22;
    }
    Ok(ends)
}

/// The partitions of a Fetch answer of version 11.
pub fn parse_fetch(answer: &[u8]) -> Result<Vec<Share>> {
    let code = i16_at(answer, 8);
    ensure!(code == 0, "Fetch answers error {code}");
    let mut at = 14;
    let topics = length_at(answer, at);
    at += 4;
    let mut shares = Vec::new();
    for _ in 0..topics {
        at += 2 + i16_at(answer, at) as usize;
        let partitions = length_at(answer, at);
        at += 4;
        for _ in 0..partitions {
            let (partition, code) = (i32_at(answer, at), i16_at(answer, at + 4));
            ensure!(code == 0, "partition {partition}: Fetch answers error {code}");
            at += 4 + 2 + 8 + 8 + 8; // high watermark, last stable offset, log start offset
            at += 4 + 16 * length_at(answer, at) + 4; // aborted transactions, preferred replica
            let length = length_at(answer, at);
            at += 4;
            shares.push(Share { partition, range: at..at + length });
            at += length;
        }
    }
    Ok(shares)
}

/// The partitions of a Produce answer of version 7 about one topic.
pub fn parse_produce(answer: &[u8], topic: &str) -> Vec<Appended> {
    let mut at = 4 + 4 + 2 + topic.len();
    let count = length_at(answer, at);
    at += 4;
    let mut appended = Vec::with_capacity(count);
    for _ in 0..count {
        let (partition, error) = (i32_at(answer, at), i16_at(answer, at + 4));
        appended.push(Appended { partition, error, base_offset: i64_at(answer, at + 6) });
        at += 4 + 2 + 8 + 8 + 8; // error, base offset, append time, log start offset
    }
    appended
}

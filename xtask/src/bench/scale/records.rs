//! Embedded clusters as processes, and what the bench does to them: many topics, one record for every
//! partition of all of them, and everything read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use harness::poll_until;
use harness::ports::PortLease;
use harness::process::{Process, log_tail};
use harness::wire::{Api, Connection, Cursor, Metadata, put_string};

use crate::bench::client::Client;

const PRODUCE: Api = Api { name: "Produce", key: 0, version: 7 };
const FETCH: Api = Api { name: "Fetch", key: 1, version: 4 };
const LIST_OFFSETS: Api = Api { name: "ListOffsets", key: 2, version: 2 };

/// What the example `serve` of the crate `broker` starts.
const BROKERS: u16 = 3;
const READY_LIMIT: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(20);
/// Requests name thousands of partitions, and the machine is busy.
const CALL_LIMIT: Duration = Duration::from_secs(60);
const CALL_LIMIT_MS: i32 = 60_000;
const PORT_TRIES_MAX: usize = 100;
const LATEST: i64 = -1;
/// Of a whole answer, and of one partition's share: what a partition holds is some hundred bytes.
const ANSWER_BYTES_MAX: i32 = 50 << 20;
const SHARE_BYTES_MAX: i32 = 64 << 10;
/// Up to here a batch tells who wrote it.
const HEADER_BYTES: usize = 61;
const CRC_FROM: usize = 21;

/// A partition, by its topic's name.
pub type Key = (String, i32);

/// One cluster; dropping it ends it.
pub struct Cluster {
    process: Process,
    _ports: Vec<PortLease>,
    pub bootstrap: String,
    brokers: BTreeMap<i32, Connection>,
    /// Partitions by who leads them, then by topic.
    led: BTreeMap<i32, BTreeMap<String, Vec<i32>>>,
}

impl Cluster {
    pub fn start(name: &str, serve: &Path, directory: &Path) -> Result<Cluster> {
        let ports = neighbours()?;
        let mut command = Command::new(serve);
        command.args([&ports[0].port().to_string(), name]).env("RUST_LOG", "warn");
        let mut process = Process::spawn(name, command, &directory.join(format!("{name}.log")))?;
        let bootstrap = ports.iter().map(|port| port.address().to_string()).collect::<Vec<_>>().join(",");
        let mut opened = None;
        poll_until(READY_LIMIT, READY_POLL, || {
            opened = Some(Connection::open(ports[0].address(), CALL_LIMIT));
            opened.as_ref().is_some_and(Result::is_ok).then_some(())
        });
        process.check_running()?;
        let mut first = opened.context("never tried")?.with_context(|| log_tail(process.log()))?;
        let found = Metadata::fetch(&mut first, &[])?;
        let open =
            |broker: &harness::wire::Broker| Ok((broker.id, Connection::open(broker.address, CALL_LIMIT)?));
        let brokers = found.brokers.iter().map(open).collect::<Result<_>>()?;
        Ok(Cluster { process, _ports: ports, bootstrap, brokers, led: BTreeMap::new() })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn create_topics(&self, topics: &[(String, i32)]) -> Result<()> {
        let first = self.bootstrap.split(',').next().unwrap_or_default();
        let mut client = Client::open(first)?;
        topics.iter().try_for_each(|(topic, partitions)| client.create_topic(topic, *partitions))
    }

    /// Learns who leads what; false while a topic isn't there.
    pub fn look_up(&mut self, topics: &[(String, i32)]) -> Result<bool> {
        let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
        let connection = self.brokers.values_mut().next().context("no broker")?;
        let found = Metadata::fetch(connection, &names)?;
        self.led.clear();
        for (topic, partitions) in topics {
            let Some(found) = found.topics.get(topic).filter(|found| found.error_code == 0) else {
                return Ok(false);
            };
            if found.partitions.len() != usize::try_from(*partitions)? {
                return Ok(false);
            }
            for (partition, led) in &found.partitions {
                let topics = self.led.entry(led.leader).or_default();
                topics.entry(topic.clone()).or_default().push(*partition);
            }
        }
        Ok(true)
    }

    /// A record of this age for every partition, by one request to each broker.
    pub fn append_everywhere(&mut self, round: u32, age: Duration) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
        let then_ms = i64::try_from(now.saturating_sub(age).as_millis()).context("beyond all time")?;
        self.ask_all(
            PRODUCE,
            |body| {
                put_string(body, None); // transactional_id
                body.extend((-1i16).to_be_bytes()); // acks: all
                body.extend(CALL_LIMIT_MS.to_be_bytes());
            },
            |body, topic, partition| {
                let batch = batch(&format!("{topic}/{partition}/{round}"), then_ms);
                body.extend((batch.len() as i32).to_be_bytes());
                body.extend(batch);
            },
            |answer, _| {
                each_partition(&mut Cursor::new(answer), |cursor, topic, partition| {
                    let code = cursor.i16()?;
                    cursor.take(3 * size_of::<i64>())?; // base offset, append time, log start
                    ensure!(code == 0, "{topic}-{partition}: Produce answers error {code}");
                    Ok(())
                })
            },
        )
    }

    /// Log ends of all partitions.
    pub fn ends(&mut self) -> Result<BTreeMap<Key, i64>> {
        let mut ends = BTreeMap::new();
        self.ask_all(
            LIST_OFFSETS,
            |body| {
                body.extend((-1i32).to_be_bytes()); // replica_id: a client
                body.push(0); // read uncommitted
            },
            |body, _, _| body.extend(LATEST.to_be_bytes()),
            |answer, _| {
                let mut cursor = Cursor::new(answer);
                cursor.i32()?; // throttle_time_ms
                each_partition(&mut cursor, |cursor, topic, partition| {
                    let code = cursor.i16()?;
                    cursor.i64()?; // timestamp
                    let end = cursor.i64()?;
                    ensure!(code == 0, "{topic}-{partition}: ListOffsets answers error {code}");
                    ends.insert((topic.to_owned(), partition), end);
                    Ok(())
                })
            },
        )?;
        Ok(ends)
    }

    /// Of every partition all batches without what a mirror writes anew, and so each record.
    pub fn contents(&mut self) -> Result<BTreeMap<Key, Vec<u8>>> {
        let mut contents = BTreeMap::new();
        self.ask_all(
            FETCH,
            |body| {
                body.extend((-1i32).to_be_bytes()); // replica_id: a client
                body.extend(0i32.to_be_bytes()); // max_wait_ms
                body.extend(0i32.to_be_bytes()); // min_bytes
                body.extend(ANSWER_BYTES_MAX.to_be_bytes());
                body.push(0); // read uncommitted
            },
            |body, _, _| {
                body.extend(0i64.to_be_bytes()); // fetch_offset
                body.extend(SHARE_BYTES_MAX.to_be_bytes());
            },
            |answer, _| {
                let mut cursor = Cursor::new(answer);
                cursor.i32()?; // throttle_time_ms
                each_partition(&mut cursor, |cursor, topic, partition| {
                    let code = cursor.i16()?;
                    cursor.take(2 * size_of::<i64>())?; // high watermark, last stable offset
                    cursor.list(|cursor| cursor.take(2 * size_of::<i64>()).map(drop))?; // aborted
                    ensure!(code == 0, "{topic}-{partition}: Fetch answers error {code}");
                    let records = records_of(cursor.bytes()?.unwrap_or_default())?;
                    contents.insert((topic.to_owned(), partition), records);
                    Ok(())
                })
            },
        )?;
        Ok(contents)
    }

    /// One request to each broker about all that it leads.
    fn ask_all(
        &mut self,
        api: Api,
        head: impl Fn(&mut Vec<u8>),
        part: impl Fn(&mut Vec<u8>, &str, i32),
        mut take: impl FnMut(&[u8], i32) -> Result<()>,
    ) -> Result<()> {
        for (broker, topics) in &self.led {
            let connection =
                self.brokers.get_mut(broker).with_context(|| format!("{broker} leads and isn't there"))?;
            let mut body = Vec::new();
            head(&mut body);
            body.extend((topics.len() as i32).to_be_bytes());
            for (topic, partitions) in topics {
                put_string(&mut body, Some(topic));
                body.extend((partitions.len() as i32).to_be_bytes());
                for partition in partitions {
                    body.extend(partition.to_be_bytes());
                    part(&mut body, topic, *partition);
                }
            }
            let answer = connection.call(api, &body)?;
            take(&answer, *broker).with_context(|| format!("{} of broker {broker}", api.name))?;
        }
        Ok(())
    }
}

/// The list of topics with their lists of partitions that many answers are.
fn each_partition<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>, &str, i32) -> Result<()>,
) -> Result<()> {
    cursor.list(|cursor| {
        let topic = cursor.string()?.context("a topic without a name")?;
        cursor.list(|cursor| {
            let partition = cursor.i32()?;
            each(cursor, &topic, partition)
        })
    })?;
    Ok(())
}

/// Ports in a row, as `serve` takes them.
fn neighbours() -> Result<Vec<PortLease>> {
    for _ in 0..PORT_TRIES_MAX {
        let first = PortLease::take()?;
        let others = (1..BROKERS).map(|index| PortLease::fixed(first.port() + index));
        if let Ok(others) = others.collect::<Result<Vec<_>>>() {
            return Ok(std::iter::once(first).chain(others).collect());
        }
    }
    bail!("no {BROKERS} free ports in a row found")
}

/// A batch of one record without a key.
fn batch(value: &str, now_ms: i64) -> Vec<u8> {
    // Attributes, timestamp delta, offset delta, no key, the value, no headers.
    let mut fields = vec![0, 0, 0, 1];
    put_varint(&mut fields, value.len());
    fields.extend(value.as_bytes());
    fields.push(0);
    let mut batch = vec![0; HEADER_BYTES];
    put_varint(&mut batch, fields.len());
    batch.extend(fields);
    let length = (batch.len() - 12) as i32;
    let mut put = |from: usize, bytes: &[u8]| batch[from..from + bytes.len()].copy_from_slice(bytes);
    put(8, &length.to_be_bytes());
    put(12, &(-1i32).to_be_bytes()); // leader epoch
    put(16, &[2]); // format
    put(27, &now_ms.to_be_bytes());
    put(35, &now_ms.to_be_bytes());
    put(43, &[0xff; 14]); // no producer
    put(57, &1i32.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..CRC_FROM].copy_from_slice(&checksum.to_be_bytes());
    batch
}

/// Zigzag, of what isn't negative.
fn put_varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What lies behind the headers of batches, each with its base offset.
fn records_of(mut batches: &[u8]) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    while !batches.is_empty() {
        let mut cursor = Cursor::new(batches);
        let offset = cursor.i64()?;
        let length = usize::try_from(cursor.i32()?).context("a batch of a negative length")? + 12;
        let batch = batches.get(HEADER_BYTES..length).context("a batch that isn't whole")?;
        records.extend(offset.to_be_bytes());
        records.extend(batch);
        batches = &batches[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_behind_any_header() {
        let (mut one, two) = (batch("a/0/1", 7), batch("a/0/2", 8));
        let records = records_of(&[one.clone(), two].concat()).unwrap();
        assert_eq!(records.iter().filter(|byte| **byte == b'a').count(), 2);
        one[43..57].fill(3);
        assert_eq!(records_of(&one).unwrap(), records_of(&batch("a/0/1", 9)).unwrap());
        assert_ne!(records_of(&one).unwrap(), records_of(&batch("a/0/3", 7)).unwrap());
        one.pop();
        assert!(records_of(&one).is_err());
    }

    #[test]
    fn a_long_value_has_a_length_of_two_bytes() {
        let mut out = Vec::new();
        put_varint(&mut out, 150);
        assert_eq!(out, [0xac, 0x02]);
    }
}

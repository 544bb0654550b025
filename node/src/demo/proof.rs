//! The proof: both clusters are read, and what stands at each offset is compared.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kafka_protocol::records::Record;

use super::TOPIC;
use super::wire::Partition;
use crate::cli::output;

const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Until the other end has more.
const PAUSE: Duration = Duration::from_millis(20);

/// How far the comparison has come.
pub struct Proof {
    partitions: Vec<Compared>,
    difference: Mutex<Option<String>>,
    trouble: Mutex<Option<String>>,
}

/// One partition: all below `end` is equal. The checksums are of all that was read, each end its own.
#[derive(Default)]
struct Compared {
    end: AtomicI64,
    checksums: Mutex<(u32, u32)>,
}

impl Proof {
    pub fn new(partitions: i32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| Compared::default()).collect(),
            difference: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Records found equal in each partition.
    pub fn ends(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.end.load(Ordering::Relaxed)).collect()
    }

    pub fn missing(&self, ends: &[i64]) -> i64 {
        self.ends().iter().zip(ends).map(|(compared, end)| (end - compared).max(0)).sum()
    }

    pub fn difference(&self) -> Option<String> {
        self.difference.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the comparison doesn't go on, when it doesn't.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows both ends of one partition.
    pub async fn run(self: Arc<Self>, east: String, west: String, partition: i32) {
        loop {
            let failed = match self.compare(&east, &west, partition).await {
                Ok(()) => return,
                Err(error) => format!("{error:#}"),
            };
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Ends when a difference was found.
    async fn compare(&self, east: &str, west: &str, partition: i32) -> Result<()> {
        let mut east = Partition::open(east, TOPIC, partition).await?;
        let mut west = Partition::open(west, TOPIC, partition).await?;
        let compared = &self.partitions[partition as usize];
        loop {
            let from = compared.end.load(Ordering::Relaxed);
            let copies = west.fetch(from).await?;
            if copies.is_empty() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let originals = east.fetch(from).await?;
            if let Some(difference) = surplus(&originals, &copies) {
                let text = format!("{TOPIC}-{partition}: {difference}");
                *self.difference.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                return Ok(());
            }
            for (original, copy) in originals.iter().zip(&copies) {
                let expected = compared.end.load(Ordering::Relaxed);
                if let Some(difference) = difference(original, copy, expected) {
                    let text = format!("{TOPIC}-{partition}: {difference}");
                    *self.difference.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                    return Ok(());
                }
                let mut checksums = compared.checksums.lock().unwrap_or_else(PoisonError::into_inner);
                *checksums = (appended(checksums.0, original), appended(checksums.1, copy));
                compared.end.store(expected + 1, Ordering::Relaxed);
            }
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// For the end: what was proven.
    pub fn certificate(&self, ends: &[i64]) -> String {
        let records: i64 = ends.iter().sum();
        let rows = (0..).zip(&self.partitions).zip(ends).map(|((index, partition), end): ((i32, _), _)| {
            let (east, west) = *partition.checksums.lock().unwrap_or_else(PoisonError::into_inner);
            vec![
                format!("{TOPIC}-{index}"),
                format!("0..{end}"),
                format!("{east:08x}"),
                format!("{west:08x}"),
            ]
        });
        let table = output::table(&["PARTITION", "OFFSETS", "EAST CRC32C", "WEST CRC32C"], rows);
        format!(
            "{records} of {records} records verified:\n\
             at the same offset, with the same key, value, headers\n\
             and timestamp; none is missing, none is there twice.\n\n{table}"
        )
    }
}

/// East is read after west, so it has whatever west can rightly have.
fn surplus(originals: &[Record], copies: &[Record]) -> Option<String> {
    let first = copies.first().filter(|_| originals.is_empty())?;
    Some(format!("west has a record at offset {}, and east has none", first.offset))
}

fn difference(original: &Record, copy: &Record, offset: i64) -> Option<String> {
    let found = |what: &str| Some(format!("{what} at offset {offset}"));
    if original.offset != offset || copy.offset != offset {
        return Some(format!("offset {offset} is {} in east and {} in west", original.offset, copy.offset));
    }
    match () {
        () if original.key != copy.key => found("another key"),
        () if original.value != copy.value => found("another value"),
        () if original.headers != copy.headers => found("other headers"),
        () if original.timestamp != copy.timestamp => found("another timestamp"),
        () => None,
    }
}

/// The checksum of a partition so far, and one record more.
fn appended(checksum: u32, record: &Record) -> u32 {
    let number = |checksum: u32, number: i64| crc32c::crc32c_append(checksum, &number.to_be_bytes());
    let field = |checksum: u32, bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| bytes.len() as i64);
        crc32c::crc32c_append(number(checksum, length), bytes.unwrap_or_default())
    };
    let checksum = number(number(checksum, record.offset), record.timestamp);
    let checksum = field(field(checksum, record.key.as_deref()), record.value.as_deref());
    record.headers.iter().fold(checksum, |checksum, (name, value)| {
        field(field(checksum, Some(name.as_bytes())), value.as_deref())
    })
}

#[cfg(test)]
mod tests {
    use broker::TopicConfigs;
    use kafka_protocol::records::TimestampType;

    use super::super::clusters::Clusters;
    use super::super::load::encoded;
    use super::super::{PARTITIONS, SURPLUS_WAIT};
    use super::*;

    fn record(offset: i64, value: &'static str) -> Record {
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: 0,
            timestamp: 5,
            key: None,
            value: Some(value.into()),
            headers: Default::default(),
        }
    }

    #[test]
    fn a_record_that_is_shifted_changed_or_older_is_a_difference() {
        let original = record(7, "a");
        assert_eq!(difference(&original, &original.clone(), 7), None);
        assert!(
            difference(&original, &record(8, "a"), 7)
                .unwrap()
                .contains("offset 7 is 7 in east and 8 in west")
        );
        assert!(difference(&original, &record(7, "b"), 7).unwrap().contains("another value"));
        let older = Record { timestamp: 4, ..original.clone() };
        assert!(difference(&original, &older, 7).unwrap().contains("another timestamp"));
        assert_ne!(appended(0, &original), appended(0, &older));
        let both = [original, older];
        assert_eq!((surplus(&both, &both), surplus(&both, &[]), surplus(&[], &[])), (None, None, None));
        assert!(surplus(&[], &both).unwrap().contains("west has a record at offset 7"));
    }

    /// What the proof says of two clusters with these values in the first partition, after a second.
    async fn compared(east: &[&'static str], west: &[&'static str]) -> (i64, Option<String>) {
        let clusters = Clusters::start(None).await.unwrap();
        let configs = TopicConfigs::default();
        clusters.west.cluster.with(|state| state.create_topic(TOPIC, PARTITIONS, 1, configs));
        for (values, bootstrap) in [(east, &clusters.east.bootstrap), (west, &clusters.west.bootstrap)] {
            let mut wire = Partition::open(bootstrap, TOPIC, 0).await.unwrap();
            for value in values {
                wire.produce(encoded(&[record(0, value)]).unwrap()).await.unwrap();
            }
        }
        let proof = Arc::new(Proof::new(1));
        let (east, west) = (clusters.east.bootstrap.clone(), clusters.west.bootstrap.clone());
        let run = tokio::spawn(proof.clone().run(east, west, 0));
        tokio::time::sleep(SURPLUS_WAIT).await;
        run.abort();
        (proof.ends()[0], proof.difference())
    }

    #[tokio::test]
    async fn what_was_planted_is_found() {
        let original = ["a", "b", "c"];
        let told = |(end, difference): (i64, Option<String>)| (end, difference.unwrap_or_default());
        let (equal, short, changed, shifted, twice, surplus) = tokio::join!(
            compared(&original, &original),
            compared(&original, &["a", "b"]),
            compared(&original, &["a", "x", "c"]),
            compared(&original, &["x", "a", "b", "c"]),
            compared(&original, &["a", "a", "b", "c"]),
            compared(&original, &["a", "b", "c", "c"]),
        );
        assert_eq!(told(equal), (3, String::new()));
        assert_eq!(told(short), (2, String::new()));
        assert_eq!(told(changed), (1, "orders-0: another value at offset 1".to_owned()));
        assert_eq!(told(shifted), (0, "orders-0: another value at offset 0".to_owned()));
        assert_eq!(told(twice), (1, "orders-0: another value at offset 1".to_owned()));
        let more = "orders-0: west has a record at offset 3, and east has none";
        assert_eq!(told(surplus), (3, more.to_owned()));
    }
}

//! Live load: orders, each with key, value and header, at a steady rate.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior};

use super::TOPIC;
use super::wire::Partition;

/// One batch a partition in this time.
const PACE: Duration = Duration::from_millis(20);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// What was produced so far.
pub struct Load {
    stopping: AtomicBool,
    running: AtomicUsize,
    /// Log end of each partition after the last acknowledged batch.
    ends: Vec<AtomicI64>,
    trouble: Mutex<Option<String>>,
}

impl Load {
    pub fn new(partitions: i32) -> Self {
        Self {
            stopping: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            ends: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            trouble: Mutex::default(),
        }
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn ends(&self) -> Vec<i64> {
        self.ends.iter().map(|end| end.load(Ordering::Relaxed)).collect()
    }

    /// A partition without records proves nothing.
    pub fn check_all_produced(&self) -> Result<(), String> {
        let Some(empty) = self.ends().iter().position(|end| *end == 0) else { return Ok(()) };
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
        Err(format!("nothing was produced to {TOPIC}-{empty}{why}"))
    }

    /// Waits for the batches that are on their way.
    pub async fn settled(&self, deadline: Instant) -> Result<(), String> {
        while self.running.load(Ordering::Relaxed) > 0 {
            if Instant::now() >= deadline {
                let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Err(format!("the load doesn't end: {}", trouble.unwrap_or_default()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Produces to one partition until it is told to stop.
    pub async fn run(self: Arc<Self>, bootstrap: String, partition: i32, records_per_second: f64) {
        self.running.fetch_add(1, Ordering::Relaxed);
        while let Err(error) = self.produce(&bootstrap, partition, records_per_second).await {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    async fn produce(&self, bootstrap: &str, index: i32, records_per_second: f64) -> Result<()> {
        let mut partition = Partition::open(bootstrap, TOPIC, index).await?;
        let mut random = SmallRng::from_os_rng();
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first record at once: at a low rate it would otherwise come late, or after the end.
        let mut owed = 1.0;
        while !self.stopping.load(Ordering::Relaxed) {
            ticks.tick().await;
            owed += records_per_second * PACE.as_secs_f64();
            let count = owed as i32;
            if count == 0 {
                continue;
            }
            owed -= f64::from(count);
            let base = partition.produce(batch(count, &mut random)?).await?;
            self.ends[index as usize].store(base + i64::from(count), Ordering::Relaxed);
        }
        Ok(())
    }
}

fn batch(count: i32, random: &mut SmallRng) -> Result<Bytes> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
    let records: Vec<Record> = (0..count).map(|index| order(index, now, random)).collect();
    encoded(&records)
}

pub(super) fn encoded(records: &[Record]) -> Result<Bytes> {
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, records, &options)?;
    Ok(out.freeze())
}

fn order(index: i32, now_ms: i64, random: &mut SmallRng) -> Record {
    let number: u32 = random.random();
    let (customer, cents) = (random.random_range(1..10_000), random.random_range(100..100_000));
    let value = format!(
        "{{\"order\":{number},\"customer\":{customer},\"cents\":{cents},\"note\":\"{:x}\"}}",
        random.random::<u128>()
    );
    let trace = StrBytes::from_static_str("trace");
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(index),
        // The encoder begins a batch wherever this and the offset part.
        sequence: index,
        timestamp: now_ms,
        key: Some(format!("order-{number}").into()),
        value: Some(value.into()),
        headers: IndexMap::from([(trace, Some(random.random::<u64>().to_be_bytes().to_vec().into()))]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clusters::Clusters;
    use super::*;

    #[tokio::test]
    async fn at_the_lowest_rate_a_record_comes_at_once() {
        let clusters = Clusters::start(None).await.unwrap();
        let load = Arc::new(Load::new(1));
        tokio::spawn(load.clone().run(clusters.east.bootstrap.clone(), 0, 0.01));
        let produced = async {
            while load.check_all_produced().is_err() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), produced).await.unwrap();
    }

    #[test]
    fn a_partition_that_got_nothing_is_named() {
        let load = Load::new(2);
        load.ends[0].store(5, Ordering::Relaxed);
        assert_eq!(load.check_all_produced(), Err("nothing was produced to orders-1".to_owned()));
        load.ends[1].store(5, Ordering::Relaxed);
        assert_eq!(load.check_all_produced(), Ok(()));
    }
}

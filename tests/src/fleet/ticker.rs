//! A record for every partition, many times a second: whatever stands still shows at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::load::{LoadReport, Profile, Record, Sender, all_acknowledged};

/// Nothing lingers, nothing is doubled.
const PROFILE: Profile = Profile { codec: "none", idempotent: true, linger_ms: 0, batch_records_max: 1 };

/// A running producer; dropping it stops it without a report.
#[derive(Debug)]
pub struct Ticker {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<LoadReport>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Ticker {
    /// Writes to each of these partitions every `every`, records that are `age` old.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        every: Duration,
        age: Duration,
    ) -> Result<Ticker> {
        let (stop, report) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let sender = Sender::new(bootstrap, topic, PROFILE, Arc::clone(&report))?;
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = SystemTime::now() - age;
                let now = now.duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
                let record = Record {
                    value: Some(b"tick".to_vec()),
                    timestamp_ms: Some(i64::try_from(now.as_millis()).context("a far future")?),
                    ..Record::default()
                };
                for partition in 0..partitions {
                    sender.send(partition, &record)?;
                }
                std::thread::sleep(every);
            }
            sender.flush()
        });
        Ok(Ticker { stop, report, thread: Some(thread) })
    }

    /// Stops, waits for every acknowledgement, and fails when one was refused.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the ticker panicked"))??;
        }
        all_acknowledged(&self.report)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

//! Clients of topics that were mirrors: on the host of the producers and written as they are, one a partition,
//! from soon after STOPPED on.

use std::time::Duration;

use crate::batches::{self, Identity, Stored};
use crate::chance::Chance;
use crate::clusters::Side;
use crate::options::{Age, SourceTopic};
use crate::producer::{Producer, Producers};
use crate::stops::Stopped;

const BATCHES_MAX: u64 = 15;
/// Then its topic may be deleted.
const MISSES_MAX: u64 = 3;
const PAUSE_MS: std::ops::RangeInclusive<u64> = 0..=500;

struct Client {
    producer: Producer,
    batches: u64,
    stopped: Stopped,
}

/// In seeds that have any.
pub fn come_to_what_has_stopped(all: &Producers) {
    if !all.options.stops.has_clients {
        return;
    }
    for (topic, partitions) in all.stopped.visit() {
        for partition in 0..partitions {
            tokio::task::spawn_local(client(all, &topic, partition).work());
        }
    }
}

fn client(all: &Producers, topic: &str, partition: i32) -> Client {
    let mut chance = Chance::of(all.options.seed, &format!("client of {topic} {partition}"));
    let topic = SourceTopic {
        name: topic.to_owned(),
        partitions: 0,
        replication: 0,
        in_sync_min: 0,
        age: Age::Fresh,
        is_idempotent: chance.percent(50),
        pause: Duration::from_millis(chance.between(PAUSE_MS)),
        preloaded_max: 0,
        batch_bytes_max: 0,
        lost: None,
    };
    let batches = chance.between(1..=BATCHES_MAX);
    let mut producer = all.producer(&topic, partition);
    producer.side = Side::Destination;
    producer.oracle = all.stopped.acknowledged();
    producer.chance = chance;
    if topic.is_idempotent {
        all.stopped.will_be_idempotent(&producer.key());
    }
    Client { producer, batches, stopped: all.stopped.clone() }
}

impl Client {
    /// So many batches, or fewer if some can't be written.
    async fn work(mut self) {
        let key = self.producer.key();
        let mut misses = 0;
        for _ in 0..self.batches {
            tokio::time::sleep(self.producer.topic.pause).await;
            let records = self.producer.records();
            let sent = Stored::read(&batches::write(&records, Identity::NONE));
            self.stopped.sends(&key, &sent.and_then(|(sent, _)| sent.records()).unwrap_or_default());
            misses += u64::from(!self.producer.send(&records).await);
            if misses == MISSES_MAX {
                break;
            }
        }
        self.stopped.client_is_done();
    }
}

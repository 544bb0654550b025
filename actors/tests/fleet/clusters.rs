//! A source and a destination in memory, what is produced to the one, and what has come to the other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::clock::{Clocks, Uptime, WallClock};
use broker::{Cluster, Endpoint, Settings, TopicConfigs};
use bytes::Bytes;
use catalog::command::{NewLink, NewMirror};
use catalog::{Action, LinkId, MirrorKey, TopicId};
use kafka::client::{Dial, DialFuture};
use kafka::connection::BoxedStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::batches;

pub const TOPIC: &str = "orders";
const START_MS: i64 = 1_800_000_000_000;
#[allow(dead_code, reason = "each test binary uses its share")]
pub const DAY_MS: i64 = 86_400_000;
const BROKERS: i32 = 2;
const STREAM_BYTES: usize = 1 << 16;
/// Between two batches of a partition's producer.
const PRODUCE_EVERY: Duration = Duration::from_millis(20);
/// How closely log ends are watched.
pub const LOOK_EVERY: Duration = Duration::from_millis(2);

#[derive(Clone)]
pub struct Clusters {
    pub east: Cluster,
    pub west: Cluster,
    pub partitions: u32,
    began: Instant,
}

struct Dialler(BTreeMap<&'static str, Cluster>);

impl Dial for Dialler {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        let found = address
            .split_once(':')
            .and_then(|(host, port)| Some((self.0.get(host)?.clone(), port.parse::<i32>().ok()? - 9_090)));
        Box::pin(async move {
            let (cluster, broker) = found.ok_or(ErrorKind::ConnectionRefused)?;
            let (near, far) = tokio::io::duplex(STREAM_BYTES);
            tokio::spawn(async move { cluster.serve(broker, far).await });
            Ok(Box::new(near) as BoxedStream)
        })
    }
}

fn cluster(name: &'static str, began: Instant) -> Cluster {
    let endpoint = |id: i32| Endpoint { id, host: name.to_owned(), port: 9_090 + id as u16 };
    let settings = Settings::new(name, (1..=BROKERS).map(endpoint).collect(), 7);
    Cluster::new(settings, Arc::new(move || START_MS + began.elapsed().as_millis() as i64))
}

impl Clusters {
    pub fn new(partitions: u32) -> Self {
        let began = Instant::now();
        let (east, west) = (cluster("east", began), cluster("west", began));
        let mut configs = TopicConfigs::default();
        configs.set("retention.ms", "-1").expect("a config of Kafka's");
        east.with(|state| state.create_topic(TOPIC, partitions as i32, 1, configs));
        Self { east, west, partitions, began }
    }

    pub fn clocks(&self) -> Clocks {
        let began = self.began;
        Clocks {
            wall: WallClock::new(move || START_MS + began.elapsed().as_millis() as i64),
            uptime: Uptime::new(move || began.elapsed()),
        }
    }

    pub fn dial(&self) -> Arc<dyn Dial> {
        Arc::new(Dialler(BTreeMap::from([("east", self.east.clone()), ("west", self.west.clone())])))
    }

    /// What an operator asks for.
    pub fn commands(&self) -> Vec<Action> {
        let cluster = |name: &str| {
            let servers: Vec<String> = (1..=BROKERS).map(|id| format!("{name}:{}", 9_090 + id)).collect();
            let configs = BTreeMap::from([("bootstrap.servers".to_owned(), servers.join(","))]);
            Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs }
        };
        let link = NewLink {
            id: LinkId("link".into()),
            name: "east-west".into(),
            destination: "west".into(),
            source: Some("east".into()),
            source_cluster_id: "east".into(),
            configs: BTreeMap::new(),
        };
        let id = self.east.with(|state| *state.topic(TOPIC).expect("a topic").id.as_bytes());
        let new = NewMirror {
            mirror: mirror(),
            source_topic: TOPIC.into(),
            source_topic_id: TopicId(id),
            partitions: self.partitions,
            replication_factor: Some(1),
            configs: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
        };
        vec![cluster("east"), cluster("west"), Action::CreateLink(link), Action::CreateMirror(new)]
    }

    /// Produces to the source until the handle is aborted; records are `age_ms` old.
    pub fn produce(&self, age_ms: i64) -> AbortHandle {
        let (east, began, partitions) = (self.east.clone(), self.began, self.partitions);
        let work = async move {
            for n in 0u64.. {
                let now_ms = START_MS + began.elapsed().as_millis() as i64;
                for partition in 0..partitions {
                    let values: Vec<String> = (0..10).map(|i| format!("{partition}-{n}-{i}")).collect();
                    append(&east, partition, &batches::write(now_ms - age_ms, &values), now_ms);
                }
                tokio::time::sleep(PRODUCE_EVERY).await;
            }
        };
        tokio::spawn(work).abort_handle()
    }

    /// Watches how long each partition of the mirror stood still.
    pub fn watch_pauses(&self) -> Pauses {
        let (west, partitions) = (self.west.clone(), self.partitions);
        let longest: Arc<Mutex<Vec<Duration>>> =
            Arc::new(Mutex::new(vec![Duration::ZERO; partitions as usize]));
        let told = longest.clone();
        let task = tokio::spawn(async move {
            let mut last: Vec<(i64, Instant)> =
                (0..partitions).map(|p| (end(&west, p), Instant::now())).collect();
            loop {
                for (partition, (last, since)) in (0..).zip(&mut last) {
                    let now = end(&west, partition);
                    let pause = since.elapsed();
                    let mut longest = told.lock().expect("no panic");
                    longest[partition as usize] = longest[partition as usize].max(pause);
                    if now != *last {
                        (*last, *since) = (now, Instant::now());
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Pauses { longest, task: task.abort_handle() }
    }

    pub fn ends(&self, partition: u32) -> (i64, i64) {
        (end(&self.east, partition), end(&self.west, partition))
    }

    pub fn mirror_end(&self, partition: u32) -> i64 {
        end(&self.west, partition)
    }

    pub fn is_whole(&self) -> bool {
        (0..self.partitions).map(|p| self.ends(p)).all(|(source, mirror)| source == mirror)
    }

    /// The mirror is, batch for batch, the source.
    pub fn assert_exact(&self) {
        for partition in 0..self.partitions {
            let (source, mirror) = (stored(&self.east, partition), stored(&self.west, partition));
            assert!(source == mirror, "partition {partition} isn't the source's");
            assert!(!source.is_empty());
        }
    }
}

pub fn mirror() -> MirrorKey {
    MirrorKey { link: LinkId("link".into()), topic: TOPIC.into() }
}

fn end(cluster: &Cluster, partition: u32) -> i64 {
    cluster.with(|state| state.partition(TOPIC, partition as i32).map_or(-1, |p| p.log.end()))
}

fn append(cluster: &Cluster, partition: u32, batch: &Bytes, now_ms: i64) {
    cluster.with(|state| {
        let rules = state.topic(TOPIC).expect("a topic").configs.rules();
        let log = &mut state.partition_mut(TOPIC, partition as i32).expect("a partition").log;
        log.append(batch, &rules, 0, now_ms).expect("appended");
    });
}

/// Where each batch stands, and its records.
fn stored(cluster: &Cluster, partition: u32) -> Vec<(i64, Bytes)> {
    const HEADER_BYTES: usize = 61;
    cluster.with(|state| {
        let log = &state.partition(TOPIC, partition as i32).expect("a partition").log;
        log.batches().map(|b| (b.header.base_offset, b.bytes.slice(HEADER_BYTES..))).collect()
    })
}

pub struct Pauses {
    longest: Arc<Mutex<Vec<Duration>>>,
    task: AbortHandle,
}

impl Pauses {
    /// The longest pause of each partition so far.
    pub fn end(self) -> Vec<Duration> {
        self.task.abort();
        self.longest.lock().expect("no panic").clone()
    }
}

//! Two embedded clusters, a link between them, and engines of several nodes in this process.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::clock::{Clocks, Uptime, WallClock};
use actors::engine::Engine;
use broker::{Cluster, Endpoint, Settings, TopicConfigs};
use bytes::Bytes;
use catalog::command::{Move, NewLink, NewMirror, NodeDescription};
use catalog::fleet::LEVEL;
use catalog::{Action, LinkId, MirrorKey, NodeId, TopicId};
use kafka::client::{Dial, DialFuture};
use kafka::connection::BoxedStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::batches;
use crate::group::{Calls, Group, Port};

pub const TOPIC: &str = "orders";
const START_MS: i64 = 1_800_000_000_000;
pub const DAY_MS: i64 = 86_400_000;
const BROKERS: i32 = 2;
const STREAM_BYTES: usize = 1 << 16;
/// Between two batches of a partition's producer.
const PRODUCE_EVERY: Duration = Duration::from_millis(20);
/// How closely log ends are watched.
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub struct World {
    pub group: Arc<Group>,
    pub east: Cluster,
    pub west: Cluster,
    began: Instant,
    partitions: u32,
}

struct Dialler(BTreeMap<&'static str, Cluster>);

impl Dial for Dialler {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        let found = address.split_once(':').and_then(|(host, port)| {
            Some((self.0.get(host)?.clone(), port.parse::<i32>().ok()? - 9_090))
        });
        Box::pin(async move {
            let (cluster, broker) = found.ok_or(ErrorKind::ConnectionRefused)?;
            let (near, far) = tokio::io::duplex(STREAM_BYTES);
            tokio::spawn(async move { cluster.serve(broker, far).await });
            Ok(Box::new(near) as BoxedStream)
        })
    }
}

pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn cluster(name: &'static str, began: Instant) -> Cluster {
    let endpoint = |id: i32| Endpoint { id, host: name.to_owned(), port: 9_090 + id as u16 };
    let settings = Settings::new(name, (1..=BROKERS).map(endpoint).collect(), 7);
    Cluster::new(settings, Arc::new(move || START_MS + began.elapsed().as_millis() as i64))
}

impl World {
    /// A fleet of so many nodes; partition i of the mirror is owned by node 1 + i mod their number.
    pub async fn start(nodes: u64, partitions: u32) -> Self {
        let began = Instant::now();
        let (east, west) = (cluster("east", began), cluster("west", began));
        let mut configs = TopicConfigs::default();
        configs.set("retention.ms", "-1").expect("a config of Kafka's");
        east.with(|state| state.create_topic(TOPIC, partitions as i32, 1, configs));
        let group = Group::new((1..=nodes).map(node));
        let world = Self { group, east, west, began, partitions };
        for id in 1..=nodes {
            world.record_start(id);
        }
        world.create_mirror(nodes);
        for id in 1..=nodes {
            world.run_node(id).await;
        }
        world
    }

    fn record_start(&self, id: u64) {
        let description = NodeDescription {
            name: format!("n{id}").into(),
            address: Some(format!("n{id}:9000").into()),
            level: LEVEL,
            version: "test".into(),
        };
        let admit = Action::AdmitNode { node: node(id), description: description.clone(), token: None };
        self.group.apply(admit).expect("admitted");
        self.group.apply(Action::RecordStart { node: node(id), description }).expect("started");
    }

    pub async fn run_node(&self, id: u64) -> Engine {
        let node = node(id);
        let port = Arc::new(Port { group: self.group.clone(), node });
        let calls = Arc::new(Calls { group: self.group.clone(), from: node });
        let clusters = BTreeMap::from([("east", self.east.clone()), ("west", self.west.clone())]);
        let began = self.began;
        let clocks = Clocks {
            wall: WallClock::new(move || START_MS + began.elapsed().as_millis() as i64),
            uptime: Uptime::new(move || began.elapsed()),
        };
        let engine = Engine::start_on(port, clocks, Arc::new(Dialler(clusters)), calls).await.expect("actors");
        self.group.add(node, engine.clone());
        tokio::spawn(engine.member().clone().run());
        engine
    }

    fn create_mirror(&self, nodes: u64) {
        for name in ["east", "west"] {
            let servers: Vec<String> = (1..=BROKERS).map(|id| format!("{name}:{}", 9_090 + id)).collect();
            let configs = BTreeMap::from([("bootstrap.servers".to_owned(), servers.join(","))]);
            let create = Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs };
            self.group.apply(create).expect("a cluster");
        }
        let link = NewLink {
            id: LinkId("link".into()),
            name: "east-west".into(),
            destination: "west".into(),
            source: Some("east".into()),
            source_cluster_id: "east".into(),
            configs: BTreeMap::new(),
        };
        self.group.apply(Action::CreateLink(link)).expect("a link");
        let id = self.east.with(|state| *state.topic(TOPIC).expect("a topic").id.as_bytes());
        let mirror = NewMirror {
            mirror: self.mirror(),
            source_topic: TOPIC.into(),
            source_topic_id: TopicId(id),
            partitions: self.partitions,
            replication_factor: Some(1),
            configs: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
        };
        self.group.apply(Action::CreateMirror(mirror)).expect("a mirror");
        let moves = (0..self.partitions).map(|partition| Move {
            mirror: self.mirror(),
            partition,
            node: node(1 + u64::from(partition) % nodes),
            expected_epoch: None,
        });
        self.group.apply(Action::Assign { moves: moves.collect() }).expect("owners");
    }

    pub fn mirror(&self) -> MirrorKey {
        MirrorKey { link: LinkId("link".into()), topic: TOPIC.into() }
    }

    pub fn assignment(&self, partition: u32) -> catalog::Assignment {
        let mirror = self.group.catalog().mirror(&self.mirror()).expect("a mirror").clone();
        mirror.partitions[partition as usize].assignment.clone().expect("an owner")
    }

    pub fn owner(&self, partition: u32) -> NodeId {
        self.assignment(partition).node
    }

    /// As from an owner that is lost.
    pub fn take_away(&self, partition: u32, to: u64) {
        let expected_epoch = Some(self.assignment(partition).epoch);
        let m = Move { mirror: self.mirror(), partition, node: node(to), expected_epoch };
        self.group.apply(Action::Assign { moves: vec![m] }).expect("taken");
    }

    pub fn hand_over(&self, partition: u32, to: u64) {
        let expected_epoch = Some(self.assignment(partition).epoch);
        let m = Move { mirror: self.mirror(), partition, node: node(to), expected_epoch };
        self.group.apply(Action::HandOver { moves: vec![m] }).expect("taken");
    }

    pub fn state(&self, id: u64, partition: u32) -> Option<&'static str> {
        let rows = self.group.engine(node(id)).observatory().partitions(&self.mirror());
        rows.into_iter().find(|row| row.partition == partition).map(|row| row.state)
    }

    pub fn end(cluster: &Cluster, partition: u32) -> i64 {
        cluster.with(|state| state.partition(TOPIC, partition as i32).map_or(-1, |p| p.log.end()))
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
        let longest: Arc<Mutex<Vec<Duration>>> = Arc::new(Mutex::new(vec![Duration::ZERO; partitions as usize]));
        let told = longest.clone();
        let task = tokio::spawn(async move {
            let mut last: Vec<(i64, Instant)> =
                (0..partitions).map(|p| (Self::end(&west, p), Instant::now())).collect();
            loop {
                for (partition, (end, since)) in (0..).zip(&mut last) {
                    let now = Self::end(&west, partition);
                    let pause = since.elapsed();
                    let mut longest = told.lock().expect("no panic");
                    longest[partition as usize] = longest[partition as usize].max(pause);
                    if now != *end {
                        (*end, *since) = (now, Instant::now());
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Pauses { longest, task: task.abort_handle() }
    }

    pub async fn until(&self, what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(within, async {
            while !holds() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if waited.await.is_err() {
            for partition in 0..self.partitions {
                let ends = [&self.east, &self.west].map(|cluster| Self::end(cluster, partition));
                let assignment = self.assignment(partition);
                let states: Vec<_> = (1..=9u64).map_while(|id| {
                    self.group.catalog().nodes.contains_key(&node(id)).then(|| self.state(id, partition))
                }).collect();
                eprintln!("partition {partition}: {ends:?} {assignment:?} {states:?}");
            }
            panic!("not within {within:?}: {what}");
        }
    }

    pub async fn flows(&self) {
        self.until("every partition flows", Duration::from_secs(10), || {
            (0..self.partitions).all(|p| Self::end(&self.west, p) > 100)
        })
        .await;
    }

    /// The mirror is, batch for batch, the source.
    pub async fn is_exact(&self, within: Duration) {
        let is_whole = |p| Self::end(&self.west, p) == Self::end(&self.east, p);
        self.until("the mirror has caught up", within, || (0..self.partitions).all(is_whole)).await;
        for partition in 0..self.partitions {
            let (source, mirror) = (stored(&self.east, partition), stored(&self.west, partition));
            assert!(source == mirror, "partition {partition} isn't the source's");
            assert!(!source.is_empty());
        }
        let mirror = self.group.catalog().mirror(&self.mirror()).expect("a mirror").clone();
        assert_eq!(mirror.first_failure(), None);
    }
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

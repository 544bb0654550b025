//! The whole cluster as one value: brokers, topics, sessions. Requests are answered from it and change
//! it; time comes with the call. Never waits, never does I/O.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::configs::TopicConfigs;
use crate::fetch_session::Sessions;
use crate::groups::{GroupSettings, Groups};
use crate::partition::{Partition, Stop};
use crate::transactions::{CoordinatorTimers, Transactions};

/// Where clients reach a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

/// What a cluster is started with. Defaults are Kafka's, where Kafka has one.
#[derive(Debug, Clone)]
pub struct Settings {
    pub cluster_id: String,
    pub brokers: Vec<Endpoint>,
    /// Ids that Kafka draws at random are drawn from this.
    pub seed: u64,
    pub auto_create_topics: bool,
    pub default_partitions: i32,
    pub default_replication: i16,
    pub socket_request_max_bytes: usize,
    pub producer_id_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_ms: i64,
    pub transactional_id_expiration_ms: i64,
    pub transaction_max_timeout_ms: i32,
    /// So long after its answer to EndTxn does a coordinator write the markers.
    pub marker_delay_ms: i64,
    /// So often does a coordinator write each marker. Once is the rule, but nothing holds it to that: a
    /// request that times out or a coordinator that moves writes it again.
    pub marker_copies: u32,
    pub retention_check_ms: i64,
    pub log_start_save_ms: i64,
    pub groups: GroupSettings,
}

impl Settings {
    pub fn new(cluster_id: &str, brokers: Vec<Endpoint>, seed: u64) -> Self {
        Self {
            cluster_id: cluster_id.to_owned(),
            brokers,
            seed,
            auto_create_topics: false,
            default_partitions: 1,
            default_replication: 1,
            socket_request_max_bytes: 100 << 20,
            producer_id_expiration_ms: DAY_MS,
            producer_id_expiration_check_ms: 600_000,
            transactional_id_expiration_ms: 7 * DAY_MS,
            transaction_max_timeout_ms: 900_000,
            marker_delay_ms: 5,
            marker_copies: 1,
            retention_check_ms: 300_000,
            log_start_save_ms: 60_000,
            groups: GroupSettings::default(),
        }
    }
}

const DAY_MS: i64 = 86_400_000;

#[derive(Debug)]
pub struct Topic {
    pub id: Uuid,
    pub configs: TopicConfigs,
    pub partitions: Vec<Partition>,
}

#[derive(Debug)]
pub struct State {
    pub settings: Settings,
    pub(crate) now_ms: i64,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) sessions: BTreeMap<i32, Sessions>,
    pub transactions: Transactions,
    pub(crate) coordinator_timers: CoordinatorTimers,
    pub groups: Groups,
    down: Vec<i32>,
    random: SmallRng,
    /// Rises with whatever could be waited for.
    changes: u64,
    timers: Timers,
}

#[derive(Debug)]
struct Timers {
    retention_ms: i64,
    log_start_ms: i64,
    producers_ms: i64,
}

impl State {
    pub(crate) fn new(settings: Settings, now_ms: i64) -> Self {
        let timers = Timers {
            retention_ms: now_ms + settings.retention_check_ms,
            log_start_ms: now_ms + settings.log_start_save_ms,
            producers_ms: now_ms + settings.producer_id_expiration_check_ms,
        };
        Self {
            random: SmallRng::seed_from_u64(settings.seed),
            groups: Groups::new(settings.groups.clone(), now_ms),
            settings,
            now_ms,
            topics: BTreeMap::new(),
            sessions: BTreeMap::new(),
            transactions: Transactions::default(),
            coordinator_timers: CoordinatorTimers::new(now_ms),
            down: Vec::new(),
            changes: 0,
            timers,
        }
    }

    /// Brings the cluster to `now_ms`: what falls due by then happens in its order and at its time, however
    /// seldom anybody asks.
    pub(crate) fn advance(&mut self, now_ms: i64) {
        let until_ms = self.now_ms.max(now_ms);
        self.run_timers();
        while self.now_ms < until_ms {
            self.now_ms = self.next_timer_ms().clamp(self.now_ms + 1, until_ms);
            self.run_timers();
        }
    }

    fn run_timers(&mut self) {
        let now_ms = self.now_ms;
        if self.groups.advance(now_ms) {
            self.changed();
        }
        if now_ms >= self.timers.retention_ms {
            self.timers.retention_ms = now_ms + self.settings.retention_check_ms;
            self.retain();
        }
        if now_ms >= self.timers.log_start_ms {
            self.timers.log_start_ms = now_ms + self.settings.log_start_save_ms;
            self.each_partition(|partition| partition.log.save_start());
        }
        if now_ms >= self.timers.producers_ms {
            self.timers.producers_ms = now_ms + self.settings.producer_id_expiration_check_ms;
            let expiration_ms = self.settings.producer_id_expiration_ms;
            self.each_partition(|partition| partition.log.producers.expire(now_ms, expiration_ms));
        }
        self.run_coordinators();
    }

    /// When something falls due next, whether or not a request comes.
    pub(crate) fn next_timer_ms(&self) -> i64 {
        let Timers { retention_ms, log_start_ms, producers_ms } = self.timers;
        let coordinators_ms = self.next_coordinator_timer_ms().min(self.groups.next_due_ms());
        retention_ms.min(log_start_ms).min(producers_ms).min(coordinators_ms)
    }

    fn retain(&mut self) {
        let now_ms = self.now_ms;
        for topic in self.topics.values_mut() {
            let Some(retention) = topic.configs.retention() else { continue };
            for partition in &mut topic.partitions {
                let high_watermark = partition.high_watermark();
                partition.log.retain(retention, now_ms, high_watermark);
            }
        }
        self.changed();
    }

    fn each_partition(&mut self, act: impl Fn(&mut Partition)) {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions).for_each(act);
    }

    pub(crate) fn changed(&mut self) {
        self.changes += 1;
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// Never one of the two that Kafka reserves (the zero id, and the metadata topic's).
    pub(crate) fn random_id(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random(), self.random())
    }

    pub fn is_up(&self, broker: i32) -> bool {
        !self.down.contains(&broker) && self.endpoint(broker).is_some()
    }

    pub fn endpoint(&self, broker: i32) -> Option<&Endpoint> {
        self.settings.brokers.iter().find(|endpoint| endpoint.id == broker)
    }

    /// Brokers that are up, in the order they were given.
    pub fn live(&self) -> Vec<i32> {
        self.settings.brokers.iter().map(|endpoint| endpoint.id).filter(|id| self.is_up(*id)).collect()
    }

    pub fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)
    }

    /// For faults: holding followers, moving leaders. Whoever waits is woken.
    pub fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.changed();
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(partition).ok()?)
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str())
    }

    /// The partition, when `broker` leads it and the caller's leader epoch (-1: not given) is current.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`,
    /// `NOT_LEADER_OR_FOLLOWER`.
    pub(crate) fn led(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<&Partition, Code> {
        let found = self.replica(broker, topic, partition, epoch)?;
        if found.leader == Some(broker) { Ok(found) } else { Err(Code::NotLeaderOrFollower) }
    }

    /// As [`State::led`], but any replica will do.
    pub(crate) fn replica(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<&Partition, Code> {
        let found = self.partition(topic, partition).ok_or(Code::UnknownTopicOrPartition)?;
        if !found.replicas.contains(&broker) {
            return Err(Code::NotLeaderOrFollower);
        }
        match epoch {
            -1 => Ok(found),
            older if older < found.leader_epoch => Err(Code::FencedLeaderEpoch),
            newer if newer > found.leader_epoch => Err(Code::UnknownLeaderEpoch),
            _ => Ok(found),
        }
    }

    /// How an append up to `end` fared with the followers; None while it waits for them.
    pub(crate) fn replicated(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        end: i64,
    ) -> Option<Result<(), Code>> {
        let found = match self.led(broker, topic, partition, -1) {
            Ok(found) => found,
            Err(code) => return Some(Err(code)),
        };
        if found.high_watermark() < end {
            return None;
        }
        let in_sync_min =
            self.topic(topic).map_or(1, |topic| topic.configs.in_sync_min(found.replicas.len()));
        let enough = found.in_sync.len() >= in_sync_min;
        Some(if enough { Ok(()) } else { Err(Code::NotEnoughReplicasAfterAppend) })
    }

    /// Creates a topic whose replicas are spread over the brokers.
    pub fn create_topic(&mut self, name: &str, partitions: i32, replication: i16, configs: TopicConfigs) {
        let first = self.topics.len();
        let indexes = 0..usize::try_from(partitions).unwrap_or(0);
        let assignment = indexes.map(|index| self.placed(first + index, replication)).collect();
        self.create_assigned(name, assignment, configs);
    }

    /// Replicas for the `turn`th partition of all: brokers that are up in turn, then those that aren't.
    pub(crate) fn placed(&self, turn: usize, replication: i16) -> Vec<i32> {
        let mut brokers = self.live();
        if !brokers.is_empty() {
            let begin = turn % brokers.len();
            brokers.rotate_left(begin);
        }
        brokers.extend(&self.down);
        brokers.truncate(usize::try_from(replication).unwrap_or(1));
        brokers
    }

    /// Creates a topic with these replicas for each partition; the first that is up leads.
    pub fn create_assigned(&mut self, name: &str, assignment: Vec<Vec<i32>>, configs: TopicConfigs) -> Uuid {
        let id = self.random_id();
        let partitions = assignment.into_iter().map(|replicas| self.new_partition(replicas)).collect();
        self.topics.insert(name.to_owned(), Topic { id, configs, partitions });
        self.changed();
        id
    }

    /// Adds partitions to a topic, placed as `CreatePartitions` places them.
    pub fn grow_topic(&mut self, name: &str, by: usize) {
        let Some(topic) = self.topics.get(name) else { return };
        let present = topic.partitions.len();
        let replication = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        let added: Vec<Partition> = (present..present + by)
            .map(|turn| self.new_partition(self.placed(turn, replication as i16)))
            .collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(added);
        }
        self.changed();
    }

    pub(crate) fn new_partition(&self, replicas: Vec<i32>) -> Partition {
        let leader = replicas.iter().copied().find(|replica| self.is_up(*replica));
        let mut partition = Partition::new(replicas, leader);
        if leader.is_some() {
            partition.in_sync.retain(|replica| self.is_up(*replica));
        }
        partition
    }

    /// A broker goes: its leaders move to replicas in sync, or their partitions have none.
    pub(crate) fn stop_broker(&mut self, broker: i32, stop: Stop) {
        if !self.is_up(broker) {
            return;
        }
        let transactions = self.transaction_coordinators();
        let coordinators = self.coordinators();
        self.down.push(broker);
        self.sessions.remove(&broker);
        self.transactions.lose_ids(broker);
        let live = self.live();
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.lose(broker, stop, &live);
        }
        self.hand_transactions_over(transactions);
        self.hand_groups_over(coordinators);
        self.changed();
    }

    pub(crate) fn start_broker(&mut self, broker: i32) {
        let transactions = self.transaction_coordinators();
        let coordinators = self.coordinators();
        self.down.retain(|id| *id != broker);
        let (now_ms, expiration_ms) = (self.now_ms, self.settings.producer_id_expiration_ms);
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.regain(broker, now_ms, expiration_ms);
        }
        self.hand_transactions_over(transactions);
        self.hand_groups_over(coordinators);
        self.changed();
    }
}

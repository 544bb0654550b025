//! What a sequence knows of the cluster it talks to: enough to draw requests that are nearly right. It
//! learns from answers alone, and those are the same at both ends.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarkerTopic;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, GroupId, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::batches::{Batch, TRANSACTIONAL};
use super::connection::{Answer, Call};
use super::members::Membership;

const CONCURRENT_TRANSACTIONS: i16 = 51;
const GROUPS: usize = 2;

/// Of one partition.
pub type Place = (String, i32);

#[derive(Debug)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    /// None: deleted.
    pub partitions: Option<i32>,
}

#[derive(Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub transactional_id: Option<String>,
    pub next_sequence: BTreeMap<Place, i32>,
    /// Of the open transaction.
    pub added: Vec<Place>,
    /// As `added`: it will commit their offsets.
    pub added_groups: Vec<GroupId>,
    /// The coordinator has given its epoch away.
    pub fenced: bool,
}

#[derive(Debug)]
pub struct Session {
    pub id: i32,
    pub next_epoch: i32,
    pub by_id: bool,
    pub places: Vec<Place>,
}

/// A batch that was sent, whatever came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub place: Place,
    pub batch: Batch,
}

#[derive(Debug)]
pub struct World {
    /// Begins the name of everything that the sequence makes.
    pub prefix: String,
    /// When the sequence began.
    pub now_ms: i64,
    /// Whether the reference is of that version.
    pub kafka_3: bool,
    pub topics: Vec<Topic>,
    pub producers: Vec<Producer>,
    pub sessions: Vec<Session>,
    pub ends: BTreeMap<Place, i64>,
    /// Of `groups()`.
    memberships: [Membership; GROUPS],
    pub sent: Vec<Sent>,
    /// How many of `sent` the last request held.
    pub just_sent: usize,
}

impl World {
    pub fn new(prefix: String, now_ms: i64, kafka_3: bool) -> World {
        World {
            prefix,
            now_ms,
            kafka_3,
            topics: Vec::new(),
            producers: Vec::new(),
            sessions: Vec::new(),
            ends: BTreeMap::new(),
            memberships: Default::default(),
            sent: Vec::new(),
            just_sent: 0,
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// Of a topic whose id wasn't told yet, and of one that isn't there, an id that nobody has. Never zero:
    /// Kafka's fetch fails over that without an answer.
    pub fn topic_id(&self, name: &str) -> Uuid {
        match self.topics.iter().zip(100u128..).find(|(topic, _)| topic.name == name) {
            None => Uuid::from_u128(99),
            Some((topic, number)) if topic.id.is_nil() => Uuid::from_u128(number),
            Some((topic, _)) => topic.id,
        }
    }

    /// All groups that a sequence commits to.
    pub fn groups(&self) -> [GroupId; GROUPS] {
        let named = |number: usize| format!("{}group-{number}", self.prefix);
        std::array::from_fn(|number| GroupId(StrBytes::from_string(named(number))))
    }

    /// None of a group that isn't the sequence's own.
    pub fn membership(&self, group: &GroupId) -> Option<&Membership> {
        let number = self.groups().iter().position(|own| own == group)?;
        self.memberships.get(number)
    }

    /// What makes sure that groups without members are gone, those that have only given out an id as well.
    pub fn deletes_empty_groups(&mut self) -> Call {
        let mut empty = Vec::new();
        for (group, known) in self.groups().into_iter().zip(&mut self.memberships) {
            if known.members.is_empty() {
                *known = Membership::default();
                empty.push(group);
            }
        }
        let request = DeleteGroupsRequest::default().with_groups_names(empty);
        Call { api: ApiKey::DeleteGroups, version: 1, request: RequestKind::DeleteGroups(request) }
    }

    fn learn_groups(&mut self, request: &RequestKind, response: &ResponseKind) {
        for (group, known) in self.groups().iter().zip(&mut self.memberships) {
            match (request, response) {
                (RequestKind::JoinGroup(request), ResponseKind::JoinGroup(response))
                    if request.group_id == *group =>
                {
                    known.learn_join(request, response);
                }
                (RequestKind::SyncGroup(request), ResponseKind::SyncGroup(response))
                    if request.group_id == *group =>
                {
                    known.learn_sync(request, response);
                }
                (RequestKind::LeaveGroup(request), ResponseKind::LeaveGroup(response))
                    if request.group_id == *group =>
                {
                    known.learn_leave(request, response);
                }
                (_, ResponseKind::DeleteGroups(response)) => known.learn_deletion(group, response),
                _ => {}
            }
        }
    }

    pub fn end(&self, place: &Place) -> i64 {
        self.ends.get(place).copied().unwrap_or(0)
    }

    /// A topic's name, now and then one that isn't there.
    pub fn any_topic(&self, rng: &mut StdRng) -> String {
        let there: Vec<&Topic> = self.topics.iter().filter(|topic| topic.partitions.is_some()).collect();
        if there.is_empty() || rng.random_bool(0.03) {
            return format!("{}missing", self.prefix);
        }
        if self.topics.len() > there.len() && rng.random_bool(0.05) {
            return self.topics[rng.random_range(0..self.topics.len())].name.clone();
        }
        there[rng.random_range(0..there.len())].name.clone()
    }

    /// A partition, now and then one that isn't there.
    pub fn any_place(&self, rng: &mut StdRng) -> Place {
        let topic = self.any_topic(rng);
        let count = self.topic(&topic).and_then(|topic| topic.partitions).unwrap_or(1).max(1);
        let partition = match rng.random_range(0..60) {
            0 => count,
            1 => -1,
            _ => rng.random_range(0..count),
        };
        (topic, partition)
    }

    /// Whether it names an older epoch than its producer is known to have.
    pub fn is_of_old_epoch(&self, request: &RequestKind) -> bool {
        let RequestKind::TxnOffsetCommit(request) = request else { return false };
        let own = self.producers.iter().find(|producer| producer.id == request.producer_id.0);
        own.is_some_and(|producer| request.producer_epoch < producer.epoch)
    }

    /// Whether all these partitions are there.
    pub fn has_all(&self, topics: &[WritableTxnMarkerTopic]) -> bool {
        topics.iter().all(|asked| {
            let count = self.topic(&asked.name).and_then(|topic| topic.partitions).unwrap_or(0);
            asked.partition_indexes.iter().all(|index| (0..count).contains(index))
        })
    }

    /// Partitions without repetition, by topic.
    pub fn any_places(&self, rng: &mut StdRng, most: usize) -> Vec<(String, Vec<i32>)> {
        let mut places: Vec<(String, Vec<i32>)> = Vec::new();
        for _ in 0..rng.random_range(1..=most) {
            let (name, partition) = self.any_place(rng);
            match places.iter_mut().find(|(topic, _)| *topic == name) {
                Some((_, partitions)) if partitions.contains(&partition) => {}
                Some((_, partitions)) => partitions.push(partition),
                None => places.push((name, vec![partition])),
            }
        }
        places
    }

    /// Takes in what came of a request.
    pub fn learn(&mut self, call: &Call, answer: &Answer) {
        let Answer::Response(response) = answer else { return };
        self.learn_groups(&call.request, response);
        self.learn_transactions(&call.request, response);
        match (&call.request, &**response) {
            (RequestKind::CreateTopics(request), ResponseKind::CreateTopics(response)) => {
                let created = response.topics.iter().filter(|row| row.error_code == 0);
                for row in created.filter(|_| !request.validate_only) {
                    let asked = request.topics.iter().find(|topic| topic.name == row.name);
                    let assigned = asked.map_or(0, |asked| asked.assignments.len() as i32);
                    let counted = asked.map_or(1, |asked| asked.num_partitions.max(1));
                    let partitions = Some(if assigned > 0 { assigned } else { counted });
                    let name = row.name.to_string();
                    self.topics.retain(|topic| topic.name != name);
                    self.topics.push(Topic { name, id: row.topic_id, partitions });
                }
            }
            (RequestKind::DeleteTopics(_), ResponseKind::DeleteTopics(response)) => {
                for row in response.responses.iter().filter(|row| row.error_code == 0) {
                    let gone = row.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
                    self.topics.iter_mut().filter(|topic| topic.name == gone).for_each(|topic| {
                        topic.partitions = None;
                    });
                    self.ends.retain(|(topic, _), _| *topic != gone);
                    for producer in &mut self.producers {
                        producer.next_sequence.retain(|(topic, _), _| *topic != gone);
                    }
                }
            }
            (RequestKind::CreatePartitions(request), ResponseKind::CreatePartitions(response)) => {
                for row in response.results.iter().filter(|row| row.error_code == 0 && !request.validate_only)
                {
                    let asked = request.topics.iter().find(|topic| topic.name == row.name);
                    let topic = self.topics.iter_mut().find(|topic| topic.name == row.name.as_str());
                    if let (Some(asked), Some(topic)) = (asked, topic) {
                        topic.partitions = Some(asked.count);
                    }
                }
            }
            (RequestKind::Metadata(_), ResponseKind::Metadata(response)) => {
                for row in response.topics.iter().filter(|row| row.error_code == 0) {
                    let Some(name) = &row.name else { continue };
                    let known = self.topics.iter_mut().find(|topic| topic.name == name.as_str());
                    known
                        .into_iter()
                        .filter(|_| !row.topic_id.is_nil())
                        .for_each(|topic| topic.id = row.topic_id);
                }
            }
            (RequestKind::InitProducerId(request), ResponseKind::InitProducerId(response)) => {
                self.learn_producer(request.transactional_id.as_ref().map(|id| id.to_string()), response);
            }
            (RequestKind::Fetch(request), ResponseKind::Fetch(response)) => {
                self.learn_fetch(call, request, response)
            }
            (RequestKind::Produce(_), ResponseKind::Produce(response)) => self.learn_produce(response),
            _ => {}
        }
    }

    fn learn_transactions(&mut self, request: &RequestKind, response: &ResponseKind) {
        match (request, response) {
            (RequestKind::AddPartitionsToTxn(request), ResponseKind::AddPartitionsToTxn(response)) => {
                let id = request.v3_and_below_producer_id.0;
                let Some(producer) = self.producers.iter_mut().find(|producer| producer.id == id) else {
                    return;
                };
                for topic in &response.results_by_topic_v3_and_below {
                    let fine = topic.results_by_partition.iter().filter(|row| row.partition_error_code == 0);
                    producer.added.extend(fine.map(|row| (topic.name.to_string(), row.partition_index)));
                }
            }
            (RequestKind::AddOffsetsToTxn(request), ResponseKind::AddOffsetsToTxn(response))
                if response.error_code == 0 =>
            {
                let id = request.producer_id.0;
                let producer = self.producers.iter_mut().find(|producer| producer.id == id);
                producer
                    .into_iter()
                    .for_each(|producer| producer.added_groups.push(request.group_id.clone()));
            }
            (RequestKind::EndTxn(request), ResponseKind::EndTxn(response)) if response.error_code == 0 => {
                let id = request.producer_id.0;
                if let Some(producer) = self.producers.iter_mut().find(|producer| producer.id == id) {
                    producer.added.clear();
                    producer.added_groups.clear();
                }
            }
            _ => {}
        }
    }

    fn learn_producer(
        &mut self,
        transactional_id: Option<String>,
        response: &kafka_protocol::messages::InitProducerIdResponse,
    ) {
        if response.error_code != 0 {
            let known =
                self.producers.iter_mut().find(|producer| producer.transactional_id == transactional_id);
            if let Some(known) = known.filter(|_| response.error_code == CONCURRENT_TRANSACTIONS) {
                known.fenced = true;
            }
            return;
        }
        let (id, epoch) = (response.producer_id.0, response.producer_epoch);
        self.producers
            .retain(|producer| transactional_id.is_none() || producer.transactional_id != transactional_id);
        self.producers.retain(|producer| producer.id != id);
        let next_sequence = BTreeMap::new();
        self.producers.push(Producer {
            id,
            epoch,
            transactional_id,
            next_sequence,
            added: Vec::new(),
            added_groups: Vec::new(),
            fenced: false,
        });
    }

    fn learn_fetch(
        &mut self,
        call: &Call,
        request: &kafka_protocol::messages::FetchRequest,
        response: &kafka_protocol::messages::FetchResponse,
    ) {
        if response.session_id == 0 || response.error_code != 0 {
            return;
        }
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == response.session_id) {
            session.next_epoch += 1;
            return;
        }
        let by_id = call.version >= 13;
        let name = |topic: &kafka_protocol::messages::fetch_request::FetchTopic| match by_id {
            false => topic.topic.to_string(),
            true => {
                let known = self.topics.iter().find(|known| known.id == topic.topic_id);
                known.map_or_else(|| format!("{}missing", self.prefix), |known| known.name.clone())
            }
        };
        let places: BTreeSet<Place> = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|row| (name(topic), row.partition)))
            .collect();
        self.sessions.push(Session {
            id: response.session_id,
            next_epoch: 1,
            by_id,
            places: places.into_iter().collect(),
        });
    }

    fn learn_produce(&mut self, response: &kafka_protocol::messages::ProduceResponse) {
        let first = self.sent.len() - self.just_sent;
        for sent in &self.sent[first..] {
            let id = self.topic_id(&sent.place.0);
            let mut topics = response.responses.iter();
            let topic = topics.find(|topic| topic.name.as_str() == sent.place.0 || topic.topic_id == id);
            let row = topic
                .and_then(|topic| topic.partition_responses.iter().find(|row| row.index == sent.place.1));
            let Some(row) = row.filter(|row| row.error_code == 0) else { continue };
            let batch = &sent.batch;
            let end = self.ends.entry(sent.place.clone()).or_default();
            *end = (*end).max(row.base_offset + i64::from(batch.count));
            let producer = self.producers.iter_mut().find(|producer| producer.id == batch.producer_id);
            if let Some(producer) = producer {
                producer.epoch = producer.epoch.max(batch.producer_epoch);
                if batch.flags & TRANSACTIONAL != 0 && !producer.added.contains(&sent.place) {
                    producer.added.push(sent.place.clone());
                }
                let last = batch.base_sequence.wrapping_add(batch.last_offset_delta);
                let next = if last < 0 { last.wrapping_sub(i32::MIN) } else { last }.wrapping_add(1).max(0);
                producer.next_sequence.insert(sent.place.clone(), next);
            }
        }
    }
}

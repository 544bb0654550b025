//! Fetch requests with incremental sessions (KIP-227): a request names only what changed since
//! the one before, a response holds only partitions with news.
//!
//! [`Session`] is a pure value: it turns what should be fetched into request bodies and responses
//! into shares; the caller sends and receives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, FetchResponse};
use kafka_protocol::protocol::Encodable;
use uuid::Uuid;

use crate::client::topic_name;
use crate::connection::{Api, Connection, Reply};
use crate::error::{Error, ErrorCode};
use crate::shape;

/// Version 13 names topics by id (Kafka 3.1 and later), so that a recreated topic is an error
/// and never mixed with the one before it.
static FETCH: Api = Api {
    key: ApiKey::Fetch as i16,
    name: "Fetch",
    versions: &[(13, true, shape::FETCH_V13), (11, false, shape::FETCH_V11)],
};
static FETCH_BY_NAME: Api =
    Api { key: ApiKey::Fetch as i16, name: "Fetch", versions: &[(11, false, shape::FETCH_V11)] };

/// How far a fetch may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark, open transactions and all.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}
const CONSUMER: BrokerId = BrokerId(-1);

/// A broker sends the first batch of a response even when it is larger than the limits (KIP-74):
/// the largest batch that brokers can be made to take by `message.max.bytes` in practice.
const OVERSIZE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Request timeout on top of the time the broker may wait for data.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    pub wait_max_ms: i32,
    pub min_bytes: i32,
    pub isolation: Isolation,
    pub response_bytes_max: i32,
    pub partition_bytes_max: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// From where a partition is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub topic_id: Uuid,
    pub offset: i64,
    /// What the reader believes; a broker that knows better refuses. -1: don't check.
    pub leader_epoch: i32,
}

/// One partition's share of a response.
#[derive(Debug)]
pub struct Share {
    pub partition: TopicPartition,
    pub error: Option<ErrorCode>,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Whole batches and perhaps a truncated one at the end; shares the response's frame.
    pub records: Bytes,
}

/// Fetches once from one partition, outside any session and without waiting for data, whatever
/// stands there up to the high watermark.
///
/// # Errors
/// As [`Session::start`] and [`Session::finish`]; a partition's error is in its share.
pub async fn fetch_once(
    connection: &Connection,
    partition: &TopicPartition,
    position: Position,
    bytes_max: i32,
) -> Result<Share, Error> {
    let limits = FetchLimits {
        wait_max_ms: 0,
        min_bytes: 0,
        isolation: Isolation::ReadUncommitted,
        response_bytes_max: bytes_max,
        partition_bytes_max: bytes_max,
    };
    let mut session = Session { epoch: SESSIONLESS, ..Session::default() };
    let wanted = BTreeMap::from([(partition.clone(), position)]);
    let body = session.start(connection, &wanted, limits).await?.wait().await?;
    let share = session.finish(connection, body)?.into_iter().find(|s| s.partition == *partition);
    share.ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: format!("Fetch response without {}[{}]", partition.topic, partition.partition),
    })
}

/// The session epoch of a request that wants no session.
const SESSIONLESS: i32 = -1;

/// A fetch session with one broker, over one connection.
#[derive(Debug, Default)]
pub struct Session {
    id: i32,
    epoch: i32,
    /// What the broker believes we want.
    known: BTreeMap<TopicPartition, Position>,
    /// Of the request under way.
    api: Option<&'static Api>,
    /// Requests so far.
    requests: usize,
}

impl Session {
    /// Sends the next request of the session for exactly the `wanted` partitions.
    ///
    /// # Errors
    /// As [`Connection::start`]; the session should be dropped with its connection then.
    pub async fn start(
        &mut self,
        connection: &Connection,
        wanted: &BTreeMap<TopicPartition, Position>,
        limits: FetchLimits,
    ) -> Result<Reply, Error> {
        let api = self.choose_api(connection, wanted);
        let (version, ..) = connection.version(api)?;
        let request = self.request(wanted, limits);
        self.api = Some(api);
        let mut body = BytesMut::new();
        request.encode(&mut body, version).map_err(|e| Error::Protocol {
            address: connection.address().to_owned(),
            reason: format!("can't encode Fetch: {e}"),
        })?;
        let frame_bytes_max = limits.response_bytes_max as usize + OVERSIZE_BYTES_MAX;
        let timeout = ANSWER_TIMEOUT + Duration::from_millis(limits.wait_max_ms as u64);
        connection.start(api, vec![body.freeze()], frame_bytes_max, timeout).await
    }

    /// Topic ids only where every wanted topic has one.
    fn choose_api(
        &self,
        connection: &Connection,
        wanted: &BTreeMap<TopicPartition, Position>,
    ) -> &'static Api {
        let by_id = wanted.values().chain(self.known.values()).all(|p| !p.topic_id.is_nil());
        if by_id && connection.version(&FETCH).is_ok_and(|(version, ..)| version >= 13) {
            &FETCH
        } else {
            &FETCH_BY_NAME
        }
    }

    fn request(&mut self, wanted: &BTreeMap<TopicPartition, Position>, limits: FetchLimits) -> FetchRequest {
        let changed = wanted.iter().filter(|(key, position)| self.known.get(key) != Some(position));
        let mut changed: Vec<_> = changed.collect();
        self.requests = self.requests.wrapping_add(1);
        // Within a session brokers see to it that each partition has its turn; one that has no place
        // for the session left fills every response in the order of the request.
        if self.id == 0 && !changed.is_empty() {
            let first = self.requests % changed.len();
            changed.rotate_left(first);
        }
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (key, position) in changed {
            let partition = FetchPartition::default()
                .with_partition(key.partition)
                .with_current_leader_epoch(position.leader_epoch)
                .with_fetch_offset(position.offset)
                .with_partition_max_bytes(limits.partition_bytes_max);
            match topics.last_mut().filter(|t| t.topic.as_str() == &*key.topic) {
                Some(topic) => topic.partitions.push(partition),
                None => {
                    let topic = FetchTopic::default()
                        .with_topic(topic_name(&key.topic))
                        .with_topic_id(position.topic_id);
                    topics.push(topic.with_partitions(vec![partition]));
                }
            }
        }
        let mut forgotten: Vec<ForgottenTopic> = Vec::new();
        for (key, position) in
            self.known.iter().filter(|(key, p)| wanted.get(key).is_none_or(|w| w.topic_id != p.topic_id))
        {
            match forgotten.last_mut().filter(|t| t.topic.as_str() == &*key.topic) {
                Some(topic) => topic.partitions.push(key.partition),
                None => {
                    let topic = ForgottenTopic::default()
                        .with_topic(topic_name(&key.topic))
                        .with_topic_id(position.topic_id);
                    forgotten.push(topic.with_partitions(vec![key.partition]));
                }
            }
        }
        self.known = wanted.clone();
        FetchRequest::default()
            .with_replica_id(CONSUMER)
            .with_max_wait_ms(limits.wait_max_ms)
            .with_min_bytes(limits.min_bytes)
            .with_max_bytes(limits.response_bytes_max)
            .with_isolation_level(limits.isolation as i8)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten)
    }

    /// Takes in the answer to the last request. A session the broker has dropped starts anew
    /// with the next request: no shares, no error.
    ///
    /// # Errors
    /// [`Error::Protocol`]; [`Error::Broker`] for an error of the whole request.
    pub fn finish(&mut self, connection: &Connection, body: Bytes) -> Result<Vec<Share>, Error> {
        let api = self.api.unwrap_or(&FETCH);
        let response: FetchResponse = connection.decode(api, body)?;
        if let Some(code) = ErrorCode::of(response.error_code) {
            *self = Self::default();
            return match code {
                ErrorCode::FETCH_SESSION_ID_NOT_FOUND
                | ErrorCode::INVALID_FETCH_SESSION_EPOCH
                | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR => Ok(Vec::new()),
                code => Err(Error::Broker { what: format!("Fetch from {}", connection.address()), code }),
            };
        }
        let names: BTreeMap<Uuid, Arc<str>> =
            self.known.iter().map(|(key, position)| (position.topic_id, key.topic.clone())).collect();
        self.id = response.session_id;
        // Epoch 0 opened the session; 1..i32::MAX follow and wrap to 1. Id 0: none was given.
        self.epoch = if self.id == 0 { 0 } else { self.epoch.checked_add(1).unwrap_or(1) };
        let mut shares = Vec::new();
        for topic in response.responses {
            let name = match topic.topic.as_str() {
                "" => names.get(&topic.topic_id).cloned(),
                name => Some(Arc::from(name)),
            };
            // A topic that was forgotten while this request was under way.
            let Some(name) = name else { continue };
            shares.extend(topic.partitions.into_iter().map(|p| Share {
                partition: TopicPartition { topic: name.clone(), partition: p.partition_index },
                error: ErrorCode::of(p.error_code),
                high_watermark: p.high_watermark,
                last_stable_offset: p.last_stable_offset,
                log_start_offset: p.log_start_offset,
                records: p.records.unwrap_or_default(),
            }));
        }
        if self.id == 0 {
            self.known.clear();
        }
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partitions: std::ops::Range<i32>) -> BTreeMap<TopicPartition, Position> {
        let position = Position { topic_id: Uuid::nil(), offset: 5, leader_epoch: 0 };
        let key = |partition| TopicPartition { topic: "orders".into(), partition };
        partitions.map(|partition| (key(partition), position)).collect()
    }

    const LIMITS: FetchLimits = FetchLimits {
        wait_max_ms: 500,
        min_bytes: 1,
        isolation: Isolation::ReadCommitted,
        response_bytes_max: 1 << 20,
        partition_bytes_max: 1 << 20,
    };

    fn asked(request: &FetchRequest) -> Vec<i32> {
        request.topics.iter().flat_map(|t| &t.partitions).map(|p| p.partition).collect()
    }

    #[test]
    fn without_a_session_every_partition_has_its_turn_at_the_front() {
        let mut session = Session::default();
        let mut fronts: Vec<i32> = Vec::new();
        for _ in 0..4 {
            let asked = asked(&session.request(&wanted(0..4), LIMITS));
            let mut sorted = asked.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            fronts.push(asked[0]);
            // The broker gave no session: it is told everything again.
            session.known.clear();
        }
        fronts.sort_unstable();
        assert_eq!(fronts, [0, 1, 2, 3]);
    }

    #[test]
    fn within_a_session_only_what_changed_is_named() {
        let mut session = Session::default();
        session.request(&wanted(0..4), LIMITS);
        session.id = 9;
        let mut moved = wanted(1..4);
        moved.values_mut().next().expect("partition 1").offset = 6;
        let request = session.request(&moved, LIMITS);
        assert_eq!(asked(&request), [1]);
        assert_eq!(request.forgotten_topics_data[0].partitions, [0]);
    }
}

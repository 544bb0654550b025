//! Producer ids: where they come from, and what a partition leader remembers of them.

use std::time::Duration;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{ApiKey, DescribeProducersRequest, InitProducerIdRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, topic_name};
use crate::connection::{Api, Connection, Gate};
use crate::coordinator;
use crate::error::{Error, ErrorCode};
use crate::shape;

static INIT_PRODUCER_ID: Api = Api {
    key: ApiKey::InitProducerId as i16,
    name: "InitProducerId",
    versions: &[(1, false, shape::INIT_PRODUCER_ID_V1)],
};
static DESCRIBE_PRODUCERS: Api = Api {
    key: ApiKey::DescribeProducers as i16,
    name: "DescribeProducers",
    versions: &[(0, true, shape::DESCRIBE_PRODUCERS_V0)],
};

/// The only transaction ever opened under these ids is a fence, which is ended at once.
const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

/// A producer id with its current epoch, of this transactional id. Asked only while `gate`, if there is one,
/// is open.
///
/// # Errors
/// [`Error::Broker`]: 14, 15, 16 and 51 pass with time, 53 needs a grant.
pub async fn init_producer_id(
    client: &Client,
    transactional_id: &str,
    gate: Option<Gate>,
) -> Result<(i64, i16), Error> {
    let connection = coordinator::of_transactional_id(client, transactional_id).await?;
    let id = TransactionalId(StrBytes::from_string(transactional_id.to_owned()));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id))
        .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS);
    let response = connection.call_gated(&INIT_PRODUCER_ID, &request, gate).await?;
    ErrorCode::check(response.error_code, format!("InitProducerId of {transactional_id}"))?;
    Ok((response.producer_id.0, response.producer_epoch))
}

/// What a partition leader remembers of one producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub producer_id: i64,
    pub producer_epoch: i32,
    /// Sequence of the last record it took from this producer, -1 after a marker alone.
    pub last_sequence: i32,
    /// Newest record timestamp of its last batch, milliseconds since 1970: the broker forgets by it.
    pub last_timestamp_ms: i64,
    /// A transaction of it is open here.
    pub is_in_transaction: bool,
}

/// Every producer the partition leader remembers (KIP-664; broker 2.8 and later).
///
/// # Errors
/// [`Error::Broker`], for instance `NOT_LEADER_OR_FOLLOWER`.
pub async fn describe_producers(
    connection: &Connection,
    topic: &str,
    partition: i32,
) -> Result<Vec<ProducerState>, Error> {
    let topics =
        vec![TopicRequest::default().with_name(topic_name(topic)).with_partition_indexes(vec![partition])];
    let request = DescribeProducersRequest::default().with_topics(topics);
    let (response, _) = connection.call(&DESCRIBE_PRODUCERS, &request).await?;
    let answer = response.topics.first().and_then(|t| t.partitions.first());
    let answer = answer.filter(|p| p.partition_index == partition).ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: format!("DescribeProducers response without {topic}[{partition}]"),
    })?;
    ErrorCode::check(answer.error_code, format!("DescribeProducers of {topic}[{partition}]"))?;
    let state = |p: &kafka_protocol::messages::describe_producers_response::ProducerState| ProducerState {
        producer_id: p.producer_id.0,
        producer_epoch: p.producer_epoch,
        last_sequence: p.last_sequence,
        last_timestamp_ms: p.last_timestamp,
        is_in_transaction: p.current_txn_start_offset >= 0,
    };
    Ok(answer.active_producers.iter().map(state).collect())
}

/// How long brokers remember a producer when they aren't configured otherwise
/// (`producer.id.expiration.ms`).
pub const PRODUCER_ID_EXPIRATION_DEFAULT: Duration = Duration::from_secs(24 * 3600);

//! Transactions without records: a marker in each partition that fences a producer id's older epochs.
//!
//! Each request is sent only while its gate, if it has one, is open.
//!
//! Versions before KIP-890's second part: there an ended transaction leaves the producer epoch as it is.

use std::collections::BTreeMap;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, ApiKey, EndTxnRequest, ProducerId, TransactionalId, WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, topic_name};
use crate::connection::{Api, Connection, Gate};
use crate::coordinator;
use crate::error::{Error, ErrorCode};
use crate::shape;

static ADD_PARTITIONS_TO_TXN: Api = Api {
    key: ApiKey::AddPartitionsToTxn as i16,
    name: "AddPartitionsToTxn",
    versions: &[(1, false, shape::ADD_PARTITIONS_TO_TXN_V1)],
};
static END_TXN: Api =
    Api { key: ApiKey::EndTxn as i16, name: "EndTxn", versions: &[(1, false, shape::END_TXN_V1)] };
static WRITE_TXN_MARKERS: Api = Api {
    key: ApiKey::WriteTxnMarkers as i16,
    name: "WriteTxnMarkers",
    versions: &[(1, true, shape::WRITE_TXN_MARKERS_V1)],
};

/// A transactional id with the producer id and producer epoch that it has now.
#[derive(Clone, Debug)]
pub struct Transactional {
    pub id: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

/// Makes partitions of one topic part of the open transaction, which it opens if need be.
///
/// # Errors
/// [`Error::Broker`]: 14, 15, 16 and 51 pass with time; 47 and 90 when the epoch is past; 3 when there is
/// no such partition; 29 without WRITE on the topic.
pub async fn add_partitions(
    client: &Client,
    of: &Transactional,
    topic: &str,
    partitions: &[i32],
    gate: Option<Gate>,
) -> Result<(), Error> {
    let topics = vec![
        AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(partitions.to_vec()),
    ];
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(of))
        .with_v3_and_below_producer_id(ProducerId(of.producer_id))
        .with_v3_and_below_producer_epoch(of.producer_epoch)
        .with_v3_and_below_topics(topics);
    let connection = coordinator::of_transactional_id(client, &of.id).await?;
    let response = connection.call_gated(&ADD_PARTITIONS_TO_TXN, &request, gate).await?;
    let rows = response.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
    let codes: BTreeMap<i32, i16> = rows.map(|p| (p.partition_index, p.partition_error_code)).collect();
    for partition in partitions {
        let code = codes
            .get(partition)
            .ok_or_else(|| without(&connection, "AddPartitionsToTxn", topic, *partition))?;
        ErrorCode::check(*code, format!("AddPartitionsToTxn of {topic}[{partition}] to {}", of.id))?;
    }
    Ok(())
}

/// Commits the open transaction. The answer comes when that is decided, before its markers are written:
/// asked again, the coordinator says 51 until they are, then that it is done.
///
/// # Errors
/// [`Error::Broker`], as for [`add_partitions`]; 48 when no transaction is open or was committed last.
pub async fn commit(client: &Client, of: &Transactional, gate: Option<Gate>) -> Result<(), Error> {
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional_id(of))
        .with_producer_id(ProducerId(of.producer_id))
        .with_producer_epoch(of.producer_epoch)
        .with_committed(true);
    let response =
        coordinator::of_transactional_id(client, &of.id).await?.call_gated(&END_TXN, &request, gate).await?;
    ErrorCode::check(response.error_code, format!("EndTxn of {}", of.id))
}

/// Writes one marker of this producer id and producer epoch into partitions that this broker leads,
/// without a coordinator.
///
/// # Errors
/// [`Error::Broker`]: 31 without ALTER or CLUSTER_ACTION on the cluster, 47 when a newer epoch was there.
pub async fn write_markers(
    connection: &Connection,
    (producer_id, producer_epoch): (i64, i16),
    topic: &str,
    partitions: &[i32],
    gate: Option<Gate>,
) -> Result<(), Error> {
    let topics = vec![
        WritableTxnMarkerTopic::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(partitions.to_vec()),
    ];
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(producer_epoch)
        .with_transaction_result(true)
        .with_topics(topics);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let response = connection.call_gated(&WRITE_TXN_MARKERS, &request, gate).await?;
    let rows = response.markers.iter().flat_map(|m| &m.topics).flat_map(|t| &t.partitions);
    let codes: BTreeMap<i32, i16> = rows.map(|p| (p.partition_index, p.error_code)).collect();
    for partition in partitions {
        let code =
            codes.get(partition).ok_or_else(|| without(connection, "WriteTxnMarkers", topic, *partition))?;
        ErrorCode::check(*code, format!("WriteTxnMarkers of {topic}[{partition}]"))?;
    }
    Ok(())
}

fn transactional_id(of: &Transactional) -> TransactionalId {
    TransactionalId(StrBytes::from_string(of.id.clone()))
}

fn without(connection: &Connection, api: &str, topic: &str, partition: i32) -> Error {
    let reason = format!("{api} response without {topic}[{partition}]");
    Error::Protocol { address: connection.address().to_owned(), reason }
}

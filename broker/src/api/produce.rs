//! Produce: each partition's one batch is checked and appended; with `acks=all` the answer waits until
//! the high watermark has passed it.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step, Wait};
use crate::fault::Caller;
use crate::log::{Appended, Header, MAGIC, Producer, Refusal, first_header, sole_batch};
use crate::state::State;
use crate::transactions::Key;

const ALL: i16 = -1;
const NONE: i16 = 0;
const LEADER: i16 = 1;
/// Answers name the partition's leader from here on (KIP-951).
const LEADER_FROM_VERSION: i16 = 10;
/// Clients understand `TRANSACTION_ABORTABLE` from here on.
const ABORTABLE_FROM_VERSION: i16 = 11;
/// A batch adds its partition to the transaction from here on (KIP-890).
const ADDS_FROM_VERSION: i16 = 12;
const BY_ID_FROM_VERSION: i16 = 13;

pub(crate) struct Produce;

/// What is appended and waits to be replicated.
struct Waiting {
    topic: String,
    partition: i32,
    end: i64,
    /// Where its row is in the response.
    row: (usize, usize),
}

impl Handler for Produce {
    type Request = ProduceRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

    fn handle(state: &mut State, caller: &Caller, mut request: ProduceRequest) -> Step<ProduceResponse> {
        let by_id = caller.version >= BY_ID_FROM_VERSION;
        for topic in request.topic_data.iter_mut().filter(|_| by_id) {
            let name = state.name_of(topic.topic_id).unwrap_or_default();
            topic.name = TopicName(StrBytes::from_string(name.to_owned()));
        }
        let mut waiting = Vec::new();
        let mut responses = Vec::new();
        let refused = refuse_all(state, caller, &request);
        for topic in &request.topic_data {
            let mut rows = Vec::new();
            for partition in &topic.partition_data {
                let appended = match &refused {
                    Some(refusal) => Err(refusal.clone()),
                    None => append(state, caller, &request, &topic.name, partition),
                };
                if let Ok(Appended { end, .. }) = appended {
                    let row = (responses.len(), rows.len());
                    waiting.push(Waiting {
                        topic: topic.name.to_string(),
                        partition: partition.index,
                        end,
                        row,
                    });
                }
                rows.push(row(state, caller, &topic.name, partition.index, appended));
            }
            let response = TopicProduceResponse::default().with_partition_responses(rows);
            responses.push(match by_id {
                true => response.with_topic_id(topic.topic_id),
                false => response.with_name(topic.name.clone()),
            });
        }
        if !waiting.is_empty() {
            state.changed();
        }
        let response = ProduceResponse::default().with_responses(responses);
        match request.acks {
            NONE if has_error(&response) => Step::Close,
            NONE => Step::Silence,
            ALL => {
                let until_ms = state.now_ms + i64::from(request.timeout_ms.max(0));
                replicated(state, caller.broker, waiting, response, until_ms)
            }
            _ => Step::Done(response),
        }
    }
}

fn has_error(response: &ProduceResponse) -> bool {
    response.responses.iter().flat_map(|topic| &topic.partition_responses).any(|row| row.error_code != 0)
}

/// Why all partitions get one and the same error, whatever each of them holds.
fn refuse_all(state: &State, caller: &Caller, request: &ProduceRequest) -> Option<Refusal> {
    let explained = |code, message: &str| Some(Refusal { message: Some(message.to_owned()), ..bare(code) });
    let rows = || {
        request.topic_data.iter().flat_map(|topic| topic.partition_data.iter().map(move |row| (topic, row)))
    };
    for (_, row) in rows() {
        match first_header(row.records.as_deref().unwrap_or_default()) {
            Err(code) => return explained(code, "a batch that can't be read"),
            Ok(Some(header)) if header.magic == MAGIC && header.is_transactional() => {
                if request.transactional_id.is_none() {
                    return Some(bare(Code::TransactionalIdAuthorizationFailed));
                }
                break;
            }
            Ok(_) => {}
        }
    }
    let there = rows().filter(|(topic, row)| state.partition(&topic.name, row.index).is_some());
    let mut producers = BTreeSet::new();
    for (_, row) in there {
        match sole_batch(row.records.as_deref().unwrap_or_default(), caller.version) {
            Err(Code::UnknownServerError) => return Some(bare(Code::UnknownServerError)),
            Err(_) => {}
            Ok(batch) => producers.extend(
                Header::read(batch)
                    .filter(|header| header.is_transactional() && header.has_producer())
                    .map(|header| (header.producer_id, header.producer_epoch)),
            ),
        }
    }
    if producers.len() > 1 {
        return explained(Code::InvalidProducerIdMapping, "transactional batches of more than one producer");
    }
    None
}

/// Before the first batch of a transaction a leader asks the coordinator whether the partition is part of
/// it (KIP-890). Errors that older clients wouldn't understand are told as others.
fn verify(
    state: &mut State,
    caller: &Caller,
    request: &ProduceRequest,
    key: Key,
    batch: &[u8],
) -> Result<(), Refusal> {
    let header = Header::read(batch).filter(|header| header.is_transactional() && header.has_producer());
    let (Some(header), Some(id)) = (header, &request.transactional_id) else { return Ok(()) };
    let led = state.led(caller.broker, &key.0, key.1, -1).map_err(bare)?;
    let goes_on =
        |producer: &Producer| producer.open_since.is_some() && producer.epoch == header.producer_epoch;
    if led.log.producers.get(header.producer_id).is_some_and(goes_on) {
        return Ok(());
    }
    // The partition's own memory is asked before the coordinator.
    if led.log.producers.get(header.producer_id).is_some_and(|known| known.epoch > header.producer_epoch) {
        return Err(bare(Code::InvalidProducerEpoch));
    }
    let now_ms = state.now_ms;
    if let Some(partition) = state.partition_mut(&key.0, key.1) {
        partition.log.producers.expect(&header, caller.version >= ADDS_FROM_VERSION, now_ms);
    }
    let producer = (header.producer_id, header.producer_epoch);
    let verified = match state.coordinator(id) {
        None => Err(Code::CoordinatorNotAvailable),
        Some(_) if caller.version >= ADDS_FROM_VERSION => {
            state.transactions.add(id, producer, BTreeSet::from([key]), now_ms)
        }
        Some(_) => state.transactions.verify(id, producer, &key),
    };
    let told = |code, message: String| Err(Refusal { message: Some(message), ..bare(code) });
    match verified {
        Ok(()) => Ok(()),
        Err(Code::ProducerFenced) => Err(bare(Code::InvalidProducerEpoch)),
        Err(Code::TransactionAbortable) if caller.version < ABORTABLE_FROM_VERSION => {
            told(Code::InvalidTxnState, "Partition was not added to the transaction".to_owned())
        }
        Err(code @ (Code::ConcurrentTransactions | Code::CoordinatorNotAvailable)) => told(
            Code::NotEnoughReplicas,
            format!(
                "Unable to verify the partition has been added to the transaction. Underlying error: {code}"
            ),
        ),
        Err(code) => Err(bare(code)),
    }
}

fn append(
    state: &mut State,
    caller: &Caller,
    request: &ProduceRequest,
    topic: &str,
    data: &PartitionProduceData,
) -> Result<Appended, Refusal> {
    let broker = caller.broker;
    if topic.is_empty() && caller.version >= BY_ID_FROM_VERSION {
        return Err(bare(Code::UnknownTopicId));
    }
    state.partition(topic, data.index).ok_or(bare(Code::UnknownTopicOrPartition))?;
    let batch = sole_batch(data.records.as_deref().unwrap_or_default(), caller.version).map_err(bare)?;
    verify(state, caller, request, (topic.to_owned(), data.index), batch)?;
    if !matches!(request.acks, ALL | NONE | LEADER) {
        return Err(bare(Code::InvalidRequiredAcks));
    }
    let in_sync = state.led(broker, topic, data.index, -1).map_err(bare)?.in_sync.len();
    let now_ms = state.now_ms;
    let Some(found) = state.topics.get_mut(topic) else { return Err(bare(Code::UnknownTopicOrPartition)) };
    let rules = found.configs.rules();
    let partition = &mut found.partitions[data.index as usize];
    if request.acks == ALL && in_sync < found.configs.in_sync_min(partition.replicas.len()) {
        return Err(Refusal { tells_log_start: true, ..bare(Code::NotEnoughReplicas) });
    }
    let end = partition.log.end();
    let appended = partition.log.append(batch, &rules, partition.leader_epoch, now_ms);
    match &appended {
        Ok(appended) if appended.end <= end => {
            tracing::debug!(topic, partition = data.index, offset = appended.base_offset, "a duplicate");
        }
        Ok(_) => {}
        Err(Refusal { code, .. }) => {
            tracing::debug!(topic, partition = data.index, error = code.code(), "a batch is refused");
        }
    }
    appended
}

fn bare(code: Code) -> Refusal {
    Refusal { code, message: None, records: Vec::new(), tells_log_start: false }
}

fn row(
    state: &State,
    caller: &Caller,
    topic: &str,
    index: i32,
    appended: Result<Appended, Refusal>,
) -> PartitionProduceResponse {
    let log_start = state.partition(topic, index).map_or(-1, |partition| partition.log.start());
    let row = PartitionProduceResponse::default().with_index(index);
    let told_start = |row: PartitionProduceResponse, start: i64| {
        if caller.version >= 5 { row.with_log_start_offset(start) } else { row }
    };
    match appended {
        Ok(appended) => told_start(row, log_start)
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time_ms),
        Err(refusal) => {
            let start = if refusal.tells_log_start { log_start } else { -1 };
            let mut row = told_start(row, start)
                .with_error_code(refusal.code.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1);
            if caller.version >= 8 {
                row = explained(row, refusal);
            }
            tell_leader(state, caller, topic, row)
        }
    }
}

fn explained(row: PartitionProduceResponse, refusal: Refusal) -> PartitionProduceResponse {
    let records = refusal.records.into_iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
    });
    row.with_record_errors(records.collect()).with_error_message(refusal.message.map(StrBytes::from_string))
}

fn tell_leader(
    state: &State,
    caller: &Caller,
    topic: &str,
    row: PartitionProduceResponse,
) -> PartitionProduceResponse {
    let stale = row.error_code == Code::NotLeaderOrFollower.code() && caller.version >= LEADER_FROM_VERSION;
    match state.partition(topic, row.index).filter(|_| stale) {
        None => row,
        Some(partition) => {
            let leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
                .with_leader_epoch(partition.leader_epoch);
            row.with_current_leader(leader)
        }
    }
}

/// Waits until all that was appended is replicated, has failed, or the time is over.
fn replicated(
    state: &State,
    broker: i32,
    mut waiting: Vec<Waiting>,
    mut response: ProduceResponse,
    until_ms: i64,
) -> Step<ProduceResponse> {
    settle(state, broker, &mut waiting, &mut response);
    if waiting.is_empty() {
        return Step::Done(response);
    }
    let poll = move |state: &mut State, expired: bool| {
        settle(state, broker, &mut waiting, &mut response);
        if expired {
            for row in waiting.drain(..) {
                fail(&mut response, &row, Code::RequestTimedOut);
            }
        }
        waiting.is_empty().then(|| response.clone())
    };
    Step::Wait(Wait { until_ms, poll: Box::new(poll) })
}

fn settle(state: &State, broker: i32, waiting: &mut Vec<Waiting>, response: &mut ProduceResponse) {
    waiting.retain(|row| match state.replicated(broker, &row.topic, row.partition, row.end) {
        None => true,
        Some(Ok(())) => false,
        Some(Err(code)) => {
            fail(response, row, code);
            false
        }
    });
}

fn fail(response: &mut ProduceResponse, row: &Waiting, code: Code) {
    let (topic, partition) = row.row;
    response.responses[topic].partition_responses[partition].error_code = code.code();
}

//! AddPartitionsToTxn, as clients send it: all partitions of one transaction, or none.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;
use crate::transactions::Key;

/// Clients understand `PRODUCER_FENCED` from here on, in each of a transaction's requests.
const FENCED_FROM_VERSION: i16 = 2;

pub(crate) struct AddPartitionsToTxn;

impl Handler for AddPartitionsToTxn {
    type Request = AddPartitionsToTxnRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: AddPartitionsToTxnRequest,
    ) -> Step<AddPartitionsToTxnResponse> {
        let topics = &request.v3_and_below_topics;
        let keys: BTreeSet<Key> = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| (topic.name.to_string(), *index)))
            .collect();
        let exists = |state: &State, (topic, index): &Key| state.partition(topic, *index).is_some();
        let complete = keys.iter().all(|key| exists(state, key));
        let added = if complete {
            let producer = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
            add(state, caller, &request.v3_and_below_transactional_id, producer, keys)
        } else {
            Err(Code::OperationNotAttempted)
        };
        let results = topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|index| {
                let there = exists(state, &(topic.name.to_string(), *index));
                let code = if there { added.err() } else { Some(Code::UnknownTopicOrPartition) };
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*index)
                    .with_partition_error_code(code.map_or(0, |code| code.code()))
            });
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(partitions.collect())
        });
        let results = results.collect();
        Step::Done(AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results))
    }
}

/// # Errors
/// As the coordinator's, in words that the caller's version knows.
pub(crate) fn add(
    state: &mut State,
    caller: &Caller,
    id: &str,
    producer: (i64, i16),
    keys: BTreeSet<Key>,
) -> Result<(), Code> {
    if id.is_empty() {
        return Err(Code::InvalidRequest);
    }
    state.check_coordinator(caller.broker, id)?;
    let now_ms = state.now_ms;
    let added = state.transactions.add(id, producer, keys, now_ms);
    state.changed();
    added.map_err(|code| known_code(code, caller.version))
}

pub(crate) fn known_code(code: Code, version: i16) -> Code {
    match code {
        Code::ProducerFenced if version < FENCED_FROM_VERSION => Code::InvalidProducerEpoch,
        code => code,
    }
}

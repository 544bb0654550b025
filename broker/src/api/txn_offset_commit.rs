//! TxnOffsetCommit: offsets of a group that count from the transaction's commit on.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::{Committed, Committer};
use crate::state::State;
use crate::transactions::offsets_key;

pub(crate) struct TxnOffsetCommit;

impl Handler for TxnOffsetCommit {
    type Request = TxnOffsetCommitRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: TxnOffsetCommitRequest,
    ) -> Step<TxnOffsetCommitResponse> {
        // What names no partition that is there doesn't reach the group.
        let exists = |topic: &TxnOffsetCommitRequestTopic| {
            topic.partitions.iter().any(|row| state.partition(&topic.name, row.partition_index).is_some())
        };
        let refused = match request.topics.iter().any(exists) {
            true => commit(state, caller.broker, &request).err(),
            false => None,
        };
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let code = own_refusal(state, topic, partition).or(refused);
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code.map_or(0, |code| code.code()))
            });
            let partitions = partitions.collect();
            TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        let topics = topics.collect();
        Step::Done(TxnOffsetCommitResponse::default().with_topics(topics))
    }
}

/// What is wrong with one partition alone.
fn own_refusal(
    state: &State,
    topic: &TxnOffsetCommitRequestTopic,
    partition: &TxnOffsetCommitRequestPartition,
) -> Option<Code> {
    let metadata = partition.committed_metadata.as_ref().map_or(0, |metadata| metadata.len());
    if state.partition(&topic.name, partition.partition_index).is_none() {
        Some(Code::UnknownTopicOrPartition)
    } else if metadata > state.groups.settings.metadata_max_bytes {
        Some(Code::OffsetMetadataTooLarge)
    } else {
        None
    }
}

/// Commits what can be committed, or nothing.
fn commit(state: &mut State, broker: i32, request: &TxnOffsetCommitRequest) -> Result<(), Code> {
    let group = request.group_id.as_str();
    if group.is_empty() {
        return Err(Code::InvalidGroupId);
    }
    state.check_coordinator(broker, group)?;
    let producer = (request.producer_id.0, request.producer_epoch);
    let verified = state.transactions.verify(&request.transactional_id, producer, &offsets_key(group));
    verified.map_err(|code| match code {
        Code::ProducerFenced => Code::InvalidProducerEpoch,
        Code::TransactionAbortable => Code::InvalidTxnState,
        code => code,
    })?;
    let mut accepted = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if own_refusal(state, topic, partition).is_some() {
                continue;
            }
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.clone().unwrap_or_default(),
                committed_ms: state.now_ms,
                expires_ms: None,
            };
            accepted.push(((topic.name.to_string(), partition.partition_index), committed));
        }
    }
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref(),
        generation: request.generation_id,
    };
    let offsets = state.groups.committing_pending(group, committer)?;
    for (partition, committed) in accepted {
        offsets.commit_pending(request.producer_id.0, partition, committed);
    }
    state.changed();
    Ok(())
}

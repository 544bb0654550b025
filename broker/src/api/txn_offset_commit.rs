//! TxnOffsetCommit: offsets of a group that count from the transaction's commit on. Who is a member of
//! the group isn't asked here.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;
use crate::transactions::{CommittedOffset, GroupOffsets, OFFSETS_TOPIC, offsets_partition_of};

pub(crate) struct TxnOffsetCommit;

impl Handler for TxnOffsetCommit {
    type Request = TxnOffsetCommitRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: TxnOffsetCommitRequest,
    ) -> Step<TxnOffsetCommitResponse> {
        let refused = check(state, caller.broker, &request).err();
        let mut accepted = GroupOffsets::new();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let there = state.partition(&topic.name, asked.partition_index).is_some();
                let code = if there { refused } else { Some(Code::UnknownTopicOrPartition) };
                if code.is_none() {
                    let offset = CommittedOffset {
                        offset: asked.committed_offset,
                        leader_epoch: asked.committed_leader_epoch,
                        metadata: asked.committed_metadata.as_ref().map(|text| text.to_string()),
                    };
                    accepted.insert((topic.name.to_string(), asked.partition_index), offset);
                }
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code.map_or(0, |code| code.code()))
            });
            let partitions = partitions.collect();
            TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
        });
        let topics = topics.collect();
        if !accepted.is_empty() {
            state.transactions.offsets.add(request.producer_id.0, &request.group_id, accepted);
            state.changed();
        }
        Step::Done(TxnOffsetCommitResponse::default().with_topics(topics))
    }
}

fn check(state: &State, broker: i32, request: &TxnOffsetCommitRequest) -> Result<(), Code> {
    let group = request.group_id.as_str();
    if group.is_empty() {
        return Err(Code::InvalidGroupId);
    }
    state.coordinates(broker, group)?;
    let key = (OFFSETS_TOPIC.to_owned(), offsets_partition_of(group));
    let producer = (request.producer_id.0, request.producer_epoch);
    state.transactions.verify(&request.transactional_id, producer, &key).map_err(|code| match code {
        Code::ProducerFenced => Code::InvalidProducerEpoch,
        Code::TransactionAbortable => Code::InvalidTxnState,
        code => code,
    })
}

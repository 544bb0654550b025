//! OffsetCommit: offsets of partitions that exist, by members of the group or by clients without one.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::{Committed, Committer};
use crate::state::State;

/// Says of an unknown group what it is from here on (KIP-848).
const GROUP_NOT_FOUND_FROM_VERSION: i16 = 9;
const DEFAULT_RETENTION: i64 = -1;

pub(crate) struct OffsetCommit;

impl Handler for OffsetCommit {
    type Request = OffsetCommitRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 2..=9;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: OffsetCommitRequest,
    ) -> Step<OffsetCommitResponse> {
        let exists = |topic: &OffsetCommitRequestTopic, partition: &OffsetCommitRequestPartition| {
            state.partition(&topic.name, partition.partition_index).is_some()
        };
        let known: Vec<Vec<bool>> = request
            .topics
            .iter()
            .map(|topic| topic.partitions.iter().map(|partition| exists(topic, partition)).collect())
            .collect();
        let committed = if known.iter().flatten().any(|known| *known) {
            commit(state, caller, &request, &known)
        } else {
            Ok(())
        };
        let metadata_max = state.groups.settings.metadata_max_bytes;
        let topics = request.topics.iter().zip(known).map(|(topic, known)| {
            let partitions = topic.partitions.iter().zip(known).map(|(partition, known)| {
                let code = match committed {
                    _ if !known => Code::UnknownTopicOrPartition.code(),
                    Err(code) => code.code(),
                    Ok(()) if is_too_large(partition, metadata_max) => Code::OffsetMetadataTooLarge.code(),
                    Ok(()) => 0,
                };
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code)
            });
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        Step::Done(OffsetCommitResponse::default().with_topics(topics.collect()))
    }
}

fn is_too_large(partition: &OffsetCommitRequestPartition, metadata_max: usize) -> bool {
    partition.committed_metadata.as_ref().is_some_and(|metadata| metadata.len() > metadata_max)
}

/// Commits what can be committed, or nothing.
fn commit(
    state: &mut State,
    caller: &Caller,
    request: &OffsetCommitRequest,
    known: &[Vec<bool>],
) -> Result<(), Code> {
    state.check_coordinator(caller.broker, &request.group_id)?;
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref(),
        generation: request.generation_id_or_member_epoch,
    };
    let (now_ms, metadata_max) = (state.now_ms, state.groups.settings.metadata_max_bytes);
    let offsets =
        state.groups.committing(&request.group_id, committer, now_ms).map_err(|code| match code {
            Code::GroupIdNotFound if caller.version < GROUP_NOT_FOUND_FROM_VERSION => Code::IllegalGeneration,
            code => code,
        })?;
    let own_retention = Some(request.retention_time_ms).filter(|retention| *retention != DEFAULT_RETENTION);
    for (topic, known) in request.topics.iter().zip(known) {
        for (partition, known) in topic.partitions.iter().zip(known) {
            if !known || is_too_large(partition, metadata_max) {
                continue;
            }
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.clone().unwrap_or_default(),
                committed_ms: now_ms,
                expires_ms: own_retention.map(|retention| now_ms.saturating_add(retention)),
            };
            offsets.commit((topic.name.to_string(), partition.partition_index), committed);
        }
    }
    Ok(())
}

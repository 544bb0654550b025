//! OffsetDelete: forgets offsets of topics that the group doesn't consume.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::Group;
use crate::state::State;

pub(crate) struct OffsetDelete;

impl Handler for OffsetDelete {
    type Request = OffsetDeleteRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=0;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: OffsetDeleteRequest,
    ) -> Step<OffsetDeleteResponse> {
        if request.group_id.is_empty() {
            return refused(Code::InvalidGroupId);
        }
        if let Err(code) = state.check_coordinator(caller.broker, &request.group_id) {
            return refused(code);
        }
        let State { topics: existing, groups, .. } = state;
        let group = match groups.deleting_offsets(&request.group_id) {
            Ok(group) => group,
            Err(code) => return refused(code),
        };
        let topics = request.topics.iter().map(|topic| {
            let count = existing.get(topic.name.as_str()).map_or(0, |topic| topic.partitions.len());
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let exists = usize::try_from(index).is_ok_and(|index| index < count);
                let deleted = if exists {
                    delete(group, &topic.name, index)
                } else {
                    Err(Code::UnknownTopicOrPartition)
                };
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(deleted.err().map_or(0, |code| code.code()))
            });
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        Step::Done(OffsetDeleteResponse::default().with_topics(topics.collect()))
    }
}

fn delete(group: &mut Group, topic: &str, partition: i32) -> Result<(), Code> {
    if group.is_subscribed(topic) {
        return Err(Code::GroupSubscribedToTopic);
    }
    group.offsets.forget(topic, partition);
    Ok(())
}

fn refused(code: Code) -> Step<OffsetDeleteResponse> {
    Step::Done(OffsetDeleteResponse::default().with_error_code(code.code()))
}

//! DeleteRecords: the log start moves up (KIP-107). Followers take it at once, so the answer waits for
//! nothing. A crash of all replicas within the next save of log starts undoes it.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) struct DeleteRecords;

impl Handler for DeleteRecords {
    type Request = DeleteRecordsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=2;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DeleteRecordsRequest,
    ) -> Step<DeleteRecordsResponse> {
        // Of a partition that is named twice the last offset counts.
        let mut asked: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for topic in &request.topics {
            let partitions = asked.entry(topic.name.to_string()).or_default();
            partitions.extend(topic.partitions.iter().map(|asked| (asked.partition_index, asked.offset)));
        }
        let topics = asked.into_iter().map(|(name, partitions)| {
            let results = partitions.into_iter().map(|(index, offset)| {
                let deleted = delete(state, caller.broker, &name, index, offset);
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(index)
                    .with_low_watermark(*deleted.as_ref().unwrap_or(&NO_LOW_WATERMARK))
                    .with_error_code(deleted.err().map_or(0, |code| code.code()))
            });
            let results = results.collect();
            let name = TopicName(StrBytes::from_string(name));
            DeleteRecordsTopicResult::default().with_name(name).with_partitions(results)
        });
        let topics = topics.collect();
        Step::Done(DeleteRecordsResponse::default().with_topics(topics))
    }
}

/// The log start that is reached.
fn delete(state: &mut State, broker: i32, topic: &str, index: i32, offset: i64) -> Result<i64, Code> {
    state.led(broker, topic, index, -1)?;
    let deletes = state.topic(topic).is_some_and(|topic| topic.configs.retention().is_some());
    if !deletes {
        return Err(Code::PolicyViolation);
    }
    let partition = state.partition_mut(topic, index).ok_or(Code::UnknownTopicOrPartition)?;
    let high_watermark = partition.high_watermark();
    let offset = if offset == HIGH_WATERMARK { high_watermark } else { offset };
    if !(0..=high_watermark).contains(&offset) {
        return Err(Code::OffsetOutOfRange);
    }
    partition.log.raise_start(offset);
    Ok(partition.log.start())
}

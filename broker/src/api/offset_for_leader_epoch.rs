//! OffsetForLeaderEpoch: where a leader epoch ended, so that a consumer can tell that a log was cut
//! (KIP-320).

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

/// Epoch and offset where there is none.
const UNDEFINED: (i32, i64) = (-1, -1);

pub(crate) struct OffsetForLeaderEpoch;

impl Handler for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 2..=4;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: OffsetForLeaderEpochRequest,
    ) -> Step<OffsetForLeaderEpochResponse> {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let led = state.led(caller.broker, &topic.topic, asked.partition, asked.current_leader_epoch);
                let code = led.as_ref().err().map_or(0, Code::code);
                let known = led.ok().filter(|_| asked.leader_epoch != UNDEFINED.0);
                let end = known.and_then(|led| led.log.end_of_epoch(asked.leader_epoch));
                let (epoch, offset) = end.unwrap_or(UNDEFINED);
                EpochEndOffset::default()
                    .with_partition(asked.partition)
                    .with_error_code(code)
                    .with_leader_epoch(epoch)
                    .with_end_offset(offset)
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        Step::Done(OffsetForLeaderEpochResponse::default().with_topics(topics))
    }
}

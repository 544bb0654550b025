//! DescribeProducers: what a replica remembers of each producer (KIP-664).

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::metadata::check_legal;
use super::{ApiError, Handler, Step, outcome};
use crate::fault::Caller;
use crate::log::Producer;
use crate::state::State;

const NO_TRANSACTION: i64 = -1;

pub(crate) struct DescribeProducers;

impl Handler for DescribeProducers {
    type Request = DescribeProducersRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=0;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DescribeProducersRequest,
    ) -> Step<DescribeProducersResponse> {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let found = producers(state, caller.broker, &topic.name, *index);
                let (found, error) = match found {
                    Ok(found) => (found, Ok(())),
                    Err(error) => (Vec::new(), Err(error)),
                };
                let (code, message) = outcome(error);
                PartitionResponse::default()
                    .with_partition_index(*index)
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_active_producers(found)
            });
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        Step::Done(DescribeProducersResponse::default().with_topics(topics))
    }
}

fn producers(state: &State, broker: i32, topic: &str, index: i32) -> Result<Vec<ProducerState>, ApiError> {
    check_legal(topic)?;
    if state.topic(topic).is_none() {
        let message = "This server does not host this topic-partition.";
        return Err(ApiError::new(Code::UnknownTopicOrPartition, message));
    }
    if state.topic(topic).is_none() {
        let message = "This server does not host this topic-partition.";
        return Err(ApiError::new(Code::UnknownTopicOrPartition, message));
    }
    let partition = state.replica(broker, topic, index, -1)?;
    Ok(partition.log.producers.iter().map(|(id, producer)| described(id, producer)).collect())
}

fn described(id: i64, producer: &Producer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence())
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open_since.unwrap_or(NO_TRANSACTION))
}

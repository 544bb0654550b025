//! CreatePartitions: more of them, never fewer.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{ApiError, Handler, Step, outcome};
use crate::assignment::check_total;
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct CreatePartitions;

impl Handler for CreatePartitions {
    type Request = CreatePartitionsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(
        state: &mut State,
        _: &Caller,
        request: CreatePartitionsRequest,
    ) -> Step<CreatePartitionsResponse> {
        let mut by_name: BTreeMap<String, Vec<&CreatePartitionsTopic>> = BTreeMap::new();
        for topic in &request.topics {
            by_name.entry(topic.name.to_string()).or_default().push(topic);
        }
        let added = by_name.iter().filter(|(_, topics)| topics.len() == 1).filter_map(|(name, topics)| {
            let present = state.topic(name)?.partitions.len();
            Some(i64::from(topics[0].count) - present as i64)
        });
        if let Err(error) = check_total(added, "additional partitions") {
            let results = request.topics.iter().map(|topic| row(topic.name.clone(), Err(error.clone())));
            return Step::Done(CreatePartitionsResponse::default().with_results(results.collect()));
        }
        let results = by_name.into_iter().map(|(name, topics)| {
            let result = match topics[..] {
                [topic] => create(state, topic, request.validate_only),
                _ => Err(ApiError::new(Code::InvalidRequest, "Duplicate topic name.")),
            };
            row(TopicName(StrBytes::from_string(name)), result)
        });
        let results = results.collect();
        Step::Done(CreatePartitionsResponse::default().with_results(results))
    }
}

fn row(name: TopicName, result: Result<(), ApiError>) -> CreatePartitionsTopicResult {
    let (code, message) = outcome(result);
    CreatePartitionsTopicResult::default().with_name(name).with_error_code(code).with_error_message(message)
}

fn create(state: &mut State, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), ApiError> {
    let found = state.topic(&topic.name).ok_or(Code::UnknownTopicOrPartition)?;
    let present = found.partitions.len();
    let replication = found.partitions.first().map_or(1, |partition| partition.replicas.len());
    let additional = i64::from(topic.count) - present as i64;
    if additional == 0 {
        let message = format!("Topic already has {present} partition(s).");
        return Err(ApiError::new(Code::InvalidPartitions, message));
    }
    if additional < 0 {
        let message = format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            topic.name.as_str(),
            topic.count
        );
        return Err(ApiError::new(Code::InvalidPartitions, message));
    }
    let added = match &topic.assignments {
        None => state.place(present, additional as i32, replication as i16)?,
        Some(assignments) => {
            if assignments.len() as i64 != additional {
                let message = format!(
                    "Attempted to add {additional} additional partition(s), but only {} assignment(s) were \
                     specified.",
                    assignments.len()
                );
                return Err(ApiError::new(Code::InvalidReplicaAssignment, message));
            }
            let mut added = Vec::new();
            for (index, assignment) in (present as i32..).zip(assignments) {
                let replicas: Vec<i32> = assignment.broker_ids.iter().map(|broker| broker.0).collect();
                state.check_replicas(index, &replicas, Some(replication))?;
                added.push(replicas);
            }
            added
        }
    };
    if !validate_only {
        let added: Vec<_> = added.into_iter().map(|replicas| state.new_partition(replicas)).collect();
        if let Some(found) = state.topics.get_mut(topic.name.as_str()) {
            found.partitions.extend(added);
        }
        state.changed();
    }
    Ok(())
}

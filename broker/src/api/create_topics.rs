//! CreateTopics: any broker answers, as one does that forwards to the controller.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;

use super::metadata::check_legal;
use super::{ApiError, Handler, Step, outcome};
use crate::assignment::check_total;
use crate::configs::{DYNAMIC_TOPIC_CONFIG, TOPIC_CONFIGS, TopicConfigs};
use crate::fault::Caller;
use crate::state::State;

const DEFAULT: i32 = -1;
/// The controller's own topic, which isn't one of the cluster's.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(crate) struct CreateTopics;

impl Handler for CreateTopics {
    type Request = CreateTopicsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 2..=7;

    fn handle(state: &mut State, _: &Caller, request: CreateTopicsRequest) -> Step<CreateTopicsResponse> {
        let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in &request.topics {
            *asked.entry(topic.name.as_str()).or_default() += 1;
        }
        let new = request.topics.iter().filter(|topic| {
            let name = topic.name.as_str();
            asked.get(name) == Some(&1) && name != METADATA_TOPIC
        });
        let default = state.settings.default_partitions;
        if let Err(error) = check_total(new.map(|topic| partitions(topic, default)), "partitions") {
            let answers = request.topics.iter().map(|topic| failed(topic, error.clone()));
            return Step::Done(CreateTopicsResponse::default().with_topics(answers.collect()));
        }
        let mut answers = Vec::new();
        let mut refused = Vec::new();
        for topic in &request.topics {
            let name = topic.name.as_str();
            match asked.get(name) {
                Some(1) if name == METADATA_TOPIC => {
                    let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
                    refused.push(failed(topic, ApiError::new(Code::InvalidRequest, message)));
                }
                Some(1) => answers.push(match create(state, topic, request.validate_only) {
                    Ok(created) => created,
                    Err(error) => failed(topic, error),
                }),
                // A name that was given twice is answered once.
                Some(_) => {
                    asked.remove(name);
                    refused.push(failed(topic, ApiError::new(Code::InvalidRequest, "Duplicate topic name.")));
                }
                None => {}
            }
        }
        answers.append(&mut refused);
        Step::Done(CreateTopicsResponse::default().with_topics(answers))
    }
}

/// How many a topic would have.
fn partitions(topic: &CreatableTopic, default: i32) -> i64 {
    match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
        DEFAULT => default.into(),
        given => given.into(),
    }
}

fn failed(topic: &CreatableTopic, error: ApiError) -> CreatableTopicResult {
    let (code, message) = outcome::<()>(Err(error));
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(code)
        .with_error_message(message)
        .with_configs(Some(Vec::new()))
}

fn create(
    state: &mut State,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, ApiError> {
    let name = topic.name.as_str();
    check_name(state, name)?;
    let configs = configs(topic)?;
    let assignment =
        if topic.assignments.is_empty() { place(state, topic)? } else { assigned(state, topic)? };
    let partitions = assignment.len() as i32;
    let replication = assignment.first().map_or(0, Vec::len) as i16;
    let told = told(&configs);
    // An id that nothing will have is told even by a dry run.
    let id = match validate_only {
        true => state.random_id(),
        false => state.create_assigned(name, assignment, configs),
    };
    Ok(CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_topic_id(id)
        .with_error_message(None)
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
        .with_configs(Some(told)))
}

fn check_name(state: &State, name: &str) -> Result<(), ApiError> {
    check_legal(name)?;
    if state.topic(name).is_some() {
        return Err(ApiError::new(Code::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    // Metrics write both characters alike, so names may not differ in them alone.
    let unified = |name: &str| name.replace('.', "_");
    match state.topics().find(|(other, _)| unified(other) == unified(name)) {
        None => Ok(()),
        Some((other, _)) => {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            Err(ApiError::new(Code::InvalidTopicException, message))
        }
    }
}

fn configs(topic: &CreatableTopic) -> Result<TopicConfigs, ApiError> {
    let invalid = |why: String| ApiError::new(Code::InvalidConfig, why);
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for topic configs: {}", nulls.join(","))));
    }
    let mut configs = TopicConfigs::default();
    for config in &topic.configs {
        configs.set(&config.name, config.value.as_deref().unwrap_or_default()).map_err(invalid)?;
    }
    configs.check_together().map_err(invalid)?;
    Ok(configs)
}

fn place(state: &State, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, ApiError> {
    let settings = &state.settings;
    let replication = match topic.replication_factor {
        -1 => settings.default_replication,
        given if given > 0 => given,
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(ApiError::new(Code::InvalidReplicationFactor, message));
        }
    };
    let partitions = match topic.num_partitions {
        DEFAULT => settings.default_partitions,
        given if given > 0 => given,
        _ => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(ApiError::new(Code::InvalidPartitions, message));
        }
    };
    state.place(state.topics.len(), partitions, replication)
}

fn assigned(state: &State, topic: &CreatableTopic) -> Result<Vec<Vec<i32>>, ApiError> {
    let both = |what: &str| {
        let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(ApiError::new(Code::InvalidRequest, message))
    };
    if topic.replication_factor != -1 {
        return both("replication factor");
    }
    if topic.num_partitions != DEFAULT {
        return both("numPartitions");
    }
    let mut by_index: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut replication = None;
    for CreatableReplicaAssignment { partition_index, broker_ids, .. } in &topic.assignments {
        if by_index.contains_key(partition_index) {
            let message =
                format!("Found multiple manual partition assignments for partition {partition_index}");
            return Err(ApiError::new(Code::InvalidReplicaAssignment, message));
        }
        let replicas: Vec<i32> = broker_ids.iter().map(|broker| broker.0).collect();
        state.check_replicas(*partition_index, &replicas, replication)?;
        replication = Some(replicas.len());
        by_index.insert(*partition_index, replicas);
    }
    if !by_index.keys().copied().eq(0..by_index.len() as i32) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(ApiError::new(Code::InvalidReplicaAssignment, message));
    }
    Ok(by_index.into_values().collect())
}

/// The configs that the topic has, as the answer lists them (KIP-525).
fn told(configs: &TopicConfigs) -> Vec<CreatableTopicConfigs> {
    let one = |known: &crate::configs::Known| {
        let own = configs.explicit(known.name).is_some();
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(known.name))
            .with_value(Some(StrBytes::from_string(configs.get(known.name).to_owned())))
            .with_config_source(if own { DYNAMIC_TOPIC_CONFIG } else { known.default_source() })
    };
    TOPIC_CONFIGS.iter().map(one).collect()
}

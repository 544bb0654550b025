//! DeleteTopics: by name, or by id from version 6 on.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{ApiError, Handler, Step, outcome};
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct DeleteTopics;

impl Handler for DeleteTopics {
    type Request = DeleteTopicsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 1..=6;

    fn handle(state: &mut State, _: &Caller, request: DeleteTopicsRequest) -> Step<DeleteTopicsResponse> {
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        let mut answers = Vec::new();
        for name in request.topic_names {
            *names.entry(name.to_string()).or_insert(0) += 1;
        }
        for topic in request.topics {
            match (topic.name, topic.topic_id) {
                (None, id) if id.is_nil() => {
                    answers.push(answer(None, id, refused("Neither topic name nor id were specified.")));
                }
                (None, id) => *ids.entry(id).or_insert(0) += 1,
                (Some(name), id) if id.is_nil() => *names.entry(name.to_string()).or_insert(0) += 1,
                (Some(name), id) => {
                    let error = refused("You may not specify both topic name and topic id.");
                    answers.push(answer(Some(name.as_str()), id, error));
                }
            }
        }
        let doomed = choose(state, &names, &ids, &mut answers);
        for (id, name) in doomed {
            state.topics.remove(&name);
            state.groups.forget_topic(&name);
            answers.push(answer(Some(&name), id, Ok(())));
        }
        state.changed();
        Step::Done(DeleteTopicsResponse::default().with_responses(answers))
    }
}

/// The topics that are to go; the others are answered with what is wrong with them.
fn choose(
    state: &State,
    names: &BTreeMap<String, usize>,
    ids: &BTreeMap<Uuid, usize>,
    answers: &mut Vec<DeletableTopicResult>,
) -> BTreeMap<Uuid, String> {
    let mut doomed: BTreeMap<Uuid, String> = BTreeMap::new();
    for (id, times) in ids {
        match state.name_of(*id) {
            _ if *times > 1 => answers.push(answer(None, *id, refused("Duplicate topic id."))),
            None => {
                let error = ApiError::new(Code::UnknownTopicId, "This server does not host this topic ID.");
                answers.push(answer(None, *id, Err(error)));
            }
            Some(name) => drop(doomed.insert(*id, name.to_owned())),
        }
    }
    for (name, times) in names {
        if *times > 1 {
            answers.push(answer(Some(name), Uuid::nil(), refused("Duplicate topic name.")));
            continue;
        }
        let Some(id) = state.topic(name).map(|topic| topic.id) else {
            let message = "This server does not host this topic-partition.";
            let error = ApiError::new(Code::UnknownTopicOrPartition, message);
            answers.push(answer(Some(name), Uuid::nil(), Err(error)));
            continue;
        };
        let twice = ids.get(&id).is_some_and(|times| *times > 1);
        if twice || doomed.insert(id, name.clone()).is_some() {
            doomed.remove(&id);
            let error = refused("The provided topic name maps to an ID that was already supplied.");
            answers.push(answer(Some(name), id, error));
        }
    }
    doomed
}

fn refused(why: &str) -> Result<(), ApiError> {
    Err(ApiError::new(Code::InvalidRequest, why))
}

fn answer(name: Option<&str>, id: Uuid, result: Result<(), ApiError>) -> DeletableTopicResult {
    let (code, message) = outcome(result);
    DeletableTopicResult::default()
        .with_name(name.map(|name| TopicName(StrBytes::from_string(name.to_owned()))))
        .with_topic_id(id)
        .with_error_code(code)
        .with_error_message(message)
}

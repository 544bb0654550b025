//! FindCoordinator: the broker for a group or a transactional id.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

/// From here on a request names several keys.
const SEVERAL_FROM_VERSION: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const NO_BROKER: i32 = -1;
/// Kafka's message of no error, up to version 3.
const NO_ERROR: &str = "NONE";

pub(crate) struct FindCoordinator;

impl Handler for FindCoordinator {
    type Request = FindCoordinatorRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=4;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: FindCoordinatorRequest,
    ) -> Step<FindCoordinatorResponse> {
        let find = |key: &StrBytes| find(state, request.key_type, key);
        let response = if caller.version >= SEVERAL_FROM_VERSION {
            let coordinators = request.coordinator_keys.iter().map(find).collect();
            FindCoordinatorResponse::default().with_coordinators(coordinators)
        } else {
            let found = find(&request.key);
            // Old answers have a text for everything, also for no error.
            let message = found.error_message.filter(|message| !message.is_empty());
            let message = message.unwrap_or(StrBytes::from_static_str(NO_ERROR));
            FindCoordinatorResponse::default()
                .with_error_code(found.error_code)
                .with_error_message(Some(message))
                .with_node_id(found.node_id)
                .with_host(found.host)
                .with_port(found.port)
        };
        Step::Done(response)
    }
}

fn find(state: &State, key_type: i8, key: &StrBytes) -> Coordinator {
    let broker = match key_type {
        GROUP | TRANSACTION => state.coordinator(key).ok_or(Code::CoordinatorNotAvailable),
        _ => Err(Code::InvalidRequest),
    };
    let answer = Coordinator::default().with_key(key.clone());
    match broker.map(|broker| state.endpoint(broker)) {
        Ok(Some(endpoint)) => answer
            .with_node_id(BrokerId(endpoint.id))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port)),
        Ok(None) => nobody(answer, Code::CoordinatorNotAvailable),
        Err(code) => nobody(answer, code),
    }
}

fn nobody(answer: Coordinator, code: Code) -> Coordinator {
    let message = match code {
        Code::InvalidRequest => "The kind of coordinator is not known.",
        _ => "The coordinator is not available.",
    };
    answer
        .with_node_id(BrokerId(NO_BROKER))
        .with_port(NO_BROKER)
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_static_str(message)))
}

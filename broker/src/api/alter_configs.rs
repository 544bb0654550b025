//! AlterConfigs: the old way, which puts what it doesn't name back to defaults.

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step, outcome};
use crate::alter::{Alteration, ConfigChange, Operation};
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct AlterConfigs;

impl Handler for AlterConfigs {
    type Request = AlterConfigsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=2;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: AlterConfigsRequest,
    ) -> Step<AlterConfigsResponse> {
        let alterations = request.resources.into_iter().map(|resource| {
            let changes = resource.configs.into_iter().map(|config| ConfigChange {
                name: config.name.to_string(),
                operation: Some(Operation::Set),
                value: config.value.map(|value| value.to_string()),
            });
            Alteration {
                kind: resource.resource_type,
                name: resource.resource_name.to_string(),
                changes: changes.collect(),
                replaces: true,
            }
        });
        let alterations = alterations.collect();
        let altered = state.alter(caller.broker, alterations, request.validate_only);
        let responses = altered.into_iter().map(|(alteration, result)| {
            let (code, message) = outcome(result);
            AlterConfigsResourceResponse::default()
                .with_resource_type(alteration.kind)
                .with_resource_name(StrBytes::from_string(alteration.name))
                .with_error_code(code)
                .with_error_message(message)
        });
        Step::Done(AlterConfigsResponse::default().with_responses(responses.collect()))
    }
}

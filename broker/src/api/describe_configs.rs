//! DescribeConfigs: of topics, from any broker, and of the broker that is asked.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::metadata::check_legal;
use super::{ApiError, Handler, Step, outcome};
use crate::broker_configs::{BROKER_CONFIGS, behind, value};
use crate::configs::{
    DEFAULT_CONFIG, DYNAMIC_TOPIC_CONFIG, Kind, Known, STATIC_BROKER_CONFIG, TOPIC_CONFIGS, TopicConfigs,
};
use crate::fault::Caller;
use crate::state::State;

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

/// Answers tell the type of a config from here on (KIP-569).
const TYPES_FROM_VERSION: i16 = 3;

pub(crate) struct DescribeConfigs;

/// One config as it stands, with the values that would hold without the one before.
struct Found {
    known: &'static Known,
    value: Option<String>,
    synonyms: Vec<(&'static str, Option<String>, i8)>,
    read_only: bool,
}

impl Handler for DescribeConfigs {
    type Request = DescribeConfigsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 1..=4;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DescribeConfigsRequest,
    ) -> Step<DescribeConfigsResponse> {
        let results = request.resources.iter().map(|resource| {
            let (found, error) = match describe(state, caller.broker, resource) {
                Ok(found) => (found, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            let wanted = |found: &Found| match resource.configuration_keys.as_deref() {
                None | Some([]) => true,
                Some(keys) => keys.iter().any(|key| key.as_str() == found.known.name),
            };
            let configs = found.into_iter().filter(wanted);
            let configs = configs.map(|found| row(found, request.include_synonyms, caller.version)).collect();
            let (code, message) = outcome(error);
            // Without an error there is an empty text here, not none as elsewhere.
            let message = message.or(Some(StrBytes::default()));
            DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_code(code)
                // Kafka's is empty here where others are missing.
                .with_error_message(message.or(Some(StrBytes::default())))
                .with_configs(configs)
        });
        let results = results.collect();
        Step::Done(DescribeConfigsResponse::default().with_results(results))
    }
}

fn describe(state: &State, broker: i32, resource: &DescribeConfigsResource) -> Result<Vec<Found>, ApiError> {
    let name = resource.resource_name.as_str();
    let refused = |why: String| Err(ApiError::new(Code::InvalidRequest, why));
    match resource.resource_type {
        TOPIC => {
            check_legal(name)?;
            let topic = state.topic(name).ok_or(Code::UnknownTopicOrPartition)?;
            Ok(TOPIC_CONFIGS.iter().map(|known| of_topic(&topic.configs, known)).collect())
        }
        // What was set for all brokers while they ran: nothing.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => match name.parse::<i32>() {
            Err(_) => refused(format!("Broker id must be an integer, but it is: {name}")),
            Ok(id) if id != broker => refused(format!(
                "Unexpected broker id, expected {broker} or empty string, but received {name}"
            )),
            Ok(_) => Ok(BROKER_CONFIGS.iter().map(|known| of_broker(state, broker, known)).collect()),
        },
        other => refused(format!("Unsupported resource type: {other}")),
    }
}

fn of_topic(configs: &TopicConfigs, known: &'static Known) -> Found {
    let value = Some(configs.get(known.name).to_owned());
    let own = configs.explicit(known.name).map(|_| (known.name, value.clone(), DYNAMIC_TOPIC_CONFIG));
    let default = behind(known.name).map(|name| (name, Some(known.default.to_owned()), DEFAULT_CONFIG));
    let set_for_all = Some(known.default_source()).filter(|source| *source != DEFAULT_CONFIG);
    let set_for_all = set_for_all.map(|source| (known.name, Some(known.default.to_owned()), source));
    let synonyms = own.into_iter().chain(set_for_all).chain(default).collect();
    Found { known, value, synonyms, read_only: false }
}

fn of_broker(state: &State, broker: i32, known: &'static Known) -> Found {
    let told = |value: String| (known.kind != Kind::Password).then_some(value);
    let value = value(&state.settings, broker, known);
    let given = (value != known.default).then(|| (known.name, told(value.clone()), STATIC_BROKER_CONFIG));
    let has_default = !known.default.is_empty();
    let default = has_default.then(|| (known.name, told(known.default.to_owned()), DEFAULT_CONFIG));
    let synonyms = given.into_iter().chain(default).collect();
    Found { known, value: told(value), synonyms, read_only: true }
}

fn row(found: Found, with_synonyms: bool, version: i16) -> DescribeConfigsResourceResult {
    let text = |value: Option<String>| value.map(StrBytes::from_string);
    let source = found.synonyms.first().map_or(DEFAULT_CONFIG, |(_, _, source)| *source);
    let row = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(found.known.name))
        .with_value(text(found.value))
        .with_read_only(found.read_only)
        .with_config_source(source)
        .with_is_sensitive(found.known.kind == Kind::Password)
        .with_documentation(None);
    let row = match version >= TYPES_FROM_VERSION {
        true => row.with_config_type(found.known.kind as i8),
        false => row,
    };
    if !with_synonyms {
        return row;
    }
    let synonyms = found.synonyms.into_iter().map(|(name, value, source)| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(text(value))
            .with_source(source)
    });
    row.with_synonyms(synonyms.collect())
}

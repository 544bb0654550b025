//! Creating and deleting topics, and reading their configs.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::client::{Client, topic_name};
use crate::connection::{Api, Gate};
use crate::error::{Error, ErrorCode};
use crate::shape;

static CREATE_TOPICS: Api = Api {
    key: ApiKey::CreateTopics as i16,
    name: "CreateTopics",
    versions: &[(7, true, shape::CREATE_TOPICS_V7)],
};
static DESCRIBE_CONFIGS: Api = Api {
    key: ApiKey::DescribeConfigs as i16,
    name: "DescribeConfigs",
    versions: &[(2, false, shape::DESCRIBE_CONFIGS_V2)],
};

/// Brokers answer when the controller has created the topic, or after this.
const CREATE_TIMEOUT: Duration = Duration::from_secs(20);
/// Beyond [`CREATE_TIMEOUT`] by a broker's own overhead.
const CREATE_DEADLINE: Duration = Duration::from_secs(25);

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
/// `CreateTopics`: the broker's default replication factor (KIP-464).
const BROKER_DEFAULT: i16 = -1;

/// What a broker refused, with its own words.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{code}: {message}")]
    Refused { code: ErrorCode, message: String },
    #[error(transparent)]
    Failed(#[from] Error),
}

fn accepted(code: i16, message: Option<&StrBytes>) -> Result<(), CreateError> {
    ErrorCode::of(code).map_or(Ok(()), |code| {
        let message = message.map(|message| message.to_string()).unwrap_or_default();
        Err(CreateError::Refused { code, message })
    })
}

/// Creates a topic, or with `validate_only` asks whether it could be created.
///
/// # Errors
/// [`CreateError::Refused`] with the broker's reason.
pub async fn create_topic(
    client: &Client,
    topic: &str,
    partitions: i32,
    replication_factor: Option<i16>,
    configs: &BTreeMap<String, String>,
    validate_only: bool,
) -> Result<Uuid, CreateError> {
    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let wanted = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor.unwrap_or(BROKER_DEFAULT))
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(CREATE_TIMEOUT.as_millis() as i32)
        .with_validate_only(validate_only);
    let connection = client.any_broker().await?;
    let response = connection.call_within(&CREATE_TOPICS, &request, CREATE_DEADLINE).await?;
    let answer = response.topics.first().ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: "CreateTopics response without the topic".into(),
    })?;
    accepted(answer.error_code, answer.error_message.as_ref()).map(|()| answer.topic_id)
}

static CREATE_PARTITIONS: Api = Api {
    key: ApiKey::CreatePartitions as i16,
    name: "CreatePartitions",
    versions: &[(1, false, shape::CREATE_PARTITIONS_V1)],
};

/// Raises a topic's partition count to `total`.
///
/// # Errors
/// [`CreateError::Refused`] with the broker's reason: 37 when it has as many or more already.
pub async fn create_partitions(client: &Client, topic: &str, total: i32) -> Result<(), CreateError> {
    let wanted = CreatePartitionsTopic::default()
        .with_name(topic_name(topic))
        .with_count(total)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(CREATE_TIMEOUT.as_millis() as i32);
    let connection = client.any_broker().await?;
    let response = connection.call_within(&CREATE_PARTITIONS, &request, CREATE_DEADLINE).await?;
    let answer = response.results.first().ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: "CreatePartitions response without the topic".into(),
    })?;
    accepted(answer.error_code, answer.error_message.as_ref())
}

static DELETE_TOPICS: Api = Api {
    key: ApiKey::DeleteTopics as i16,
    name: "DeleteTopics",
    versions: &[(6, true, shape::DELETE_TOPICS_V6)],
};

/// Deletes a topic by its id: another one of the same name is never meant.
///
/// # Errors
/// [`CreateError::Refused`] with the broker's reason: 100 when there is no such topic any more.
pub async fn delete_topic(client: &Client, topic_id: Uuid) -> Result<(), CreateError> {
    let wanted = DeleteTopicState::default().with_name(None).with_topic_id(topic_id);
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(CREATE_TIMEOUT.as_millis() as i32);
    let connection = client.any_broker().await?;
    let response = connection.call_within(&DELETE_TOPICS, &request, CREATE_DEADLINE).await?;
    let answer = response.responses.first().ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: "DeleteTopics response without the topic".into(),
    })?;
    accepted(answer.error_code, answer.error_message.as_ref())
}

/// One config value, and whether it was set on the topic itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigValue {
    pub value: String,
    /// Set on this resource, not inherited from the broker or the defaults.
    pub is_own: bool,
}

/// Source 1: set on the topic itself (`DescribeConfigsResponse.ConfigSource`).
const DYNAMIC_TOPIC_CONFIG: i8 = 1;

/// A topic's effective configs. Sensitive values aren't among them.
///
/// # Errors
/// [`Error::Broker`]: 3 when there is no such topic, 29 without DESCRIBE_CONFIGS.
pub async fn topic_configs(client: &Client, topic: &str) -> Result<BTreeMap<String, ConfigValue>, Error> {
    describe_configs(client, TOPIC_RESOURCE, topic, None).await
}

/// Named configs of several topics, of each what it has or why that isn't told.
///
/// # Errors
/// When nothing is told of any.
pub async fn topics_configs(
    client: &Client,
    topics: &[&str],
    keys: &[&str],
) -> Result<BTreeMap<String, Result<BTreeMap<String, ConfigValue>, ErrorCode>>, Error> {
    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let resource = |topic: &&str| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()))
    };
    let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
    let (response, _) = client.any_broker().await?.call(&DESCRIBE_CONFIGS, &request).await?;
    let told = response.results.into_iter().map(|answer| {
        let configs = match ErrorCode::of(answer.error_code) {
            None => Ok(answer.configs.into_iter().filter_map(config_value).collect()),
            Some(code) => Err(code),
        };
        (answer.resource_name.to_string(), configs)
    });
    Ok(told.collect())
}

/// Named configs of one broker, asked of itself.
///
/// # Errors
/// [`Error::Broker`]: 31 without DESCRIBE_CONFIGS on the cluster.
pub async fn broker_configs(
    client: &Client,
    broker: i32,
    keys: &[&str],
) -> Result<BTreeMap<String, ConfigValue>, Error> {
    let keys = keys.iter().map(|k| StrBytes::from_string((*k).to_owned())).collect();
    describe_configs(client, BROKER_RESOURCE, &broker.to_string(), Some((broker, keys))).await
}

static INCREMENTAL_ALTER_CONFIGS: Api = Api {
    key: ApiKey::IncrementalAlterConfigs as i16,
    name: "IncrementalAlterConfigs",
    versions: &[(0, false, shape::INCREMENTAL_ALTER_CONFIGS_V0)],
};

/// Sets each of these configs of a topic, or with `None` takes it back to what the broker has by default;
/// the others stay (KIP-339). All of them or none. Sent only while `gate`, if there is one, is open.
///
/// # Errors
/// [`CreateError::Refused`] with the broker's reason.
pub async fn alter_topic_configs(
    client: &Client,
    topic: &str,
    configs: &BTreeMap<String, Option<String>>,
    gate: Option<Gate>,
) -> Result<(), CreateError> {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let configs = configs.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(if value.is_some() { SET } else { DELETE })
            .with_value(value.as_deref().map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let connection = client.any_broker().await?;
    let response = connection.call_gated(&INCREMENTAL_ALTER_CONFIGS, &request, gate).await?;
    let answer = response.responses.first().ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: "IncrementalAlterConfigs response without the topic".into(),
    })?;
    accepted(answer.error_code, answer.error_message.as_ref())
}

async fn describe_configs(
    client: &Client,
    resource_type: i8,
    name: &str,
    broker: Option<(i32, Vec<StrBytes>)>,
) -> Result<BTreeMap<String, ConfigValue>, Error> {
    let connection = match &broker {
        Some((broker, _)) => client.control(*broker).await?,
        None => client.any_broker().await?,
    };
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configuration_keys(broker.map(|(_, keys)| keys));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let (response, _) = connection.call(&DESCRIBE_CONFIGS, &request).await?;
    let answer = response.results.into_iter().next().ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: "DescribeConfigs response without the resource".into(),
    })?;
    ErrorCode::check(answer.error_code, format!("DescribeConfigs of {name}"))?;
    Ok(answer.configs.into_iter().filter_map(config_value).collect())
}

/// None for a sensitive one.
fn config_value(found: DescribeConfigsResourceResult) -> Option<(String, ConfigValue)> {
    let is_own = found.config_source == DYNAMIC_TOPIC_CONFIG;
    Some((found.name.to_string(), ConfigValue { value: found.value?.to_string(), is_own }))
}

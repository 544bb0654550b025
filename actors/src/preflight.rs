//! Questions put to both clusters before the catalog is asked to change: what would happen, and
//! why it can't. And the one thing done to a cluster after the catalog has changed: deleting the
//! topic of a mirror that was forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::command::NewMirror;
use catalog::{Catalog, Link, MirrorStatus, MirrorTopic, TopicId};
use kafka::client::{Client, Dial};
use kafka::topics::{self, CreateError};
use kafka::{ClientConfig, ConfigError, Error, ErrorCode, TopicMetadata, offsets};
use uuid::Uuid;

use crate::settings;
use crate::setup;
use crate::sync::configs::ALWAYS;

/// What creating a mirror would do: shown by a dry run, recorded otherwise.
#[derive(Clone, Debug)]
pub struct MirrorPlan {
    pub source_topic: String,
    pub source_topic_id: TopicId,
    pub mirror_topic: String,
    pub partitions: u32,
    pub replication_factor: Option<i16>,
    /// Configs the destination topic is created with.
    pub topic_configs: BTreeMap<String, String>,
    /// Source log start and end offset of each partition.
    pub source_offsets: Vec<(i64, i64)>,
    /// An empty destination topic of the same shape is there already and would be used.
    pub adopts_existing: bool,
}

impl MirrorPlan {
    /// What is to be recorded.
    pub fn into_new(self, link: &Link) -> NewMirror {
        NewMirror {
            mirror: link.key(&self.mirror_topic.as_str().into()),
            source_topic: self.source_topic.as_str().into(),
            source_topic_id: self.source_topic_id,
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            configs: self.topic_configs,
        }
    }
}

#[derive(Clone, Debug)]
pub struct MirrorRequest {
    pub source_topic: String,
    pub mirror_topic: String,
    pub replication_factor: Option<i16>,
    pub configs: BTreeMap<String, String>,
}

/// Why a plan can't be made. Each names the thing and the way out.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The field of the request that is wrong.
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
    #[error("topic '{topic}' doesn't exist on {cluster}")]
    TopicNotFound { topic: String, cluster: String },
    #[error("topic '{topic}' exists on {cluster}: {message}")]
    TopicExists { topic: String, cluster: String, message: String },
    #[error("topic '{topic}' stays on {cluster}: {message}")]
    TopicStays { topic: String, cluster: String, message: String },
    #[error("{cluster} can't be used: {message}")]
    Unreachable { cluster: String, message: String },
    #[error("{cluster} doesn't permit it: {message}")]
    Unauthorized { cluster: String, message: String },
}

impl From<ConfigError> for PreflightError {
    fn from(error: ConfigError) -> Self {
        Self::Invalid { field: error.key, message: error.message }
    }
}

#[derive(Clone, Debug)]
pub struct ClusterFacts {
    pub cluster_id: String,
    pub brokers: usize,
}

/// Asks a cluster with these client keys who it is.
///
/// # Errors
/// [`PreflightError::Invalid`] naming the key, or [`PreflightError::Unreachable`].
pub async fn probe_cluster(
    dial: Arc<dyn Dial>,
    name: &str,
    configs: &BTreeMap<String, String>,
) -> Result<ClusterFacts, PreflightError> {
    let client = Client::new(ClientConfig::from_configs(configs)?, dial);
    let cluster = format!("cluster '{name}'");
    let metadata = client.metadata(Some(&[])).await.map_err(|e| unreachable(&cluster, &e))?;
    let cluster_id = metadata.cluster_id.ok_or_else(|| PreflightError::Unreachable {
        cluster,
        message: "its brokers don't tell a cluster id; lockstep needs one to know clusters apart".into(),
    })?;
    Ok(ClusterFacts { cluster_id, brokers: metadata.brokers.len() })
}

/// Client settings of a link's source and destination.
///
/// # Errors
/// [`ConfigError`] for a key that can't be used, or a cluster that isn't registered.
pub fn client_configs(catalog: &Catalog, link: &Link) -> Result<(ClientConfig, ClientConfig), ConfigError> {
    let registered = |name: &str| {
        catalog.clusters.get(name).map(|c| &c.configs).ok_or_else(|| ConfigError {
            key: "source.cluster".into(),
            message: format!("cluster '{name}' isn't registered"),
        })
    };
    let source = match &link.source {
        Some(name) => registered(name)?,
        None => &link.configs,
    };
    Ok((ClientConfig::from_configs(source)?, ClientConfig::from_configs(registered(&link.destination)?)?))
}

/// Plans one mirror topic on a link: checks source and destination, changes nothing.
///
/// # Errors
/// [`PreflightError`]: what stands in the way.
pub async fn plan_mirror(
    dial: Arc<dyn Dial>,
    catalog: &Catalog,
    link: &Link,
    request: &MirrorRequest,
) -> Result<MirrorPlan, PreflightError> {
    let (source, destination) = client_configs(catalog, link)?;
    let client = |config, cluster_id: &Arc<str>| Client::of_cluster(config, dial.clone(), cluster_id.clone());
    let source = client(source, &link.source_cluster_id);
    let destination = client(destination, &link.destination_cluster_id);
    plan_between(&source, &destination, link, request).await
}

/// The same, by these clients of the link's two clusters.
///
/// # Errors
/// [`PreflightError`]: what stands in the way.
pub async fn plan_between(
    source: &Client,
    destination: &Client,
    link: &Link,
    request: &MirrorRequest,
) -> Result<MirrorPlan, PreflightError> {
    let source_name = format!("the source of link '{}'", link.name);
    let destination_name = format!("cluster '{}'", link.destination);

    let topic = source_topic(source, &source_name, &request.source_topic).await?;
    let source_offsets = source_offsets(source, &source_name, &request.source_topic, &topic).await?;
    let synced = settings::synced_topic_configs(&link.configs);
    let topic_configs = topic_configs(source, &source_name, request, &synced).await?;
    let plan = MirrorPlan {
        source_topic: request.source_topic.clone(),
        source_topic_id: TopicId(*topic.topic_id.as_bytes()),
        mirror_topic: request.mirror_topic.clone(),
        partitions: topic.partitions.len() as u32,
        replication_factor: request.replication_factor,
        topic_configs,
        source_offsets,
        adopts_existing: false,
    };
    let adopts_existing = try_destination(destination, &destination_name, &plan).await?;
    Ok(MirrorPlan { adopts_existing, ..plan })
}

fn unreachable(cluster: &str, error: &Error) -> PreflightError {
    unusable(cluster, error.code(), error.to_string())
}

fn unusable(cluster: &str, code: Option<ErrorCode>, message: String) -> PreflightError {
    let cluster = cluster.to_owned();
    match code {
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
            PreflightError::Unauthorized { cluster, message }
        }
        _ => PreflightError::Unreachable { cluster, message },
    }
}

async fn source_topic(source: &Client, name: &str, topic: &str) -> Result<TopicMetadata, PreflightError> {
    let metadata = source.metadata(Some(&[topic])).await.map_err(|e| unreachable(name, &e))?;
    let found = match metadata.topics.get(topic) {
        Some(Ok(found)) => found,
        None | Some(Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)) => {
            return Err(PreflightError::TopicNotFound { topic: topic.to_owned(), cluster: name.to_owned() });
        }
        Some(Err(code)) => {
            return Err(unusable(name, Some(*code), format!("topic '{topic}': {code}")));
        }
    };
    if found.is_internal {
        let message = format!("'{topic}' is an internal topic of the source; those are never mirrored");
        return Err(PreflightError::Invalid { field: "source_topic_name".into(), message });
    }
    Ok(found.clone())
}

async fn source_offsets(
    source: &Client,
    name: &str,
    topic: &str,
    metadata: &TopicMetadata,
) -> Result<Vec<(i64, i64)>, PreflightError> {
    let mut offsets = Vec::with_capacity(metadata.partitions.len());
    for (index, partition) in &metadata.partitions {
        let leader = partition.leader.ok_or_else(|| PreflightError::Unreachable {
            cluster: name.to_owned(),
            message: format!("{topic}[{index}] has no partition leader"),
        })?;
        let connection = source.control(leader).await.map_err(|e| unreachable(name, &e))?;
        let ends = offsets::log_ends(&connection, topic, *index, partition.leader_epoch).await;
        let ends = ends.map_err(|e| unreachable(name, &e))?;
        offsets.push((ends.start_offset, ends.high_watermark));
    }
    Ok(offsets)
}

/// The source's values of what is synced, what exact bytes need, and what the user asked for.
async fn topic_configs(
    source: &Client,
    name: &str,
    request: &MirrorRequest,
    include: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, PreflightError> {
    let found =
        topics::topic_configs(source, &request.source_topic).await.map_err(|e| unreachable(name, &e))?;
    let synced = ALWAYS.into_iter().chain(include.iter().map(String::as_str));
    let synced = synced.filter_map(|key| Some((key.to_owned(), found.get(key)?.value.clone())));
    let mut configs: BTreeMap<String, String> = synced.collect();
    for (key, value) in &request.configs {
        let why = if setup::HELD.iter().any(|(held, _)| held == key) {
            Some("exact bytes need lockstep's value")
        } else if ALWAYS.contains(&key.as_str()) {
            Some("it always follows the source")
        } else {
            let follows = "it follows the source; leave it out of the link's topic.config.sync.include first";
            include.contains(key).then_some(follows)
        };
        if let Some(why) = why {
            let message = format!("'{key}' can't be set on a mirror topic: {why}");
            return Err(PreflightError::Invalid { field: "configs".into(), message });
        }
        configs.insert(key.clone(), value.clone());
    }
    configs.extend(setup::HELD.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Ok(configs)
}

/// Asks the destination whether it would create the topic; true when an empty topic of the same
/// shape is there already.
async fn try_destination(
    destination: &Client,
    name: &str,
    plan: &MirrorPlan,
) -> Result<bool, PreflightError> {
    match setup::create(destination, &draft(plan), true).await {
        Ok(()) => Ok(false),
        Err(CreateError::Refused { code: ErrorCode::TOPIC_ALREADY_EXISTS, .. }) => {
            check_existing(destination, name, plan).await.map(|()| true)
        }
        Err(CreateError::Refused { code, message }) => Err(on_create_refused(code, &message, name)),
        Err(CreateError::Failed(error)) => {
            Err(PreflightError::Unreachable { cluster: name.to_owned(), message: error.to_string() })
        }
    }
}

/// The field of the request that is to blame, or the cluster. `cluster` names the destination.
fn on_create_refused(code: ErrorCode, message: &str, cluster: &str) -> PreflightError {
    let field = match code.0 {
        17 => "mirror_topic_name",
        38 => "replication_factor",
        40 | 44 => "configs",
        _ => return unusable(cluster, Some(code), format!("{code}: {message}")),
    };
    PreflightError::Invalid { field: field.into(), message: format!("{cluster}: {code}: {message}") }
}

async fn check_existing(destination: &Client, name: &str, plan: &MirrorPlan) -> Result<(), PreflightError> {
    let topic = plan.mirror_topic.as_str();
    let exists = |message: String| PreflightError::TopicExists {
        topic: topic.to_owned(),
        cluster: name.to_owned(),
        message,
    };
    let metadata = destination.metadata(Some(&[topic])).await.map_err(|e| unreachable(name, &e))?;
    let Some(Ok(found)) = metadata.topics.get(topic) else {
        return Err(exists("and its metadata can't be read".into()));
    };
    if found.partitions.len() != plan.partitions as usize {
        let (has, wants) = (found.partitions.len(), plan.partitions);
        return Err(exists(format!(
            "it has {has} partitions, the source {wants}; delete it or choose another name"
        )));
    }
    let unfit = setup::unfit_configs(destination, topic, &plan.topic_configs).await;
    if let Some(message) = unfit.map_err(|e| unreachable(name, &e))? {
        return Err(exists(format!("{message}; set that, delete it, or choose another name")));
    }
    for (index, (_, end)) in (0..).zip(source_offsets(destination, name, topic, found).await?) {
        if end != 0 {
            let message = format!(
                "it isn't empty (partition {index} ends at offset {end}); delete it or choose another name"
            );
            return Err(exists(message));
        }
    }
    Ok(())
}

/// Deletes the destination topic of a mirror that was forgotten. One that is gone already is fine.
///
/// # Errors
/// [`PreflightError::TopicStays`], or [`PreflightError::Invalid`] for clusters that can't be asked.
pub async fn delete_topic(
    dial: Arc<dyn Dial>,
    catalog: &Catalog,
    link: &Link,
    topic: &str,
    topic_id: TopicId,
) -> Result<(), PreflightError> {
    let (_, destination) = client_configs(catalog, link)?;
    let cluster_id = link.destination_cluster_id.clone();
    let destination = Client::of_cluster(destination, dial, cluster_id);
    let stays = |message: String| {
        let (topic, cluster) = (topic.to_owned(), format!("cluster '{}'", link.destination));
        PreflightError::TopicStays { topic, cluster, message }
    };
    // Whose brokers these are is known only by their metadata.
    destination.metadata(Some(&[])).await.map_err(|e| stays(e.to_string()))?;
    match topics::delete_topic(&destination, Uuid::from_bytes(topic_id.0)).await {
        Ok(()) | Err(CreateError::Refused { code: ErrorCode::UNKNOWN_TOPIC_ID, .. }) => Ok(()),
        Err(CreateError::Refused { code: ErrorCode::TOPIC_AUTHORIZATION_FAILED, .. }) => {
            Err(stays("grant DELETE on it, or delete it with Kafka's tools".into()))
        }
        Err(error) => Err(stays(error.to_string())),
    }
}

/// The mirror topic as it would be recorded.
fn draft(plan: &MirrorPlan) -> MirrorTopic {
    MirrorTopic {
        name: plan.mirror_topic.as_str().into(),
        source_topic: plan.source_topic.as_str().into(),
        source_topic_id: plan.source_topic_id,
        destination_topic_id: TopicId::NONE,
        replication_factor: plan.replication_factor,
        configs: plan.topic_configs.clone(),
        status: MirrorStatus::PendingMirror,
        status_since_ms: 0,
        producer: None,
        stop: None,
        partitions: vec![Default::default(); plan.partitions as usize],
        history: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_of_a_dry_run_names_the_field_or_the_cluster() {
        for code in ErrorCode::every() {
            let text = on_create_refused(code, "why", "cluster 'west'").to_string();
            let begins = match code.0 {
                17 => "mirror_topic_name: cluster 'west': ",
                38 => "replication_factor: cluster 'west': ",
                40 | 44 => "configs: cluster 'west': ",
                29 | 31 => "cluster 'west' doesn't permit it: ",
                _ => "cluster 'west' can't be used: ",
            };
            assert_eq!(text, format!("{begins}{code}: why"));
        }
    }
}

//! Makes a new mirror ready: its topic at the destination, and its producer identity.
//!
//! Every step can be repeated: a node that died in the middle leaves an empty topic, which the
//! next try takes over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, Failure, MirrorError, MirrorKey, MirrorTopic, ProducerIdentity, TopicId};
use kafka::topics::{self, CreateError};
use kafka::{Client, Error, ErrorCode, TopicMetadata, offsets, producers};

use crate::catalog_port::CatalogPort;
use crate::observe::Observatory;
use crate::plane::LinkPlane;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

const INVALID_TOPIC: ErrorCode = ErrorCode(17);
const INVALID_PARTITIONS: ErrorCode = ErrorCode(37);
const INVALID_CONFIG: ErrorCode = ErrorCode(40);
const INVALID_REQUEST: ErrorCode = ErrorCode(42);
const POLICY_VIOLATION: ErrorCode = ErrorCode(44);

/// Configs that follow the source (SPEC section 5).
pub const SYNCED: [&str; 9] = [
    "cleanup.policy",
    "max.message.bytes",
    "retention.ms",
    "retention.bytes",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "segment.bytes",
    "segment.ms",
];

const WIDEST: &str = "9223372036854775807";

/// Configs that exact bytes need while mirroring, on brokers since 3.6.
pub const HELD: [(&str, &str); 5] = [
    ("compression.type", "producer"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", WIDEST),
    ("message.timestamp.after.max.ms", WIDEST),
    ("unclean.leader.election.enable", "false"),
];

/// What brokers before 3.6 have in place of the two bounds.
pub(crate) const BOUND_BEFORE_3_6: (&str, &str) = ("message.timestamp.difference.max.ms", WIDEST);

/// What went wrong in one try.
enum Trouble {
    /// Time may cure it.
    Passing(String),
    /// Only a person can.
    Lasting(MirrorError, String),
}

impl From<Error> for Trouble {
    /// Brokers that don't answer come back, and grants are given.
    fn from(error: Error) -> Self {
        Self::Passing(with_grant(&error))
    }
}

/// An error of the destination, with the grant that cures it.
pub(crate) fn with_grant(error: &Error) -> String {
    match error.code() {
        Some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED) => {
            format!("{error}; grant DESCRIBE and WRITE on that transactional id at the destination")
        }
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => format!(
            "{error}; grant CREATE, WRITE, DESCRIBE and DESCRIBE_CONFIGS on the mirror topic at the destination"
        ),
        _ => error.to_string(),
    }
}

/// Where a mirror's producer identity comes from. No transaction is used under it while mirroring.
pub(crate) fn transactional_id(key: &MirrorKey) -> String {
    format!("lockstep.{}.{}", key.link, key.topic)
}

/// Every config that is held, on brokers of any version.
pub(crate) fn held_keys() -> impl Iterator<Item = &'static str> {
    HELD.iter().map(|(key, _)| *key).chain([BOUND_BEFORE_3_6.0])
}

/// Tries until the mirror is ready, can't become so, or the caller drops the future.
pub async fn run(
    plane: Arc<LinkPlane>,
    catalog: Arc<dyn CatalogPort>,
    observatory: Arc<Observatory>,
    key: MirrorKey,
    mirror: Arc<MirrorTopic>,
) {
    let mut back_off = RETRY_FIRST;
    loop {
        let action = match prepare(plane.destination(), &key, &mirror).await {
            Ok((destination_topic_id, producer)) => {
                tracing::info!(topic = %key.topic, producer_id = producer.producer_id, "mirror topic is ready");
                Action::MirrorReady { mirror: key.clone(), destination_topic_id, producer }
            }
            Err(Trouble::Lasting(error, message)) => {
                tracing::error!(topic = %key.topic, error = error.name(), "{message}");
                let failure = Failure { error, offset: 0, message, at_ms: plane.now_ms() };
                Action::FailMirror { mirror: key.clone(), failure }
            }
            Err(Trouble::Passing(message)) => {
                tracing::info!(topic = %key.topic, "mirror topic isn't ready yet: {message}");
                observatory.set_waiting(&key, Some(message));
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(RETRY_MAX);
                continue;
            }
        };
        if let Err(refusal) = catalog.submit_until_taken(action).await {
            tracing::info!(topic = %key.topic, %refusal, "the catalog didn't take the mirror's setup");
        }
        observatory.set_waiting(&key, None);
        return;
    }
}

async fn prepare(
    destination: &Client,
    key: &MirrorKey,
    mirror: &MirrorTopic,
) -> Result<(TopicId, ProducerIdentity), Trouble> {
    match create(destination, mirror, false).await {
        Ok(()) => {}
        Err(CreateError::Refused { code, message }) => on_create_refused(code, &message, &mirror.name)?,
        Err(CreateError::Failed(error)) => return Err(error.into()),
    }
    let topic = look_up(destination, &mirror.name).await?;
    check_empty(destination, mirror, &topic).await?;
    if let Some(message) = unfit_configs(destination, &mirror.name, &mirror.configs).await? {
        let message =
            format!("topic '{}' exists at the destination and can't be a mirror: {message}", mirror.name);
        return Err(Trouble::Lasting(MirrorError::IllegalState, message));
    }
    let (producer_id, producer_epoch) =
        producers::init_producer_id(destination, &transactional_id(key), None).await?;
    Ok((TopicId(*topic.topic_id.as_bytes()), ProducerIdentity { producer_id, producer_epoch }))
}

/// What a refused creation means; `Ok` when the topic is there.
fn on_create_refused(code: ErrorCode, message: &str, topic: &str) -> Result<(), Trouble> {
    let message = format!("the destination refused to create topic '{topic}': {code}: {message}");
    match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => Ok(()),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            Err(Trouble::Passing(format!("{message}; grant CREATE on it")))
        }
        // What was asked for is wrong, and would be asked for again.
        INVALID_TOPIC | INVALID_PARTITIONS | INVALID_CONFIG | INVALID_REQUEST | POLICY_VIOLATION => {
            Err(Trouble::Lasting(MirrorError::IllegalState, message))
        }
        // No controller, too few brokers for the copies, a quota: brokers say so for a while.
        _ => Err(Trouble::Passing(message)),
    }
}

/// Creates the topic, or only asks whether it could be. Brokers before 3.6 know one timestamp
/// bound instead of two.
pub async fn create(
    destination: &Client,
    mirror: &MirrorTopic,
    validate_only: bool,
) -> Result<(), CreateError> {
    let partitions = mirror.partitions.len() as i32;
    let ask = async |configs: &BTreeMap<String, String>| {
        let factor = mirror.replication_factor;
        topics::create_topic(destination, &mirror.name, partitions, factor, configs, validate_only).await
    };
    match ask(&mirror.configs).await {
        Err(CreateError::Refused { code: INVALID_CONFIG, message })
            if message.contains("message.timestamp.") =>
        {
            let mut configs = mirror.configs.clone();
            configs.retain(|name, _| !name.ends_with(".before.max.ms") && !name.ends_with(".after.max.ms"));
            configs.insert(BOUND_BEFORE_3_6.0.into(), WIDEST.into());
            ask(&configs).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

async fn look_up(destination: &Client, topic: &str) -> Result<TopicMetadata, Trouble> {
    let metadata = destination.metadata(Some(&[topic])).await?;
    match metadata.topics.get(topic) {
        Some(Ok(found)) if found.partitions.values().all(|p| p.leader.is_some()) => Ok(found.clone()),
        Some(Ok(_)) => Err(Trouble::Passing(format!("topic '{topic}' has partitions without a leader"))),
        Some(Err(code)) => Err(Trouble::Passing(format!("topic '{topic}' at the destination: {code}"))),
        None => Err(Trouble::Passing(format!("topic '{topic}' isn't in the destination's metadata yet"))),
    }
}

/// What an existing topic's configs have that exact bytes forbid, in words; `None` when it is fit.
/// A config that its brokers don't know can't be wrong.
///
/// # Errors
/// When the configs can't be read.
pub async fn unfit_configs(
    destination: &Client,
    topic: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    let found = topics::topic_configs(destination, topic).await?;
    let held = HELD.iter().map(|(key, _)| *key).filter(|key| !key.starts_with("unclean."));
    let wrong: Vec<String> = held
        .chain(["cleanup.policy"])
        .filter_map(|key| {
            let (wanted, found) = (wanted.get(key)?, &found.get(key)?.value);
            (wanted != found).then(|| format!("{key} is {found} and must be {wanted}"))
        })
        .collect();
    Ok((!wrong.is_empty()).then(|| wrong.join(", ")))
}

/// A topic that was there before must be empty from its first offset on, and of the same shape.
async fn check_empty(
    destination: &Client,
    mirror: &MirrorTopic,
    topic: &TopicMetadata,
) -> Result<(), Trouble> {
    let wanted = mirror.partitions.len();
    if topic.partitions.len() != wanted {
        let message = format!(
            "topic '{}' exists at the destination with {} partitions, the source has {wanted}",
            mirror.name,
            topic.partitions.len()
        );
        return Err(Trouble::Lasting(MirrorError::DestinationTopicChanged, message));
    }
    for (index, partition) in &topic.partitions {
        let leader = partition.leader.unwrap_or(-1);
        let connection = destination.control(leader).await?;
        let ends = offsets::log_ends(&connection, &mirror.name, *index, partition.leader_epoch).await?;
        if ends.end_offset != 0 {
            let message = format!(
                "topic '{}' exists at the destination and isn't empty: partition {index} ends at offset {}",
                mirror.name, ends.end_offset
            );
            return Err(Trouble::Lasting(MirrorError::DestinationLogDiverged, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_of_a_creation_is_waited_out_or_told_for_good() {
        for code in ErrorCode::every() {
            match on_create_refused(code, "why", "orders") {
                Ok(()) => assert_eq!(code.0, 36),
                Err(Trouble::Lasting(error, message)) => {
                    assert!([17, 37, 40, 42, 44].contains(&code.0), "{code} is for good");
                    assert_eq!(error, MirrorError::IllegalState);
                    assert!(message.contains("'orders'") && message.ends_with("why"), "{message}");
                }
                Err(Trouble::Passing(message)) => {
                    assert!(![17, 36, 37, 40, 42, 44].contains(&code.0), "{code} passes");
                    assert!(message.contains(&code.to_string()), "{code} isn't named: {message}");
                    assert_eq!(message.contains("grant CREATE"), [29, 31].contains(&code.0), "{message}");
                }
            }
        }
    }

    /// InitProducerId, FindCoordinator, Metadata, ListOffsets and DescribeConfigs.
    #[test]
    fn every_other_error_code_of_a_setup_is_waited_out_with_the_grant_that_is_missing() {
        for code in ErrorCode::every() {
            let Trouble::Passing(message) = Error::Broker { what: "InitProducerId".into(), code }.into()
            else {
                panic!("{code} is for good")
            };
            assert!(message.contains(&code.to_string()), "{code} isn't named: {message}");
            assert_eq!(message.contains("; grant "), [29, 53].contains(&code.0), "{message}");
        }
    }
}

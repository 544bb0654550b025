//! The partition leader on one side of a mirror: the topic must be there, and be the one that is meant.

use catalog::{MirrorError, TopicId};
use kafka::fetch::TopicPartition;
use kafka::{Connection, Error, ErrorCode, Metadata};
use uuid::Uuid;

use super::footing::{FootingError, fail, on_error, retry};
use super::machine::NotFooted;
use crate::verdict::Verdict;

/// A partition's leader on one side.
pub(super) struct Leader {
    pub(super) connection: Connection,
    pub(super) broker: i32,
    pub(super) epoch: i32,
    pub(super) topic_id: Uuid,
}

/// One of a mirror's two clusters, and what is wrong when its topic isn't what it was.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) name: &'static str,
    /// Another topic has the name.
    pub(super) changed: MirrorError,
    /// There is none of the name; None while what is known may be old.
    pub(super) missing: Option<MirrorError>,
}

/// The partition leader on one side, and a control connection to it; the topic must be the one
/// that the catalog knows.
pub(super) async fn leader(
    client: &kafka::Client,
    metadata: &Metadata,
    (wanted, topic_id): (&TopicPartition, TopicId),
    Side { name: side, changed, missing }: Side,
) -> Result<Leader, FootingError> {
    let TopicPartition { topic, partition } = wanted;
    let found = match metadata.topics.get(&**topic) {
        None => return Err(retry(format!("{side}: no metadata of '{topic}' yet"))),
        Some(Err(code)) => return Err(without_metadata(topic, *code, side, missing)),
        Some(Ok(found)) => found,
    };
    if !topic_id.is_none() && !found.topic_id.is_nil() && *found.topic_id.as_bytes() != topic_id.0 {
        let was = Uuid::from_bytes(topic_id.0);
        let message = format!(
            "topic '{topic}' at the {side} was recreated: its id is {} and was {was}",
            found.topic_id
        );
        return Err(fail(changed, 0, message));
    }
    let found_partition = found
        .partitions
        .get(partition)
        .ok_or_else(|| retry(format!("{side}: '{topic}' has no partition {partition} (yet)")))?;
    let broker = found_partition
        .leader
        .ok_or_else(|| retry(format!("{side}: {topic}[{partition}] has no partition leader")))?;
    let connection = client.control(broker).await.map_err(|e| on_error(&e, side))?;
    Ok(Leader { connection, broker, epoch: found_partition.leader_epoch, topic_id: found.topic_id })
}

fn without_metadata(topic: &str, code: ErrorCode, side: &str, missing: Option<MirrorError>) -> FootingError {
    match missing {
        Some(error) if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            let message = format!("there is no topic '{topic}' at the {side}; it may have been deleted");
            NotFooted::Verdict(Verdict::Missing { error, message })
        }
        _ => on_error(&Error::Broker { what: format!("Metadata of {topic}"), code }, side),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_missing_only_when_a_cluster_that_answers_says_so() {
        let gone = Some(MirrorError::SourceTopicMayBeDeleted);
        for code in ErrorCode::every() {
            let NotFooted::Verdict(verdict) = without_metadata("orders", code, "source", gone) else {
                panic!("{code}")
            };
            let is_missing =
                matches!(verdict, Verdict::Missing { error: MirrorError::SourceTopicMayBeDeleted, .. });
            assert_eq!(is_missing, code.0 == 3, "{code}: {verdict:?}");
        }
        let old = without_metadata("orders", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "source", None);
        assert!(matches!(old, NotFooted::Verdict(Verdict::Retry { .. })), "{old:?}");
    }
}

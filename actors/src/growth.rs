//! Follows partitions added at the source: first the destination topic grows, then the mirror.
//! Every step can be repeated; what fails is tried again at the next look at the metadata.

use std::sync::Arc;

use catalog::{Action, Link, MirrorKey, NodeId};
use kafka::topics::{self, CreateError};
use kafka::{ErrorCode, Metadata};

use crate::catalog_port::CatalogPort;
use crate::plane::LinkPlane;

const INVALID_PARTITIONS: ErrorCode = ErrorCode(37);

/// A mirror topic whose source has more partitions than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    pub topic: Arc<str>,
    pub partitions: u32,
}

/// What has grown at the source. The owner of a mirror's partition 0 sees to it.
pub fn wanted(link: &Link, node: NodeId, source: &Metadata) -> Vec<Growth> {
    let mirrors = link.mirrors.values().filter(|m| link.mirrors_now(m) && m.is_seen_to_by(node));
    mirrors
        .filter_map(|m| {
            let Some(Ok(found)) = source.topics.get(&*m.source_topic) else { return None };
            // Another topic of the same name is none of ours: the partitions say so themselves.
            if !m.source_topic_id.is_none() && *found.topic_id.as_bytes() != m.source_topic_id.0 {
                return None;
            }
            let partitions = found.partitions.len() as u32;
            (partitions as usize > m.partitions.len()).then(|| Growth { topic: m.name.clone(), partitions })
        })
        .collect()
}

/// Another try got that far. If it has more, mirror partitions beyond the source's count are never
/// made, and nothing is written there.
fn has_them_already(error: &CreateError) -> bool {
    matches!(error, CreateError::Refused { code: INVALID_PARTITIONS, .. })
}

/// Grows the destination topic, then the mirror.
pub async fn grow(plane: Arc<LinkPlane>, catalog: Arc<dyn CatalogPort>, mirror: MirrorKey, partitions: u32) {
    let topic = &*mirror.topic;
    let added = topics::create_partitions(plane.destination(), topic, partitions as i32).await;
    if let Err(error) = added
        && !has_them_already(&error)
    {
        tracing::warn!(topic, partitions, %error, "can't add partitions to the mirror topic; trying again");
        return;
    }
    tracing::info!(topic, partitions, "the source has grown, and the mirror topic has as many partitions");
    if let Err(refusal) = catalog.submit_until_taken(Action::AddPartitions { mirror, partitions }).await {
        tracing::info!(%refusal, "the catalog didn't take the added partitions");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::model::MirrorPartition;
    use catalog::{Assignment, LinkId, MirrorStatus, MirrorTopic, ProducerIdentity, TopicId};
    use kafka::{PartitionMetadata, TopicMetadata};
    use std::collections::BTreeMap;

    const HERE: NodeId = NodeId(1);

    fn link(partitions: usize) -> Link {
        let assignment = Some(Assignment { node: HERE, epoch: 1, unclean: false });
        let partition = MirrorPartition { assignment, failure: None, prefix: None };
        let mirror = MirrorTopic {
            name: "orders".into(),
            source_topic: "orders".into(),
            source_topic_id: TopicId([7; 16]),
            destination_topic_id: TopicId::NONE,
            replication_factor: None,
            configs: Default::default(),
            status: MirrorStatus::Active,
            status_since_ms: 0,
            producer: Some(ProducerIdentity { producer_id: 1, producer_epoch: 0 }),
            stop: None,
            partitions: vec![partition; partitions],
            history: Default::default(),
        };
        Link {
            id: LinkId("l".into()),
            name: "l".into(),
            destination: "west".into(),
            source: None,
            source_cluster_id: "a".into(),
            destination_cluster_id: "b".into(),
            configs: Default::default(),
            mirrors: BTreeMap::from([("orders".into(), Arc::new(mirror))]),
        }
    }

    fn source(partitions: i32, topic_id: u8) -> Metadata {
        let partition = PartitionMetadata {
            leader: Some(1),
            leader_epoch: 0,
            replicas: vec![1],
            in_sync_replicas: vec![1],
        };
        let topic = TopicMetadata {
            topic_id: uuid::Uuid::from_bytes([topic_id; 16]),
            is_internal: false,
            partitions: (0..partitions).map(|index| (index, partition.clone())).collect(),
        };
        Metadata { topics: BTreeMap::from([("orders".into(), Ok(topic))]), ..Metadata::default() }
    }

    #[test]
    fn every_error_code_of_a_growth_but_one_is_tried_again() {
        for code in kafka::ErrorCode::every() {
            let refused = CreateError::Refused { code, message: String::new() };
            assert_eq!(has_them_already(&refused), code.0 == 37, "{code}");
        }
        let lost = kafka::Error::Closed { address: "west:9092".into(), reason: "closed".into() };
        assert!(!has_them_already(&CreateError::Failed(lost)));
    }

    #[test]
    fn partitions_added_at_the_source_are_followed_by_the_owner_of_the_first() {
        let grown = [Growth { topic: "orders".into(), partitions: 3 }];
        assert_eq!(wanted(&link(2), HERE, &source(3, 7)), grown);
        assert_eq!(wanted(&link(2), NodeId(2), &source(3, 7)), []);
        assert_eq!(wanted(&link(3), HERE, &source(3, 7)), []);
    }

    #[test]
    fn a_recreated_source_topic_is_not_followed() {
        assert_eq!(wanted(&link(2), HERE, &source(3, 8)), []);
    }
}

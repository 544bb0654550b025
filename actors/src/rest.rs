//! Mirrors at rest: paused, with their link or alone, or failed. Nothing runs there that would hear of the
//! source, and yet people ask how far behind they are. It only looks, with a request a broker or a few.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::{Link, MirrorStatus, NodeId, TopicId};
use kafka::fetch::TopicPartition;
use kafka::{Client, Metadata, TopicMetadata, offsets};

use crate::observe::{PartitionState, PartitionStats};
use crate::plan::PartitionKey;
use crate::plane::LinkPlane;

/// Partitions asked about in one request: answers stay well below what a control response may have.
const CHUNK: usize = 2_000;

/// A partition of the mirror topic, and what is shown of it.
pub struct Resting {
    pub source: (TopicPartition, TopicId),
    pub mirror: (TopicPartition, TopicId),
    pub stats: Arc<PartitionStats>,
}

/// Partitions of this node that aren't mirrored now and may be again.
pub fn at_rest(link: &Link, node: NodeId) -> Vec<PartitionKey> {
    let may_go_on =
        |status| matches!(status, MirrorStatus::Active | MirrorStatus::Paused | MirrorStatus::Failed);
    let mirrors = link.mirrors.values().filter(|m| may_go_on(m.status) && m.producer.is_some());
    let partitions = mirrors.flat_map(|mirror| {
        let all = (0..).zip(&mirror.partitions);
        let rests = move |failed: bool| failed || !link.mirrors_now(mirror);
        let ours = all.filter(move |(_, partition)| {
            partition.assignment.as_ref().is_some_and(|a| a.node == node)
                && rests(partition.failure.is_some())
        });
        ours.map(|(index, _)| (mirror.name.clone(), index))
    });
    partitions.collect()
}

/// Where both ends are now. What isn't told stays as it was, and is unknown before long.
pub async fn look(plane: Arc<LinkPlane>, resting: Vec<Resting>) {
    let known = plane.metadata();
    let (source, mirror) = tokio::join!(
        high_watermarks(plane.source(), &known.source, resting.iter().map(|one| &one.source)),
        high_watermarks(plane.destination(), &known.destination, resting.iter().map(|one| &one.mirror))
    );
    for one in resting {
        // It may have begun to run meanwhile, and knows better then.
        if let (PartitionState::Stopped, Some(mirror), Some(source)) =
            (one.stats.state(), mirror.get(&one.mirror.0), source.get(&one.source.0))
        {
            one.stats.looked(*mirror, *source, plane.now_ms());
        }
    }
}

async fn high_watermarks(
    client: &Client,
    metadata: &Metadata,
    partitions: impl Iterator<Item = &(TopicPartition, TopicId)>,
) -> BTreeMap<TopicPartition, i64> {
    let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
    for (partition, id) in partitions {
        let Some(Ok(topic)) = metadata.topics.get(&*partition.topic) else { continue };
        if !is_the_same(topic, *id) {
            continue;
        }
        let Some(found) = topic.partitions.get(&partition.partition) else { continue };
        let Some(leader) = found.leader else { continue };
        by_leader.entry(leader).or_default().push((partition.clone(), found.leader_epoch));
    }
    let mut all = BTreeMap::new();
    for (leader, partitions) in by_leader {
        let Ok(connection) = client.control(leader).await else { continue };
        for chunk in partitions.chunks(CHUNK) {
            match offsets::high_watermarks(&connection, chunk).await {
                Ok(found) => all.extend(found),
                Err(error) => {
                    tracing::debug!(%error, "where partitions at rest end can't be read");
                    break;
                }
            }
        }
    }
    all
}

/// How far behind another topic of the name it is says nothing. Old brokers have no ids.
fn is_the_same(topic: &TopicMetadata, id: TopicId) -> bool {
    id.is_none() || topic.topic_id.is_nil() || *topic.topic_id.as_bytes() == id.0
}

#[cfg(test)]
mod tests {
    use catalog::model::MirrorPartition;
    use catalog::{Failure, MirrorError};

    use super::*;
    use crate::fixture::{self, owned_by};

    const HERE: NodeId = NodeId(1);

    fn failed() -> MirrorPartition {
        let (error, message) = (MirrorError::ForeignWrite, "another wrote".to_owned());
        let failure = Failure { error, offset: 5, message, at_ms: 1 };
        MirrorPartition { failure: Some(failure), ..owned_by(HERE, false) }
    }

    fn found(link: &Link) -> Vec<(String, u32)> {
        at_rest(link, HERE).into_iter().map(|(topic, index)| (topic.to_string(), index)).collect()
    }

    fn set_status(link: &mut Link, status: MirrorStatus) {
        Arc::make_mut(link.mirrors.get_mut("orders").expect("there")).status = status;
    }

    #[test]
    fn another_topic_of_the_name_is_not_measured_against() {
        let topic = |id: u8| TopicMetadata {
            topic_id: uuid::Uuid::from_bytes([id; 16]),
            is_internal: false,
            partitions: BTreeMap::new(),
        };
        let known = TopicId([7; 16]);
        assert!(is_the_same(&topic(7), known) && !is_the_same(&topic(8), known));
        assert!(is_the_same(&topic(0), known) && is_the_same(&topic(8), TopicId::NONE), "without ids");
    }

    #[test]
    fn what_is_paused_or_has_failed_here_rests() {
        let ours = || owned_by(HERE, false);
        let mut link = fixture::link(&[("orders", vec![ours(), owned_by(NodeId(2), false), failed()])]);
        assert_eq!(found(&link), [("orders".into(), 2)]);
        set_status(&mut link, MirrorStatus::Paused);
        assert_eq!(found(&link), [("orders".into(), 0), ("orders".into(), 2)]);
        for status in [MirrorStatus::Stopped, MirrorStatus::PendingStopped] {
            set_status(&mut link, status);
            assert_eq!(found(&link), [], "{status:?}");
        }
        set_status(&mut link, MirrorStatus::Active);
        link.configs.insert(Link::PAUSED_KEY.into(), "true".into());
        assert_eq!(found(&link), [("orders".into(), 0), ("orders".into(), 2)]);
    }
}

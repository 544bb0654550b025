//! Who leads what, as one cluster answers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::MetadataResponse;
use uuid::Uuid;

use crate::error::ErrorCode;

/// One Metadata response.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// What the brokers call their cluster.
    pub cluster_id: Option<String>,
    /// `host:port` by broker id.
    pub brokers: BTreeMap<i32, Arc<str>>,
    pub topics: BTreeMap<String, Result<TopicMetadata, ErrorCode>>,
}

#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Nil where the broker has no topic ids (before 2.8).
    pub topic_id: Uuid,
    pub is_internal: bool,
    /// By partition index.
    pub partitions: BTreeMap<i32, PartitionMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Broker id of the partition leader; `None` while there is none.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync_replicas: Vec<i32>,
}

impl From<MetadataResponse> for Metadata {
    fn from(response: MetadataResponse) -> Self {
        let brokers = response
            .brokers
            .into_iter()
            .map(|b| {
                // An IPv6 address needs its brackets back before a port.
                let host =
                    if b.host.contains(':') { format!("[{}]", b.host.as_str()) } else { b.host.to_string() };
                (b.node_id.0, Arc::from(format!("{host}:{}", b.port)))
            })
            .collect();
        let topics = response
            .topics
            .into_iter()
            .filter_map(|t| {
                let name = t.name?.to_string();
                if let Some(code) = ErrorCode::of(t.error_code) {
                    return Some((name, Err(code)));
                }
                let partitions = t.partitions.into_iter().map(|p| {
                    let partition = PartitionMetadata {
                        leader: (p.leader_id.0 >= 0).then_some(p.leader_id.0),
                        leader_epoch: p.leader_epoch,
                        replicas: p.replica_nodes.iter().map(|b| b.0).collect(),
                        in_sync_replicas: p.isr_nodes.iter().map(|b| b.0).collect(),
                    };
                    (p.partition_index, partition)
                });
                let partitions = partitions.collect();
                Some((
                    name,
                    Ok(TopicMetadata { topic_id: t.topic_id, is_internal: t.is_internal, partitions }),
                ))
            })
            .collect();
        Self { cluster_id: response.cluster_id.map(|id| id.to_string()), brokers, topics }
    }
}

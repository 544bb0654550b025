//! How large the logs of a broker are.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest};

use crate::connection::{Api, Connection, METADATA_FRAME_BYTES_MAX};
use crate::error::{Error, ErrorCode};
use crate::fetch::TopicPartition;
use crate::shape;

/// From version 3 on (Kafka 3.2 and later) a refusal is told; before it is an answer without a directory.
static DESCRIBE_LOG_DIRS: Api = Api {
    key: ApiKey::DescribeLogDirs as i16,
    name: "DescribeLogDirs",
    versions: &[(3, true, shape::DESCRIBE_LOG_DIRS_V3), (1, false, shape::DESCRIBE_LOG_DIRS_V1)],
};

/// Bytes of each log that the broker holds, as partition leader or follower (KIP-113). One that is being moved to another
/// directory counts as large as its larger copy. A directory that is offline tells nothing.
///
/// # Errors
/// [`Error::Broker`] with `CLUSTER_AUTHORIZATION_FAILED` without DESCRIBE on the cluster.
pub async fn sizes(connection: &Connection) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let timeout = connection.request_timeout();
    let response =
        connection.call_bounded(&DESCRIBE_LOG_DIRS, &request, timeout, METADATA_FRAME_BYTES_MAX).await?;
    ErrorCode::check(response.error_code, "DescribeLogDirs")?;
    if response.results.is_empty() {
        ErrorCode::check(ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0, "DescribeLogDirs")?;
    }
    let mut sizes = BTreeMap::new();
    for directory in response.results {
        for found in directory.topics {
            let topic: Arc<str> = found.name.as_str().into();
            for log in found.partitions {
                let key = TopicPartition { topic: topic.clone(), partition: log.partition_index };
                let size = sizes.entry(key).or_default();
                *size = log.partition_size.max(*size);
            }
        }
    }
    Ok(sizes)
}

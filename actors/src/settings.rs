//! Link configuration keys that the data plane reads (SPEC section 5), with their defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How much to fetch at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    pub wait_max_ms: i32,
    pub min_bytes: i32,
    pub response_bytes_max: usize,
    /// As set; by default a response is shared out evenly.
    pub partition_bytes_max: Option<usize>,
}

impl FetchSettings {
    /// What one of `partitions` may take of a response: an even part of it, so that a few
    /// partitions fill it as well as many, and never less than Kafka's own default.
    pub fn partition_bytes_max(&self, response_bytes_max: usize, partitions: usize) -> usize {
        let even = (response_bytes_max / partitions.max(1)).max(MIB);
        self.partition_bytes_max.unwrap_or(even).min(response_bytes_max)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    pub fetch: FetchSettings,
    pub metadata_max_age: Duration,
    /// Between two checks whether source and destination answer.
    pub availability_check: Duration,
    /// Between two rounds of the topic config sync.
    pub topic_config_sync: Duration,
    /// How long a topic may be gone, at either end, before its partitions fail.
    pub topic_missing_max: Duration,
    /// Checks in a row that fail until a cluster counts as unavailable.
    pub availability_failures_max: u32,
}

const MIB: usize = 1024 * 1024;

impl LinkSettings {
    /// Reads the keys it knows; values were checked when they were set, and one that can't be
    /// read all the same falls back to its default.
    pub fn from_configs(configs: &BTreeMap<String, String>) -> Self {
        fn get<T: std::str::FromStr + PartialOrd + Copy>(
            configs: &BTreeMap<String, String>,
            key: &str,
            default: T,
            min: T,
            max: T,
        ) -> T {
            let value = configs.get(key).and_then(|v| v.trim().parse().ok());
            value.filter(|v| (min..=max).contains(v)).unwrap_or(default)
        }
        let fetch = FetchSettings {
            wait_max_ms: get(configs, "replica.fetch.wait.max.ms", 500, 0, 30_000),
            min_bytes: get(configs, "replica.fetch.min.bytes", 1, 0, i32::MAX),
            response_bytes_max: get(
                configs,
                "replica.fetch.response.max.bytes",
                8 * MIB,
                64 * 1024,
                64 * MIB,
            ),
            partition_bytes_max: configs
                .contains_key("replica.fetch.max.bytes")
                .then(|| get(configs, "replica.fetch.max.bytes", MIB, 1024, 64 * MIB)),
        };
        let availability_check_ms = get(configs, "availability.check.ms", 5_000u64, 100, 3_600_000);
        let topic_config_sync_ms = get(configs, "topic.config.sync.ms", 5_000u64, 1_000, 86_400_000);
        let topic_missing_max_ms =
            get(configs, "cluster.link.retry.timeout.ms", 300_000u64, 1_000, 86_400_000);
        let metadata_max_age_ms = get(configs, "metadata.max.age.ms", 5_000u64, 100, 3_600_000);
        Self {
            fetch,
            metadata_max_age: Duration::from_millis(metadata_max_age_ms),
            availability_check: Duration::from_millis(availability_check_ms),
            topic_missing_max: Duration::from_millis(topic_missing_max_ms),
            topic_config_sync: Duration::from_millis(topic_config_sync_ms),
            availability_failures_max: get(
                configs,
                "availability.check.consecutive.failure.threshold",
                3,
                1,
                1_000,
            ),
        }
    }
}

/// Topic configs that follow the source, beside those that always do: as set, or the default list.
pub fn synced_topic_configs(configs: &BTreeMap<String, String>) -> BTreeSet<String> {
    match configs.get("topic.config.sync.include") {
        Some(list) => {
            list.split(',').map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect()
        }
        None => crate::setup::SYNCED.iter().map(|key| (*key).to_owned()).collect(),
    }
}

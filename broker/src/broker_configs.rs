//! Broker configs: those that clients ask for, with Kafka's defaults and what [`Settings`] makes of them,
//! and which of them a topic config falls back to. None can be changed while brokers run.

use crate::configs::{Kind, Known, known};
use crate::state::Settings;

/// By name.
pub const BROKER_CONFIGS: &[Known] = &[
    known("auto.create.topics.enable", "true", Kind::Boolean),
    known("compression.type", "producer", Kind::String),
    known("default.replication.factor", "1", Kind::Int),
    known("delete.topic.enable", "true", Kind::Boolean),
    known("log.cleanup.policy", "delete", Kind::List),
    known("log.flush.start.offset.checkpoint.interval.ms", "60000", Kind::Int),
    known("log.message.timestamp.after.max.ms", "3600000", Kind::Long),
    known("log.message.timestamp.type", "CreateTime", Kind::String),
    known("log.retention.bytes", "-1", Kind::Long),
    known("log.retention.check.interval.ms", "300000", Kind::Long),
    known("log.retention.hours", "168", Kind::Int),
    known("log.segment.bytes", "1073741824", Kind::Int),
    known("message.max.bytes", "1048588", Kind::Int),
    known("min.insync.replicas", "1", Kind::Int),
    known("node.id", "", Kind::Int),
    known("num.partitions", "1", Kind::Int),
    known("producer.id.expiration.check.interval.ms", "600000", Kind::Int),
    known("producer.id.expiration.ms", "86400000", Kind::Int),
    known("socket.request.max.bytes", "104857600", Kind::Int),
    known("ssl.keystore.password", "", Kind::Password),
    known("transaction.max.timeout.ms", "900000", Kind::Int),
    known("transaction.partition.verification.enable", "true", Kind::Boolean),
    known("transactional.id.expiration.ms", "604800000", Kind::Int),
    known("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// The value of a config on `broker`.
pub fn value(settings: &Settings, broker: i32, config: &Known) -> String {
    match config.name {
        "auto.create.topics.enable" => settings.auto_create_topics.to_string(),
        "default.replication.factor" => settings.default_replication.to_string(),
        "log.flush.start.offset.checkpoint.interval.ms" => settings.log_start_save_ms.to_string(),
        "log.retention.check.interval.ms" => settings.retention_check_ms.to_string(),
        "node.id" => broker.to_string(),
        "num.partitions" => settings.default_partitions.to_string(),
        "producer.id.expiration.ms" => settings.producer_id_expiration_ms.to_string(),
        "socket.request.max.bytes" => settings.socket_request_max_bytes.to_string(),
        "transaction.max.timeout.ms" => settings.transaction_max_timeout_ms.to_string(),
        "transactional.id.expiration.ms" => settings.transactional_id_expiration_ms.to_string(),
        _ => config.default.to_owned(),
    }
}

/// The broker config that a topic config falls back to (`ServerTopicConfigSynonyms`). Some have none, or
/// one of another unit, which isn't told.
pub fn behind(topic_config: &str) -> Option<&'static str> {
    Some(match topic_config {
        "cleanup.policy" => "log.cleanup.policy",
        "compression.gzip.level" => "compression.gzip.level",
        "compression.lz4.level" => "compression.lz4.level",
        "compression.type" => "compression.type",
        "compression.zstd.level" => "compression.zstd.level",
        "delete.retention.ms" => "log.cleaner.delete.retention.ms",
        "file.delete.delay.ms" => "log.segment.delete.delay.ms",
        "flush.messages" => "log.flush.interval.messages",
        "index.interval.bytes" => "log.index.interval.bytes",
        "local.retention.bytes" => "log.local.retention.bytes",
        "local.retention.ms" => "log.local.retention.ms",
        "max.compaction.lag.ms" => "log.cleaner.max.compaction.lag.ms",
        "max.decompressed.message.bytes" => "max.decompressed.message.bytes",
        "max.message.bytes" => "message.max.bytes",
        "message.timestamp.after.max.ms" => "log.message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms" => "log.message.timestamp.before.max.ms",
        "message.timestamp.type" => "log.message.timestamp.type",
        "min.cleanable.dirty.ratio" => "log.cleaner.min.cleanable.ratio",
        "min.compaction.lag.ms" => "log.cleaner.min.compaction.lag.ms",
        "min.insync.replicas" => "min.insync.replicas",
        "preallocate" => "log.preallocate",
        "remote.copy.lag.bytes" => "log.remote.copy.lag.bytes",
        "remote.copy.lag.ms" => "log.remote.copy.lag.ms",
        "retention.bytes" => "log.retention.bytes",
        "segment.bytes" => "log.segment.bytes",
        "segment.index.bytes" => "log.index.size.max.bytes",
        "unclean.leader.election.enable" => "unclean.leader.election.enable",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configs::topic_config;

    #[test]
    fn broker_configs_are_listed_by_name_and_agree_with_the_topics() {
        assert!(BROKER_CONFIGS.is_sorted_by_key(|config| config.name));
        for config in crate::configs::TOPIC_CONFIGS {
            let Some(name) = behind(config.name) else { continue };
            if let Some(broker) = BROKER_CONFIGS.iter().find(|broker| broker.name == name) {
                assert_eq!(
                    Some(broker.default),
                    topic_config(config.name).map(|topic| topic.default),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn defaults_are_those_of_settings() {
        let settings = Settings::new("cluster", Vec::new(), 0);
        for config in BROKER_CONFIGS {
            let differs = ["auto.create.topics.enable", "node.id"].contains(&config.name);
            assert_eq!(value(&settings, 3, config) != config.default, differs, "{}", config.name);
        }
    }
}

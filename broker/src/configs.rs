//! Topic configs: those that Kafka 4 knows, with its defaults, and what the log makes of them.

use std::collections::BTreeMap;

use crate::log::{Retention, Rules, TimestampType};

/// The type that DescribeConfigs names (KIP-569).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
    Password = 9,
}

#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
}

impl Known {
    /// Where the value of a topic that wasn't given one comes from.
    pub fn default_source(&self) -> i8 {
        match self.name {
            // A new cluster of Kafka 4.1 and later has it set for all brokers (KIP-966).
            "min.insync.replicas" => DYNAMIC_DEFAULT_BROKER_CONFIG,
            _ => DEFAULT_CONFIG,
        }
    }
}

pub const fn known(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known { name, default, kind }
}

/// Where a value comes from (`DescribeConfigsResponse.ConfigSource`).
pub const DYNAMIC_TOPIC_CONFIG: i8 = 1;
pub const DYNAMIC_DEFAULT_BROKER_CONFIG: i8 = 3;
pub const STATIC_BROKER_CONFIG: i8 = 4;
pub const DEFAULT_CONFIG: i8 = 5;

const FOREVER: &str = "9223372036854775807";

/// By name.
pub const TOPIC_CONFIGS: &[Known] = &[
    known("cleanup.policy", "delete", Kind::List),
    known("compression.gzip.level", "-1", Kind::Int),
    known("compression.lz4.level", "9", Kind::Int),
    known("compression.type", "producer", Kind::String),
    known("compression.zstd.level", "3", Kind::Int),
    known("delete.retention.ms", "86400000", Kind::Long),
    known("errors.deadletterqueue.group.enable", "false", Kind::Boolean),
    known("file.delete.delay.ms", "60000", Kind::Long),
    known("flush.messages", FOREVER, Kind::Long),
    known("flush.ms", FOREVER, Kind::Long),
    known("follower.replication.throttled.replicas", "", Kind::List),
    known("index.interval.bytes", "4096", Kind::Int),
    known("leader.replication.throttled.replicas", "", Kind::List),
    known("local.retention.bytes", "-2", Kind::Long),
    known("local.retention.ms", "-2", Kind::Long),
    known("max.compaction.lag.ms", FOREVER, Kind::Long),
    known("max.decompressed.message.bytes", "2147483639", Kind::Int),
    known("max.message.bytes", "1048588", Kind::Int),
    known("message.timestamp.after.max.ms", "3600000", Kind::Long),
    known("message.timestamp.before.max.ms", FOREVER, Kind::Long),
    known("message.timestamp.type", "CreateTime", Kind::String),
    known("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    known("min.compaction.lag.ms", "0", Kind::Long),
    known("min.insync.replicas", "1", Kind::Int),
    known("preallocate", "false", Kind::Boolean),
    known("remote.copy.lag.bytes", "-1", Kind::Long),
    known("remote.copy.lag.ms", "0", Kind::Long),
    known("remote.log.copy.disable", "false", Kind::Boolean),
    known("remote.log.delete.on.disable", "false", Kind::Boolean),
    known("remote.storage.enable", "false", Kind::Boolean),
    known("retention.bytes", "-1", Kind::Long),
    known("retention.ms", "604800000", Kind::Long),
    known("segment.bytes", "1073741824", Kind::Int),
    known("segment.index.bytes", "10485760", Kind::Int),
    known("segment.jitter.ms", "0", Kind::Long),
    known("segment.ms", "604800000", Kind::Long),
    known("unclean.leader.election.enable", "false", Kind::Boolean),
];

pub fn topic_config(name: &str) -> Option<&'static Known> {
    TOPIC_CONFIGS.binary_search_by(|config| config.name.cmp(name)).ok().map(|at| &TOPIC_CONFIGS[at])
}

/// What was set on one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicConfigs {
    set: BTreeMap<String, String>,
}

impl TopicConfigs {
    /// # Errors
    /// What Kafka answers to it with `INVALID_CONFIG`: an unknown name, a value of another type.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let known = topic_config(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
        check(known, value)?;
        self.set.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn unset(&mut self, name: &str) {
        self.set.remove(name);
    }

    /// What can be wrong with values that are right each by itself (`LogConfig.validateValues`).
    ///
    /// # Errors
    /// As [`TopicConfigs::set`].
    pub fn check_together(&self) -> Result<(), String> {
        let (least, most) = (self.number("min.compaction.lag.ms"), self.number("max.compaction.lag.ms"));
        if least > most {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
            ));
        }
        if self.get("remote.storage.enable") == "true" {
            return Err(
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
                        with remote log storage."
                    .to_owned(),
            );
        }
        Ok(())
    }

    pub fn explicit(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    pub fn get(&self, name: &str) -> &str {
        self.explicit(name).or_else(|| topic_config(name).map(|known| known.default)).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or_default()
    }

    /// How many of `replicas` must be in sync for `acks=all`: more than there are is never asked for.
    pub fn in_sync_min(&self, replicas: usize) -> usize {
        usize::try_from(self.number("min.insync.replicas")).unwrap_or(usize::MAX).min(replicas)
    }

    pub fn rules(&self) -> Rules {
        let log_append_time = self.get("message.timestamp.type") == "LogAppendTime";
        Rules {
            message_max_bytes: usize::try_from(self.number("max.message.bytes")).unwrap_or(0),
            segment_bytes: self.number("segment.bytes").max(0).cast_unsigned(),
            segment_ms: self.number("segment.ms"),
            compacted: self.get("cleanup.policy").split(',').any(|policy| policy.trim() == "compact"),
            timestamp_type: if log_append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            timestamp_before_max_ms: self.number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: self.number("message.timestamp.after.max.ms"),
        }
    }

    /// None when the topic isn't one that deletes.
    pub fn retention(&self) -> Option<Retention> {
        let deletes = self.get("cleanup.policy").split(',').any(|policy| policy.trim() == "delete");
        let at_least_zero = |name: &str| Some(self.number(name)).filter(|value| *value >= 0);
        deletes.then(|| Retention {
            milliseconds: at_least_zero("retention.ms"),
            bytes: at_least_zero("retention.bytes").map(i64::cast_unsigned),
        })
    }
}

fn check(known: &Known, value: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("Invalid value {value} for configuration {}: {why}", known.name));
    let number = || value.trim().parse::<i64>().ok();
    match known.kind {
        Kind::Boolean if !matches!(value, "true" | "false") => {
            wrong("Expected value to be either true or false")
        }
        Kind::Int if number().is_none_or(|number| i32::try_from(number).is_err()) => {
            wrong("Not a number of type INT")
        }
        Kind::Long if number().is_none() => wrong("Not a number of type LONG"),
        Kind::Double if value.trim().parse::<f64>().is_err() => wrong("Not a number of type DOUBLE"),
        _ => match allowed(known.name) {
            Some(words) if !value.split(',').all(|word| words.contains(&word.trim())) => {
                wrong(&format!("String must be one of: {}", words.join(", ")))
            }
            _ if number().is_some_and(|number| number < least(known.name)) => {
                wrong(&format!("Value must be at least {}", least(known.name)))
            }
            _ => Ok(()),
        },
    }
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "cleanup.policy" => Some(&["compact", "delete"]),
        // The log stores what it is sent, so a codec of the broker's own can't be promised.
        "compression.type" => Some(&["producer"]),
        "message.timestamp.type" => Some(&["CreateTime", "LogAppendTime"]),
        _ => None,
    }
}

fn least(name: &str) -> i64 {
    match name {
        "compression.gzip.level" | "compression.zstd.level" => i64::MIN,
        "retention.bytes" | "retention.ms" => -1,
        "local.retention.bytes" | "local.retention.ms" => -2,
        "remote.copy.lag.bytes" | "remote.copy.lag.ms" => -1,
        "min.insync.replicas" | "segment.ms" | "compression.lz4.level" | "max.compaction.lag.ms" => 1,
        "segment.bytes" => 14,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_listed_by_name_and_their_defaults_are_legal() {
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|config| config.name));
        for config in TOPIC_CONFIGS.iter().filter(|config| !config.default.is_empty()) {
            assert_eq!(check(config, config.default), Ok(()), "{}", config.name);
        }
    }

    #[test]
    fn what_is_set_wins_and_what_is_wrong_is_refused() {
        let mut configs = TopicConfigs::default();
        configs.set("retention.ms", "1000").unwrap();
        assert_eq!(configs.retention().unwrap().milliseconds, Some(1_000));
        for (name, value) in [
            ("retention.msx", "1"),
            ("retention.ms", "x"),
            ("cleanup.policy", "drop"),
            ("segment.bytes", "1"),
        ] {
            assert!(configs.set(name, value).is_err(), "{name}={value}");
        }
        configs.unset("retention.ms");
        assert_eq!(configs.get("retention.ms"), "604800000");
    }
}

//! Which keys there are, and what a value of each must look like. A key that needs what this version doesn't have
//! is known all the same: it is refused by its name.

use actors::pace;
use actors::sync::acls::filters::AclFilters;
use actors::sync::acls::settings as acls;
use actors::sync::filters::Filters;
use actors::sync::mirrors;
use actors::sync::offsets::settings as offsets;
use catalog::{Cluster, Link};

use crate::api::error::{ApiError, ApiResult};
use crate::api::names::check_prefix;

/// Names the registered cluster that is the link's source.
pub const SOURCE_CLUSTER: &str = "source.cluster";

/// What a value may be.
#[derive(Clone, Copy)]
enum Rule {
    Text,
    Integer {
        min: i64,
        max: i64,
    },
    /// May be empty, which means something.
    AnyText,
    /// A list of topic configs that may follow the source; empty: none.
    TopicConfigs,
    OneOf(&'static [&'static str]),
    /// Which groups, as JSON.
    GroupFilters,
    /// Which ACLs, as JSON.
    AclFilters,
    /// Principals, separated by semicolons.
    Principals,
    /// Which topics, as JSON.
    TopicFilters,
    /// What topic names may begin with.
    TopicPrefix,
    /// A secret: where it is, never what it is. The catalog isn't encrypted at rest yet.
    Reference,
    /// Anything else needs what this version doesn't have.
    Only(&'static str),
    NotYet,
}

pub struct Key {
    pub name: &'static str,
    pub default: Option<&'static str>,
    rule: Rule,
}

const fn works(name: &'static str, default: Option<&'static str>, rule: Rule) -> Key {
    Key { name, default, rule }
}

const fn only(name: &'static str, value: &'static str) -> Key {
    Key { name, default: Some(value), rule: Rule::Only(value) }
}

const fn not_yet(name: &'static str) -> Key {
    Key { name, default: None, rule: Rule::NotYet }
}

const MIB: i64 = 1024 * 1024;
const HOUR_MS: i64 = 3_600_000;

/// Of a Kafka cluster, registered or in a link. Values are checked by the client itself.
pub static CLIENT_KEYS: [Key; 23] = [
    works("bootstrap.servers", None, Rule::Text),
    works("client.id", Some("lockstep"), Rule::Text),
    works("request.timeout.ms", Some("30000"), Rule::Text),
    works("security.protocol", Some("PLAINTEXT"), Rule::Text),
    works("sasl.mechanism", None, Rule::Text),
    works("sasl.jaas.config", None, Rule::Reference),
    works("sasl.username", None, Rule::Text),
    works("sasl.password", None, Rule::Reference),
    not_yet("sasl.oauthbearer.token.endpoint.url"),
    not_yet("sasl.oauthbearer.client.id"),
    not_yet("sasl.oauthbearer.client.secret"),
    not_yet("sasl.oauthbearer.scope"),
    works("ssl.truststore.certificates", None, Rule::Text),
    works("ssl.truststore.location", None, Rule::Text),
    works("ssl.truststore.type", None, Rule::Text),
    works("ssl.truststore.password", None, Rule::Reference),
    works("ssl.keystore.key", None, Rule::Reference),
    works("ssl.keystore.location", None, Rule::Text),
    works("ssl.keystore.type", None, Rule::Text),
    works("ssl.keystore.password", None, Rule::Reference),
    works("ssl.keystore.certificate.chain", None, Rule::Text),
    works("ssl.key.password", None, Rule::Reference),
    works("ssl.endpoint.identification.algorithm", Some("https"), Rule::AnyText),
];

/// Of a registered cluster beside how it is reached.
pub static CLUSTER_KEYS: [Key; 1] =
    [works(Cluster::LINKS_MAX_KEY, Some("10"), Rule::Integer { min: 1, max: LINKS_MAX })];

/// Each link has connections of its own to every broker.
const LINKS_MAX: i64 = 1_000;

/// Bounds are those within which the data plane takes a value.
pub static LINK_KEYS: [Key; 34] = [
    works(SOURCE_CLUSTER, None, Rule::Text),
    works(
        "availability.check.consecutive.failure.threshold",
        Some("3"),
        Rule::Integer { min: 1, max: 1_000 },
    ),
    works("availability.check.ms", Some("5000"), Rule::Integer { min: 100, max: HOUR_MS }),
    works("metadata.max.age.ms", Some("5000"), Rule::Integer { min: 100, max: HOUR_MS }),
    works("replica.fetch.max.bytes", Some("1048576"), Rule::Integer { min: 1024, max: 64 * MIB }),
    works("replica.fetch.min.bytes", Some("1"), Rule::Integer { min: 1, max: i32::MAX as i64 }),
    works(
        "replica.fetch.response.max.bytes",
        Some("8388608"),
        Rule::Integer { min: 64 * 1024, max: 64 * MIB },
    ),
    works("replica.fetch.wait.max.ms", Some("500"), Rule::Integer { min: 0, max: 30_000 }),
    works(Link::AUTO_CREATE_KEY, Some("false"), Rule::OneOf(&["true", "false"])),
    works(Link::PAUSED_KEY, Some("false"), Rule::OneOf(&["true", "false"])),
    only("connection.mode", "OUTBOUND"),
    only("consumer.group.prefix.enable", "false"),
    only("link.mode", "DESTINATION"),
    works(acls::FILTERS, None, Rule::AclFilters),
    works(
        acls::DELETE_MAX_PERCENT,
        Some(acls::DELETE_MAX_PERCENT_DEFAULT),
        Rule::Integer { min: 1, max: 100 },
    ),
    works(acls::ENABLE, Some("false"), Rule::OneOf(&["true", "false"])),
    works(acls::MODE, Some(acls::MODES[0]), Rule::OneOf(&acls::MODES)),
    works(acls::MS, Some("5000"), Rule::Integer { min: 1_000, max: 24 * HOUR_MS }),
    works(acls::OWN_PRINCIPALS, None, Rule::Principals),
    works(acls::WRITE_ON_MIRRORS, Some(acls::WRITES_ON_MIRRORS[0]), Rule::OneOf(&acls::WRITES_ON_MIRRORS)),
    works(mirrors::FILTERS, None, Rule::TopicFilters),
    not_yet("batch.coalesce"),
    works(Link::PREFIX_KEY, None, Rule::TopicPrefix),
    works("cluster.link.retry.timeout.ms", Some("300000"), Rule::Integer { min: 1_000, max: 24 * HOUR_MS }),
    works(offsets::FILTERS, None, Rule::GroupFilters),
    works(offsets::ENABLE, Some("false"), Rule::OneOf(&["true", "false"])),
    works(offsets::MS, Some("1000"), Rule::Integer { min: 1_000, max: 24 * HOUR_MS }),
    works(offsets::POLICY, Some(offsets::POLICIES[0]), Rule::OneOf(&offsets::POLICIES)),
    not_yet("gap.fill"),
    not_yet("mirror.start.offset.spec"),
    works(pace::CLIENTS_FIRST, Some("true"), Rule::OneOf(&["true", "false"])),
    works(pace::CAP, None, Rule::Integer { min: 1_024, max: i64::MAX }),
    works(
        "topic.config.sync.include",
        Some(
            "retention.ms,retention.bytes,delete.retention.ms,min.compaction.lag.ms,max.compaction.lag.ms,\
             segment.bytes,segment.ms",
        ),
        Rule::TopicConfigs,
    ),
    works("topic.config.sync.ms", Some("5000"), Rule::Integer { min: 1_000, max: 24 * HOUR_MS }),
];

/// What a link is made with and stays: another value is another link.
pub const IMMUTABLE: [&str; 4] = [SOURCE_CLUSTER, Link::PREFIX_KEY, "connection.mode", "link.mode"];

/// Kafka client keys that can't matter here.
pub const WITHOUT_EFFECT: [&str; 43] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.size",
    "buffer.memory",
    "check.crcs",
    "client.dns.lookup",
    "client.rack",
    "compression.type",
    "connections.max.idle.ms",
    "default.api.timeout.ms",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.idempotence",
    "exclude.internal.topics",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "group.id",
    "group.instance.id",
    "heartbeat.interval.ms",
    "interceptor.classes",
    "isolation.level",
    "key.deserializer",
    "key.serializer",
    "linger.ms",
    "max.block.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "max.poll.records",
    "max.request.size",
    "partition.assignment.strategy",
    "partitioner.class",
    "receive.buffer.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retries",
    "retry.backoff.ms",
    "send.buffer.bytes",
    "session.timeout.ms",
    "value.deserializer",
];

/// What depends on the brokers that a topic stands on (SPEC section 5).
fn never_follows(topic_config: &str) -> bool {
    topic_config == "min.insync.replicas" || topic_config.ends_with(".replication.throttled.replicas")
}

impl Key {
    pub fn check(&self, value: &str) -> ApiResult<()> {
        let problem = match self.rule {
            Rule::Text if value.is_empty() => "must not be empty".to_owned(),
            Rule::Text | Rule::AnyText => return Ok(()),
            Rule::TopicConfigs => match value.split(',').map(str::trim).find(|key| never_follows(key)) {
                None => return Ok(()),
                Some(key) => format!("'{key}' never follows the source: it is the destination's own"),
            },
            Rule::OneOf(values) if values.iter().any(|known| value.eq_ignore_ascii_case(known)) => return Ok(()),
            Rule::OneOf(values) => format!("must be one of: {}", values.join(", ")),
            Rule::GroupFilters => match Filters::of_groups(value) {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            },
            Rule::AclFilters => match AclFilters::parse(value) {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            },
            Rule::Principals => match acls::principals(value) {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            },
            Rule::TopicFilters => match Filters::of_topics(value) {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            },
            Rule::TopicPrefix => return check_prefix(self.name, value),
            Rule::Reference if ["file:/", "env:"].iter().any(|form| value.starts_with(form)) => return Ok(()),
            Rule::Reference => {
                "secrets aren't kept by this version: give file:/PATH or env:NAME, which every connection reads".to_owned()
            }
            Rule::Integer { min, max } => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => return Ok(()),
                _ => format!("must be a whole number, {min} to {max}"),
            },
            Rule::Only(only) if value.eq_ignore_ascii_case(only) => return Ok(()),
            Rule::Only(only) => format!("this version supports only '{only}'; leave the key out"),
            Rule::NotYet => "this version doesn't support it yet; leave it out".to_owned(),
        };
        Err(ApiError::invalid(self.name, problem))
    }
}

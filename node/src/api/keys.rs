//! Configuration keys of links and registered clusters (SPEC section 5): which are known, which
//! work in this version, and what a value must look like (`known`).
//!
//! A key that would do nothing is refused, so that nobody relies on it; Kafka client keys that
//! can't matter here are left out with a warning, so that a pasted properties file works.

mod known;

use std::collections::BTreeMap;

use kafka::ClientConfig;

use self::known::{CLIENT_KEYS, CLUSTER_KEYS, IMMUTABLE, WITHOUT_EFFECT};
use super::error::{ApiError, ApiResult};
use super::types::ConfigEntry;
pub use known::{Key, LINK_KEYS, SOURCE_CLUSTER};

const ENTRIES_MAX: usize = 200;
/// A certificate chain is some KiB.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Edits up to which a key is offered as what was meant.
const NEAREST_EDITS_MAX: usize = 4;

/// Configs as they may be recorded, and what was left out of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub configs: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

/// Configs of a registered cluster.
pub fn check_cluster(entries: &[ConfigEntry]) -> ApiResult<Checked> {
    let checked = check(entries, cluster_key)?;
    ClientConfig::from_configs(&checked.configs).map_err(|e| ApiError::invalid(&e.key, e.message))?;
    Ok(checked)
}

pub fn is_client_key(name: &str) -> bool {
    CLIENT_KEYS.iter().any(|key| key.name == name)
}

pub fn is_immutable(name: &str) -> bool {
    IMMUTABLE.contains(&name)
}

/// A key of a link by its name; none when it has no effect here.
pub fn link_key(name: &str) -> ApiResult<Option<&'static Key>> {
    find(name, LINK, "a link")
}

/// A key of a registered cluster by its name; none when it has no effect here.
pub fn cluster_key(name: &str) -> ApiResult<Option<&'static Key>> {
    find(name, CLUSTER, "a cluster")
}

/// Configs of a link; the registered cluster that is its source, when they name one.
pub fn check_link(entries: &[ConfigEntry]) -> ApiResult<(Checked, Option<String>)> {
    let mut checked = check(entries, link_key)?;
    let source = checked.configs.remove(SOURCE_CLUSTER);
    if let Some(source) = &source {
        if let Some(key) = checked.configs.keys().find(|key| is_client_key(key)) {
            let message = format!("belongs to cluster '{source}'; set it there, or give no {SOURCE_CLUSTER}");
            return Err(ApiError::invalid(key, message));
        }
    } else if checked.configs.contains_key("bootstrap.servers") {
        ClientConfig::from_configs(&checked.configs).map_err(|e| ApiError::invalid(&e.key, e.message))?;
    } else {
        let message = "name a registered cluster as the link's source, or give bootstrap.servers";
        return Err(ApiError::invalid(SOURCE_CLUSTER, message));
    }
    Ok((checked, source))
}

/// A list of entries as a map: each name once, sizes bounded.
pub fn to_map(entries: &[ConfigEntry]) -> ApiResult<BTreeMap<String, String>> {
    if entries.len() > ENTRIES_MAX {
        return Err(ApiError::invalid("configs", format!("at most {ENTRIES_MAX} entries")));
    }
    let mut map = BTreeMap::new();
    for ConfigEntry { name, value } in entries {
        if value.len() > VALUE_BYTES_MAX {
            return Err(ApiError::invalid(name, format!("longer than {VALUE_BYTES_MAX} bytes")));
        }
        if map.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(ApiError::invalid(name, "given twice; give it once"));
        }
    }
    Ok(map)
}

type Known = &'static [&'static [Key]];

const CLUSTER: Known = &[&CLIENT_KEYS, &CLUSTER_KEYS];
const LINK: Known = &[&LINK_KEYS, &CLIENT_KEYS];

fn check(
    entries: &[ConfigEntry],
    key: impl Fn(&str) -> ApiResult<Option<&'static Key>>,
) -> ApiResult<Checked> {
    let mut checked = Checked::default();
    for (name, value) in to_map(entries)? {
        match key(&name)? {
            Some(key) => {
                key.check(&value)?;
                checked.configs.insert(name, value);
            }
            None => checked.warnings.push(format!("{name}: has no effect here and was left out")),
        }
    }
    Ok(checked)
}

fn find(name: &str, known: Known, owner: &str) -> ApiResult<Option<&'static Key>> {
    let all = || known.iter().copied().flatten();
    if let Some(key) = all().find(|key| key.name == name) {
        return Ok(Some(key));
    }
    if WITHOUT_EFFECT.contains(&name) {
        return Ok(None);
    }
    let nearest = all().map(|key| (strsim::levenshtein(name, key.name), key.name)).min();
    let hint = match nearest {
        Some((edits, known)) if edits <= NEAREST_EDITS_MAX => format!("; did you mean '{known}'?"),
        Some((_, known)) => format!("; the nearest known key is '{known}'"),
        None => String::new(),
    };
    Err(ApiError::invalid(name, format!("is not a configuration key of {owner}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<ConfigEntry> {
        pairs.iter().map(|(n, v)| ConfigEntry { name: (*n).into(), value: (*v).into() }).collect()
    }

    fn link(pairs: &[(&str, &str)]) -> Result<(Checked, Option<String>), String> {
        check_link(&entries(pairs)).map_err(|e| e.message)
    }

    /// The data plane has the list, and this is how users read it.
    #[test]
    fn the_default_of_synced_topic_configs_is_what_is_synced_beside_those_that_always_are() {
        let key = LINK_KEYS.iter().find(|key| key.name == "topic.config.sync.include").expect("a key");
        let shown: Vec<&str> = key.default.expect("a default").split(',').collect();
        let always = actors::sync::configs::ALWAYS;
        let synced: Vec<&str> =
            actors::setup::SYNCED.into_iter().filter(|key| !always.contains(key)).collect();
        assert_eq!(shown, synced);
    }

    #[test]
    fn a_pasted_properties_file_works_with_warnings() {
        let pasted = [("bootstrap.servers", " a:9092 "), ("acks", "all"), ("security.protocol", "PLAINTEXT")];
        let checked = check_cluster(&entries(&pasted)).expect("taken");
        let kept: Vec<_> = checked.configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(kept, ["bootstrap.servers=a:9092", "security.protocol=PLAINTEXT"]);
        assert_eq!(checked.warnings, ["acks: has no effect here and was left out"]);
    }

    #[test]
    fn the_source_is_a_registered_cluster_or_client_keys() {
        let (checked, source) =
            link(&[("source.cluster", "east"), ("link.mode", "destination")]).expect("ok");
        assert_eq!((checked.configs.len(), source.as_deref()), (1, Some("east")));
        let (checked, source) = link(&[("bootstrap.servers", "a:1")]).expect("ok");
        assert_eq!((checked.configs.len(), source), (1, None));
    }

    #[test]
    fn what_cant_be_taken_is_named_with_the_way_out() {
        let source = ("source.cluster", "east");
        for (pairs, message) in [
            (
                vec![],
                "source.cluster: name a registered cluster as the link's source, or give bootstrap.servers",
            ),
            (
                vec![source, ("replica.fetch.maxbytes", "1")],
                "replica.fetch.maxbytes: is not a configuration key of a link; \
                 did you mean 'replica.fetch.max.bytes'?",
            ),
            (
                vec![source, ("client.id", "x")],
                "client.id: belongs to cluster 'east'; set it there, or give no source.cluster",
            ),
            (
                vec![source, ("replica.fetch.min.bytes", "lots")],
                "replica.fetch.min.bytes: must be a whole number, 1 to 2147483647",
            ),
            (
                vec![source, ("consumer.group.prefix.enable", "true")],
                "consumer.group.prefix.enable: this version supports only 'false'; leave the key out",
            ),
            (
                vec![source, ("cluster.link.prefix", "east/")],
                "cluster.link.prefix: must be 1 to 200 of the characters a-z A-Z 0-9 . _ -",
            ),
            (
                vec![source, ("auto.create.mirror.topics.filters", r#"{"groupFilters":[]}"#)],
                "auto.create.mirror.topics.filters: unknown field `groupFilters`, expected `topicFilters` at line 1 \
                 column 15; give it as \
                 {\"topicFilters\":[{\"name\":\"*\",\"patternType\":\"LITERAL\",\"filterType\":\"INCLUDE\"}]}",
            ),
            (
                vec![source, ("consumer.offset.sync.policy", "newest")],
                "consumer.offset.sync.policy: must be one of: no-rewind, source",
            ),
            (
                vec![source, ("consumer.offset.group.filters", r#"{"groupFilters":[{"name":"a"}]}"#)],
                "consumer.offset.group.filters: missing field `patternType` at line 1 column 29; give it as \
                 {\"groupFilters\":[{\"name\":\"*\",\"patternType\":\"LITERAL\",\"filterType\":\"INCLUDE\"}]}",
            ),
            (
                vec![source, ("acl.sync.own.principals", "mirror")],
                "acl.sync.own.principals: 'mirror' is no principal; give User:NAME, several separated by ';'",
            ),
            (
                vec![source, ("acl.sync.delete.max.percent", "0")],
                "acl.sync.delete.max.percent: must be a whole number, 1 to 100",
            ),
            (vec![source, ("acl.sync.ms", "500")], "acl.sync.ms: must be a whole number, 1000 to 86400000"),
            (
                vec![source, ("gap.fill", "auto")],
                "gap.fill: this version doesn't support it yet; leave it out",
            ),
            (vec![source, source], "source.cluster: given twice; give it once"),
            (vec![("source.cluster", " ")], "source.cluster: must not be empty"),
        ] {
            assert_eq!(link(&pairs).expect_err("wrong"), message);
        }
        let error = check_cluster(&entries(&[("sasl.password", "hunter2")])).expect_err("a literal secret");
        assert_eq!(
            error.message,
            "sasl.password: secrets aren't kept by this version: give file:/PATH or env:NAME, which every connection \
             reads"
        );
        let error = check_cluster(&entries(&[("sasl.oauthbearer.scope", "x")])).expect_err("not yet");
        assert_eq!(
            error.message,
            "sasl.oauthbearer.scope: this version doesn't support it yet; leave it out"
        );
    }

    #[test]
    fn acl_filters_are_taken_as_they_are_documented_and_refused_with_their_form() {
        let form = actors::sync::acls::filters::FORM;
        for filters in [
            form,
            r#"{"aclFilters":[{"resourceFilter":{"resourceType":"any","patternType":"any"},"accessFilter":{"operation":"any","permissionType":"any"}}]}"#,
        ] {
            link(&[("source.cluster", "east"), ("acl.filters", filters), ("acl.sync.enable", "true")])
                .expect("taken");
        }
        let wrong = link(&[("source.cluster", "east"), ("acl.filters", "{}")]).expect_err("no filters");
        assert!(
            wrong.starts_with("acl.filters: missing field `aclFilters`") && wrong.contains(form),
            "{wrong}"
        );
    }

    #[test]
    fn credentials_are_taken_as_references() {
        let login = [
            ("bootstrap.servers", "a:9092"),
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "mirror"),
            ("sasl.password", "env:WEST_PASSWORD"),
            ("ssl.truststore.location", "/etc/kafka/ca.pem"),
        ];
        assert_eq!(check_cluster(&entries(&login)).expect("taken").configs.len(), login.len());
    }

    #[test]
    fn each_key_is_listed_once_and_defaults_are_taken() {
        let mut names: Vec<&str> =
            LINK_KEYS.iter().chain(&CLIENT_KEYS).chain(&CLUSTER_KEYS).map(|k| k.name).collect();
        names.extend(WITHOUT_EFFECT);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for key in LINK_KEYS.iter().chain(&CLIENT_KEYS).chain(&CLUSTER_KEYS) {
            if let Some(default) = key.default {
                assert!(key.check(default).is_ok(), "{}", key.name);
            }
        }
    }
}

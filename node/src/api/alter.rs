//! Changes to a configuration that stands: what it becomes, or what is wrong with them. Pure; the
//! outcome is checked like a configuration that is given anew.

use std::collections::{BTreeMap, BTreeSet};

use catalog::{Cluster, Link};

use super::error::{ApiError, ApiResult};
use super::keys::{self, Checked, Key, SOURCE_CLUSTER};
use super::types::{ConfigChange, ConfigEntry, ConfigOperation};

const BOOTSTRAP: &str = "bootstrap.servers";

/// A link's configs after these changes.
///
/// # Errors
/// 400, naming the key: unknown, immutable, or with a value that isn't taken.
pub fn link(link: &Link, changes: &[ConfigChange]) -> ApiResult<Checked> {
    let mut standing = link.configs.clone();
    standing.extend(link.source.as_ref().map(|source| (SOURCE_CLUSTER.to_owned(), source.to_string())));
    for change in changes.iter().filter(|change| keys::is_immutable(&change.name)) {
        let default = keys::link_key(&change.name)?.and_then(|key| key.default);
        let now = standing.get(&change.name).map(String::as_str).or(default);
        let wanted = change.value.as_deref().map(str::trim);
        if change.operation == ConfigOperation::Delete
            || now.zip(wanted).is_none_or(|(a, b)| !a.eq_ignore_ascii_case(b))
        {
            let message = "can't be changed on a link that exists; create another link";
            return Err(ApiError::invalid(&change.name, message));
        }
    }
    let merged = merge(standing, changes, keys::link_key)?;
    if link.source.is_none() && !merged.iter().any(|entry| entry.name == BOOTSTRAP) {
        let message = "the link's source is reached there; set it to other brokers instead";
        return Err(ApiError::invalid(BOOTSTRAP, message));
    }
    keys::check_link(&merged).map(|(checked, _)| checked)
}

/// A registered cluster's configs after these changes.
///
/// # Errors
/// 400, naming the key.
pub fn cluster(cluster: &Cluster, changes: &[ConfigChange]) -> ApiResult<Checked> {
    keys::check_cluster(&merge(cluster.configs.clone(), changes, keys::cluster_key)?)
}

fn merge(
    mut standing: BTreeMap<String, String>,
    changes: &[ConfigChange],
    key: impl Fn(&str) -> ApiResult<Option<&'static Key>>,
) -> ApiResult<Vec<ConfigEntry>> {
    if changes.is_empty() {
        return Err(ApiError::bad_request("the body: names no key to change"));
    }
    let mut seen = BTreeSet::new();
    for ConfigChange { name, value, operation } in changes {
        key(name)?;
        if !seen.insert(name) {
            return Err(ApiError::invalid(name, "given twice; give it once"));
        }
        match (operation, value) {
            (ConfigOperation::Set, Some(value)) => {
                standing.insert(name.clone(), value.clone());
            }
            (ConfigOperation::Set, None) => {
                return Err(ApiError::invalid(name, "SET needs a value; DELETE goes back to the default"));
            }
            (ConfigOperation::Delete, None) => {
                standing.remove(name);
            }
            (ConfigOperation::Delete, Some(_)) => {
                return Err(ApiError::invalid(name, "DELETE takes no value; leave it out"));
            }
        }
    }
    Ok(standing.into_iter().map(|(name, value)| ConfigEntry { name, value }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::LinkId;

    fn set(name: &str, value: &str) -> ConfigChange {
        ConfigChange { name: name.into(), value: Some(value.into()), operation: ConfigOperation::Set }
    }

    fn delete(name: &str) -> ConfigChange {
        ConfigChange { name: name.into(), value: None, operation: ConfigOperation::Delete }
    }

    /// A link whose source is the registered cluster east, or stands in its own configs.
    fn standing(source: Option<&str>) -> Link {
        let bootstrap = source.is_none().then(|| (BOOTSTRAP.to_owned(), "east:9092".to_owned()));
        let wait = ("replica.fetch.wait.max.ms".to_owned(), "100".to_owned());
        Link {
            id: LinkId("l".into()),
            name: "east-west".into(),
            destination: "west".into(),
            source: source.map(Into::into),
            source_cluster_id: "e".into(),
            destination_cluster_id: "w".into(),
            configs: bootstrap.into_iter().chain([wait]).collect(),
            mirrors: BTreeMap::new(),
        }
    }

    fn altered(source: Option<&str>, changes: &[ConfigChange]) -> Result<Vec<String>, String> {
        let checked = link(&standing(source), changes).map_err(|error| error.message)?;
        Ok(checked.configs.iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn what_isnt_named_stays() {
        let changes = [set("metadata.max.age.ms", " 1000 "), delete("replica.fetch.wait.max.ms")];
        assert_eq!(altered(Some("east"), &changes), Ok(vec!["metadata.max.age.ms=1000".into()]));
        let changes =
            [set("client.id", "x"), set("link.mode", "destination"), delete("replica.fetch.min.bytes")];
        let expected = [
            "bootstrap.servers=east:9092",
            "client.id=x",
            "link.mode=destination",
            "replica.fetch.wait.max.ms=100",
        ];
        assert_eq!(altered(None, &changes), Ok(expected.map(String::from).to_vec()));
    }

    #[test]
    fn a_key_without_effect_is_left_out_with_a_warning() {
        let checked = link(&standing(None), &[set("acks", "all")]).expect("taken");
        assert_eq!(checked.warnings, ["acks: has no effect here and was left out"]);
        assert_eq!(checked.configs, standing(None).configs);
    }

    #[test]
    fn what_cant_be_changed_is_named() {
        let immutable = "can't be changed on a link that exists; create another link";
        for (source, changes, message) in [
            (Some("east"), vec![set("source.cluster", "north")], format!("source.cluster: {immutable}")),
            (Some("east"), vec![delete("source.cluster")], format!("source.cluster: {immutable}")),
            (None, vec![set("source.cluster", "north")], format!("source.cluster: {immutable}")),
            (None, vec![set("link.mode", "SOURCE")], format!("link.mode: {immutable}")),
            (None, vec![set("cluster.link.prefix", "x.")], format!("cluster.link.prefix: {immutable}")),
            (
                None,
                vec![delete("replica.fetch.waitmax.ms")],
                "replica.fetch.waitmax.ms: is not a configuration key of a link; did you mean \
                 'replica.fetch.wait.max.ms'?"
                    .into(),
            ),
            (
                None,
                vec![set("replica.fetch.wait.max.ms", "soon")],
                "replica.fetch.wait.max.ms: must be a whole number, 0 to 30000".into(),
            ),
            (
                Some("east"),
                vec![set("client.id", "x")],
                "client.id: belongs to cluster 'east'; set it there, or give no source.cluster".into(),
            ),
            (
                None,
                vec![delete("bootstrap.servers")],
                "bootstrap.servers: the link's source is reached there; set it to other brokers instead"
                    .into(),
            ),
            (
                None,
                vec![set("client.id", "x"), delete("client.id")],
                "client.id: given twice; give it once".into(),
            ),
            (
                None,
                vec![ConfigChange { value: None, ..set("client.id", "") }],
                "client.id: SET needs a value; DELETE goes back to the default".into(),
            ),
            (
                None,
                vec![ConfigChange { value: Some("x".into()), ..delete("client.id") }],
                "client.id: DELETE takes no value; leave it out".into(),
            ),
            (None, vec![], "the body: names no key to change".into()),
        ] {
            assert_eq!(altered(source, &changes), Err(message));
        }
    }
}

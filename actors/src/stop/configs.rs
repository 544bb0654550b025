//! What was held while mirroring, because exact bytes need it, is set as the source has it when the mirror
//! stops (SPEC section 5). A source that doesn't answer leaves the destination's defaults.

use std::collections::BTreeMap;

use kafka::connection::Gate;
use kafka::topics::{self, ConfigValue, CreateError};
use kafka::{Client, Error, ErrorCode};

use crate::setup::held_keys;

/// The held configs as the source has them: those set on the topic itself.
pub async fn held_at(source: &Client, topic: &str) -> Result<BTreeMap<String, String>, Error> {
    let found = topics::topic_configs(source, topic).await?;
    Ok(own(&found))
}

fn own(found: &BTreeMap<String, ConfigValue>) -> BTreeMap<String, String> {
    let held = held_keys().filter_map(|key| Some((key, found.get(key)?)));
    held.filter(|(_, found)| found.is_own).map(|(key, found)| (key.to_owned(), found.value.clone())).collect()
}

/// What to change on a topic that has `ours`, so that it has the held configs as `source` has.
fn changes(
    ours: &BTreeMap<String, ConfigValue>,
    source: Option<&BTreeMap<String, String>>,
) -> BTreeMap<String, Option<String>> {
    let ours = own(ours);
    let wanted = |key: &str| source.and_then(|source| source.get(key));
    let change =
        |key: &'static str| (wanted(key) != ours.get(key)).then(|| (key.to_owned(), wanted(key).cloned()));
    held_keys().filter_map(change).collect()
}

/// Codes with which a change is refused as it is; others pass with time. 29: authorization, 40 and 42: what was
/// asked for, 44: a policy of the brokers.
const FOR_GOOD: [i16; 4] = [29, 40, 42, 44];

/// What couldn't be set free is said in words: the topic is an ordinary one all the same.
///
/// # Errors
/// What it waits for, when the destination doesn't answer.
pub async fn set_free(
    destination: &Client,
    topic: &str,
    source: Option<&BTreeMap<String, String>>,
    gate: &Gate,
) -> Result<Vec<String>, String> {
    let mut remarks = Vec::new();
    if source.is_none() {
        remarks.push(
            "the source didn't tell its configs: those that were held while mirroring have the destination's defaults".into(),
        );
    }
    let ours = match topics::topic_configs(destination, topic).await {
        Ok(ours) => ours,
        Err(Error::Broker { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, .. }) => return Ok(remarks),
        Err(Error::Broker { code: ErrorCode::TOPIC_AUTHORIZATION_FAILED, .. }) => {
            remarks.push(
                "what was held while mirroring stays: grant DESCRIBE_CONFIGS and ALTER_CONFIGS on the topic, and \
                 set it by hand"
                    .into(),
            );
            return Ok(remarks);
        }
        Err(error) => return Err(error.to_string()),
    };
    let changes = changes(&ours, source);
    if changes.is_empty() {
        return Ok(remarks);
    }
    match topics::alter_topic_configs(destination, topic, &changes, Some(gate.clone())).await {
        Ok(()) => Ok(remarks),
        Err(CreateError::Refused { code, message }) if FOR_GOOD.contains(&code.0) => {
            let keys: Vec<&str> = changes.keys().map(String::as_str).collect();
            let grant = match code {
                ErrorCode::TOPIC_AUTHORIZATION_FAILED => "; grant ALTER_CONFIGS on it",
                _ => "",
            };
            remarks.push(format!("{} stay as they were held: {code}: {message}{grant}", keys.join(", ")));
            Ok(remarks)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(of: &[(&str, &str, bool)]) -> BTreeMap<String, ConfigValue> {
        let value = |value: &str, is_own| ConfigValue { value: value.to_owned(), is_own };
        of.iter().map(|(key, text, is_own)| ((*key).to_owned(), value(text, *is_own))).collect()
    }

    #[test]
    fn what_was_held_becomes_what_the_source_has_and_nothing_else_changes() {
        let ours = configs(&[
            ("compression.type", "producer", true),
            ("message.timestamp.type", "CreateTime", true),
            ("unclean.leader.election.enable", "false", true),
            ("retention.ms", "1000", true),
            ("max.message.bytes", "1048588", false),
        ]);
        let source = own(&configs(&[
            ("compression.type", "zstd", true),
            ("message.timestamp.type", "CreateTime", false),
            ("unclean.leader.election.enable", "false", true),
            ("retention.ms", "5", true),
        ]));
        let changed = changes(&ours, Some(&source));
        let expected = [("compression.type", Some("zstd")), ("message.timestamp.type", None)];
        let expected: BTreeMap<_, _> =
            expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))).into();
        assert_eq!(changed, expected);
    }

    #[test]
    fn without_a_source_what_was_held_falls_back_to_the_defaults() {
        let ours = configs(&[("compression.type", "producer", true), ("retention.ms", "1000", true)]);
        assert_eq!(changes(&ours, None), BTreeMap::from([("compression.type".to_owned(), None)]));
    }
}

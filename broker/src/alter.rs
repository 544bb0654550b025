//! Changes of configs: the checks in the order of the broker that is asked (`ConfigAdminManager`) and of
//! the controller behind it (`ConfigurationControlManager`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;

use crate::api::ApiError;
use crate::api::describe_configs::{BROKER, TOPIC};
use crate::api::metadata::check_legal;
use crate::configs::{Kind, TopicConfigs, topic_config};
use crate::state::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Set,
    Delete,
    /// To a list.
    Append,
    Subtract,
}

impl Operation {
    pub fn of(id: i8) -> Option<Self> {
        match id {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One config of one resource is to change; no operation when its id doesn't exist.
#[derive(Debug, Clone)]
pub(crate) struct ConfigChange {
    pub name: String,
    pub operation: Option<Operation>,
    pub value: Option<String>,
}

/// One resource's changes.
#[derive(Debug, Clone)]
pub(crate) struct Alteration {
    pub kind: i8,
    pub name: String,
    pub changes: Vec<ConfigChange>,
    /// What isn't named goes back to its default (`AlterConfigs`).
    pub replaces: bool,
}

impl State {
    /// What becomes of each of a request's alterations, in its order.
    pub(crate) fn alter(
        &mut self,
        broker: i32,
        alterations: Vec<Alteration>,
        validate_only: bool,
    ) -> Vec<(Alteration, Result<(), ApiError>)> {
        let mut times: BTreeMap<(i8, String), usize> = BTreeMap::new();
        for alteration in &alterations {
            *times.entry((alteration.kind, alteration.name.clone())).or_default() += 1;
        }
        let one = |alteration: Alteration| {
            let twice = times[&(alteration.kind, alteration.name.clone())] > 1;
            let result = match twice {
                true => refused("Each resource must appear at most once."),
                false => self.alter_one(broker, &alteration, validate_only),
            };
            (alteration, result)
        };
        alterations.into_iter().map(one).collect()
    }

    fn alter_one(&mut self, broker: i32, alteration: &Alteration, only: bool) -> Result<(), ApiError> {
        let changes = &alteration.changes;
        let mut names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return refused("Error due to duplicate config keys");
        }
        let is_null =
            |change: &&ConfigChange| change.value.is_none() && change.operation != Some(Operation::Delete);
        let nulls: Vec<&str> = changes.iter().filter(is_null).map(|change| change.name.as_str()).collect();
        if !nulls.is_empty() {
            return refused(format!("Null value not supported for : {}", nulls.join(", ")));
        }
        match alteration.kind {
            TOPIC => self.alter_topic(alteration, only),
            BROKER => no_broker_config(broker, alteration),
            other => refused(format!("Unknown resource type {other}")),
        }
    }

    fn alter_topic(&mut self, alteration: &Alteration, only: bool) -> Result<(), ApiError> {
        let name = alteration.name.as_str();
        let invalid = |why: String| ApiError::new(Code::InvalidConfig, why);
        let current = self.topic(name).map(|topic| topic.configs.clone());
        let mut configs = match &current {
            Some(current) if !alteration.replaces => current.clone(),
            _ => TopicConfigs::default(),
        };
        let mut listed = Vec::new();
        for change in &alteration.changes {
            let operation = change.operation.ok_or(Code::UnknownServerError)?;
            listed.push((change, resulting(&configs, change, operation).map_err(invalid)?));
        }
        if name.is_empty() {
            return refused("Default topic resources are not allowed.");
        }
        check_legal(name)?;
        for (change, value) in listed {
            match value {
                Some(value) => configs.set(&change.name, &value).map_err(invalid)?,
                None => configs.unset(&change.name),
            }
        }
        configs.check_together().map_err(invalid)?;
        let Some(topic) = self.topics.get_mut(name) else {
            let message = format!("The topic '{name}' does not exist.");
            return Err(ApiError::new(Code::UnknownTopicOrPartition, message));
        };
        if !only {
            topic.configs = configs;
            self.changed();
        }
        Ok(())
    }
}

/// The value that a change leads to; None: the default.
fn resulting(
    configs: &TopicConfigs,
    change: &ConfigChange,
    operation: Operation,
) -> Result<Option<String>, String> {
    let given = change.value.as_deref().unwrap_or_default();
    let is_list = || topic_config(&change.name).is_some_and(|known| known.kind == Kind::List);
    match operation {
        Operation::Set => return Ok(Some(given.to_owned())),
        Operation::Delete => return Ok(None),
        Operation::Append | Operation::Subtract if !is_list() => {
            let (verb, name) =
                (if operation == Operation::Append { "APPEND" } else { "SUBTRACT" }, &change.name);
            return Err(format!("Can't {verb} to key {name} because its type is not LIST."));
        }
        Operation::Append | Operation::Subtract => {}
    }
    let mut parts: Vec<&str> = configs.get(&change.name).split(',').filter(|part| !part.is_empty()).collect();
    for part in given.split(',') {
        match operation {
            Operation::Append if !parts.contains(&part) => parts.push(part),
            Operation::Subtract => parts.retain(|known| *known != part),
            _ => {}
        }
    }
    Ok(Some(parts.join(",")))
}

/// Brokers' configs stay as they are: whatever is to change is one that can't while a broker runs.
fn no_broker_config(broker: i32, alteration: &Alteration) -> Result<(), ApiError> {
    let name = alteration.name.as_str();
    if !name.is_empty() && name.parse() != Ok(broker) {
        return refused(format!("Unexpected broker id, expected {broker}, but received {name}"));
    }
    if alteration.changes.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = alteration.changes.iter().map(|change| change.name.as_str()).collect();
    refused(format!("Cannot update these configs dynamically: Set({})", names.join(", ")))
}

fn refused(why: impl Into<String>) -> Result<(), ApiError> {
    Err(ApiError::new(Code::InvalidRequest, why))
}

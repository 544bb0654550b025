//! Topic configs follow the source (SPEC section 5, task `TopicConfigsSync`): what is synced is as the source
//! has it, what is held stays as exact bytes need it, whoever edits it by hand.
//!
//! The owner of a mirror's partition 0 does it. Nothing is written without its lease, nor for a mirror that
//! isn't mirrored any more: the gate of each change looks at both when the change goes out. A source that
//! couldn't be read changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{LinkId, MirrorTopic, NodeId, TopicId};
use kafka::connection::Gate;
use kafka::topics::{self, ConfigValue, CreateError};
use kafka::{Client, Error, ErrorCode, Metadata};

use crate::catalog_port::CatalogPort;
use crate::observe::{Observatory, TaskError, TaskView};
use crate::plane::LinkPlane;
use crate::setup::{self, HELD};
use crate::sync::{Writer, is_ours};

/// What a user calls it.
pub const TASK: &str = "TopicConfigsSync";

/// Topics in one request: with the keys that are asked for an answer stays far below the limit of a frame.
const TOPICS_A_REQUEST: usize = 200;

/// Follow the source whatever the link's configs say.
pub const ALWAYS: [&str; 2] = ["cleanup.policy", "max.message.bytes"];

type Configs = BTreeMap<String, ConfigValue>;

pub struct ConfigSync {
    pub link: LinkId,
    pub node: NodeId,
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
    pub every: Duration,
    /// Keys that follow the source beside those that always do.
    pub include: BTreeSet<String>,
}

impl ConfigSync {
    /// Until the task is aborted.
    pub async fn run(self) {
        loop {
            tokio::time::sleep(self.every).await;
            let errors = self.round().await;
            for (topic, error) in &errors {
                tracing::warn!(%topic, "{TASK}: {}", error.message);
            }
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks: BTreeMap::new() });
        }
    }

    /// What went wrong, by topic; by the empty name what has to do with none.
    async fn round(&self) -> BTreeMap<Arc<str>, TaskError> {
        let link = self.catalog.watch().borrow().catalog.links.get(&self.link).cloned();
        let Some(link) = link else { return BTreeMap::new() };
        let ours: Vec<&Arc<MirrorTopic>> =
            link.mirrors.values().filter(|mirror| is_ours(&link, mirror, self.node)).collect();
        let (catalog, link, node) = (self.catalog.clone(), self.link.clone(), self.node);
        let writer = Writer::Sync { catalog, link, node };
        let round = Round { plane: &self.plane, include: &self.include, writer: &writer };
        let mut errors = BTreeMap::new();
        for some in ours.chunks(TOPICS_A_REQUEST) {
            errors.extend(round.of(some).await);
        }
        errors
    }
}

/// Once more, of a mirror that is being stopped. What went wrong, in words.
pub async fn last_time(
    plane: &Arc<LinkPlane>,
    mirror: &Arc<MirrorTopic>,
    include: &BTreeSet<String>,
    gate: &Gate,
) -> Vec<String> {
    let round = Round { plane, include, writer: &Writer::Stop(gate.clone()) };
    round.of(&[mirror]).await.into_values().map(|error| error.message).collect()
}

/// A look at some mirrors, and what comes of it.
struct Round<'a> {
    plane: &'a Arc<LinkPlane>,
    include: &'a BTreeSet<String>,
    writer: &'a Writer,
}

impl Round<'_> {
    async fn of(&self, mirrors: &[&Arc<MirrorTopic>]) -> BTreeMap<Arc<str>, TaskError> {
        let mut errors = BTreeMap::new();
        match self.look(mirrors).await {
            Ok(found) => {
                for (mirror, found) in found {
                    if let Err(error) = self.bring_in_step(mirror, found).await {
                        errors.insert(mirror.name.clone(), error);
                    }
                }
            }
            Err(message) => drop(errors.insert("".into(), TaskError::internal(message))),
        }
        errors
    }

    /// Of each mirror what the source has and what the destination has, or why one of them doesn't tell.
    async fn look<'a>(
        &self,
        mirrors: &[&'a Arc<MirrorTopic>],
    ) -> Result<Vec<(&'a MirrorTopic, Result<(Configs, Configs), TaskError>)>, String> {
        let mut keys: Vec<&str> = self.synced().collect();
        for held in setup::held_keys() {
            keys.push(held);
        }
        let at_source: Vec<&str> = mirrors.iter().map(|mirror| &*mirror.source_topic).collect();
        let at_destination: Vec<&str> = mirrors.iter().map(|mirror| &*mirror.name).collect();
        let (source, destination) = tokio::join!(
            seen(self.plane.source(), &at_source, &keys),
            seen(self.plane.destination(), &at_destination, &keys)
        );
        let source = source.map_err(|error| format!("the source: {error}"))?;
        let destination = destination.map_err(|error| format!("the destination: {error}"))?;
        let both = |mirror: &'a Arc<MirrorTopic>| {
            let theirs = told(&source, &mirror.source_topic, mirror.source_topic_id, "source");
            let ours = told(&destination, &mirror.name, mirror.destination_topic_id, "destination");
            (&**mirror, theirs.and_then(|theirs| Ok((theirs, ours?))))
        };
        Ok(mirrors.iter().map(|mirror| both(mirror)).collect())
    }

    /// Those that follow the source.
    fn synced(&self) -> impl Iterator<Item = &str> {
        let include = self.include.iter().map(|key| key.as_str());
        ALWAYS.iter().copied().chain(include)
    }

    async fn bring_in_step(
        &self,
        mirror: &MirrorTopic,
        found: Result<(Configs, Configs), TaskError>,
    ) -> Result<(), TaskError> {
        let (theirs, ours) = found?;
        let changes = changes(self.synced(), &theirs, &ours);
        if changes.is_empty() {
            return Ok(());
        }
        match self.alter(mirror, &changes).await {
            Err(CreateError::Refused { .. }) if changes.len() > 1 => {}
            other => return other.map_err(|error| refused(changes.keys(), &error)),
        }
        // One of them is refused, and all with it: each for itself.
        let mut wrong: Option<TaskError> = None;
        for (key, value) in changes {
            let change = BTreeMap::from([(key, value)]);
            if let Err(error) = self.alter(mirror, &change).await {
                let error = refused(change.keys(), &error);
                match &mut wrong {
                    Some(first) => first.message.push_str(&format!("; {}", error.message)),
                    None => wrong = Some(error),
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    async fn alter(
        &self,
        mirror: &MirrorTopic,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), CreateError> {
        let _turn = self.writer.turn(self.plane).await;
        let gate = self.writer.gate(self.plane, [(mirror.name.clone(), mirror.producer)].into(), |_| true);
        let done = topics::alter_topic_configs(self.plane.destination(), &mirror.name, changes, Some(gate));
        match done.await {
            // It isn't ours to write any more, or not for the moment.
            Err(CreateError::Failed(Error::NotSent { .. })) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let shown: Vec<String> = changes
                    .iter()
                    .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("")))
                    .collect();
                tracing::info!(topic = %mirror.name, "{TASK}: set {}", shown.join(", "));
                metrics::counter!("lockstep_topic_config_updates_total").increment(changes.len() as u64);
                Ok(())
            }
        }
    }
}

/// One cluster's topics: which they are by now, and their configs.
struct Seen {
    metadata: Metadata,
    configs: BTreeMap<String, Result<Configs, ErrorCode>>,
}

/// The ids last: another topic that takes the name in between is seen then.
async fn seen(client: &Client, topics: &[&str], keys: &[&str]) -> Result<Seen, Error> {
    let configs = topics::topics_configs(client, topics, keys).await?;
    Ok(Seen { configs, metadata: client.metadata(Some(topics)).await? })
}

/// `id`: the topic that is meant. Configs go by name, and another topic of that name is none of ours.
fn told(all: &Seen, topic: &str, id: TopicId, side: &str) -> Result<Configs, TaskError> {
    let internal = |message| Err(TaskError::internal(message));
    match all.metadata.topics.get(topic) {
        Some(Ok(found)) if id.is_none() || *found.topic_id.as_bytes() == id.0 => {}
        Some(Ok(_)) => return internal(format!("topic '{topic}' at the {side} is another one by now")),
        Some(Err(code)) => return internal(format!("topic '{topic}' at the {side}: {code}")),
        None => return internal(format!("topic '{topic}': the {side} doesn't tell of it")),
    }
    match all.configs.get(topic) {
        Some(Ok(configs)) => Ok(configs.clone()),
        Some(Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED)) => {
            let message = format!("topic '{topic}' at the {side}: grant DESCRIBE_CONFIGS on it");
            Err(TaskError::authorization(message))
        }
        Some(Err(code)) => internal(format!("topic '{topic}' at the {side}: {code}")),
        None => internal(format!("topic '{topic}': the {side} didn't tell its configs")),
    }
}

fn refused<'a>(keys: impl Iterator<Item = &'a String>, error: &CreateError) -> TaskError {
    let keys: Vec<&str> = keys.map(String::as_str).collect();
    let message = format!("{} can't be set: {error}", keys.join(", "));
    match error {
        CreateError::Refused { code: ErrorCode::TOPIC_AUTHORIZATION_FAILED, .. } => {
            TaskError::authorization(format!("{message}; grant ALTER_CONFIGS on the mirror topic"))
        }
        _ => TaskError::internal(message),
    }
}

/// What to set at the destination, so that it is in step. A key that one of the two doesn't know is left.
pub fn changes<'a>(
    synced: impl Iterator<Item = &'a str>,
    theirs: &Configs,
    ours: &Configs,
) -> BTreeMap<String, Option<String>> {
    let is_held = |key: &str| setup::held_keys().any(|held| held == key);
    let follows = synced.filter(|key| !is_held(key)).filter_map(|key| {
        let (theirs, ours) = (theirs.get(key)?, ours.get(key)?);
        (!same(key, &theirs.value, &ours.value)).then(|| (key.to_owned(), Some(theirs.value.clone())))
    });
    let held = HELD.iter().chain([&setup::BOUND_BEFORE_3_6]).filter_map(|(key, value)| {
        // Newer brokers still show the one bound beside the two that replace it.
        let is_replaced =
            *key == setup::BOUND_BEFORE_3_6.0 && ours.contains_key("message.timestamp.after.max.ms");
        let ours = ours.get(*key).filter(|_| !is_replaced)?;
        (ours.value != *value).then(|| ((*key).to_owned(), Some((*value).to_owned())))
    });
    follows.chain(held).collect()
}

/// A list has no order.
fn same(key: &str, one: &str, other: &str) -> bool {
    let set = |list: &str| list.split(',').map(|item| item.trim().to_owned()).collect::<BTreeSet<_>>();
    one == other || (key == "cleanup.policy" && set(one) == set(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(of: &[(&str, &str)]) -> Configs {
        let value = |value: &str| ConfigValue { value: value.to_owned(), is_own: true };
        of.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect()
    }

    fn changed(synced: &[&str], theirs: &[(&str, &str)], ours: &[(&str, &str)]) -> Vec<String> {
        let changes = changes(synced.iter().copied(), &configs(theirs), &configs(ours));
        changes.into_iter().map(|(key, value)| format!("{key}={}", value.expect("set"))).collect()
    }

    #[test]
    fn what_is_synced_follows_the_source_and_nothing_else() {
        let theirs = [("retention.ms", "5"), ("cleanup.policy", "compact"), ("min.insync.replicas", "3")];
        let ours = [("retention.ms", "9"), ("cleanup.policy", "delete"), ("min.insync.replicas", "1")];
        assert_eq!(
            changed(&["retention.ms", "cleanup.policy"], &theirs, &ours),
            ["cleanup.policy=compact", "retention.ms=5"]
        );
    }

    #[test]
    fn what_is_held_is_set_back_whatever_the_source_has() {
        let theirs = [("compression.type", "zstd"), ("message.timestamp.type", "LogAppendTime")];
        let ours = [("compression.type", "gzip"), ("message.timestamp.type", "CreateTime")];
        assert_eq!(changed(&["compression.type"], &theirs, &ours), ["compression.type=producer"]);
    }

    #[test]
    fn the_one_bound_of_old_brokers_is_held_where_there_are_no_two() {
        let old = [("message.timestamp.difference.max.ms", "1000")];
        let widest = "message.timestamp.difference.max.ms=9223372036854775807";
        assert_eq!(changed(&[], &[], &old), [widest]);
        let newer = [old[0], ("message.timestamp.after.max.ms", "9223372036854775807")];
        assert_eq!(changed(&[], &[], &newer), Vec::<String>::new());
    }

    #[test]
    fn a_list_in_another_order_is_the_same_and_a_key_that_one_lacks_is_left() {
        let theirs = [("cleanup.policy", "compact,delete"), ("local.retention.ms", "7")];
        let ours = [("cleanup.policy", "delete, compact"), ("segment.ms", "7")];
        assert_eq!(
            changed(&["cleanup.policy", "local.retention.ms", "segment.ms"], &theirs, &ours),
            Vec::<String>::new()
        );
    }
}

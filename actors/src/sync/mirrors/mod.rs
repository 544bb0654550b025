//! Mirrors of new topics (SPEC section 5, task `AutoCreateMirror`): what the filters mean of the source's
//! topics is mirrored without anybody's asking. What a person has ended, stopped or deleted is never made
//! again: the catalog knows, and refuses.
//!
//! One node does it for a link (`keeper`). Two that take each other's place ask the catalog for the same,
//! which takes it once. It only proposes: topics are created as for any other mirror.
//!
//! - [`plan`]: which topics, as a value.

pub mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, Link, LinkId, NodeId, Refusal};
use consensus::SubmitError;
use kafka::Client;
use tokio::time::Instant;

use self::plan::{Wanted, wanted};
use super::filters::{EVERY_TOPIC, Filters};
use super::found::Found;
use super::{all, keeper};
use crate::catalog_port::CatalogPort;
use crate::observe::{Observatory, TaskError, TaskView};
use crate::plane::LinkPlane;
use crate::preflight::{self, MirrorRequest, PreflightError};

/// What a user calls it.
pub const TASK: &str = "AutoCreateMirror";

pub const FILTERS: &str = "auto.create.mirror.topics.filters";

/// Of this task.
pub const KEYS: [&str; 2] = [Link::AUTO_CREATE_KEY, FILTERS];

/// How often it is looked whether a round is due: configs may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a person must mend isn't tried in each round.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A question to either cluster.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// All questions about one topic.
const PLAN_MAX: Duration = Duration::from_secs(30);
/// Topics that are looked at together, and in one round; what is left comes in the next.
const AT_ONCE: usize = 8;
const A_ROUND: usize = 400;
/// Errors and remarks that are told by name.
const TOLD_MAX: usize = 200;
/// Kafka's own limit.
const TOPIC_CHARS_MAX: usize = 249;

pub struct AutoCreate {
    pub link: LinkId,
    pub node: NodeId,
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
}

/// What couldn't be mirrored, and when it is tried again.
type Held = BTreeMap<String, (Instant, TaskError)>;

impl AutoCreate {
    /// Until the task is aborted.
    pub async fn run(self) {
        let every = self.plane.metadata_max_age() / 2;
        let ends = Arc::new(Ends {
            source: self.plane.source().apart(REQUEST_MAX),
            destination: self.plane.destination().apart(REQUEST_MAX),
        });
        let (mut held, mut last) = (Held::new(), None::<(Instant, Filters)>);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some((link, filters)) = self.wanted_now() else {
                (held, last) = (Held::new(), None);
                self.observatory.clear_task(&self.link, TASK);
                continue;
            };
            match &last {
                Some((at, known)) if *known == filters && at.elapsed() < every => continue,
                Some((_, known)) if *known == filters => {}
                _ => held.clear(),
            }
            last = Some((Instant::now(), filters.clone()));
            let task = self.round(&ends, &link, &filters, &mut held).await;
            self.observatory.set_task(&self.link, task);
        }
    }

    /// The link, if it makes mirrors now and by this node.
    fn wanted_now(&self) -> Option<(Arc<Link>, Filters)> {
        let applied = self.catalog.watch().borrow().clone();
        let link = applied.catalog.links.get(&self.link)?;
        let is_ours = keeper(&applied.catalog, link) == Some(self.node);
        let filters = || link.configs.get(FILTERS).and_then(|json| Filters::of_topics(json).ok());
        let makes = is_ours && link.makes_mirrors() && !link.is_paused();
        makes.then(|| (link.clone(), filters().unwrap_or_default()))
    }

    async fn round(
        &self,
        ends: &Arc<Ends>,
        link: &Arc<Link>,
        filters: &Filters,
        held: &mut Held,
    ) -> TaskView {
        let mut task = TaskView { name: TASK, errors: BTreeMap::new(), remarks: BTreeMap::new() };
        if filters.is_empty() {
            task.remarks.insert("".into(), format!("no topic is meant: set {FILTERS} to {EVERY_TOPIC}"));
            return task;
        }
        let source = match ends.source.metadata(None).await {
            Ok(source) => source,
            Err(error) => {
                let message = format!("the source's topics can't be listed: {error}");
                task.errors.insert("".into(), TaskError::internal(message));
                return task;
            }
        };
        let applied = self.catalog.watch().borrow().clone();
        let Wanted { topics, remarks } = wanted(&applied.catalog, link, filters, &source);
        task.remarks = remarks;
        held.retain(|topic, _| topics.contains(topic));
        let now = Instant::now();
        let (due, later) = due(topics, held, now);
        if later > 0 {
            let remark = format!("{later} topics are looked at in the next rounds");
            task.remarks.insert("".into(), remark);
        }
        let made = due.into_iter().map(|topic| {
            let (ends, link, catalog) = (ends.clone(), link.clone(), self.catalog.clone());
            async move {
                let outcome = ends.mirror(&link, &topic, &*catalog).await;
                (topic, outcome)
            }
        });
        for (topic, outcome) in all(AT_ONCE, made.collect()).await {
            let Err(error) = outcome else {
                held.remove(&topic);
                continue;
            };
            if held.get(&topic).is_none_or(|(_, known)| *known != error) {
                tracing::warn!(link = %link.name, topic, "{TASK}: {}", error.message);
            }
            held.insert(topic, (Instant::now() + AGAIN_AFTER, error));
        }
        task.errors.extend(held.iter().map(|(topic, (_, error))| (topic.as_str().into(), error.clone())));
        let Found { errors, remarks } =
            Found { errors: task.errors, remarks: task.remarks }.bounded(TOLD_MAX);
        TaskView { name: TASK, errors, remarks }
    }
}

/// The topics of a round, and how many others are due: first those that weren't tried yet, then those that have
/// waited longest. Thousands that fail keep none from its turn.
fn due(topics: Vec<String>, held: &Held, now: Instant) -> (Vec<String>, usize) {
    let waits = topics.into_iter().map(|topic| (held.get(&topic).map(|(at, _)| *at), topic));
    let mut due: Vec<_> = waits.filter(|(at, _)| at.is_none_or(|at| at <= now)).collect();
    due.sort();
    let later = due.len().saturating_sub(A_ROUND);
    (due.into_iter().take(A_ROUND).map(|(_, topic)| topic).collect(), later)
}

/// Whether the link is still to make a mirror of it: much may have changed since the round began.
fn is_still_wanted(catalog: &dyn CatalogPort, link: &LinkId, topic: &str) -> bool {
    let applied = catalog.watch().borrow().clone();
    let link = applied.catalog.links.get(link).filter(|link| link.makes_mirrors());
    let filters = link.and_then(|link| Filters::of_topics(link.configs.get(FILTERS)?).ok());
    filters.is_some_and(|filters| filters.includes(topic))
}

/// Both of a link's clusters, by connections of the task's own.
struct Ends {
    source: Client,
    destination: Client,
}

impl Ends {
    /// # Errors
    /// Why it isn't mirrored.
    async fn mirror(&self, link: &Link, topic: &str, catalog: &dyn CatalogPort) -> Result<(), TaskError> {
        let mirror_topic = link.mirror_name(topic);
        if mirror_topic.len() > TOPIC_CHARS_MAX {
            let message =
                format!("'{mirror_topic}' is longer than the {TOPIC_CHARS_MAX} characters of a topic");
            return Err(TaskError::misconfiguration(message));
        }
        let request = MirrorRequest {
            source_topic: topic.to_owned(),
            mirror_topic,
            replication_factor: None,
            configs: BTreeMap::new(),
        };
        let planned = preflight::plan_between(&self.source, &self.destination, link, &request);
        let plan = match tokio::time::timeout(PLAN_MAX, planned).await {
            Ok(Ok(plan)) => plan,
            // Deleted since.
            Ok(Err(PreflightError::TopicNotFound { .. })) => return Ok(()),
            Ok(Err(error)) => return Err(on_preflight(&error)),
            Err(_) => {
                let message = format!("the clusters didn't answer within {} s", PLAN_MAX.as_secs());
                return Err(TaskError::internal(message));
            }
        };
        if !is_still_wanted(catalog, &link.id, topic) {
            return Ok(());
        }
        let partitions = plan.partitions;
        match catalog.submit(Action::CreateMirrorByItself(plan.into_new(link))).await {
            Ok(_) => {
                tracing::info!(link = %link.name, topic, partitions, "{TASK}: a new topic is mirrored");
                Ok(())
            }
            // Decided on a catalog that has changed: the next round sees it.
            Err(SubmitError::Refused(Refusal::Stale(_))) => Ok(()),
            Err(SubmitError::Refused(refusal @ Refusal::Exists { .. })) => {
                Err(TaskError::topic_exists(refusal.to_string()))
            }
            Err(error) => Err(TaskError::internal(error.to_string())),
        }
    }
}

fn on_preflight(error: &PreflightError) -> TaskError {
    let message = error.to_string();
    match error {
        PreflightError::TopicExists { .. } => TaskError::topic_exists(message),
        PreflightError::Invalid { .. } => TaskError::misconfiguration(message),
        PreflightError::Unauthorized { .. } => TaskError::authorization(message),
        PreflightError::TopicNotFound { .. }
        | PreflightError::TopicStays { .. }
        | PreflightError::Unreachable { .. } => TaskError::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_fail_keep_none_from_its_turn() {
        let now = Instant::now();
        let name = |number: usize| format!("topic-{number:04}");
        let failed = |at: Instant| (at, TaskError::internal("no".into()));
        let topics: Vec<String> = (0..A_ROUND + 10).map(name).collect();
        let mut held: Held =
            (0..A_ROUND + 5).map(|number| (name(number), failed(now - Duration::from_secs(1)))).collect();
        held.insert(name(7), failed(now - Duration::from_secs(9)));
        held.insert(name(8), failed(now + AGAIN_AFTER));
        let (first, later) = due(topics, &held, now);
        let untried: Vec<String> = (A_ROUND + 5..A_ROUND + 10).map(name).collect();
        assert_eq!(first[..5], untried, "never tried");
        assert_eq!((&first[5], first.len(), later), (&name(7), A_ROUND, 9), "then who has waited longest");
        assert!(!first.contains(&name(8)), "not yet");
    }
}

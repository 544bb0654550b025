//! Group offsets follow the source (SPEC section 5, task `ConsumerOffsetSync`): groups that the filters name
//! stand at the destination where they stand at the source, never beyond what is mirrored.
//!
//! Each node does it for the mirrors whose partition 0 it owns, as it would stop them: nothing is committed
//! without its lease, nor for a mirror that isn't mirrored any more. A promotion syncs once more, behind its
//! fence. Brokers refuse a commit for a group that has members: those are left alone, and told.
//!
//! - [`plan`]: where a group is to stand, as a value. [`filters`]: which groups. [`settings`]: the keys.
//! - `read`: groups and log ends, in bulk. `step`: some groups of one coordinator.

pub mod filters;
pub mod plan;
mod read;
pub mod settings;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{LinkId, MirrorTopic, NodeId};
use kafka::connection::Gate;
use kafka::fetch::TopicPartition;
use tokio::time::Instant;

use self::plan::Targets;
use self::read::{GROUPS_A_REQUEST, REQUESTS_MAX};
use self::settings::OffsetSettings;
use self::step::{Step, Trouble, Wanted};
use crate::catalog_port::CatalogPort;
use crate::observe::{Observatory, TaskError, TaskView};
use crate::plane::LinkPlane;
use crate::sync::{For, Until};

/// What a user calls it.
pub const TASK: &str = "ConsumerOffsetSync";

/// How often it is looked whether a round is due: configs may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is in step isn't looked at again at the destination for so long, unless the source moves.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Offsets of a group without members expire, after seven days by default.
const COMMIT_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// A group with members is tried again after so long.
const IN_USE_WAIT: Duration = Duration::from_secs(5);

/// A promotion's last sync.
const LAST_MAX: Duration = Duration::from_secs(10);
const LAST_AGAIN: Duration = Duration::from_millis(500);

/// So many errors and remarks are kept, and a count of the others.
const TOLD_MAX: usize = 50;

/// So many partitions of a group are named.
const NAMED_MAX: usize = 8;

/// What a round found, by group; by the empty name what has to do with none.
#[derive(Debug, Default)]
struct Found {
    errors: BTreeMap<Arc<str>, TaskError>,
    remarks: BTreeMap<Arc<str>, String>,
}

/// What is known of groups from the rounds before; without it more is read, and nothing else is done.
#[derive(Default)]
struct Memory {
    groups: BTreeMap<String, Group>,
    coordinators: BTreeMap<String, i32>,
}

#[derive(Default)]
struct Group {
    /// In step with these when the destination was last looked at.
    in_step: Option<(Targets, Instant)>,
    /// When all of ours was committed last.
    committed_at: Option<Instant>,
    /// It had members then.
    in_use_at: Option<Instant>,
    /// Partitions whose destination position is ahead, in words.
    ahead: Option<String>,
}

pub struct OffsetSync {
    pub link: LinkId,
    pub node: NodeId,
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
}

impl OffsetSync {
    /// Until the task is aborted.
    pub async fn run(self) {
        let mut memory = Memory::default();
        let mut last: Option<(Instant, OffsetSettings)> = None;
        let mut told = BTreeMap::new();
        loop {
            let wait = last.as_ref().map(|(at, settings)| settings.every.saturating_sub(at.elapsed()));
            tokio::time::sleep(wait.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).await;
            let link = self.catalog.watch().borrow().catalog.links.get(&self.link).cloned();
            let enabled =
                link.and_then(|link| OffsetSettings::of(&link.configs).map(|settings| (link, settings)));
            let Some((link, settings)) = enabled else {
                (memory, last) = (Memory::default(), None);
                self.observatory.clear_task(&self.link, TASK);
                continue;
            };
            let is_changed = last.as_ref().is_none_or(|(_, known)| *known != settings);
            if is_changed {
                memory.look_again();
            } else if last.as_ref().is_some_and(|(at, _)| at.elapsed() < settings.every) {
                continue;
            }
            last = Some((Instant::now(), settings.clone()));
            let ours = link.mirrors.values().filter(|m| super::is_ours(&link, m, self.node));
            let ours: Vec<Arc<MirrorTopic>> = ours.cloned().collect();
            let (catalog, link, node) = (self.catalog.clone(), self.link.clone(), self.node);
            let until = Until::Stopped { catalog, link, node };
            let found = round(&self.plane, &ours, &settings, &mut memory, &until).await;
            let Found { errors, remarks } = found.bounded();
            for (group, error) in errors.iter().filter(|(group, error)| told.get(*group) != Some(*error)) {
                tracing::warn!(%group, "{TASK}: {}", error.message);
            }
            told = errors.clone();
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks });
        }
    }
}

/// Once more, of a mirror that is being stopped, for a limited time. What is left, in words.
pub async fn last_time(
    plane: &Arc<LinkPlane>,
    mirror: &Arc<MirrorTopic>,
    settings: &OffsetSettings,
    gate: &Gate,
) -> Vec<String> {
    let until = Until::Shut(gate.clone());
    let (mut memory, mut left) = (Memory::default(), None);
    let tries = async {
        loop {
            let found = round(plane, std::slice::from_ref(mirror), settings, &mut memory, &until).await;
            let is_done = found.errors.values().all(TaskError::is_group_in_use);
            left = Some(found.bounded().errors);
            if is_done {
                return;
            }
            tokio::time::sleep(LAST_AGAIN).await;
        }
    };
    let in_time = tokio::time::timeout(LAST_MAX, tries).await.is_ok();
    let words = |(group, error): (Arc<str>, TaskError)| match group.is_empty() {
        true => error.message,
        false => format!("'{group}': {}", error.message),
    };
    match left {
        Some(left) if in_time || !left.is_empty() => left.into_iter().map(words).collect(),
        _ => vec![format!("it wasn't done within {} s", LAST_MAX.as_secs())],
    }
}

/// Brings every group that is meant in step.
async fn round(
    plane: &Arc<LinkPlane>,
    mirrors: &[Arc<MirrorTopic>],
    settings: &OffsetSettings,
    memory: &mut Memory,
    until: &Until,
) -> Found {
    let mut found = Found::default();
    if settings.filters.group_filters.is_empty() {
        let message = format!("no group is named: set {} to {}", settings::FILTERS, filters::EVERY_GROUP);
        found.errors.insert("".into(), TaskError::misconfiguration(message));
        return found;
    }
    if mirrors.is_empty() {
        *memory = Memory::default();
        return found;
    }
    let (source, destination, mirrors, errors) = match read::look(plane, mirrors).await {
        Ok(looked) => looked,
        Err(error) => {
            found.errors.insert("".into(), error);
            return found;
        }
    };
    found.errors.extend(errors);
    let topics: BTreeSet<&Arc<str>> = mirrors.iter().map(|mirror| &mirror.source_topic).collect();
    let at_source = read::at_source(plane.group_source(), &source, &settings.filters).await;
    found.errors.extend(at_source.errors);
    let mut positions = at_source.positions;
    positions.retain(|_, offsets| {
        offsets.retain(|at, _| topics.contains(&at.topic));
        !offsets.is_empty()
    });
    // Of a group that may be there, and wasn't told of, nothing is forgotten.
    let is_known = |group: &str| match at_source.is_whole {
        true => at_source.listed.contains(group),
        false => settings.filters.includes(group),
    };
    memory.retain(is_known);
    let wanted = positions.values().flat_map(|offsets| offsets.keys()).collect();
    let (ends, errors) = read::log_ends(plane.group_destination(), &destination, &mirrors, &wanted).await;
    found.errors.extend(errors);
    let now = Instant::now();
    let mut groups = BTreeMap::new();
    for (group, offsets) in &positions {
        let targets = plan::targets(offsets, &ends);
        let known = memory.groups.entry(group.clone()).or_default();
        if known.is_to_be_looked_at(&targets, now) {
            groups.insert(group.clone(), (targets, known.is_due(now)));
        }
    }
    let producers = mirrors.iter().map(|mirror| (mirror.name.clone(), mirror.producer)).collect();
    let round = Round { plane, settings, until, producers: Arc::new(producers), now };
    round.bring_in_step(groups, memory, &mut found).await;
    for (group, known) in memory.groups.iter().filter(|(group, _)| positions.contains_key(*group)) {
        if let Some(ahead) = &known.ahead {
            found.remarks.insert(group.as_str().into(), ahead.clone());
        }
        if known.in_use_at.is_some() {
            let message = "has members at the destination, which are left alone: stop them there, or exclude \
                           the group, which then goes on from where it is";
            found.errors.insert(group.as_str().into(), TaskError::group_in_use(message.into()));
        }
    }
    found
}

struct Round<'a> {
    plane: &'a Arc<LinkPlane>,
    settings: &'a OffsetSettings,
    until: &'a Until,
    producers: Arc<For>,
    now: Instant,
}

impl Round<'_> {
    async fn bring_in_step(
        &self,
        mut groups: BTreeMap<String, (Targets, bool)>,
        memory: &mut Memory,
        found: &mut Found,
    ) {
        let names: Vec<&str> = groups.keys().map(String::as_str).collect();
        let destination = self.plane.group_destination();
        found.errors.extend(read::find_coordinators(destination, &names, &mut memory.coordinators).await);
        let wanted = groups.clone();
        let mut by_coordinator: BTreeMap<i32, Vec<Wanted>> = BTreeMap::new();
        for (group, (targets, is_due)) in wanted {
            if let Some(coordinator) = memory.coordinators.get(&group) {
                by_coordinator.entry(*coordinator).or_default().push(Wanted { group, targets, is_due });
            }
        }
        let mut steps = Vec::new();
        for (coordinator, mut rest) in by_coordinator {
            while !rest.is_empty() {
                let groups = rest.split_off(rest.len().saturating_sub(GROUPS_A_REQUEST));
                steps.push(self.step(coordinator, groups).take());
            }
        }
        for stands in super::all(REQUESTS_MAX, steps).await.into_iter().flatten() {
            let Some((targets, _)) = groups.remove(&stands.group) else { continue };
            let known = memory.groups.entry(stands.group.clone()).or_default();
            known.ahead = in_words(&stands.ahead);
            match stands.outcome {
                Ok(()) => known.is_in_step(targets, self.now),
                Err(Trouble::InUse) => known.in_use_at = Some(self.now),
                Err(Trouble::NotSent) => {
                    if let Until::Shut(_) = self.until {
                        let message = "wasn't sent: this node holds no lease for the moment";
                        found.errors.insert(stands.group.into(), TaskError::internal(message.into()));
                    }
                }
                Err(Trouble::Failed(error)) => {
                    memory.coordinators.remove(&stands.group);
                    found.errors.insert(stands.group.into(), error);
                }
            }
        }
    }

    fn step(&self, coordinator: i32, groups: Vec<Wanted>) -> Step {
        Step {
            plane: self.plane.clone(),
            settings: self.settings.clone(),
            until: self.until.clone(),
            producers: self.producers.clone(),
            coordinator,
            groups,
        }
    }
}

impl Found {
    /// Tens of thousands of groups may have the same trouble.
    fn bounded(mut self) -> Self {
        let more = self.errors.len().saturating_sub(TOLD_MAX);
        if more > 0 {
            let last = self.errors.keys().nth(TOLD_MAX).cloned();
            last.map(|last| self.errors.split_off(&last));
            let and_more = format!("and {more} errors more");
            let whole = self.errors.entry("".into()).or_insert_with(|| TaskError::internal(String::new()));
            whole.message =
                [&*whole.message, &and_more].join(if whole.message.is_empty() { "" } else { "; " });
        }
        if let Some(last) = self.remarks.keys().nth(TOLD_MAX).cloned() {
            self.remarks.split_off(&last);
        }
        self
    }
}

impl Memory {
    fn look_again(&mut self) {
        self.groups.values_mut().for_each(|group| group.in_step = None);
    }

    fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.groups.retain(|group, _| is_known(group));
        self.coordinators.retain(|group, _| is_known(group));
    }
}

impl Group {
    fn is_to_be_looked_at(&mut self, targets: &Targets, now: Instant) -> bool {
        if targets.is_empty() {
            // Nothing of it is ours to sync any more.
            (self.in_use_at, self.ahead) = (None, None);
            return false;
        }
        if self.in_use_at.is_some_and(|at| now - at < IN_USE_WAIT) {
            return false;
        }
        let is_in_step =
            self.in_step.as_ref().is_some_and(|(of, at)| of == targets && now - *at < LOOK_AGAIN);
        !is_in_step || self.is_due(now)
    }

    /// By whoever begins, and from then on in time.
    fn is_due(&self, now: Instant) -> bool {
        self.committed_at.is_none_or(|at| now - at >= COMMIT_AGAIN)
    }

    fn is_in_step(&mut self, targets: Targets, now: Instant) {
        self.in_use_at = None;
        if self.is_due(now) {
            self.committed_at = Some(now);
        }
        self.in_step = Some((targets, now));
    }
}

fn in_words(ahead: &[(TopicPartition, i64)]) -> Option<String> {
    let shown = ahead
        .iter()
        .take(NAMED_MAX)
        .map(|(at, offset)| format!("{}[{}] at {offset}", at.topic, at.partition));
    let shown: Vec<String> = shown.collect();
    let more = ahead.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!shown.is_empty()).then(|| {
        format!(
            "AHEAD of the source, by a position that isn't Lockstep's, which stays: {}{more}; it is followed again once the \
             source has passed it, or when that position is reset or deleted at the destination",
            shown.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(offset: i64) -> Targets {
        [(TopicPartition { topic: "orders".into(), partition: 0 }, offset)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_step_is_looked_at_seldom_and_committed_again_in_time() {
        let mut group = Group::default();
        let begun = Instant::now();
        assert!(group.is_to_be_looked_at(&targets(5), begun) && group.is_due(begun), "whoever begins");
        group.is_in_step(targets(5), begun);
        assert!(!group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN / 2));
        assert!(group.is_to_be_looked_at(&targets(6), begun + LOOK_AGAIN / 2), "the source has moved");
        assert!(group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN), "the destination may have");
        let day = begun + COMMIT_AGAIN;
        group.is_in_step(targets(5), day - LOOK_AGAIN / 2);
        assert!(group.is_due(day) && group.is_to_be_looked_at(&targets(5), day), "looked at isn't committed");
        group.is_in_step(targets(5), day);
        assert!(!group.is_due(day + COMMIT_AGAIN / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_with_members_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut group = Group { in_use_at: Some(now), ..Group::default() };
        assert!(!group.is_to_be_looked_at(&targets(5), now + IN_USE_WAIT / 2));
        assert!(group.is_to_be_looked_at(&targets(5), now + IN_USE_WAIT));
    }

    #[test]
    fn who_is_ahead_is_named_with_its_position() {
        assert_eq!(in_words(&[]), None);
        let at = |partition| (TopicPartition { topic: "orders".into(), partition }, 7);
        let told = in_words(&(0..10).map(at).collect::<Vec<_>>()).expect("told");
        assert!(told.starts_with("AHEAD") && told.contains("orders[7] at 7 and 2 more"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_nothing_to_be_synced_any_more_is_no_trouble_any_more() {
        let now = Instant::now();
        let mut group = Group { in_use_at: Some(now), ahead: Some("AHEAD".into()), ..Group::default() };
        assert!(!group.is_to_be_looked_at(&Targets::new(), now));
        assert_eq!((group.in_use_at, group.ahead), (None, None));
    }

    #[test]
    fn of_many_errors_some_are_kept_and_the_others_counted() {
        let error = |number: usize| (format!("group-{number:04}").into(), TaskError::internal("no".into()));
        let found = Found { errors: (0..70).map(error).collect(), ..Found::default() }.bounded();
        assert_eq!(found.errors.len(), TOLD_MAX + 1);
        assert_eq!(found.errors[""].message, "and 20 errors more");
        let few = Found { errors: (0..3).map(error).collect(), ..Found::default() }.bounded();
        assert!(few.errors.len() == 3 && !few.errors.contains_key(""));
    }
}

//! Group offsets follow the source (SPEC section 5, task `ConsumerOffsetSync`): groups that the filters name
//! stand at the destination where they stand at the source, never beyond what is mirrored.
//!
//! Each node does it for the mirrors whose partition 0 it owns, as it would stop them: nothing is committed
//! without its lease, nor for a mirror that isn't mirrored any more. A promotion syncs once more, behind its
//! fence. Brokers refuse a commit for a group that has members: those are left alone, and told.
//!
//! - [`plan`]: where a group is to stand, as a value. [`filters`]: which groups. [`settings`]: the keys.
//! - `read`: groups and log ends, in bulk.

pub mod filters;
pub mod plan;
mod read;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{LinkId, MirrorTopic, NodeId};
use kafka::connection::Gate;
use kafka::fetch::TopicPartition;
use kafka::groups::{self, GroupOffsets};
use kafka::{Error, ErrorCode};
use tokio::time::Instant;

use self::plan::Targets;
use self::read::Side;
use self::settings::OffsetSettings;
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

/// Commits under way at once.
const COMMITS_MAX: usize = 64;

/// So many partitions of a group are named.
const NAMED_MAX: usize = 8;

/// A commit by whoever is no member is refused with one of these while there are members: illegal generation,
/// unknown member, rebalance in progress, stale member epoch (KIP-848).
const HAS_MEMBERS: [ErrorCode; 4] = [ErrorCode(22), ErrorCode(25), ErrorCode(27), ErrorCode(113)];

/// What a round found, by group; by the empty name what has to do with none.
#[derive(Debug, Default)]
struct Found {
    errors: BTreeMap<Arc<str>, TaskError>,
    remarks: BTreeMap<Arc<str>, String>,
}

/// What is known of groups from the rounds before; without it more is read, and nothing else is done.
#[derive(Default)]
pub struct Memory {
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
        let mut last: Option<Instant> = None;
        let mut told = BTreeMap::new();
        let mut known = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let link = self.catalog.watch().borrow().catalog.links.get(&self.link).cloned();
            let Some((link, settings)) =
                link.and_then(|link| OffsetSettings::of(&link.configs).map(|s| (link, s)))
            else {
                (memory, last) = (Memory::default(), None);
                self.observatory.clear_task(&self.link, TASK);
                continue;
            };
            if last.is_some_and(|at| at.elapsed() < settings.every) {
                continue;
            }
            last = Some(Instant::now());
            if known.as_ref() != Some(&settings) {
                memory.look_again();
                known = Some(settings.clone());
            }
            let ours = link.mirrors.values().filter(|m| super::is_ours(&link, m, self.node));
            let ours: Vec<Arc<MirrorTopic>> = ours.cloned().collect();
            let until =
                Until::Stopped { catalog: self.catalog.clone(), link: self.link.clone(), node: self.node };
            let Found { errors, remarks } = round(&self.plane, &ours, &settings, &mut memory, &until).await;
            for (group, error) in errors.iter().filter(|(group, error)| told.get(*group) != Some(*error)) {
                tracing::warn!(%group, "{TASK}: {}", error.message);
            }
            told = errors.clone();
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks });
        }
    }
}

/// Once more, of a mirror that is being stopped. What went wrong, in words.
pub async fn last_time(
    plane: &Arc<LinkPlane>,
    mirror: &Arc<MirrorTopic>,
    settings: &OffsetSettings,
    gate: &Gate,
) -> Vec<String> {
    let until = Until::Shut(gate.clone());
    let found = round(plane, std::slice::from_ref(mirror), settings, &mut Memory::default(), &until).await;
    let words = |(group, error): (Arc<str>, TaskError)| match group.is_empty() {
        true => error.message,
        false => format!("group '{group}': {}", error.message),
    };
    found.errors.into_iter().map(words).collect()
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
        let message = format!(
            "no group is named: set {} to {}",
            settings::FILTERS,
            r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#
        );
        found.errors.insert("".into(), TaskError::misconfiguration(message));
        return found;
    }
    if mirrors.is_empty() {
        return found;
    }
    let topics: BTreeSet<&Arc<str>> = mirrors.iter().map(|mirror| &mirror.source_topic).collect();
    let (mut at_source, errors) = read::at_source(plane, &settings.filters).await;
    // Of what couldn't be read nothing is known, and nothing forgotten.
    if errors.is_empty() {
        memory.groups.retain(|group, _| at_source.contains_key(group));
        memory.coordinators.retain(|group, _| at_source.contains_key(group));
    }
    found.errors.extend(errors);
    at_source.retain(|_, offsets: &mut GroupOffsets| {
        offsets.retain(|at, _| topics.contains(&at.topic));
        !offsets.is_empty()
    });
    let wanted = at_source.values().flat_map(|offsets| offsets.keys()).collect();
    let (ends, errors) = read::log_ends(plane, mirrors, &wanted).await;
    found.errors.extend(errors);
    let now = Instant::now();
    let mut targets = BTreeMap::new();
    for (group, offsets) in &at_source {
        let wanted = plan::targets(offsets, &ends);
        if memory.groups.entry(group.clone()).or_default().is_to_be_looked_at(&wanted, now) {
            targets.insert(group.clone(), wanted);
        }
    }
    bring_in_step(plane, mirrors, targets, settings, memory, until, &mut found).await;
    for (group, known) in &memory.groups {
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

impl Memory {
    fn look_again(&mut self) {
        self.groups.values_mut().for_each(|group| group.in_step = None);
    }
}

impl Group {
    fn is_to_be_looked_at(&self, targets: &Targets, now: Instant) -> bool {
        if self.in_use_at.is_some_and(|at| now - at < IN_USE_WAIT) || targets.is_empty() {
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
}

async fn bring_in_step(
    plane: &Arc<LinkPlane>,
    mirrors: &[Arc<MirrorTopic>],
    targets: BTreeMap<String, Targets>,
    settings: &OffsetSettings,
    memory: &mut Memory,
    until: &Until,
    found: &mut Found,
) {
    let destination = plane.destination();
    let names: Vec<&str> = targets.keys().map(String::as_str).collect();
    found.errors.extend(read::find_coordinators(destination, &names, &mut memory.coordinators).await);
    let mut by_coordinator: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for group in targets.keys() {
        if let Some(coordinator) = memory.coordinators.get(group) {
            by_coordinator.entry(*coordinator).or_default().push(group.clone());
        }
    }
    let (at_destination, errors) = read::offsets(destination, Side::Destination, by_coordinator).await;
    // Another one may coordinate them by now.
    memory.coordinators.retain(|group, _| at_destination.contains_key(group) || !targets.contains_key(group));
    found.errors.extend(errors);
    let producers: For = mirrors.iter().map(|mirror| (mirror.name.clone(), mirror.producer)).collect();
    let now = Instant::now();
    let mut commits = Vec::new();
    for (group, there) in at_destination {
        let (Some(wanted), Some(coordinator)) = (targets.get(&group), memory.coordinators.get(&group)) else {
            continue;
        };
        let known = memory.groups.entry(group.clone()).or_default();
        let plan = plan::plan(wanted, &there, settings.policy, known.is_due(now));
        known.ahead = in_words(&plan.ahead);
        if plan.commits.is_empty() {
            known.is_in_step(wanted, now);
        } else {
            let mirrors =
                plan.commits.keys().map(|at| (at.topic.clone(), producers.get(&at.topic).copied().flatten()));
            let gate = until.gate(plane, mirrors.collect());
            commits.push(commit(plane.clone(), *coordinator, group, plan.commits, until.clone(), gate));
        }
    }
    for (group, outcome) in super::all(COMMITS_MAX, commits).await {
        let meters = plane.meters();
        match &outcome {
            Ok(()) => meters.group_commits.increment(1),
            Err(_) => meters.group_commits_failed.increment(1),
        }
        let known = memory.groups.entry(group.clone()).or_default();
        match outcome {
            Ok(()) => known.is_in_step(&targets[&group], now),
            Err(error) if error.code().is_some_and(|code| HAS_MEMBERS.contains(&code)) => {
                known.in_use_at = Some(now);
            }
            // It isn't ours any more, or not for the moment.
            Err(Error::NotSent { .. }) => {}
            Err(error) => {
                memory.coordinators.remove(&group);
                found.errors.insert(group.into(), refused(&error));
            }
        }
    }
}

impl Group {
    fn is_in_step(&mut self, targets: &Targets, now: Instant) {
        self.in_step = Some((targets.clone(), now));
        self.in_use_at = None;
        if self.is_due(now) {
            self.committed_at = Some(now);
        }
    }
}

async fn commit(
    plane: Arc<LinkPlane>,
    coordinator: i32,
    group: String,
    offsets: GroupOffsets,
    until: Until,
    gate: Gate,
) -> (String, Result<(), Error>) {
    let _turn = until.turn(&plane).await;
    let committed = async {
        let connection = plane.destination().control(coordinator).await?;
        groups::commit(&connection, &group, &offsets, Some(gate)).await
    };
    let committed = committed.await;
    (group, committed)
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

fn refused(error: &Error) -> TaskError {
    match error.code() {
        Some(ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
            TaskError::authorization(format!("{error}; grant READ on the group at the destination"))
        }
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
            TaskError::authorization(format!("{error}; grant READ on the mirror topic at the destination"))
        }
        _ => TaskError::internal(error.to_string()),
    }
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
        group.is_in_step(&targets(5), begun);
        assert!(!group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN / 2));
        assert!(group.is_to_be_looked_at(&targets(6), begun + LOOK_AGAIN / 2), "the source has moved");
        assert!(group.is_to_be_looked_at(&targets(5), begun + LOOK_AGAIN), "the destination may have");
        let day = begun + COMMIT_AGAIN;
        group.is_in_step(&targets(5), day - LOOK_AGAIN / 2);
        assert!(group.is_due(day) && group.is_to_be_looked_at(&targets(5), day), "looked at isn't committed");
        group.is_in_step(&targets(5), day);
        assert!(!group.is_due(day + COMMIT_AGAIN / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_with_members_is_left_alone_for_a_while() {
        let now = Instant::now();
        let group = Group { in_use_at: Some(now), ..Group::default() };
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
}

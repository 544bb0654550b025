//! Group offsets follow the source (SPEC section 5, task `ConsumerOffsetSync`): groups that the filters name
//! stand at the destination where they stand at the source, never beyond what is mirrored.
//!
//! Each node does it for the mirrors whose partition 0 it owns, as it would stop them: nothing is committed
//! without its lease, nor for a mirror that isn't mirrored any more. A promotion syncs once more, behind its
//! fence. Brokers refuse a commit for a group that has members: those are left alone, and told.
//!
//! It never joins a group, and remembers nothing that a restart would miss.
//!
//! - [`plan`]: where a group is to stand, as a value. [`settings`]: the keys.
//! - `round`: all groups once. `step`: some groups of one coordinator. `read`: groups and log ends, in bulk.
//! - `memory`: what rounds before have seen.

mod memory;
pub mod plan;
mod read;
mod round;
pub mod settings;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{LinkId, MirrorTopic, NodeId};
use kafka::connection::Gate;
use tokio::time::Instant;

use self::memory::Memory;
use self::round::round;
use self::settings::OffsetSettings;
use crate::catalog_port::CatalogPort;
use crate::observe::{Observatory, TaskError, TaskView};
use crate::plane::LinkPlane;
use crate::sync::Writer;
use crate::sync::found::Found;

/// What a user calls it.
pub const TASK: &str = "ConsumerOffsetSync";

/// How often it is looked whether a round is due: configs may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// So many errors and remarks are kept, and a count of the others.
const TOLD_MAX: usize = 50;

/// A promotion's last sync.
const LAST_MAX: Duration = Duration::from_secs(10);
const LAST_AGAIN: Duration = Duration::from_millis(500);

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
        let mut took = Duration::ZERO;
        loop {
            let wait =
                last.as_ref().map(|(at, settings)| pause(settings.every, took).saturating_sub(at.elapsed()));
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
            } else if last.as_ref().is_some_and(|(at, _)| at.elapsed() < pause(settings.every, took)) {
                continue;
            }
            last = Some((Instant::now(), settings.clone()));
            let ours = link.mirrors.values().filter(|m| super::is_ours(&link, m, self.node));
            let ours: Vec<Arc<MirrorTopic>> = ours.cloned().collect();
            let (catalog, link, node) = (self.catalog.clone(), self.link.clone(), self.node);
            let writer = Writer::Sync { catalog, link, node };
            let begun = Instant::now();
            let found = round(&self.plane, &ours, &settings, &mut memory, &writer).await;
            took = begun.elapsed();
            let Found { errors, remarks } = found.bounded(TOLD_MAX);
            for (group, error) in errors.iter().filter(|(group, error)| told.get(*group) != Some(*error)) {
                tracing::warn!(%group, "{TASK}: {}", error.message);
            }
            told = errors.clone();
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks });
        }
    }
}

/// From the beginning of a round to that of the next: what moves when one has just begun is to be in step by the end
/// of the next, `every` later. Half of that at least, however long they take.
fn pause(every: Duration, took: Duration) -> Duration {
    every.saturating_sub(took).max(every / 2)
}

/// Once more, of a mirror that is being stopped, for a limited time. What is left, in words.
pub async fn last_time(
    plane: &Arc<LinkPlane>,
    mirror: &Arc<MirrorTopic>,
    settings: &OffsetSettings,
    gate: &Gate,
) -> Vec<String> {
    let writer = Writer::Stop(gate.clone());
    let (mut memory, mut left) = (Memory::default(), None);
    let tries = async {
        loop {
            let found = round(plane, std::slice::from_ref(mirror), settings, &mut memory, &writer).await;
            let is_done = found.errors.values().all(TaskError::is_group_in_use);
            left = Some(found.bounded(TOLD_MAX).errors);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_begin_early_enough_to_end_in_time() {
        let ms = Duration::from_millis;
        assert_eq!([0, 200, 900].map(|took| pause(ms(1_000), ms(took))), [1_000, 800, 500].map(ms));
    }
}

//! One round: what the source has, what is to be done for it, and what is told of it. It never waits for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::MirrorTopic;
use kafka::fetch::TopicPartition;
use tokio::time::Instant;

use super::memory::Memory;
use super::plan::{self, Targets};
use super::read::{self, GROUPS_A_REQUEST, REQUESTS_MAX};
use super::settings::{self, OffsetSettings};
use super::step::{Step, Trouble, Wanted};
use crate::observe::TaskError;
use crate::plane::LinkPlane;
use crate::sync::found::Found;
use crate::sync::{Producers, Writer, all, filters};

/// So many partitions of a group are named.
const NAMED_MAX: usize = 8;

/// Brings every group that is meant in step.
pub async fn round(
    plane: &Arc<LinkPlane>,
    mirrors: &[Arc<MirrorTopic>],
    settings: &OffsetSettings,
    memory: &mut Memory,
    writer: &Writer,
) -> Found {
    let mut found = Found::default();
    if settings.filters.is_empty() {
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
    found.add(errors);
    let topics: BTreeSet<&Arc<str>> = mirrors.iter().map(|mirror| &mirror.source_topic).collect();
    let at_source = read::at_source(plane.group_source(), &source, &settings.filters).await;
    found.add(at_source.errors);
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
    if at_source.is_whole {
        // Brokers leave out, without a word, what may not be described.
        for group in settings.filters.named().filter(|group| !at_source.listed.contains(*group)) {
            let remark = "isn't told of by the source: it isn't there (yet), or grant DESCRIBE on it there";
            found.remarks.insert(group.into(), remark.into());
        }
    }
    let wanted = positions.values().flat_map(|offsets| offsets.keys()).collect();
    let (ends, errors) = read::log_ends(plane.group_destination(), &destination, &mirrors, &wanted).await;
    found.add(errors);
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
    let round = Round { plane, settings, writer, producers: Arc::new(producers), now };
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
    writer: &'a Writer,
    producers: Arc<Producers>,
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
        found.add(read::find_coordinators(destination, &names, &mut memory.coordinators).await);
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
        for stands in all(REQUESTS_MAX, steps).await.into_iter().flatten() {
            let Some((targets, _)) = groups.remove(&stands.group) else { continue };
            let known = memory.groups.entry(stands.group.clone()).or_default();
            known.ahead = in_words(&stands.ahead);
            match stands.outcome {
                Ok(()) => known.is_in_step(targets, self.now),
                Err(Trouble::InUse) => known.in_use_at = Some(self.now),
                Err(Trouble::NotSent) => {
                    if let Writer::Stop(_) = self.writer {
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
            writer: self.writer.clone(),
            producers: self.producers.clone(),
            coordinator,
            groups,
        }
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

    #[test]
    fn who_is_ahead_is_named_with_its_position() {
        assert_eq!(in_words(&[]), None);
        let at = |partition| (TopicPartition { topic: "orders".into(), partition }, 7);
        let told = in_words(&(0..10).map(at).collect::<Vec<_>>()).expect("told");
        assert!(told.starts_with("AHEAD") && told.contains("orders[7] at 7 and 2 more"), "{told}");
    }

    #[test]
    fn what_has_to_do_with_no_group_is_told_of_every_broker() {
        let mut found = Found::default();
        for message in ["the source: a", "the source: b", "the source: b"] {
            found.add([("".into(), TaskError::internal(message.into()))].into());
        }
        assert_eq!(found.errors[""].message, "the source: a; the source: b");
    }
}

//! LV-1: faults over, every assigned partition runs and its lag reaches zero. What a fault made impossible
//! has stopped with the reason that belongs to it, and stopped nothing else.

use catalog::{Link, MirrorStatus, MirrorTopic};

use super::{Invariant, ct_5};
use crate::batches::Stored;
use crate::clusters::{DESTINATION, UNREACHABLE};
use crate::judge::{Logs, Seen, Shown};

#[derive(Default)]
pub struct ComesRight;

impl Invariant for ComesRight {
    fn id(&self) -> &'static str {
        "LV-1"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::End(logs, shown) => has_come_right(logs, shown),
            _ => Ok(()),
        }
    }
}

/// # Errors
/// What isn't right yet.
pub fn has_come_right(logs: &Logs<'_>, shown: &Shown<'_>) -> Result<(), String> {
    for link in shown.applied.catalog.links.values() {
        let state = shown.links.get(&*link.name).copied();
        let expected = if *link.destination == *UNREACHABLE.name { "UNAVAILABLE" } else { "ACTIVE" };
        if state != Some(expected) {
            return Err(format!("link {} is {state:?}, and must be {expected}", link.name));
        }
        if *link.destination == *DESTINATION.name {
            link.mirrors.values().try_for_each(|mirror| mirror_runs(link, mirror, logs, shown))?;
        }
    }
    Ok(())
}

fn mirror_runs(link: &Link, mirror: &MirrorTopic, logs: &Logs<'_>, shown: &Shown<'_>) -> Result<(), String> {
    let name = &mirror.name;
    if mirror.status == MirrorStatus::Stopped {
        return Ok(());
    }
    let source = logs.source.topic(&mirror.source_topic).ok_or("no source topic")?;
    let (has, wants) = (mirror.partitions.len(), source.partitions.len());
    if has != wants {
        return Err(format!("{name} has {has} partitions, its source {wants}"));
    }
    if !matches!(mirror.status, MirrorStatus::Active | MirrorStatus::Failed) {
        return Err(format!("{name} of link {} is {}", link.name, mirror.status.name()));
    }
    for (index, partition) in (0..).zip(&mirror.partitions) {
        let (key, source_key) = ((name.to_string(), index), (mirror.source_topic.to_string(), index));
        if let Some(failure) = &partition.failure {
            if !shown.struck.allows(&key, &source_key, failure.error.name()) {
                let (error, message) = (failure.error.name(), &failure.message);
                return Err(format!("{name}[{index}] stopped with {error}: {message}"));
            }
            continue;
        }
        let image = logs.destination.topic(name).map_or(0, |topic| topic.partitions.len());
        if image != has {
            return Err(format!("topic {name} has {image} partitions, its mirror {has}"));
        }
        partition_runs(&key, &source_key, logs, shown).map_err(|why| format!("{name}[{index}] {why}"))?;
        if link.configs.get("consumer.offset.sync.enable").is_some_and(|value| value == "true") {
            ct_5::stands(logs, &source_key, &key)?;
        }
    }
    Ok(())
}

fn partition_runs(
    key: &(String, i32),
    source_key: &(String, i32),
    logs: &Logs<'_>,
    shown: &Shown<'_>,
) -> Result<(), String> {
    let row = shown.rows.iter().find(|row| row.is_owned && row.key == *key).ok_or("isn't shown")?;
    let view = &row.view;
    if view.state != "RUNNING" || view.lag != Some(0) {
        return Err(format!("is {} with lag {:?} ({:?})", view.state, view.lag, view.error));
    }
    let (topic, index) = key;
    let source = logs.source.partition(&source_key.0, *index).ok_or("has no source")?;
    let mirror = logs.destination.partition(topic, *index).ok_or("isn't there")?;
    let (end, wanted) = (mirror.log.end(), source.log.end());
    if end != wanted {
        return Err(format!("ends at offset {end}, its source at {wanted}"));
    }
    let first = mirror.log.batches().find(|batch| batch.header.last_offset() >= mirror.log.start());
    if first.and_then(|first| Stored::read(&first.bytes)).is_some_and(|(first, _)| first.is_compressed()) {
        return Err(format!("shows fillers from offset {} on", mirror.log.start()));
    }
    let fill_to = shown.mirrors.get(topic).map_or(0, |mirror| mirror.fill_to(*index));
    let start = mirror.log.start();
    if start < fill_to.min(end) {
        return Err(format!("starts at offset {start}, and what stands below {fill_to} is no record"));
    }
    Ok(())
}

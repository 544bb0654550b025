//! CT-5: a position that was synced never passes the mirror's log end, and never takes back one that the
//! destination's own consumers made. In the end every group that nobody moved there stands where it stands at
//! the source.

use std::collections::BTreeMap;

use broker::State;

use super::Invariant;
use crate::history::Key;
use crate::judge::{Logs, Seen};

/// As the product marks what it commits (ADR 9).
const MARK: &str = "lockstep";
/// What a member's session was too short for: a commit that was decided on before it, and is late.
const LATE_MS: i64 = 30_000;

#[derive(Clone, Copy, Debug)]
struct Own {
    offset: i64,
    at_ms: i64,
}

#[derive(Default)]
pub struct Clamped {
    /// The last that a group's consumers committed at the destination and that wasn't passed since.
    own: BTreeMap<(String, Key), Own>,
    /// What was synced last.
    synced: BTreeMap<(String, Key), i64>,
}

impl Invariant for Clamped {
    fn id(&self) -> &'static str {
        "CT-5"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Logs(logs) => self.look(logs),
            _ => Ok(()),
        }
    }
}

impl Clamped {
    fn look(&mut self, logs: &Logs<'_>) -> Result<(), String> {
        for (group, found) in logs.destination.groups.iter() {
            for (key, committed) in found.offsets.iter() {
                let place = (group.to_owned(), key.clone());
                let (topic, partition) = key;
                if *committed.metadata != *MARK {
                    self.synced.remove(&place);
                    self.own.insert(place, Own { offset: committed.offset, at_ms: committed.committed_ms });
                    continue;
                }
                if self.synced.insert(place.clone(), committed.offset) == Some(committed.offset) {
                    continue;
                }
                tracing::info!("groups: {group} was put to {} of {topic}[{partition}]", committed.offset);
                let end = log_end(logs.destination, key).unwrap_or(i64::MAX);
                if committed.offset > end && !logs.struck.is_unclean_mirror(topic, *partition) {
                    let offset = committed.offset;
                    return Err(format!(
                        "{group} was put to {offset} of {topic}[{partition}], which ends at {end}"
                    ));
                }
                let Some(own) = self.own.remove(&place) else { continue };
                if committed.offset < own.offset && committed.committed_ms - own.at_ms > LATE_MS {
                    let (to, from) = (committed.offset, own.offset);
                    return Err(format!("{group} was put back from {from} to {to} of {topic}[{partition}]"));
                }
            }
        }
        Ok(())
    }
}

fn log_end(state: &State, (topic, partition): &Key) -> Option<i64> {
    Some(state.partition(topic, *partition)?.log.end())
}

/// # Errors
/// A group that isn't where it should be yet, of a mirror partition that goes on.
pub fn stands(logs: &Logs<'_>, source: &Key, mirror: &Key) -> Result<(), String> {
    for (group, found) in logs.source.groups.iter() {
        let Some(at_source) = found.offsets.get(&source.0, source.1) else { continue };
        let end = log_end(logs.destination, mirror).unwrap_or_default();
        let wanted = at_source.offset.min(end);
        let there =
            logs.destination.groups.get(group).and_then(|group| group.offsets.get(&mirror.0, mirror.1));
        let is_right = there.is_some_and(|at| match *at.metadata == *MARK {
            true => at.offset == wanted,
            false => at.offset >= wanted,
        });
        if !is_right {
            let (topic, partition) = mirror;
            let there = there.map(|at| (at.offset, at.metadata.to_string()));
            return Err(format!("{group} is at {there:?} of {topic}[{partition}], and must be at {wanted}"));
        }
    }
    Ok(())
}

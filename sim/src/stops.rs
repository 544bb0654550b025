//! Mirrors that are promoted and failed over: what a seed draws of them, and what becomes of their topics, which
//! are other clients' from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{MirrorStatus, NodeId};
use consensus::Applied;
use kafka_protocol::messages::ApiKey;

use crate::chance::Chance;
use crate::clusters::{DESTINATION, Side};
use crate::disk::Crash;
use crate::faults::{Ambush, Kind};
use crate::history::Key;
use crate::mischief::Trick;
use crate::oracle::Oracle;

/// In so many seeds of a hundred mirrors are to stop.
const PERCENT: u64 = 40;
/// Of a hundred wishes so many are about that then.
const WISHES_PERCENT: [u64; 3] = [20, 40, 60];
/// So many of a hundred topics aren't written to any more in the rest of the busy time: only a quiet source's
/// promotion ends.
const ENDS_EARLY_PERCENT: u64 = 75;
/// So many of a hundred seeds have clients that write to what has stopped.
const CLIENTS_PERCENT: u64 = 70;
const AMBUSHES_MAX: u64 = 5;
/// A stop lasts some round trips.
const AMBUSH_AFTER_MS: std::ops::RangeInclusive<u64> = 0..=400;
const DOWN_MS: std::ops::RangeInclusive<u64> = 1..=5_000;
const LASTS_MS: std::ops::RangeInclusive<u64> = 50..=8_000;
const LATE_MS: std::ops::RangeInclusive<u64> = 1..=12_000;
/// What a stop asks the destination.
const APIS: [ApiKey; 8] = [
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddPartitionsToTxn,
    ApiKey::EndTxn,
    ApiKey::EndTxn,
    ApiKey::DescribeProducers,
    ApiKey::ListOffsets,
    ApiKey::IncrementalAlterConfigs,
];
/// Not coordinator, concurrent transactions, timed out, coordinator loading, unknown.
const CODES: [i16; 5] = [16, 51, 7, 14, -1];

#[derive(Clone, Debug, Default)]
pub struct Stops {
    /// Of a hundred wishes; none in most seeds.
    pub wishes_percent: u64,
    /// When a source topic's producers end, where that is before the busy time does.
    pub quiet_from: BTreeMap<String, Duration>,
    pub has_clients: bool,
    /// Each waits for a mirror that is to stop.
    pub ambushes: Vec<Ambush>,
}

impl Stops {
    pub fn of(seed: u64, busy: Duration, topics: &[String]) -> Self {
        let mut chance = Chance::of(seed, "stops");
        if !chance.percent(PERCENT) {
            return Self::default();
        }
        let wishes_percent = *chance.pick(&WISHES_PERCENT);
        let has_clients = chance.percent(CLIENTS_PERCENT);
        let mut quiet_from = BTreeMap::new();
        for topic in topics {
            let (ends, percent) = (chance.percent(ENDS_EARLY_PERCENT), chance.between(10..=50));
            if ends {
                quiet_from.insert(topic.clone(), busy * percent as u32 / 100);
            }
        }
        let ambushes = (0..chance.between(1..=AMBUSHES_MAX)).map(|_| ambush(&mut chance)).collect();
        Self { wishes_percent, quiet_from, has_clients, ambushes }
    }
}

fn milliseconds(chance: &mut Chance, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(chance.between(range))
}

fn ambush(chance: &mut Chance) -> Ambush {
    let side = Side::Destination;
    let kind = match chance.between(0..=11) {
        0..3 => Kind::Node {
            which: 0,
            crash: *chance.pick(&[Crash::Kill, Crash::PowerCut]),
            changes: None,
            down_for: milliseconds(chance, DOWN_MS),
        },
        3 => Kind::draw_broker(chance, side),
        4 => Kind::Network {
            which: 0,
            side: if chance.percent(70) { side } else { Side::Source },
            broker: chance.between(1..=3) as i32,
            arrives_later: chance.percent(50),
            lasts: milliseconds(chance, LASTS_MS),
        },
        _ => requests(chance),
    };
    Ambush { after: milliseconds(chance, AMBUSH_AFTER_MS), kind }
}

fn requests(chance: &mut Chance) -> Kind {
    let api = *chance.pick(&APIS);
    let late = milliseconds(chance, LATE_MS);
    let trick = match chance.between(0..=5) {
        0 => Trick::Delay(late),
        1 => Trick::Overdue(late),
        2 => Trick::Drop,
        3 => Trick::LoseAnswer,
        _ => Trick::Refuse(*chance.pick(&CODES)),
    };
    // A change of configs that is late may come behind STOPPED (ADR 8).
    let is_late = matches!(trick, Trick::Delay(_) | Trick::Overdue(_));
    let trick = if is_late && api == ApiKey::IncrementalAlterConfigs { Trick::LoseAnswer } else { trick };
    let percent = *chance.pick(&[20, 50, 100]);
    Kind::Requests { side: Side::Destination, api, trick, percent, lasts: milliseconds(chance, LASTS_MS) }
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wishes_percent == 0 {
            return Ok(());
        }
        let clients = if self.has_clients { "" } else { "no " };
        writeln!(
            f,
            "  mirrors are to stop: {} of 100 wishes, {clients}clients afterwards, no records of {:?}",
            self.wishes_percent, self.quiet_from
        )?;
        self.ambushes.iter().try_for_each(|Ambush { after, kind }| {
            writeln!(f, "  {after:?} after a mirror is to stop {kind}")
        })
    }
}

/// Topics that aren't mirrors any more, and what their clients did. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stopped(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// With the number of partitions.
    topics: BTreeMap<String, i32>,
    /// Those that clients have come to.
    visited: BTreeSet<String>,
    /// Whose producers have producer ids.
    idempotent: BTreeSet<Key>,
    /// Whether anybody said so, of those that are about to stop.
    told: BTreeSet<String>,
    /// Those that a promotion still catches up.
    promoting: BTreeSet<String>,
    /// Records that clients have sent, whatever became of them.
    sent: BTreeMap<Key, BTreeSet<u64>>,
    /// Clients that aren't done.
    at_work: i32,
    acknowledged: Oracle,
}

impl Stopped {
    /// Returns the owners of those that are newly to stop, as far as they have one.
    pub fn learn(&self, applied: &Applied) -> Vec<(String, Option<NodeId>)> {
        let mut state = self.state();
        let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
        let mut fenced = Vec::new();
        for mirror in links.flat_map(|link| link.mirrors.values()) {
            let name = mirror.name.to_string();
            let was_promoting = match mirror.stop {
                Some(_) => !state.promoting.insert(name.clone()),
                None => state.promoting.remove(&name),
            };
            if was_promoting && mirror.status == MirrorStatus::Failed {
                tracing::info!("walked: {name} is FAILED, and was being promoted");
            }
            if !mirror.is_fenced() {
                continue;
            }
            if mirror.status == MirrorStatus::Stopped {
                state.topics.insert(name.clone(), mirror.partitions.len() as i32);
            }
            if state.told.insert(name.clone()) {
                fenced.push((name, mirror.first_assignment().map(|assignment| assignment.node)));
            }
        }
        fenced
    }

    /// Those that no client has come to yet, with the number of their partitions; each has a client now.
    pub fn visit(&self) -> Vec<(String, i32)> {
        let mut state = self.state();
        let State { topics, visited, at_work, .. } = &mut *state;
        let new = topics.iter().filter(|(topic, _)| visited.insert((*topic).clone()));
        let new: Vec<_> = new.map(|(topic, partitions)| (topic.clone(), *partitions)).collect();
        *at_work += new.iter().map(|(_, partitions)| *partitions).sum::<i32>();
        new
    }

    pub fn is_idempotent(&self, key: &Key) -> bool {
        self.state().idempotent.contains(key)
    }

    pub fn will_be_idempotent(&self, key: &Key) {
        self.state().idempotent.insert(key.clone());
    }

    pub fn acknowledged(&self) -> Oracle {
        self.state().acknowledged.clone()
    }

    pub fn sends(&self, key: &Key, records: &[u64]) {
        self.state().sent.entry(key.clone()).or_default().extend(records);
    }

    pub fn was_sent(&self, key: &Key, record: u64) -> bool {
        self.state().sent.get(key).is_some_and(|sent| sent.contains(&record))
    }

    pub fn client_is_done(&self) {
        self.state().at_work -= 1;
    }

    /// No client writes any more, nor will.
    pub fn is_at_rest(&self, has_clients: bool) -> bool {
        let state = self.state();
        !has_clients || (state.at_work == 0 && state.topics.len() == state.visited.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

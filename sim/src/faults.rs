//! What goes wrong, and when. A seed draws a list of faults before the run, so that the list can be
//! read, and cut down, without the run.
//!
//! A new kind of fault is one more [`Kind`] with its line in [`Kind::draw`] and in
//! [`World::strike`](crate::world::World::strike).

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::disk::Crash;

const FAULTS_MAX: u64 = 6;
/// From immediately up to longer than any timeout of consensus.
const DOWN_MS: std::ops::RangeInclusive<u64> = 1..=5_000;
/// Some commits' worth: one is about ten writes and a sync.
const CHANGES: std::ops::RangeInclusive<u64> = 0..=60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The node ends, and starts again some time later. With `changes` not at once, but in the middle of
    /// what it writes: after that many changes of its disk.
    Node { crash: Crash, changes: Option<u64>, down_for: Duration },
}

impl Kind {
    fn draw(chance: &mut Chance) -> Self {
        let crash = *chance.pick(&[Crash::Kill, Crash::PowerCut]);
        let changes = chance.percent(60).then(|| chance.between(CHANGES));
        Self::Node { crash, changes, down_for: Duration::from_millis(chance.between(DOWN_MS)) }
    }
}

/// At any millisecond of the busy time, also during the node's very first start.
pub fn draw(chance: &mut Chance, busy: Duration) -> Vec<Fault> {
    let last_ms = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
    let mut faults: Vec<Fault> = (0..chance.between(0..=FAULTS_MAX))
        .map(|_| {
            // Starts are short, and much can go wrong in them.
            let last_ms = if chance.percent(20) { last_ms.min(20) } else { last_ms };
            let at = Duration::from_millis(chance.between(1..=last_ms));
            Fault { at, kind: Kind::draw(chance) }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind::Node { crash, changes, down_for } = &self.kind;
        let crash = match crash {
            Crash::Kill => "is killed",
            Crash::PowerCut => "loses power",
        };
        let when =
            changes.map(|changes| format!(" after {changes} more changes of its disk")).unwrap_or_default();
        write!(f, "at {:?} the node {crash}{when}, back {down_for:?} later", self.at)
    }
}

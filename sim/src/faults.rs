//! What goes wrong, and when. A seed draws a list of faults before the run, so that the list can be
//! read, and cut down, without the run.
//!
//! A new kind of fault is one more [`Kind`] with its line in [`Kind::draw`] and in
//! [`strike`](crate::strike).

use std::fmt;
use std::time::Duration;

use broker::Stop;
use kafka_protocol::messages::ApiKey;

use crate::chance::Chance;
use crate::clusters::Side;
use crate::disk::Crash;
pub use crate::fleet_faults::OfFleet;
pub use crate::machine_faults::OfMachine;
use crate::mischief::{APIS, LIES, REFUSALS, Trick};

const FAULTS_MAX: u64 = 16;
/// From immediately up to longer than any timeout of consensus.
const DOWN_MS: std::ops::RangeInclusive<u64> = 1..=5_000;
/// Some commits' worth: one is about ten writes and a sync.
const CHANGES: std::ops::RangeInclusive<u64> = 0..=60;
/// How long what is in the way of clusters lasts.
const LASTS_MS: std::ops::RangeInclusive<u64> = 50..=12_000;
/// A request may arrive so late. The product counts on less than its ambiguity wait (20 s) from when it
/// gave the request up.
const LATE_MS: std::ops::RangeInclusive<u64> = 1..=12_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub kind: Kind,
}

/// Where a fault falls is drawn as a number: what there is to choose from is known when it strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The node ends, and starts again some time later. With `changes` not at once, but in the middle of
    /// what it writes: after that many changes of its disk.
    Node { which: u64, crash: Crash, changes: Option<u64>, down_for: Duration },
    /// Something that only a fleet of several nodes knows.
    Fleet(OfFleet),
    /// Of what a node runs on.
    Machine(OfMachine),
    /// A broker ends and comes back.
    Broker { side: Side, broker: i32, stop: Stop, down_for: Duration },
    /// A partition's leadership goes to another replica that is in sync.
    Lead { side: Side, which: u64 },
    /// Leadership goes to a replica that wasn't in sync, and lacks up to so many of the last offsets.
    LeadUnclean { side: Side, which: u64, lost: u64 },
    /// A partition's followers stand still.
    Followers { side: Side, which: u64, held_for: Duration },
    /// Something is in the way of a kind of requests.
    Requests { side: Side, api: ApiKey, trick: Trick, percent: u64, lasts: Duration },
    /// Nothing passes between a node and a broker; what is sent meanwhile arrives later or never.
    Network { which: u64, side: Side, broker: i32, arrives_later: bool, lasts: Duration },
    /// The source's log start goes up over so many hundredths of what the log holds. It passes what isn't
    /// mirrored yet only where it may.
    /// Where one replica holds the partition, its broker may crash then, which undoes it.
    DeleteRecords { which: u64, percent: u64, may_overtake: bool, is_undone: bool },
    /// A source topic gets more partitions.
    Grow { which: u64 },
}

/// Which of the faults that lose acknowledged records may be drawn, by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclean {
    pub source: bool,
    pub destination: bool,
}

/// A fault that waits until a prefix is being filled: so little time is spent on it that few others fall
/// into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambush {
    /// So long after the fill was decided.
    pub after: Duration,
    pub kind: Kind,
}

const AMBUSHES_MAX: u64 = 3;
/// A fill lasts some round trips.
const AMBUSH_AFTER_MS: std::ops::RangeInclusive<u64> = 0..=200;
/// Longer than a produce request waits for followers: then they are missed by a look at the log, too.
const HELD_MS: std::ops::RangeInclusive<u64> = 50..=25_000;

fn milliseconds(chance: &mut Chance, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(chance.between(range))
}

impl Kind {
    fn draw(chance: &mut Chance, unclean: Unclean) -> Self {
        // More often where the product has more to lose.
        let side = if chance.percent(60) { Side::Destination } else { Side::Source };
        let which = chance.next();
        match chance.between(0..=99) {
            0..20 => Self::draw_node(chance),
            20..32 => Self::draw_broker(chance, side),
            32..42 => Self::Lead { side, which },
            42..45 if unclean.source => Self::draw_unclean(chance, Side::Source),
            45..48 if unclean.destination => Self::draw_unclean(chance, Side::Destination),
            42..54 => Self::Followers { side, which, held_for: milliseconds(chance, HELD_MS) },
            54..84 => Self::draw_requests(chance, side),
            84..90 => Self::Network {
                which: 0,
                side,
                broker: chance.between(1..=3) as i32,
                arrives_later: chance.percent(50),
                lasts: milliseconds(chance, LASTS_MS),
            },
            90..97 => Self::DeleteRecords {
                which,
                percent: chance.between(1..=100),
                may_overtake: chance.percent(40),
                is_undone: chance.percent(50),
            },
            _ => Self::Grow { which },
        }
    }

    fn draw_unclean(chance: &mut Chance, side: Side) -> Self {
        Self::LeadUnclean { side, which: chance.next(), lost: chance.between(1..=200) }
    }

    fn draw_node(chance: &mut Chance) -> Self {
        let crash = *chance.pick(&[Crash::Kill, Crash::PowerCut]);
        let changes = chance.percent(40).then(|| chance.between(CHANGES));
        Self::Node { which: 0, crash, changes, down_for: milliseconds(chance, DOWN_MS) }
    }

    pub fn draw_broker(chance: &mut Chance, side: Side) -> Self {
        let broker = chance.between(1..=3) as i32;
        let stop = *chance.pick(&[Stop::Clean, Stop::Crash]);
        Self::Broker { side, broker, stop, down_for: milliseconds(chance, DOWN_MS) }
    }

    fn draw_requests(chance: &mut Chance, side: Side) -> Self {
        // Produce requests are where doubt comes from.
        let api = if chance.percent(60) { ApiKey::Produce } else { *chance.pick(&APIS) };
        let trick = match chance.between(0..=6) {
            0 => Trick::Delay(milliseconds(chance, LATE_MS)),
            1 => Trick::Overdue(milliseconds(chance, LATE_MS)),
            2 => Trick::Drop,
            3 => Trick::LoseAnswer,
            4 => Trick::Lie(*chance.pick(&LIES)),
            _ => Trick::Refuse(*chance.pick(&REFUSALS)),
        };
        let percent = *chance.pick(&[5, 20, 50, 100]);
        Self::Requests { side, api, trick, percent, lasts: milliseconds(chance, LASTS_MS) }
    }
}

/// All are for the destination or the node: the source isn't asked for anything meanwhile.
pub fn draw_ambushes(chance: &mut Chance) -> Vec<Ambush> {
    (0..chance.between(0..=AMBUSHES_MAX))
        .map(|_| {
            let (side, which) = (Side::Destination, chance.next());
            let kind = match chance.between(0..=9) {
                0..3 => Kind::draw_node(chance),
                3..5 => Kind::draw_broker(chance, side),
                5 => Kind::Lead { side, which },
                6 => Kind::Followers { side, which, held_for: milliseconds(chance, HELD_MS) },
                _ => Kind::draw_requests(chance, side),
            };
            Ambush { after: milliseconds(chance, AMBUSH_AFTER_MS), kind }
        })
        .collect()
}

/// At any millisecond of the busy time, also during the node's very first start.
pub fn draw(chance: &mut Chance, busy: Duration, unclean: Unclean) -> Vec<Fault> {
    let last_ms = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
    let mut faults: Vec<Fault> = (0..chance.between(0..=FAULTS_MAX))
        .map(|_| {
            // Starts are short, and much can go wrong in them.
            let last_ms = if chance.percent(10) { last_ms.min(20) } else { last_ms };
            let at = Duration::from_millis(chance.between(1..=last_ms));
            Fault { at, kind: Kind::draw(chance, unclean) }
        })
        .collect();
    // Where it may happen it does, once there is something to lose.
    for side in [(unclean.source, Side::Source), (unclean.destination, Side::Destination)] {
        if let (true, side) = side {
            let at = Duration::from_millis(chance.between(last_ms / 4..=last_ms));
            faults.push(Fault { at, kind: Kind::draw_unclean(chance, side) });
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Node { .. } => "node ends",
            Self::Fleet(fault) => fault.name(),
            Self::Machine(fault) => fault.name(),
            Self::Broker { .. } => "broker ends",
            Self::Lead { .. } => "partition leader moves",
            Self::LeadUnclean { .. } => "unclean election",
            Self::Followers { .. } => "followers stand still",
            Self::Requests { trick, .. } => trick.name(),
            Self::Network { .. } => "network to a broker",
            Self::DeleteRecords { .. } => "records deleted",
            Self::Grow { .. } => "topic grows",
        }
    }

    /// Which node it strikes, where it strikes one of several.
    pub fn aim(&mut self, at: u64) {
        if let Self::Node { which, .. } | Self::Network { which, .. } = self {
            *which = at;
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?} {}", self.at, self.kind)
    }
}

impl fmt::Display for Ambush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after a fill is decided {}", self.after, self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet(fault) => fault.fmt(f),
            Self::Machine(fault) => fault.fmt(f),
            Self::Node { crash, changes, down_for, .. } => {
                let crash = match crash {
                    Crash::Kill => "is killed",
                    Crash::PowerCut => "loses power",
                };
                let after = |changes| format!(" after {changes} more changes of its disk");
                let when = changes.map(after).unwrap_or_default();
                write!(f, "a node {crash}{when}, back {down_for:?} later")
            }
            Self::Broker { side, broker, stop, down_for } => {
                let how = match stop {
                    Stop::Clean => "stops",
                    Stop::Crash => "crashes",
                };
                write!(f, "{} {how}, back {down_for:?} later", side.host(*broker))
            }
            Self::Lead { side, .. } => write!(f, "a leader at {side} moves"),
            Self::LeadUnclean { side, lost, .. } => {
                write!(f, "a leader at {side} moves to a replica that lacks up to {lost} offsets")
            }
            Self::Followers { side, held_for, .. } => {
                write!(f, "a partition's followers at {side} stand still for {held_for:?}")
            }
            Self::Requests { side, api, trick, percent, lasts } => {
                write!(f, "{percent} of 100 {api:?} requests to {side} {trick} for {lasts:?}")
            }
            Self::Network { side, broker, arrives_later, lasts, .. } => {
                let how = if *arrives_later { "waits" } else { "is lost" };
                write!(f, "what is sent between a node and {} {how} for {lasts:?}", side.host(*broker))
            }
            Self::DeleteRecords { percent, may_overtake, is_undone, .. } => {
                let how = if *may_overtake { ", mirrored or not" } else { "" };
                let then = if *is_undone { ", and a sole replica crashes" } else { "" };
                write!(f, "{percent} of 100 records of a source partition are deleted{how}{then}")
            }
            Self::Grow { .. } => f.write_str("a source topic gets another partition"),
        }
    }
}

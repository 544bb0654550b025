//! What goes wrong between nodes, and with several of them at once. Drawn from a stream of its own, so that
//! fleets of one are what they were.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::clusters::Side;
use crate::disk::Crash;
use crate::faults::{Fault, Kind};

const FAULTS_MAX: u64 = 10;
const DOWN_MS: std::ops::RangeInclusive<u64> = 1..=8_000;
/// What a network holds back arrives within the time that the product counts on.
const HELD_MS: std::ops::RangeInclusive<u64> = 50..=12_000;
/// From less than a heartbeat up to longer than an unclean takeover of an unguarded partition takes.
const CUT_MS: [std::ops::RangeInclusive<u64>; 3] = [20..=1_500, 1_500..=8_000, 8_000..=45_000];
const FLAPS_MAX: u64 = 6;
const FULL_MS: std::ops::RangeInclusive<u64> = 500..=6_000;

/// From whom a node is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Node(u64),
    Peers,
    Cluster(Side),
    Everyone,
}

/// What doesn't pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// What the node sends.
    Out,
    /// What is sent to it.
    In,
    /// Both ways nothing passes for now; all of it arrives when it is over.
    Held,
}

/// Where a fault falls is drawn as a number, as in [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfFleet {
    /// So many nodes end at once.
    Nodes {
        which: u64,
        count: u64,
        crash: Crash,
        down_for: Duration,
    },
    Cut {
        which: u64,
        from: From,
        way: Way,
        lasts: Duration,
    },
    /// A node is told to stop, hands over what it has, and comes back.
    Leave {
        which: u64,
        down_for: Duration,
    },
    /// Its disk takes no more changes; then it has room again and starts anew.
    DiskFull {
        which: u64,
        lasts: Duration,
    },
    /// A node's disk is lost: it is removed, and another one joins on its host.
    DiskLost {
        which: u64,
        down_for: Duration,
    },
    /// A member is drained and removed while it lives; it stops, and joins as another one.
    Removed {
        which: u64,
    },
}

fn milliseconds(chance: &mut Chance, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(chance.between(range))
}

impl OfFleet {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nodes { .. } => "nodes end",
            Self::Cut { way: Way::Held, from: From::Everyone, .. } => "node paused",
            Self::Cut { way: Way::Held, .. } => "network holds",
            Self::Cut { way: Way::Both, .. } => "network split",
            Self::Cut { .. } => "network split one-way",
            Self::Leave { .. } => "node leaves",
            Self::DiskFull { .. } => "disk full",
            Self::DiskLost { .. } => "disk lost, another joins",
            Self::Removed { .. } => "node removed, another joins",
        }
    }

    fn draw(chance: &mut Chance) -> Self {
        let which = chance.next();
        match chance.between(0..=99) {
            0..20 => Self::Nodes {
                which,
                count: *chance.pick(&[1, 1, 2, 2, 5]),
                crash: *chance.pick(&[Crash::Kill, Crash::PowerCut]),
                down_for: milliseconds(chance, DOWN_MS),
            },
            20..76 => Self::draw_cut(chance, which),
            76..92 => Self::Leave { which, down_for: milliseconds(chance, DOWN_MS) },
            _ => Self::DiskFull { which, lasts: milliseconds(chance, FULL_MS) },
        }
    }

    fn draw_cut(chance: &mut Chance, which: u64) -> Self {
        let side = if chance.percent(70) { Side::Destination } else { Side::Source };
        let from = match chance.between(0..=9) {
            0..3 => From::Node(chance.next()),
            3..6 => From::Peers,
            6..8 => From::Cluster(side),
            _ => From::Everyone,
        };
        let way = match chance.between(0..=9) {
            0..4 => Way::Both,
            4 | 5 => Way::Out,
            6 | 7 => Way::In,
            _ => Way::Held,
        };
        let range = if way == Way::Held { HELD_MS } else { chance.pick(&CUT_MS).clone() };
        Self::Cut { which, from, way, lasts: milliseconds(chance, range) }
    }

    fn loses_a_disk(&self) -> bool {
        matches!(self, Self::DiskLost { .. })
    }

    /// Whether no more than one of its kind may come, lest a majority is lost for ever.
    fn draw_once(chance: &mut Chance) -> Option<Self> {
        let which = chance.next();
        match chance.between(0..=9) {
            0..2 => Some(Self::DiskLost { which, down_for: milliseconds(chance, DOWN_MS) }),
            2..4 => Some(Self::Removed { which }),
            _ => None,
        }
    }
}

/// For a fleet of several nodes.
pub fn draw(chance: &mut Chance, busy: Duration, nodes: u64) -> Vec<Fault> {
    let last_ms = u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    for _ in 0..chance.between(0..=FAULTS_MAX) {
        let (mut at, fault) = (milliseconds(chance, 1..=last_ms), OfFleet::draw(chance));
        let flaps = match fault {
            OfFleet::Cut { way, .. } if way != Way::Held && chance.percent(20) => {
                chance.between(1..=FLAPS_MAX)
            }
            _ => 0,
        };
        for _ in 0..=flaps {
            faults.push(Fault { at, kind: Kind::Fleet(fault.clone()) });
            let OfFleet::Cut { lasts, .. } = fault else { break };
            at += lasts + milliseconds(chance, CUT_MS[0].clone());
        }
    }
    // The disk of one of two may hold the only vote.
    if let Some(once) = OfFleet::draw_once(chance).filter(|once| nodes > 2 || !once.loses_a_disk()) {
        faults.push(Fault { at: milliseconds(chance, last_ms / 5..=last_ms), kind: Kind::Fleet(once) });
    }
    faults.retain(|fault| fault.at <= busy);
    faults
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(_) => f.write_str("another"),
            Self::Peers => f.write_str("its peers"),
            Self::Cluster(side) => side.fmt(f),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

impl fmt::Display for OfFleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes { count, crash, down_for, .. } => {
                write!(f, "{count} nodes end ({crash:?}), back {down_for:?} later")
            }
            Self::Cut { from, way: Way::Held, lasts, .. } => {
                write!(f, "what is sent between a node and {from} waits for {lasts:?}")
            }
            Self::Cut { from, way, lasts, .. } => {
                let way = match way {
                    Way::Out => ", outwards",
                    Way::In => ", inwards",
                    Way::Both | Way::Held => "",
                };
                write!(f, "a node is cut off from {from}{way} for {lasts:?}")
            }
            Self::Leave { down_for, .. } => write!(f, "a node leaves, back {down_for:?} later"),
            Self::DiskFull { lasts, .. } => write!(f, "a node's disk is full for {lasts:?}"),
            Self::DiskLost { down_for, .. } => {
                write!(f, "a node's disk is lost, and another node joins {down_for:?} later")
            }
            Self::Removed { .. } => f.write_str("a node is drained and removed, and joins as another"),
        }
    }
}

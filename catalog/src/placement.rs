//! Which node should run which mirror partition, as a plan that leaves no choices.
//!
//! Pure: what is known beside the catalog comes in as a [`Situation`], and equal inputs give equal plans.
//! It never judges who is lost, never waits, and never moves what may as well stay.
//!
//! - `view`: members with their load, partitions with what they need.
//! - `mend`: what can't stay where it is gets another owner, at once.
//! - `balance`: the rest moves only if that is worth it, and slowly.
//! - `pace`: how many at a time; all numbers.

mod balance;
mod mend;
mod pace;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::command::{Action, Move};
use crate::fleet::PartitionKey;
use crate::model::{Catalog, NodeId};
use view::View;

pub use pace::{HAND_OVER_MAX, HAND_OVERS_MAX, RECEIVER_MAX, REST, count_spread};

/// Moves in one plan, at most: bounds the entries' size in the Raft log (about 64 bytes each).
pub const MOVES_MAX: usize = 4_096;

/// What the coordinator knows beside the catalog. Times are since an arbitrary beginning of the
/// coordinator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    pub now: Duration,
    /// A member that is missing here is [`Presence::Unknown`].
    pub nodes: BTreeMap<NodeId, Presence>,
    /// Measured bytes per second; a partition that is missing here carries nothing.
    pub rates: BTreeMap<PartitionKey, u64>,
    /// When a partition was last seen to get another owner, or its first one. Entries older than [`REST`]
    /// may be dropped.
    pub changed: BTreeMap<PartitionKey, Duration>,
    /// Since when a partition is to be handed over.
    pub handing_over: BTreeMap<PartitionKey, Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Live {
        since: Duration,
    },
    Lost {
        since: Duration,
    },
    /// Not heard of yet, within grace: neither live nor lost.
    Unknown,
}

impl Situation {
    pub fn presence(&self, node: NodeId) -> Presence {
        self.nodes.get(&node).copied().unwrap_or(Presence::Unknown)
    }

    pub fn is_live(&self, node: NodeId) -> bool {
        matches!(self.presence(node), Presence::Live { .. })
    }
}

/// What to propose, each list in order, [`Plan::assign`] first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub assign: Vec<Planned>,
    pub hand_over: Vec<Planned>,
    /// When time alone may make another plan of the same catalog and presences, at the latest.
    pub look_again: Option<Duration>,
}

/// A move and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub step: Move,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It has no owner yet.
    New,
    OwnerLost,
    OwnerRemoved,
    OwnerDrains,
    OwnerStops,
    /// It was to go to a node that can't take it any more.
    ReceiverGone,
    /// Its owner, which lives, hasn't released it within [`HAND_OVER_MAX`].
    NotReleased,
    /// The owner has more partitions than others.
    Count,
    /// The owner carries more bytes per second than others.
    Rate,
}

impl Reason {
    /// For logs and labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::OwnerLost => "owner-lost",
            Self::OwnerRemoved => "owner-removed",
            Self::OwnerDrains => "owner-drains",
            Self::OwnerStops => "owner-stops",
            Self::ReceiverGone => "receiver-gone",
            Self::NotReleased => "not-released",
            Self::Count => "count",
            Self::Rate => "rate",
        }
    }
}

impl Plan {
    /// Nothing to propose.
    pub fn is_empty(&self) -> bool {
        self.assign.is_empty() && self.hand_over.is_empty()
    }

    fn moves(&self) -> usize {
        self.assign.len() + self.hand_over.len()
    }

    /// The commands to propose, in order: one, two or none.
    pub fn into_actions(self) -> Vec<Action> {
        let steps = |planned: Vec<Planned>| planned.into_iter().map(|p| p.step).collect::<Vec<_>>();
        let (assign, hand_over) = (steps(self.assign), steps(self.hand_over));
        let assign = (!assign.is_empty()).then_some(Action::Assign { moves: assign });
        let hand_over = (!hand_over.is_empty()).then_some(Action::HandOver { moves: hand_over });
        assign.into_iter().chain(hand_over).collect()
    }
}

/// Moves of each kind that are named in a plan's line.
const NAMED_MAX: usize = 16;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (verb, moves) in [("assign", &self.assign), ("hand over", &self.hand_over)] {
            for (index, Planned { step, reason }) in moves.iter().take(NAMED_MAX).enumerate() {
                let verb = if index == 0 { verb } else { "" };
                let space = if index == 0 { " " } else { "" };
                let Move { mirror, partition, node, .. } = step;
                write!(
                    f,
                    "{separator}{verb}{space}{}[{partition}] -> {node} ({})",
                    mirror.topic,
                    reason.name()
                )?;
                separator = ", ";
            }
            if moves.len() > NAMED_MAX {
                write!(f, " and {} more", moves.len() - NAMED_MAX)?;
            }
            if !moves.is_empty() {
                separator = "; ";
            }
        }
        Ok(())
    }
}

/// What to do now. Nothing moves while nobody is live; nothing is balanced while anything is to be
/// mended.
pub fn plan(catalog: &Catalog, situation: &Situation) -> Plan {
    let mut plan = Plan::default();
    let mut view = View::of(catalog, situation);
    if !view.seats.values().any(view::Seat::is_live) {
        return plan;
    }
    let mended = mend::mend(&mut view, &mut plan);
    let unfinished = mended || balance::balance(&mut view, &mut plan);
    plan.look_again = look_again(&view, unfinished);
    plan
}

fn look_again(view: &View<'_>, unfinished: bool) -> Option<Duration> {
    let takers = view.takers().count();
    if takers == 0 || (takers == 1 && !unfinished) {
        return None;
    }
    let step = view.takers().any(|(_, seat)| seat.is_young(view.now)).then_some(pace::SLOW_START_STEP);
    let rests = view.partitions.iter().filter_map(|p| p.rests_until).min().map(|end| end - view.now);
    let sooner = step.into_iter().chain(rests).filter(|_| unfinished);
    sooner.chain([pace::LOOK_AGAIN]).min()
}

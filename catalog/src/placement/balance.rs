//! Partitions move for the sake of balance: by count first, then by bytes per second at equal counts.
//!
//! Each move makes the counts' sum of squares smaller, or leaves it and makes that of the rates smaller:
//! so following plans comes to an end.

use std::collections::{BTreeMap, BTreeSet};

use super::pace::{self, HAND_OVERS_MAX, RATE_HAND_OVERS_MAX};
use super::view::View;
use super::{MOVES_MAX, Plan, Planned, Presence, Reason};
use crate::fleet::Duty;
use crate::model::NodeId;

/// By rate, then in the order of the keys: a node's partitions that may move.
type Movable = BTreeSet<(u64, usize)>;

/// Adds moves to the plan; whether the fleet would still be out of balance after them.
pub(super) fn balance(view: &mut View<'_>, plan: &mut Plan) -> bool {
    let nodes = view.takers().count();
    // Whose turn it is shows only when all are known.
    let unknown = view.seats.values().any(|s| s.duty == Duty::Mirrors && s.presence == Presence::Unknown);
    if nodes < 2 || unknown {
        return false;
    }
    // What has begun goes on to the end; what has not needs a reason to.
    let goes_on = view.under_way > 0;
    let total: usize = view.takers().map(|(_, seat)| seat.count).sum();
    let spread_max = pace::count_spread(total, nodes);
    let mut scales = Scales { view, plan, movable: BTreeMap::new() };
    if scales.spread() > if goes_on { 1 } else { spread_max } {
        scales.weigh();
        scales.even_counts();
    }
    if scales.spread() > spread_max {
        return true;
    }
    let mean = scales.mean_rate();
    let begins = pace::rate_begins(mean);
    if scales.busiest().1 > if goes_on { pace::rate_ends(mean) } else { begins } {
        scales.weigh();
        scales.even_rates(mean);
    }
    scales.busiest().1 > begins
}

struct Scales<'p, 'a> {
    view: &'p mut View<'a>,
    plan: &'p mut Plan,
    movable: BTreeMap<NodeId, Movable>,
}

impl Scales<'_, '_> {
    /// Finds what may move, once.
    fn weigh(&mut self) {
        if !self.movable.is_empty() {
            return;
        }
        // Sets are built from lists: several times faster than one by one.
        let mut lists: BTreeMap<NodeId, Vec<(u64, usize)>> =
            self.view.takers().map(|(id, _)| (id, Vec::new())).collect();
        for (index, partition) in self.view.partitions.iter().enumerate() {
            let stays = partition.heading.is_some() || partition.rests_until.is_some();
            if let Some(of_owner) = partition.owner().and_then(|owner| lists.get_mut(&owner))
                && !stays
            {
                of_owner.push((partition.rate, index));
            }
        }
        self.movable = lists.into_iter().map(|(id, list)| (id, Movable::from_iter(list))).collect();
    }

    fn spread(&self) -> usize {
        let counts = || self.view.takers().map(|(_, seat)| seat.count);
        counts().max().unwrap_or(0) - counts().min().unwrap_or(0)
    }

    fn mean_rate(&self) -> u64 {
        let (nodes, rates) = self
            .view
            .takers()
            .fold((0u64, 0u64), |(nodes, rates), (_, seat)| (nodes + 1, rates.saturating_add(seat.rate)));
        rates / nodes.max(1)
    }

    fn busiest(&self) -> (NodeId, u64) {
        let rates = self.view.takers().map(|(id, seat)| (id, seat.rate));
        rates.max_by_key(|(id, rate)| (*rate, *id)).unwrap_or((NodeId(0), 0))
    }

    /// Hand-overs that may begin, if `max` may be under way.
    fn budget(&self, max: usize) -> usize {
        max.saturating_sub(self.view.under_way).min(MOVES_MAX - self.plan.moves())
    }

    fn even_counts(&mut self) {
        let mean_rate = self.mean_rate();
        let total: usize = self.view.takers().map(|(_, seat)| seat.count).sum();
        let mean_count = total / self.movable.len().max(1);
        while self.budget(HAND_OVERS_MAX) > 0 {
            let gives = |(id, _): &(NodeId, _)| !self.movable[id].is_empty();
            let giver = self.view.takers().filter(gives).max_by_key(|(id, seat)| (seat.count, *id));
            let with_room = self.view.takers().filter(|(_, seat)| seat.room > 0);
            let taker = with_room.min_by_key(|(id, seat)| (seat.count, seat.rate, *id));
            let (Some((from, giver)), Some((to, taker))) = (giver, taker) else { return };
            if giver.count < taker.count + 2 {
                return;
            }
            // So that the rates of both are even when their counts are.
            let lacks =
                mean_rate.saturating_sub(taker.rate) / mean_count.saturating_sub(taker.count).max(1) as u64;
            let spares =
                giver.rate.saturating_sub(mean_rate) / giver.count.saturating_sub(mean_count).max(1) as u64;
            let wanted = lacks / 2 + spares / 2;
            let Some(index) = nearest(&self.movable[&from], wanted) else { return };
            self.hand_over(index, from, to, Reason::Count);
        }
    }

    /// The busiest node gives to those that carry least, and gets less busy partitions for it.
    fn even_rates(&mut self, mean: u64) {
        while self.budget(RATE_HAND_OVERS_MAX) >= 2 {
            let (from, rate) = self.busiest();
            if rate <= pace::rate_ends(mean) {
                return;
            }
            let Some((to, shift)) = self.best_shift(from, mean) else { return };
            self.hand_over(shift.gives, from, to, Reason::Rate);
            if let Some(index) = shift.gets {
                self.hand_over(index, to, from, Reason::Rate);
            }
        }
    }

    fn best_shift(&self, from: NodeId, mean: u64) -> Option<(NodeId, Shift)> {
        let giver = self.view.seats.get(&from)?;
        let mut takers: Vec<_> =
            self.view.takers().filter(|(_, seat)| seat.rate < mean && seat.room > 0).collect();
        takers.sort_by_key(|(id, seat)| (seat.rate, *id));
        // Less than half of what the giver carries a partition isn't worth a move.
        let worth = (giver.rate / giver.count.max(1) as u64 / 2).max(1);
        takers.into_iter().find_map(|(to, taker)| {
            let aim = Aim {
                wanted: (giver.rate - mean).min(mean - taker.rate),
                gap: giver.rate - taker.rate,
                worth,
                alone: giver.count > taker.count,
                in_turn: giver.room > 0,
            };
            Some((to, aim.best(&self.movable[&from], &self.movable[&to])?))
        })
    }

    fn hand_over(&mut self, index: usize, from: NodeId, to: NodeId, reason: Reason) {
        let partition = &self.view.partitions[index];
        let rate = partition.rate;
        self.plan.hand_over.push(Planned { step: partition.to(to), reason });
        self.view.under_way += 1;
        if let Some(movable) = self.movable.get_mut(&from) {
            movable.remove(&(rate, index));
        }
        if let Some(seat) = self.view.seats.get_mut(&from) {
            seat.take_out(rate);
        }
        if let Some(seat) = self.view.seats.get_mut(&to) {
            seat.put(rate);
            seat.room = seat.room.saturating_sub(1);
        }
    }
}

/// The movable partition whose rate is nearest to `wanted`.
fn nearest(movable: &Movable, wanted: u64) -> Option<usize> {
    let above = movable.range((wanted, 0)..).next();
    let below = movable.range(..(wanted, 0)).next_back();
    let both = above.into_iter().chain(below);
    both.min_by_key(|(rate, index)| (rate.abs_diff(wanted), *index)).map(|(_, index)| *index)
}

/// One partition goes, and one may come back for it.
struct Shift {
    gives: usize,
    gets: Option<usize>,
}

/// What a shift of bytes per second from one node to another should be like.
struct Aim {
    wanted: u64,
    gap: u64,
    /// The busier of the two must get at least so much less busy.
    worth: u64,
    /// Whether a partition may go without another one coming back: the counts allow it.
    alone: bool,
    in_turn: bool,
}

impl Aim {
    /// Both are walked once, in the order of their rates.
    fn best(&self, giver: &Movable, taker: &Movable) -> Option<Shift> {
        let mut best: Option<(u64, Shift)> = None;
        let mut consider = |shifts: u64, gives: usize, gets: Option<usize>| {
            let worth = shifts.min(self.gap.saturating_sub(shifts)) >= self.worth;
            let misses = shifts.abs_diff(self.wanted);
            if worth && best.as_ref().is_none_or(|(least, _)| misses < *least) {
                best = Some((misses, Shift { gives, gets }));
            }
        };
        let mut below: Option<&(u64, usize)> = None;
        let mut above = taker.iter().peekable();
        for (rate, gives) in giver {
            if self.alone {
                consider(*rate, *gives, None);
            }
            if !self.in_turn {
                continue;
            }
            let back = rate.saturating_sub(self.wanted);
            while let Some(next) = above.next_if(|(rate, _)| *rate <= back) {
                below = Some(next);
            }
            for (came, gets) in below.into_iter().chain(above.peek().copied()) {
                if let Some(shifts) = rate.checked_sub(*came) {
                    consider(shifts, *gives, Some(*gets));
                }
            }
        }
        best.map(|(_, shift)| shift)
    }
}

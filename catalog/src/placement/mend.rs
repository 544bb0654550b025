//! What can't stay where it is: partitions without a live owner, and those of nodes that leave.

use std::cmp::Reverse;

use super::pace::HAND_OVERS_MAX;
use super::view::{Need, Seat, View};
use super::{MOVES_MAX, Plan, Planned, Reason};
use crate::model::NodeId;

/// Adds what is needed to the plan; whether there was any need.
pub(super) fn mend(view: &mut View<'_>, plan: &mut Plan) -> bool {
    let mut needs: Vec<(usize, Need)> = (0..)
        .zip(&view.partitions)
        .filter_map(|(index, partition)| Some((index, view.need(partition)?)))
        .collect();
    // The busiest first: they are missed most, and the small ones even out what they leave uneven.
    needs.sort_by_key(|(index, _)| {
        let partition = &view.partitions[*index];
        (partition.idle, Reverse(partition.rate), *index)
    });
    let nodes = view.takers().count();
    let homeless = needs.iter().filter(|(_, need)| !matches!(need, Need::Keep(_))).count();
    let counted: usize = view.takers().map(|(_, seat)| seat.count).sum();
    let share = (counted + homeless).div_ceil(nodes.max(1));
    for (index, need) in &needs {
        if plan.moves() == MOVES_MAX {
            break;
        }
        settle(view, plan, *index, *need, share);
    }
    !needs.is_empty()
}

fn settle(view: &mut View<'_>, plan: &mut Plan, index: usize, need: Need, share: usize) {
    let partition = &view.partitions[index];
    let to = match need {
        Need::Assign(_) => partition.heading.filter(|to| takes(view, *to)).or_else(|| at_once(view, share)),
        Need::HandOver(Reason::OwnerDrains) => with_room(view, share),
        Need::HandOver(_) => at_once(view, share),
        Need::Keep(_) => None,
    };
    let Some(node) = to else {
        if let Need::Keep(reason) | Need::HandOver(reason @ Reason::ReceiverGone) = need
            && let Some(owner) = partition.owner()
        {
            plan.hand_over.push(Planned { step: partition.to(owner), reason });
        }
        return;
    };
    let step = partition.to(node);
    let rate = partition.rate;
    match need {
        Need::Assign(reason) => plan.assign.push(Planned { step, reason }),
        Need::HandOver(reason) => {
            plan.hand_over.push(Planned { step, reason });
            view.under_way += 1;
        }
        Need::Keep(_) => {}
    }
    if let Some(seat) = view.seats.get_mut(&node) {
        seat.put(rate);
        seat.room = seat.room.saturating_sub(1);
    }
}

fn takes(view: &View<'_>, node: NodeId) -> bool {
    view.seats.get(&node).is_some_and(|seat| seat.takes())
}

/// Somewhere now. Nodes that have just come get no more than their slow start allows, unless there
/// are no others.
fn at_once(view: &View<'_>, share: usize) -> Option<NodeId> {
    best(view, share, |seat, young| !young || seat.room > 0).or_else(|| best(view, share, |_, _| true))
}

/// Where there is room for one more hand-over: a node that drains goes on as it is until then.
fn with_room(view: &View<'_>, share: usize) -> Option<NodeId> {
    if view.under_way >= HAND_OVERS_MAX {
        return None;
    }
    best(view, share, |seat, _| seat.room > 0)
}

/// Of those below their share of the count the one that carries least; of the others the one with the
/// fewest.
fn best(view: &View<'_>, share: usize, may: impl Fn(&Seat, bool) -> bool) -> Option<NodeId> {
    let fitting = view.takers().filter(|(_, seat)| may(seat, seat.is_young(view.now)));
    let order = |(id, seat): &(NodeId, &Seat)| {
        let (full, count) = (seat.count >= share, seat.count as u64);
        let (first, second) = if full { (count, seat.rate) } else { (seat.rate, count) };
        (full, first, second, *id)
    };
    fitting.min_by_key(order).map(|(id, _)| id)
}

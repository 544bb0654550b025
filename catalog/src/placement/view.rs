//! The fleet as the planner sees it: members with their load, partitions with what they need.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use super::pace::{self, HAND_OVER_MAX, REST};
use super::{Presence, Reason, Situation};
use crate::command::Move;
use crate::fleet::{Duty, PartitionKey};
use crate::model::{Assignment, Catalog, Link, LinkId, MirrorStatus, MirrorTopic, NodeId};

pub(super) struct View<'a> {
    /// In the order of their keys.
    pub partitions: Vec<Partition<'a>>,
    pub seats: BTreeMap<NodeId, Seat>,
    /// Hand-overs under way.
    pub under_way: usize,
    pub now: Duration,
}

/// A member, and what it has once all hand-overs under way are done.
pub(super) struct Seat {
    pub duty: Duty,
    pub presence: Presence,
    pub count: usize,
    pub rate: u64,
    /// How many more hand-overs to it may begin.
    pub room: usize,
}

pub(super) struct Partition<'a> {
    link: &'a Link,
    topic: &'a MirrorTopic,
    index: u32,
    pub assignment: Option<&'a Assignment>,
    /// Who gets it by a hand-over under way.
    pub heading: Option<NodeId>,
    /// It should have been released long ago.
    late: bool,
    pub rate: u64,
    /// Failed or paused: nobody waits for it.
    pub idle: bool,
    /// When it came to its owner, if that was lately.
    came: Option<Duration>,
    /// When it may move again without need; none: at once.
    pub rests_until: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Assign(Reason),
    HandOver(Reason),
    /// Its owner, to whom this falls back, is to go on.
    Keep(Reason),
}

impl Seat {
    /// Whether it may be given partitions.
    pub fn takes(&self) -> bool {
        self.duty == Duty::Mirrors && self.is_live()
    }

    pub fn is_live(&self) -> bool {
        matches!(self.presence, Presence::Live { .. })
    }

    fn is_lost(&self) -> bool {
        matches!(self.presence, Presence::Lost { .. })
    }

    pub fn age(&self, now: Duration) -> Duration {
        match self.presence {
            Presence::Live { since } => now.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    pub fn is_young(&self, now: Duration) -> bool {
        self.age(now) < pace::SLOW_START
    }

    pub fn put(&mut self, rate: u64) {
        self.count += 1;
        self.rate = self.rate.saturating_add(rate);
    }

    pub fn take_out(&mut self, rate: u64) {
        self.count -= 1;
        self.rate = self.rate.saturating_sub(rate);
    }
}

impl Partition<'_> {
    pub fn owner(&self) -> Option<NodeId> {
        self.assignment.map(|a| a.node)
    }

    pub fn to(&self, node: NodeId) -> Move {
        Move {
            mirror: self.link.key(&self.topic.name),
            partition: self.index,
            node,
            expected_epoch: self.assignment.map(|a| a.epoch),
        }
    }
}

impl<'a> View<'a> {
    pub fn of(catalog: &'a Catalog, situation: &'a Situation) -> Self {
        let now = situation.now;
        let seat = |(id, node): (&NodeId, &crate::Node)| {
            let presence = situation.presence(*id);
            let mut seat = Seat { duty: node.duty, presence, count: 0, rate: 0, room: 0 };
            seat.room = pace::receiver_max(seat.age(now));
            (*id, seat)
        };
        let seats = catalog.nodes.iter().map(seat).collect();
        let under_way = catalog.fleet.hand_overs.len();
        let mut view = Self { partitions: Vec::new(), seats, under_way, now };
        view.read_partitions(catalog, situation);
        view.count_load();
        view
    }

    fn read_partitions(&mut self, catalog: &'a Catalog, situation: &'a Situation) {
        let all =
            || catalog.links.values().flat_map(|link| link.mirrors.values().map(move |topic| (link, topic)));
        let mirrors = || all().filter(|(_, topic)| topic.status != MirrorStatus::Stopped);
        self.partitions.reserve_exact(mirrors().map(|(_, topic)| topic.partitions.len()).sum());
        let mut headings = Beside::new(&catalog.fleet.hand_overs);
        let mut rates = Beside::new(&situation.rates);
        let mut handing_over = Beside::new(&situation.handing_over);
        let mut changed = Beside::new(&situation.changed);
        for (link, topic) in mirrors() {
            let is_paused = topic.status == MirrorStatus::Paused || link.is_paused();
            for (index, partition) in (0u32..).zip(&topic.partitions) {
                let at = (&link.id, &topic.name, index);
                let assignment = partition.assignment.as_ref();
                let came = changed.at(at).copied();
                // Nothing moved when it got its first owner.
                let moved = came.filter(|_| assignment.is_some_and(|a| a.epoch > 1));
                let rests_until = moved.map(|at| at.saturating_add(REST)).filter(|end| *end > self.now);
                self.partitions.push(Partition {
                    link,
                    topic,
                    index,
                    assignment,
                    heading: headings.at(at).copied(),
                    late: handing_over.at(at).is_some_and(|since| self.now >= *since + HAND_OVER_MAX),
                    rate: rates.at(at).copied().unwrap_or(0),
                    idle: partition.failure.is_some() || is_paused || topic.is_fenced(),
                    came,
                    rests_until,
                });
            }
        }
    }

    /// What has to be assigned or handed over counts nowhere yet.
    fn count_load(&mut self) {
        for partition in &self.partitions {
            let home = match self.need(partition) {
                Some(Need::Assign(_) | Need::HandOver(_)) => None,
                Some(Need::Keep(_)) => partition.owner(),
                None => partition.heading.or(partition.owner()),
            };
            let Some(seat) = home.and_then(|home| self.seats.get_mut(&home)) else { continue };
            let now = self.now;
            let just_came = |at| now.saturating_sub(at) < pace::SLOW_START_STEP;
            let arrives =
                partition.heading.is_some() || (seat.is_young(now) && partition.came.is_some_and(just_came));
            seat.put(partition.rate);
            seat.room = seat.room.saturating_sub(usize::from(arrives));
        }
    }

    pub fn need(&self, partition: &Partition<'_>) -> Option<Need> {
        let Some(owner) = partition.owner() else { return Some(Need::Assign(Reason::New)) };
        let Some(owner) = self.seats.get(&owner) else { return Some(Need::Assign(Reason::OwnerRemoved)) };
        if owner.is_lost() {
            return Some(Need::Assign(Reason::OwnerLost));
        }
        let leaves = owner.is_live() && owner.duty != Duty::Mirrors;
        let fits = |to: &NodeId| {
            self.seats.get(to).is_some_and(|seat| seat.duty == Duty::Mirrors && !seat.is_lost())
        };
        match (partition.heading, owner.duty) {
            // Only its owner could stop it: another one would begin beside it.
            (Some(_), _) if partition.late => Some(Need::Keep(Reason::NotReleased)),
            (Some(to), _) if fits(&to) => None,
            (Some(_), _) if leaves => Some(Need::HandOver(Reason::ReceiverGone)),
            (Some(_), _) => Some(Need::Keep(Reason::ReceiverGone)),
            (None, Duty::Stops) if leaves => Some(Need::HandOver(Reason::OwnerStops)),
            (None, Duty::Drains) if leaves => Some(Need::HandOver(Reason::OwnerDrains)),
            (None, _) => None,
        }
    }

    pub fn takers(&self) -> impl Iterator<Item = (NodeId, &Seat)> {
        self.seats.iter().filter(|(_, seat)| seat.takes()).map(|(id, seat)| (*id, seat))
    }
}

/// Walks a map beside the catalog, which is in the same order: no key is built or copied.
struct Beside<'a, V> {
    rest: Peekable<btree_map::Iter<'a, PartitionKey, V>>,
}

impl<'a, V> Beside<'a, V> {
    fn new(map: &'a BTreeMap<PartitionKey, V>) -> Self {
        Self { rest: map.iter().peekable() }
    }

    /// The value at a partition behind all that were asked for before.
    fn at(&mut self, partition: (&LinkId, &Arc<str>, u32)) -> Option<&'a V> {
        let before =
            |(key, _): &(&PartitionKey, &V)| (&key.mirror.link, &key.mirror.topic, key.partition) < partition;
        while self.rest.next_if(before).is_some() {}
        let (key, value) = self.rest.peek()?;
        let found = (&key.mirror.link, &key.mirror.topic, key.partition) == partition;
        found.then_some(*value)
    }
}

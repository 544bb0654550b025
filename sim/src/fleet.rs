//! The fleet's nodes as the world sees them: which run, when those that are down start again, what each
//! shows, and which of them nothing is in the way of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::NodeId;
use consensus::Applied;
use turmoil::Sim;

use crate::chance::{Chance, SharedChance};
use crate::disk::{Crash, Disk};
use crate::facts::Facts;
use crate::fleet_faults::{From, OfFleet};
use crate::judge::{Judge, Seen};
use crate::machine_faults::OfMachine;
use crate::node::{Common, Seat};
use crate::options::Memory;
use crate::shown;
use crate::strike::Field;
use crate::time::{Clock, Rate, Time};
use crate::walked::Walked;

/// After a fault a node's connections may hang for as long as a call may take, and are then made anew.
const WELL_AFTER: Duration = Duration::from_secs(20);
/// Handing over and stopping, at most.
const STOPPING: Duration = Duration::from_secs(10);
/// A process that ended by itself is started again by whoever keeps it.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A fleet has that many voters before one may be lost for ever. Of any fleet one that lives may be removed:
/// the product refuses to as long as it needs its vote.
const VOTERS_MIN: usize = 3;

pub struct Fleet {
    pub places: Vec<Place>,
    /// The furthest catalog that any node showed.
    pub applied: Option<Arc<Applied>>,
    /// The voters that the Raft leader saw last, and since when.
    voters: (Vec<NodeId>, Duration),
}

/// What a look at catalogs has found that something waited for.
#[derive(Default)]
pub struct News {
    /// A prefix is about to be filled.
    pub has_prefix: bool,
    /// Mirrors that are to stop for good, and who sees to it.
    pub to_stop: Vec<(String, Option<NodeId>)>,
}

pub struct Place {
    pub seat: Arc<Seat>,
    /// When the node that is down starts again.
    back_at: Option<Duration>,
    /// How long it stays down once its end has come.
    doomed_for: Duration,
    /// When its disk has room again.
    room_at: Option<Duration>,
    /// When its disk is as fast again as it was.
    fast_at: Option<Duration>,
    /// When it has another disk in place of the damaged one.
    replaced_at: Option<Duration>,
    /// Something is or was in its way until then.
    touched_to: Duration,
    /// It is or was cut off from all others until then.
    apart_to: Duration,
    index: u64,
    shown: shown::Shown,
    walked: Walked,
}

impl Fleet {
    pub fn new(seed: u64, common: &Common, time: &Time, rates: &[Rate]) -> Self {
        let place = |(place, name): (usize, &&'static str)| {
            // One's is what it was when there was only one.
            let disk = if place == 0 { "disk".to_owned() } else { format!("disk of {name}") };
            let disk = Disk::new(Chance::of(seed, &disk));
            let clock = Clock::new(time.clone(), rates.get(place).copied().unwrap_or_default());
            Place {
                seat: Seat::new(place, disk, clock, SharedChance::of(seed, name), common.clone()),
                back_at: None,
                doomed_for: AGAIN_AFTER,
                room_at: None,
                fast_at: None,
                replaced_at: None,
                touched_to: Duration::ZERO,
                apart_to: Duration::ZERO,
                index: 0,
                shown: shown::Shown::default(),
                walked: Walked::default(),
            }
        };
        let places = common.hosts.iter().enumerate().map(place).collect();
        Self { places, applied: None, voters: Default::default() }
    }

    /// Where that node is, if it runs.
    pub fn place_of(&self, node: NodeId) -> Option<u64> {
        let mut places = (0..).zip(&self.places);
        places.find(|(_, place)| place.seat.view().is_some_and(|view| view.node == node)).map(|(at, _)| at)
    }

    pub fn is_any_down(&self) -> bool {
        self.places.iter().any(|place| place.back_at.is_some())
    }

    fn at(&mut self, which: u64) -> &mut Place {
        let count = self.places.len() as u64;
        &mut self.places[(which % count) as usize]
    }

    pub fn strike_node(
        &mut self,
        sim: &mut Sim<'_>,
        (which, crash, changes, down_for): (u64, Crash, Option<u64>, Duration),
        now: Duration,
    ) {
        let place = self.at(which);
        match changes {
            Some(changes) => {
                place.doomed_for = down_for;
                place.seat.disk.doom(crash, changes);
                // When it comes nobody knows.
                place.touched_to = Duration::MAX;
            }
            None => place.crash(sim, crash, now, down_for),
        }
    }

    pub fn strike(
        &mut self,
        sim: &mut Sim<'_>,
        field: &mut Field,
        fault: &OfFleet,
        now: Duration,
        last: Duration,
    ) {
        match *fault {
            OfFleet::Nodes { which, count, crash, down_for } => {
                for place in 0..count.min(self.places.len() as u64) {
                    self.at(which.wrapping_add(place)).crash(sim, crash, now, down_for);
                }
            }
            OfFleet::Cut { which, from, way, lasts } => {
                let until = (now + lasts).min(last);
                let (index, count) = ((which % self.places.len() as u64) as usize, self.places.len());
                field.cut(sim, self.places[index].seat.name, from, way, until);
                if !matches!(from, From::Cluster(_)) {
                    self.places[index].touch(until);
                }
                if matches!(from, From::Peers | From::Everyone) {
                    let place = &mut self.places[index];
                    place.apart_to = place.apart_to.max(until);
                }
                if let From::Node(other) = from {
                    let others: Vec<usize> = (0..count).filter(|other| *other != index).collect();
                    self.places[others[other as usize % others.len()]].touch(until);
                }
            }
            OfFleet::Leave { which, down_for } => {
                let place = self.at(which);
                place.doomed_for = down_for;
                place.touch(now + STOPPING + down_for);
                place.seat.tell_to_stop();
            }
            OfFleet::DiskFull { which, lasts } => {
                let place = self.at(which);
                let until = (now + lasts).min(last);
                place.room_at = place.room_at.max(Some(until));
                place.touch(until);
                place.seat.disk.set_full(true);
            }
            OfFleet::DiskLost { which, down_for } => self.lose_disk(sim, which, now, down_for),
            OfFleet::Removed { which } => {
                if let Some(node) = self.member(which, now, 1) {
                    let place = self.at(which);
                    place.touched_to = Duration::MAX;
                    place.seat.operator.is_to_remove(node, false);
                }
            }
        }
    }

    pub fn strike_machine(&mut self, sim: &mut Sim<'_>, fault: &OfMachine, now: Duration, last: Duration) {
        match *fault {
            // In nobody's way, whatever it shows.
            OfMachine::ClockSet { which, ahead_ms } => self.at(which).seat.clock.set(ahead_ms),
            OfMachine::SlowDisk { which, commit_takes, lasts } => {
                let place = self.at(which);
                let until = (now + lasts).min(last);
                place.fast_at = place.fast_at.max(Some(until));
                // The last one begins before it is over.
                place.touch(until + commit_takes);
                place.seat.disk.set_slow(commit_takes);
            }
            OfMachine::DamagedDisk { which, damage, restarts, lasts } => {
                if self.member(which, now, VOTERS_MIN).is_none() {
                    return;
                }
                let place = self.at(which);
                place.replaced_at = Some((now + lasts).min(last));
                place.seat.disk.damage(damage);
                if restarts {
                    place.crash(sim, Crash::Kill, now, AGAIN_AFTER);
                }
                place.touched_to = Duration::MAX;
            }
        }
    }

    /// If the fleet can do without it.
    fn member(&mut self, which: u64, now: Duration, voters_min: usize) -> Option<NodeId> {
        let (voters, since) = &self.voters;
        // What only the Raft leader knows may never be committed.
        let views = self.places.iter().filter_map(|place| place.seat.view());
        let agreed = views.filter(|view| view.standing().voters == *voters).count() >= voters_min;
        let is_complete = agreed && voters.len() >= voters_min && *since + Duration::from_secs(2) < now;
        let is_full = self.applied.as_ref()?.catalog.nodes.len() >= self.places.len();
        let found = self.at(which).seat.id();
        if !(is_complete && is_full) {
            tracing::info!("node: not now: the fleet isn't complete");
            return None;
        }
        found
    }

    fn lose_disk(&mut self, sim: &mut Sim<'_>, which: u64, now: Duration, down_for: Duration) {
        if self.member(which, now, VOTERS_MIN).is_some() {
            self.at(which).lose_disk(sim, now, down_for);
        }
    }

    /// What is due before a step.
    pub fn before_step(&mut self, sim: &mut Sim<'_>, now: Duration, is_busy: bool) {
        for place in &mut self.places {
            if !is_busy {
                place.seat.disk.spare();
                place.touched_to = place.touched_to.min(now + WELL_AFTER + STOPPING);
            }
            if place.room_at.take_if(|at| *at <= now).is_some() {
                place.seat.disk.set_full(false);
                place.crash(sim, Crash::Kill, now, AGAIN_AFTER);
            }
            if place.fast_at.take_if(|at| *at <= now).is_some() {
                place.seat.disk.set_slow(Duration::ZERO);
            }
            if place.replaced_at.take_if(|at| *at <= now).is_some() {
                place.lose_disk(sim, now, AGAIN_AFTER);
            }
            if place.back_at.take_if(|at| *at <= now).is_some() {
                tracing::info!("node: {} starts again", place.seat.name);
                sim.bounce(place.seat.name);
            }
        }
    }

    /// Who ended in it.
    pub fn after_step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for place in &mut self.places {
            let (has_left, has_fallen) = (place.seat.take_left(), place.seat.disk.take_fallen());
            if !has_left && !has_fallen {
                continue;
            }
            let removed = self.applied.as_ref().map(|applied| &applied.catalog.fleet.removed);
            let is_removed =
                removed.zip(place.seat.id()).is_some_and(|(removed, id)| removed.contains_key(&id));
            let down_for = std::mem::replace(&mut place.doomed_for, AGAIN_AFTER);
            place.crash(sim, Crash::Kill, now, down_for);
            if has_left && is_removed {
                tracing::info!("node: {} begins anew", place.seat.name);
                place.seat.replace(true);
            }
        }
    }

    /// Takes what is new in their catalogs.
    pub fn look_at_catalogs(&mut self, judge: &Judge, field: &mut Field, now: Duration) -> News {
        let mut news = News::default();
        for index in 0..self.places.len() {
            let Some(view) = self.places[index].seat.view() else { continue };
            let standing = view.standing();
            if standing.leads && standing.voters != self.voters.0 {
                self.voters = (standing.voters, now);
            }
            let applied = view.applied.borrow().clone();
            if applied.index == self.places[index].index {
                continue;
            }
            self.places[index].index = applied.index;
            tracing::info!("catalog: index {} at {}", applied.index, self.places[index].seat.name);
            judge.see(Seen::Applied(&applied));
            if self.applied.as_ref().is_none_or(|highest| highest.index < applied.index) {
                judge.see(Seen::Owners(&applied, &self.well(index, now)));
                news.has_prefix |= field.mirrors.learn(&applied);
                news.to_stop.extend(field.stopped.learn(&applied));
                self.applied = Some(applied);
            }
        }
        news
    }

    /// Nodes that nothing is or was in the way of lately. A change shows first at the coordinator that made it
    /// (`by`): one that was cut off itself, but for the majority that it needs, can't tell who was.
    fn well(&self, by: usize, now: Duration) -> BTreeSet<NodeId> {
        if self.places[by].apart_to.saturating_add(WELL_AFTER) >= now {
            return BTreeSet::new();
        }
        let well = self.places.iter().filter(|place| place.touched_to.saturating_add(WELL_AFTER) < now);
        well.filter_map(|place| Some(place.seat.view()?.node)).collect()
    }

    /// What each of them shows.
    pub fn look(&mut self, judge: &Judge, field: &Field, memory: Memory) {
        for place in &mut self.places {
            let Some(view) = place.seat.view() else { continue };
            let applied = view.applied.borrow().clone();
            place.shown.look(place.seat.name, &applied, view.observatory.as_deref());
            let mut facts = Facts::default();
            facts.add(place.seat.place, &applied, &view);
            let shown = facts.shown(&applied, field, memory);
            judge.see(Seen::Shown(&shown));
            place.walked.look(&shown);
            place.walked.sees_to_stops(&applied, view.node);
        }
    }

    /// One Raft leader, all of them members that run and hold the same.
    ///
    /// # Errors
    /// What isn't so yet.
    pub fn stands(&self) -> Result<(Arc<Applied>, Facts), String> {
        let applied = self.applied.clone().ok_or("no node shows a catalog")?;
        let (mut facts, mut leaders) = (Facts::default(), 0);
        for place in &self.places {
            let name = place.seat.name;
            let view = place.seat.view().ok_or_else(|| format!("{name} doesn't run"))?;
            if view.observatory.is_none() {
                return Err(format!("the data plane of {name} doesn't run"));
            }
            if !applied.catalog.nodes.contains_key(&view.node) {
                return Err(format!("{name} is no member"));
            }
            let index = view.applied.borrow().index;
            if index != applied.index {
                return Err(format!("{name} is at index {index}, others at {}", applied.index));
            }
            leaders += u32::from(view.standing().leads);
            facts.add(place.seat.place, &applied, &view);
        }
        if leaders != 1 {
            return Err(format!("there are {leaders} Raft leaders"));
        }
        let members = applied.catalog.nodes.len();
        if members != self.places.len() {
            return Err(format!("the fleet has {members} members"));
        }
        Ok((applied, facts))
    }
}

impl Place {
    fn touch(&mut self, until: Duration) {
        self.touched_to = self.touched_to.max(until);
    }

    /// Another node is to stand in its place.
    fn lose_disk(&mut self, sim: &mut Sim<'_>, now: Duration, down_for: Duration) {
        if let Some(node) = self.seat.id() {
            self.seat.operator.is_to_remove(node, true);
        }
        self.crash(sim, Crash::Kill, now, down_for);
        self.touched_to = Duration::MAX;
        self.seat.replace(true);
        tracing::info!("node: {} has lost its disk", self.seat.name);
    }

    fn crash(&mut self, sim: &mut Sim<'_>, crash: Crash, now: Duration, down_for: Duration) {
        // First, so that nothing that dies can write.
        self.seat.disk.crash(crash);
        tracing::info!("node: {} is down for {down_for:?}", self.seat.name);
        self.walked.node_ends();
        let is_up = self.back_at.is_none();
        self.back_at = self.back_at.max(Some(now + down_for));
        if self.touched_to == Duration::MAX {
            self.touched_to = Duration::ZERO;
        }
        self.touch(now + down_for);
        self.seat.end();
        if !self.seat.is_founded() {
            // The product says of such a store that one begins again with an empty one.
            self.seat.replace(self.seat.joins());
        }
        if is_up {
            sim.crash(self.seat.name);
        }
    }
}

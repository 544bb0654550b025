//! One seed's world: hosts on turmoil's network, faults in their time, a look after each step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use turmoil::Sim;

use crate::chance::{Chance, SharedChance};
use crate::clusters::{self, CLUSTERS, Mood};
use crate::disk::Disk;
use crate::faults::{Fault, Kind};
use crate::judge::{Judge, Seen};
use crate::node::Seat;
use crate::operator::Operator;
use crate::options::Options;
use crate::shown::Shown;
use crate::time::Time;

const NODE: &str = "node-1";

/// Hosts run this long one after the other; messages arrive between.
const STEP: Duration = Duration::from_millis(1);
/// What the node shows is looked at this often: each look copies it all.
const LOOK_EVERY_STEPS: u64 = 10;
/// Segments that wait at a socket, at most; turmoil panics beyond it.
const SOCKET_SEGMENTS_MAX: usize = 65_536;

pub struct World<'a> {
    options: Options,
    sim: Sim<'a>,
    time: Time,
    judge: Judge,
    seat: Arc<Seat>,
    /// Not yet struck; the next one last.
    faults: Vec<Fault>,
    /// When the node that is down starts again.
    back_at: Option<Duration>,
    /// How long it stays down once its doom has come.
    doomed_for: Duration,
    index: u64,
    shown: Shown,
    steps: u64,
}

impl World<'_> {
    pub fn new(options: Options, time: Time) -> Self {
        let seed = options.seed;
        let mut sim = turmoil::Builder::new()
            .rng_seed(Chance::of(seed, "network").next())
            .enable_random_order()
            .tick_duration(STEP)
            .simulation_duration(options.busy + options.quiet + STEP)
            .min_message_latency(STEP)
            .max_message_latency(options.latency_max)
            .tcp_capacity(SOCKET_SEGMENTS_MAX)
            .build();
        for (cluster, mood) in CLUSTERS.iter().zip(options.moods.clone()) {
            sim.host(cluster.host, move || clusters::broker(mood));
        }
        let judge = Judge::of_all();
        let disk = Disk::new(Chance::of(seed, "disk"));
        let node_chance = SharedChance::of(seed, NODE);
        let seat = Seat::new(NODE, disk, time.clone(), node_chance, judge.clone(), Operator::new(&options));
        let seated = seat.clone();
        sim.host(NODE, move || seated.clone().run());
        let faults = options.faults.iter().rev().cloned().collect();
        Self {
            options,
            sim,
            time,
            judge,
            seat,
            faults,
            back_at: None,
            doomed_for: Duration::ZERO,
            index: 0,
            shown: Shown::default(),
            steps: 0,
        }
    }

    /// One step; false when the time is over.
    ///
    /// # Errors
    /// A violated invariant, a host that ended, or what isn't as it must be at the end.
    pub fn step(&mut self) -> Result<bool> {
        let now = self.sim.elapsed();
        if now >= self.options.busy + self.options.quiet {
            self.check_end()?;
            return Ok(false);
        }
        if now >= self.options.busy {
            self.seat.disk.spare();
        }
        while let Some(fault) = self.faults.pop_if(|fault| fault.at <= now) {
            self.strike(&fault, now);
        }
        if self.back_at.take_if(|at| *at <= now).is_some() {
            tracing::info!("node: starts again");
            self.sim.bounce(NODE);
        }
        self.time.step_begins();
        let stepped = self.sim.step();
        self.time.step_ends(self.sim.elapsed());
        stepped.map_err(|error| anyhow!("a host ended: {error}"))?;
        if self.seat.disk.take_fallen() {
            self.end_node(self.sim.elapsed(), self.doomed_for);
        }
        self.look();
        match self.judge.violation() {
            Some(violation) => bail!(violation),
            None => Ok(true),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    fn strike(&mut self, fault: &Fault, now: Duration) {
        tracing::info!("fault: {fault}");
        match fault.kind {
            Kind::Node { crash, changes: Some(changes), down_for } => {
                self.doomed_for = down_for;
                self.seat.disk.doom(crash, changes);
            }
            Kind::Node { crash, changes: None, down_for } => {
                // First, so that nothing that dies can write.
                self.seat.disk.crash(crash);
                self.end_node(now, down_for);
            }
        }
    }

    /// Its disk has gone from it already.
    fn end_node(&mut self, now: Duration, down_for: Duration) {
        tracing::info!("node: down for {down_for:?}");
        let is_up = self.back_at.is_none();
        self.back_at = self.back_at.max(Some(now + down_for));
        self.seat.end();
        if !self.seat.is_founded() {
            // The product says of such a store that one begins again with an empty one.
            self.seat.disk.replace();
        }
        if is_up {
            self.sim.crash(NODE);
        }
    }

    fn look(&mut self) {
        self.steps += 1;
        let Some(mut view) = self.seat.view() else { return };
        let applied = view.applied.borrow_and_update().clone();
        if applied.index != self.index {
            self.index = applied.index;
            tracing::info!("catalog: index {}", applied.index);
            self.judge.see(Seen::Applied(&applied));
        }
        if self.steps.is_multiple_of(LOOK_EVERY_STEPS) {
            self.shown.look(&applied, view.observatory.as_deref());
        }
    }

    /// After the quiet time everything has come right.
    fn check_end(&self) -> Result<()> {
        ensure!(self.seat.operator.is_done(), "the operator still waits for answers");
        let view = self.seat.view().ok_or_else(|| anyhow!("the node doesn't run"))?;
        let observatory =
            view.observatory.clone().ok_or_else(|| anyhow!("the node's data plane doesn't run"))?;
        for link in view.applied.borrow().catalog.links.values() {
            let state = observatory.link(&link.id).map(|view| view.state);
            let expected = Mood::LINK_STATE;
            ensure!(state == Some(expected), "link {} is {state:?}, and must be {expected}", link.name);
        }
        Ok(())
    }
}

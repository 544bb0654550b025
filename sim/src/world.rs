//! One seed's world: hosts on turmoil's network, faults in their time, a look after each step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use catalog::{Link, MirrorStatus};
use consensus::Applied;
use turmoil::Sim;

use crate::chance::{Chance, SharedChance};
use crate::clusters::{self, DESTINATION, Embedded, Side, UNREACHABLE};
use crate::disk::Disk;
use crate::faults::{Ambush, Fault, Kind};
use crate::history::Key;
use crate::invariants;
use crate::judge::{Judge, Logs, Row, Seen, Shown};
use crate::node::{self, Seat, View};
use crate::operator::Operator;
use crate::options::{Memory, Options};
use crate::oracle::Oracle;
use crate::producer::{self, Producers};
use crate::shown;
use crate::strike::Field;
use crate::time::Time;
use crate::verifier::{self, Verifier};
use crate::walked::Walked;

/// Hosts run this long one after the other; messages arrive between.
const STEP: Duration = Duration::from_millis(2);
/// What the node shows and what logs hold is looked at this often: each look copies some of it.
const LOOK_EVERY_STEPS: u64 = 5;
/// Segments that wait at a socket, at most; turmoil panics beyond it.
const SOCKET_SEGMENTS_MAX: usize = 65_536;
/// Whether all has come right is looked at this often.
const END_EVERY_STEPS: u64 = 250;
/// Between two ambushes: one fault's effects are over before the next, as often as not.
const AMBUSH_EVERY: Duration = Duration::from_millis(500);

pub struct World<'a> {
    options: Arc<Options>,
    sim: Sim<'a>,
    time: Time,
    judge: Judge,
    seat: Arc<Seat>,
    field: Field,
    verifier: Verifier,
    /// Not yet struck; the next one last.
    faults: Vec<Fault>,
    /// Not yet laid; the next one last, and not before then.
    ambushes: (Vec<Ambush>, Duration),
    /// When the node that is down starts again.
    back_at: Option<Duration>,
    /// How long it stays down once its doom has come.
    doomed_for: Duration,
    index: u64,
    shown: shown::Shown,
    walked: Walked,
    steps: u64,
}

impl World<'_> {
    pub fn new(options: Options, time: Time) -> Self {
        let seed = options.seed;
        let mut sim = turmoil::Builder::new()
            .rng_seed(Chance::of(seed, "network").next())
            .enable_random_order()
            .tick_duration(STEP)
            .simulation_duration(options.busy + *options.quiet.end() + STEP)
            .min_message_latency(STEP)
            .max_message_latency(options.latency_max)
            .tcp_capacity(SOCKET_SEGMENTS_MAX)
            .build();
        let options = Arc::new(options);
        let field = field(&options, &time);
        for side in Side::BOTH {
            for (broker, host) in (1..).zip(side.registered().hosts) {
                let embedded: Embedded = field.side(side).clone();
                sim.host(*host, move || embedded.clone().serve(broker));
            }
        }
        let mood = options.mood;
        sim.host(UNREACHABLE.hosts[0], move || clusters::stand_in(mood));
        let producers =
            Producers { options: options.clone(), time: time.clone(), oracle: field.oracle.clone() };
        producers.preload(&field.source);
        sim.host(producer::HOST, move || producers.clone().run());
        let verifier = Verifier::default();
        let reader = verifier.clone();
        sim.host(verifier::HOST, move || reader.clone().run());
        let judge = Judge::of_all();
        let disk = Disk::new(Chance::of(seed, "disk"));
        let node_chance = SharedChance::of(seed, node::HOST);
        let operator = Operator::new(&options, time.clone());
        let credit = options.memory.credit;
        let seat = Seat::new(node::HOST, disk, time.clone(), node_chance, judge.clone(), operator, credit);
        let seated = seat.clone();
        sim.host(node::HOST, move || seated.clone().run());
        let faults = options.faults.iter().rev().cloned().collect();
        let ambushes = (options.ambushes.clone(), Duration::ZERO);
        Self {
            options,
            sim,
            time,
            judge,
            seat,
            field,
            verifier,
            faults,
            ambushes,
            back_at: None,
            doomed_for: Duration::ZERO,
            index: 0,
            shown: shown::Shown::default(),
            walked: Walked::default(),
            steps: 0,
        }
    }

    /// One step; false when the time is over.
    ///
    /// # Errors
    /// A violated invariant, a host that ended, or what isn't as it must be at the end.
    pub fn step(&mut self) -> Result<bool> {
        let now = self.sim.elapsed();
        if self.is_over(now) {
            self.check_end()?;
            return Ok(false);
        }
        if now >= self.options.busy {
            self.seat.disk.spare();
        }
        self.field.end(&mut self.sim, now);
        while let Some(fault) = self.faults.pop_if(|fault| fault.at <= now) {
            self.strike(&fault, now);
        }
        if self.back_at.take_if(|at| *at <= now).is_some() {
            tracing::info!("node: starts again");
            self.sim.bounce(node::HOST);
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

    /// All has come right and was read, or the time is over. Asks the verifier to read when it is time to.
    fn is_over(&self, now: Duration) -> bool {
        let (busy, quiet) = (self.options.busy, &self.options.quiet);
        if now < busy + *quiet.start() || !self.steps.is_multiple_of(END_EVERY_STEPS) {
            return now >= busy + *quiet.end();
        }
        let has_come_right = self.seat.operator.is_done() && self.has_come_right();
        if has_come_right {
            self.seat.operator.rest();
            self.verifier.ask();
        }
        has_come_right && self.verifier.has_read()
    }

    fn has_come_right(&self) -> bool {
        let Some(view) = self.seat.view() else { return false };
        let applied = view.applied.borrow().clone();
        let facts = Facts::of(&applied, &view);
        let mut found = false;
        with_logs(&self.field, |logs| {
            found = invariants::has_come_right(logs, &self.shown(&facts, &applied)).is_ok();
        });
        found
    }

    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    fn strike(&mut self, fault: &Fault, now: Duration) {
        tracing::info!("fault: {fault}");
        // What stands in the logs now may be gone after it.
        self.look_at_logs();
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
            _ => {
                self.field.strike(&mut self.sim, &fault.kind, now, self.options.busy);
                self.look_at_logs();
            }
        }
    }

    /// Its disk has gone from it already.
    fn end_node(&mut self, now: Duration, down_for: Duration) {
        tracing::info!("node: down for {down_for:?}");
        self.walked.node_ends();
        let is_up = self.back_at.is_none();
        self.back_at = self.back_at.max(Some(now + down_for));
        self.seat.end();
        if !self.seat.is_founded() {
            // The product says of such a store that one begins again with an empty one.
            self.seat.disk.replace();
        }
        if is_up {
            self.sim.crash(node::HOST);
        }
    }

    fn look(&mut self) {
        self.steps += 1;
        let is_due = self.steps.is_multiple_of(LOOK_EVERY_STEPS);
        let view = self.seat.view().map(|view| {
            let applied = view.applied.borrow().clone();
            (applied, view)
        });
        if let Some((applied, _)) = &view
            && applied.index != self.index
        {
            self.index = applied.index;
            tracing::info!("catalog: index {}", applied.index);
            self.judge.see(Seen::Applied(applied));
            if self.field.mirrors.learn(applied) {
                self.lay_ambush();
            }
        }
        if !is_due {
            return;
        }
        self.look_at_logs();
        if let Some((applied, view)) = view {
            self.shown.look(&applied, view.observatory.as_deref());
            let facts = Facts::of(&applied, &view);
            let shown = facts.shown(&applied, &self.field, self.options.memory);
            self.judge.see(Seen::Shown(&shown));
            self.walked.look(&shown);
        }
    }

    /// A prefix is about to be filled.
    fn lay_ambush(&mut self) {
        let (now, (ambushes, from)) = (self.sim.elapsed(), &mut self.ambushes);
        if now < *from {
            return;
        }
        let Some(ambush) = ambushes.pop().filter(|ambush| now + ambush.after < self.options.busy) else {
            return;
        };
        tracing::info!("ambush: {ambush}");
        *from = now + AMBUSH_EVERY;
        let fault = Fault { at: now + ambush.after, kind: ambush.kind };
        let place = self.faults.partition_point(|later| later.at > fault.at);
        self.faults.insert(place, fault);
    }

    fn look_at_logs(&mut self) {
        let Field { source, history, struck, .. } = &mut self.field;
        for key in source.cluster.with(|state| history.take(state)) {
            tracing::info!("cluster north: {}[{}] shows deleted records again", key.0, key.1);
            struck.undeleted(key);
        }
        with_logs(&self.field, |logs| {
            self.judge.see(Seen::Logs(logs));
            self.walked.look_at_logs(logs);
        });
    }

    /// After the quiet time everything has come right.
    fn check_end(&mut self) -> Result<()> {
        ensure!(self.seat.operator.is_done(), "the operator still waits for answers");
        let view = self.seat.view().ok_or_else(|| anyhow!("the node doesn't run"))?;
        ensure!(view.observatory.is_some(), "the node's data plane doesn't run");
        let applied = view.applied.borrow().clone();
        self.look_at_logs();
        let facts = Facts::of(&applied, &view);
        let shown = self.shown(&facts, &applied);
        with_logs(&self.field, |logs| self.judge.see(Seen::End(logs, &shown)));
        if let Some(violation) = self.judge.violation() {
            bail!(violation);
        }
        let Field { mirrors, oracle, struck, .. } = &self.field;
        let running = running(&applied);
        tracing::info!("verifier: compares {} mirror partitions", running.len());
        let compared = self.verifier.compare(&running, mirrors, oracle, struck);
        let compared = compared.map_err(|why| anyhow!("the verifier: {why}"))?;
        tracing::info!("verifier: {compared} records are as at the source");
        // Faults may have stopped every mirror there was; nothing else may leave nothing to compare.
        ensure!(compared > 0 || running.is_empty(), "no record was mirrored: this run proves nothing");
        Ok(())
    }

    fn shown<'a>(&'a self, facts: &'a Facts, applied: &'a Applied) -> Shown<'a> {
        facts.shown(applied, &self.field, self.options.memory)
    }
}

fn field(options: &Arc<Options>, time: &Time) -> Field {
    let embedded = |side| Embedded::new(side, options, time);
    let field = Field::new(embedded(Side::Source), embedded(Side::Destination), Oracle::default());
    field.source.create_topics(&options.topics);
    field
}

fn with_logs(field: &Field, act: impl FnOnce(&Logs<'_>)) {
    let Field { source, destination, mirrors, history, struck, .. } = field;
    source.cluster.with(|source| {
        destination.cluster.with(|destination| act(&Logs { source, destination, mirrors, history, struck }));
    });
}

/// Mirror partitions between the two clusters with data that didn't stop.
fn running(applied: &Applied) -> Vec<Key> {
    let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
    let mirrors = links.flat_map(|link| link.mirrors.values()).filter(|m| m.status != MirrorStatus::Paused);
    let partitions = mirrors.flat_map(|mirror| {
        let partitions = (0..).zip(&mirror.partitions).filter(|(_, partition)| partition.failure.is_none());
        partitions.map(|(index, _)| (mirror.name.to_string(), index))
    });
    partitions.collect()
}

/// What a node shows at one moment.
struct Facts {
    rows: Vec<Row>,
    links: std::collections::BTreeMap<String, &'static str>,
    credit_in_use: std::collections::BTreeMap<String, usize>,
}

impl Facts {
    fn of(applied: &Applied, view: &View) -> Self {
        let links: Vec<&Arc<Link>> = applied.catalog.links.values().collect();
        let Some(observatory) = &view.observatory else {
            return Self { rows: Vec::new(), links: Default::default(), credit_in_use: Default::default() };
        };
        let rows = links.iter().flat_map(|link| link.mirrors.values().map(move |mirror| (link, mirror)));
        let rows = rows.flat_map(|(link, mirror)| {
            observatory.partitions(&link.key(&mirror.name)).into_iter().filter_map(|view| {
                let assignment = mirror.partitions.get(view.partition as usize)?.assignment.as_ref()?;
                let key = (mirror.name.to_string(), i32::try_from(view.partition).ok()?);
                Some(Row { link: link.name.to_string(), key, assignment_epoch: assignment.epoch, view })
            })
        });
        let name = |link: &Arc<Link>| link.name.to_string();
        Self {
            rows: rows.collect(),
            links: links.iter().filter_map(|l| Some((name(l), observatory.link(&l.id)?.state))).collect(),
            credit_in_use: links
                .iter()
                .filter_map(|l| Some((name(l), observatory.credit_in_use_bytes(&l.id)?)))
                .collect(),
        }
    }

    fn shown<'a>(&'a self, applied: &'a Applied, field: &'a Field, memory: Memory) -> Shown<'a> {
        let Field { mirrors, history, struck, .. } = field;
        let Self { rows, links, credit_in_use } = self;
        Shown { applied, rows, links, credit_in_use, memory, mirrors, history, struck }
    }
}

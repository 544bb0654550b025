//! One seed's world: hosts on turmoil's network, faults in their time, a look after each step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use catalog::{MirrorStatus, MirrorTopic, NodeId};
use consensus::Applied;
use turmoil::Sim;

use crate::catching_up::{self, CatchingUp};
use crate::chance::Chance;
use crate::clusters::{self, DESTINATION, Embedded, Side, UNREACHABLE};
use crate::consumers::{self, Consumers};
use crate::facts::Facts;
use crate::faults::{Ambush, Fault, Kind};
use crate::fleet::Fleet;
use crate::history::Key;
use crate::invariants;
use crate::judge::{Judge, Logs, Seen, Shown};
use crate::node::{self, Common};
use crate::operator::{self, Operator};
use crate::options::Options;
use crate::oracle::Oracle;
use crate::producer::{self, Producers};
use crate::strike::Field;
use crate::time::Time;
use crate::verifier::{self, Ended, Verifier};
use crate::walked::Walked;

/// Hosts run this long one after the other; messages arrive between.
const STEP: Duration = Duration::from_millis(2);
/// What the node shows and what logs hold is looked at this often: each look copies some of it.
const LOOK_EVERY_STEPS: u64 = 5;
/// Segments that wait at a socket, at most; turmoil panics beyond it.
const SOCKET_SEGMENTS_MAX: usize = 65_536;
/// Whether all has come right is looked at this often.
const END_EVERY_STEPS: u64 = 250;
/// The verifier reads everything within that, once all has come right, be it at the last moment.
const READ_MAX: Duration = Duration::from_secs(30);
/// Between two ambushes: one fault's effects are over before the next, as often as not.
const AMBUSH_EVERY: Duration = Duration::from_millis(500);

pub struct World<'a> {
    options: Arc<Options>,
    sim: Sim<'a>,
    time: Time,
    judge: Judge,
    fleet: Fleet,
    operator: Operator,
    field: Field,
    verifier: Verifier,
    /// Not yet struck; the next one last.
    faults: Vec<Fault>,
    /// Not yet laid; the next one last, and not before then.
    ambushes: (Vec<Ambush>, Duration),
    stop_ambushes: Vec<Ambush>,
    walked: Walked,
    catching_up: CatchingUp,
    steps: u64,
}

impl World<'_> {
    pub fn new(options: Options, time: Time) -> Self {
        let seed = options.seed;
        let mut sim = turmoil::Builder::new()
            .rng_seed(Chance::of(seed, "network").next())
            .enable_random_order()
            .tick_duration(STEP)
            .simulation_duration(
                options.busy + *options.quiet.end() + catching_up::LONGER_MAX + READ_MAX + STEP,
            )
            .min_message_latency(STEP)
            .max_message_latency(options.latency_max)
            .tcp_capacity(SOCKET_SEGMENTS_MAX)
            .build();
        let options = Arc::new(options);
        let hosts = &node::HOSTS[..options.nodes as usize];
        let field = field(&options, &time, hosts);
        for side in Side::BOTH {
            for (broker, host) in (1..).zip(side.registered().hosts) {
                let embedded: Embedded = field.side(side).clone();
                sim.host(*host, move || embedded.clone().serve(broker));
            }
        }
        let mood = options.mood;
        sim.host(UNREACHABLE.hosts[0], move || clusters::stand_in(mood));
        let producers = Producers {
            options: options.clone(),
            time: time.clone(),
            oracle: field.oracle.clone(),
            stopped: field.stopped.clone(),
        };
        producers.preload(&field.source);
        sim.host(producer::HOST, move || producers.clone().run());
        let consumers = Consumers {
            options: options.clone(),
            time: time.clone(),
            source: field.source.clone(),
            destination: field.destination.clone(),
        };
        sim.host(consumers::HOST, move || consumers.clone().run());
        let verifier = Verifier::default();
        let reader = verifier.clone();
        sim.host(verifier::HOST, move || reader.clone().run());
        let judge = Judge::of_all();
        let operator = Operator::new(&options, time.clone());
        let common = Common {
            hosts,
            judge: judge.clone(),
            operator: operator.clone(),
            credit: options.memory.credit,
            log: options.log,
        };
        let fleet = Fleet::new(seed, &common, &time, &options.rates);
        for place in &fleet.places {
            let seat = place.seat.clone();
            sim.host(seat.name, move || seat.clone().run());
        }
        let seats: Vec<_> = fleet.places.iter().map(|place| place.seat.clone()).collect();
        let (person, hearing) = (operator.clone(), judge.clone());
        sim.host(operator::HOST, move || person.clone().work(seats.clone(), hearing.clone()));
        let faults = options.faults.iter().rev().cloned().collect();
        let ambushes = (options.ambushes.clone(), Duration::ZERO);
        let stop_ambushes = options.stops.ambushes.clone();
        Self {
            options,
            sim,
            time,
            judge,
            fleet,
            operator,
            field,
            verifier,
            faults,
            ambushes,
            stop_ambushes,
            walked: Walked::default(),
            catching_up: CatchingUp::default(),
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
        self.field.end(&mut self.sim, now);
        while let Some(fault) = self.faults.pop_if(|fault| fault.at <= now) {
            self.strike(&fault, now);
        }
        self.fleet.before_step(&mut self.sim, now, now < self.options.busy);
        self.time.step_begins();
        let stepped = self.sim.step();
        self.time.step_ends(self.sim.elapsed());
        stepped.map_err(|error| anyhow!("a host ended: {error}"))?;
        let now = self.sim.elapsed();
        self.fleet.after_step(&mut self.sim, now);
        self.look();
        match self.judge.violation() {
            Some(violation) => bail!(violation),
            None => Ok(true),
        }
    }

    /// All has come right and was read, or the time is over. Asks the verifier to read when it is time to.
    fn is_over(&mut self, now: Duration) -> bool {
        let (busy, quiet) = (self.options.busy, &self.options.quiet);
        if now < busy + *quiet.start() || !self.steps.is_multiple_of(END_EVERY_STEPS) {
            return now >= self.last_moment();
        }
        self.look_whether_it_gets_on(now);
        let is_at_rest = self.field.stopped.is_at_rest(self.options.stops.has_clients);
        let has_come_right = self.operator.is_done() && is_at_rest && self.has_come_right();
        if has_come_right {
            self.operator.rest();
            self.verifier.ask();
        }
        now >= self.last_moment() || (has_come_right && self.verifier.has_read())
    }

    /// When all must have come right, and so much later where it is being read.
    fn last_moment(&self) -> Duration {
        let latest = self.options.busy + *self.options.quiet.end();
        let latest = self.catching_up.until().clamp(latest, latest + catching_up::LONGER_MAX);
        if self.verifier.is_reading() { latest + READ_MAX } else { latest }
    }

    fn look_whether_it_gets_on(&mut self, now: Duration) {
        let mut catching_up = std::mem::take(&mut self.catching_up);
        catching_up.look(now, || {
            let stands = self.fleet.stands();
            stands
                .map(|(applied, facts)| catching_up::behind(&self.shown(&facts, &applied)))
                .unwrap_or_default()
        });
        self.catching_up = catching_up;
    }

    fn has_come_right(&self) -> bool {
        let Ok((applied, facts)) = self.fleet.stands() else { return false };
        let mut found = false;
        with_logs(&self.field, self.sim.elapsed(), |logs| {
            found = invariants::has_come_right(logs, &self.shown(&facts, &applied)).is_ok();
        });
        found
    }

    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    fn strike(&mut self, fault: &Fault, now: Duration) {
        tracing::info!("fault: {}: {fault}", fault.kind.name());
        // What stands in the logs now may be gone after it.
        self.look_at_logs();
        match fault.kind {
            Kind::Node { which, crash, changes, down_for } => {
                self.fleet.strike_node(&mut self.sim, (which, crash, changes, down_for), now);
            }
            Kind::Fleet(ref fault) => {
                self.fleet.strike(&mut self.sim, &mut self.field, fault, now, self.options.busy);
            }
            Kind::Machine(ref fault) => {
                self.fleet.strike_machine(&mut self.sim, fault, now, self.options.busy)
            }
            _ => {
                self.field.strike(&mut self.sim, &fault.kind, now, self.options.busy);
                self.look_at_logs();
            }
        }
    }

    fn look(&mut self) {
        self.steps += 1;
        let news = self.fleet.look_at_catalogs(&self.judge, &mut self.field, self.sim.elapsed());
        if news.has_prefix {
            self.lay_ambush();
        }
        for (topic, owner) in news.to_stop {
            self.lay_ambush_of_stop(&topic, owner);
        }
        if self.steps.is_multiple_of(LOOK_EVERY_STEPS) {
            self.look_at_logs();
            self.fleet.look(&self.judge, &self.field, self.options.memory);
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
        self.insert(Fault { at: now + ambush.after, kind: ambush.kind });
    }

    /// A mirror is about to be fenced.
    fn lay_ambush_of_stop(&mut self, topic: &str, owner: Option<NodeId>) {
        let now = self.sim.elapsed();
        if self.field.is_disturbed() || self.fleet.is_any_down() {
            tracing::info!("walked: {topic} is to stop while faults last");
        }
        let Some(mut ambush) = self.stop_ambushes.pop().filter(|of| now + of.after < self.options.busy)
        else {
            return;
        };
        if let Some(place) = owner.and_then(|owner| self.fleet.place_of(owner)) {
            ambush.kind.aim(place);
        }
        tracing::info!("ambush of a stop: {:?} later {}", ambush.after, ambush.kind);
        self.insert(Fault { at: now + ambush.after, kind: ambush.kind });
    }

    fn insert(&mut self, fault: Fault) {
        let place = self.faults.partition_point(|later| later.at > fault.at);
        self.faults.insert(place, fault);
    }

    fn look_at_logs(&mut self) {
        let Field { source, destination, mirrors, history, struck, .. } = &mut self.field;
        destination.cluster.with(|state| mirrors.look_for_fences(state));
        for given_up in destination.mischief.take_given_up() {
            tracing::info!("cluster south: {given_up:?} is told to be for a person to see to");
            struck.given_up(given_up);
        }
        for key in source.cluster.with(|state| history.take(state)) {
            tracing::info!("cluster north: {}[{}] shows deleted records again", key.0, key.1);
            struck.undeleted(key);
        }
        with_logs(&self.field, self.sim.elapsed(), |logs| {
            self.judge.see(Seen::Logs(logs));
            self.walked.look_at_logs(logs);
        });
    }

    /// After the quiet time everything has come right.
    fn check_end(&mut self) -> Result<()> {
        ensure!(self.operator.is_done(), "the operator still waits for answers");
        let (applied, facts) = self.fleet.stands().map_err(|why| anyhow!("LV-1 is violated: {why}"))?;
        self.look_at_logs();
        let shown = self.shown(&facts, &applied);
        with_logs(&self.field, self.sim.elapsed(), |logs| self.judge.see(Seen::End(logs, &shown)));
        if let Some(violation) = self.judge.violation() {
            bail!(violation);
        }
        let Field { mirrors, oracle, struck, stopped, .. } = &self.field;
        let running = running(&applied);
        tracing::info!("verifier: compares {} mirror partitions", running.len());
        let compared = self.verifier.compare(&running, mirrors, oracle, struck);
        let compared = compared.map_err(|why| anyhow!("the verifier: {why}"))?;
        tracing::info!("verifier: {compared} records are as at the source");
        let ended = ended(&applied);
        let compared_ended = self.verifier.compare_ended(&ended, struck, stopped);
        let compared_ended = compared_ended.map_err(|why| anyhow!("the verifier: {why}"))?;
        if !ended.is_empty() {
            let count = ended.len();
            tracing::info!(
                "verifier: of {count} partitions that have stopped, {compared_ended} records are, too"
            );
        }
        // Faults may have stopped every mirror there was; nothing else may leave nothing to compare.
        ensure!(compared > 0 || running.is_empty(), "no record was mirrored: this run proves nothing");
        Ok(())
    }

    fn shown<'a>(&'a self, facts: &'a Facts, applied: &'a Applied) -> Shown<'a> {
        facts.shown(applied, &self.field, self.options.memory)
    }
}

fn field(options: &Arc<Options>, time: &Time, nodes: &'static [&'static str]) -> Field {
    let embedded = |side| Embedded::new(side, options, time);
    let field = Field::new(embedded(Side::Source), embedded(Side::Destination), Oracle::default(), nodes);
    field.source.create_topics(&options.topics);
    field
}

fn with_logs(field: &Field, at: Duration, act: impl FnOnce(&Logs<'_>)) {
    let Field { source, destination, mirrors, history, struck, stopped, .. } = field;
    source.cluster.with(|source| {
        destination.cluster.with(|destination| {
            act(&Logs { source, destination, mirrors, history, struck, stopped, at });
        });
    });
}

/// Mirror partitions between the two clusters with data that didn't stop.
fn running(applied: &Applied) -> Vec<Key> {
    let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
    let runs =
        |mirror: &&Arc<MirrorTopic>| !matches!(mirror.status, MirrorStatus::Paused | MirrorStatus::Stopped);
    let mirrors = links.flat_map(|link| link.mirrors.values()).filter(runs);
    let partitions = mirrors.flat_map(|mirror| {
        let partitions = (0..).zip(&mirror.partitions).filter(|(_, partition)| partition.failure.is_none());
        partitions.map(|(index, _)| (mirror.name.to_string(), index))
    });
    partitions.collect()
}

/// Partitions that were mirrors between the two clusters with data, and where they ended as that.
fn ended(applied: &Applied) -> Vec<Ended> {
    let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
    let mirrors = links.flat_map(|link| link.mirrors.values());
    let mirrors = mirrors.filter(|mirror| mirror.status == MirrorStatus::Stopped);
    let partitions = mirrors.flat_map(|mirror| {
        let ends = mirror.stop.iter().flat_map(|stop| &stop.ends);
        (0..).zip(ends).map(|(index, end)| Ended {
            key: (mirror.name.to_string(), index),
            source: (mirror.source_topic.to_string(), index),
            end: *end,
        })
    });
    partitions.collect()
}

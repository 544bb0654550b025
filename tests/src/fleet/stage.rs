//! A fleet between two clusters under live load, and what must hold whatever happens to it: records
//! flow again, partitions that weren't touched never paused, and in the end both topics are the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Fleet;
use super::gate::Gate;
use super::ticker::Ticker;
use super::watch::Watch;
use crate::cluster::{KafkaCluster, KafkaConfig};
use crate::load::{Load, LoadConfig, PROFILES, create_topic};
use crate::mirror::ends_table;
use crate::node::find_binary;
use crate::pair::{Age, FRESH, LINK, TOPIC, WEST};
use crate::poll_until;
use crate::scenario::Scenario;
use crate::settled::{check_active, compare_ends, wait_no_lag};
use crate::wire::RawReader;

/// Four nodes get three each.
pub const PARTITIONS: i32 = 12;
/// Beside brokers and several nodes on two cores.
const RECORDS_PER_SECOND: u32 = 300;
/// What shows a pause of a second well enough.
pub const TICK: Duration = Duration::from_millis(100);

/// One may have been on its way.
const TICKS_AFTER: u32 = 3;

/// Guarded partitions are taken over within 5 s, unguarded ones within 30 s; a broker that is killed at
/// the same time, and a busy machine, take the rest.
const FLOW_LIMIT: Duration = Duration::from_secs(60);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(250);
/// An untouched partition is never stopped, but processes here wait for their turn on two cores.
const HICCUP_MAX: Duration = Duration::from_secs(3);

/// How a partition runs, as the product tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub node: String,
    pub state: String,
    pub since: String,
    pub guarded: Option<bool>,
    /// The node before wasn't seen to stop.
    pub unclean: bool,
}

/// How long the partitions stood still in an event.
#[derive(Clone, Debug, Default)]
pub struct Paused {
    pub touched_max: Duration,
    pub untouched: u32,
    pub untouched_max: Duration,
    /// Handed over between nodes that weren't touched.
    pub moved: u32,
}

/// Everything that events act upon.
#[derive(Debug)]
pub struct Stage<'a> {
    pub scenario: &'a Scenario,
    pub east: KafkaCluster,
    pub west: KafkaCluster,
    /// In front of the destination's broker, for whoever was told so.
    pub west_gate: Option<Gate>,
    pub fleet: Fleet,
    pub watch: Watch,
    load: Load,
    ticker: Ticker,
    tick: Duration,
}

/// What is to be set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub age: Age,
    pub nodes: usize,
    pub destination_brokers: u16,
    /// Gates in front of the nodes' peer ports and of the destination's only broker.
    pub gated: bool,
    /// Between two records for each partition.
    pub tick: Duration,
}

/// Three nodes that share fresh records.
pub const THREE: Setup = Setup { age: FRESH, nodes: 3, destination_brokers: 1, gated: false, tick: TICK };

impl<'a> Stage<'a> {
    pub fn start(scenario: &'a Scenario, setup: Setup) -> Result<Stage<'a>> {
        Stage::start_binary(scenario, setup, find_binary()?)
    }

    /// [`start`](Self::start) with all nodes of the binary at this path.
    pub fn start_binary(scenario: &'a Scenario, setup: Setup, binary: PathBuf) -> Result<Stage<'a>> {
        let Setup { age, nodes, gated, .. } = setup;
        let (east, west, west_gate) = start_clusters(scenario, setup)?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[("retention.ms", "-1")])?;
        let fleet = Fleet::found_binary(binary, scenario.directory(), nodes, gated)?;
        scenario.note("brokers and fleet run");
        let west_address = match &west_gate {
            Some(gate) => gate.address().to_string(),
            None => west.bootstrap(),
        };
        let any = fleet.any()?;
        for (name, address) in [(east.name(), &east.bootstrap()), (WEST, &west_address)] {
            any.cli(&["cluster", "create", name, "--bootstrap-server", address])?;
        }
        any.cli(&["link", "create", LINK, "--source", east.name(), "--destination", WEST])?;
        any.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
        let load = Load::start(&LoadConfig {
            bootstrap: east.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: age.age(),
        })?;
        let ticker = Ticker::start(&east.bootstrap(), TOPIC, PARTITIONS, setup.tick, age.age())?;
        let watch = Watch::start(&east.bootstrap(), &west.bootstrap(), TOPIC);
        let stage = Stage { scenario, east, west, west_gate, fleet, watch, load, ticker, tick: setup.tick };
        stage.wait_flowing().context("before the first event")?;
        stage.fleet.wait_settled(nodes)?;
        stage.wait_guarded(age.guarded)?;
        scenario.note("mirroring");
        Ok(stage)
    }

    /// Lets something happen that touches only partitions of these nodes (those who own them before or
    /// after it): waits until everything flows, and checks that all others went on.
    pub fn event(
        &mut self,
        what: &str,
        touched: &[&str],
        strike: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Paused> {
        self.fleet.wait_calm().with_context(|| format!("before {what}"))?;
        let before = self.wait_runs().with_context(|| format!("before {what}"))?;
        self.watch.reset();
        let begun = Instant::now();
        strike(self).with_context(|| what.to_owned())?;
        let struck = begun.elapsed();
        // Each partition has something by now that was written after the stroke.
        std::thread::sleep(self.tick * TICKS_AFTER);
        self.wait_flowing().with_context(|| format!("after {what}"))?;
        let flowing = begun.elapsed();
        let after = self.wait_runs().with_context(|| format!("after {what}"))?;
        let stalls = self.watch.stalls();
        let judged = judge(&before, &after, &stalls, touched, begun.elapsed());
        let paused = judged.with_context(|| format!("after {what}"))?;
        check_active(self.fleet.any()?, WEST, LINK, TOPIC)?;
        eprintln!(
            "{what}: took {struck:.1?}, everything flowed after {flowing:.1?}; longest pause of a touched \
             partition {:.1?}, of {} others {:.1?}; {} of these moved",
            paused.touched_max, paused.untouched, paused.untouched_max, paused.moved
        );
        self.scenario.note(what);
        Ok(paused)
    }

    /// As [`event`](Self::event) where every owner is seen to stop: nobody takes over from one that wasn't.
    pub fn orderly_event(
        &mut self,
        what: &str,
        touched: &[&str],
        strike: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Paused> {
        let before = self.wait_runs().with_context(|| format!("before {what}"))?;
        let paused = self.event(what, touched, strike)?;
        for (partition, is) in self.wait_runs()? {
            let was = before.get(&partition).filter(|was| was.unclean && was.node == is.node);
            ensure!(
                !is.unclean || was.is_some(),
                "{what}: partition {partition} was taken over unclean: {is:?}"
            );
        }
        Ok(paused)
    }

    /// Whatever the source has now, the mirror has soon.
    pub fn wait_flowing(&self) -> Result<()> {
        let wanted = RawReader::new(&self.east.bootstrap())?.ends(TOPIC)?;
        let mut reader = RawReader::new(&self.west.bootstrap())?;
        let deadline = Instant::now() + FLOW_LIMIT;
        loop {
            let found = reader.ends_if_exists(TOPIC)?.unwrap_or_default();
            let reached = |(partition, (_, end)): (&i32, &(i64, i64))| {
                found.get(partition).is_some_and(|(_, found)| found >= end)
            };
            if wanted.iter().all(reached) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let table = ends_table(&wanted, &found);
                bail!("not mirrored within {FLOW_LIMIT:?}\n{table}\n{:#?}", self.runs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// How each partition runs, once all of them do.
    pub fn wait_runs(&self) -> Result<BTreeMap<u64, Run>> {
        let mut last = None;
        let runs = poll_until(FLOW_LIMIT, POLL, || match self.runs() {
            Ok(runs) if runs.len() == PARTITIONS as usize && runs.values().all(|r| r.state == "RUNNING") => {
                Some(runs)
            }
            other => {
                last = Some(other);
                None
            }
        });
        runs.with_context(|| format!("not every partition is RUNNING after {FLOW_LIMIT:?}: {last:#?}"))
    }

    /// What was proven in the other mode would be no proof. A partition is guarded once the destination
    /// has shown that it remembers its producer.
    fn wait_guarded(&self, wanted: bool) -> Result<()> {
        let mut last = BTreeMap::new();
        let found = poll_until(FLOW_LIMIT, POLL, || {
            last = self.wait_runs().ok()?;
            last.values().all(|run| run.guarded == Some(wanted)).then_some(())
        });
        found.with_context(|| format!("guarded isn't {wanted} everywhere: {last:#?}"))
    }

    fn runs(&self) -> Result<BTreeMap<u64, Run>> {
        let mirror = self.fleet.any()?.mirror_json(WEST, LINK, TOPIC)?;
        let rows = mirror["mirror_lags"].as_array().with_context(|| format!("no partitions in {mirror}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let run = |row: &Value| {
            let partition = row["partition"].as_u64().with_context(|| format!("no number in {row}"))?;
            let (node, state, since) = (text(&row["node"]), text(&row["state"]), text(&row["since"]));
            let (guarded, unclean) = (row["guarded"].as_bool(), row["unclean"] == true);
            Ok((partition, Run { node, state, since, guarded, unclean }))
        };
        rows.iter().map(run).collect()
    }

    /// Partitions that `mine` chooses are in the same run as before, and none of them stood still.
    pub fn check_went_on(&self, before: &BTreeMap<u64, Run>, mine: impl Fn(&Run) -> bool) -> Result<()> {
        let after = self.runs()?;
        let stalls = self.watch.stalls();
        let chosen: BTreeMap<u64, Run> =
            before.iter().filter(|(_, run)| mine(run)).map(|(number, run)| (*number, run.clone())).collect();
        ensure!(!chosen.is_empty(), "no partition to look at in {before:#?}");
        judge(&chosen, &after, &stalls, &[], Duration::ZERO).map(drop)
    }

    /// Ends the load, waits for the mirror, compares every record of both topics, and stops the fleet.
    pub fn finish(self) -> Result<()> {
        self.compare()?.fleet.end()
    }

    /// Stops everything, whatever the topics hold.
    pub fn end(self) -> Result<()> {
        let Stage { fleet, watch, load, ticker, .. } = self;
        drop((watch, ticker));
        load.stop()?;
        fleet.end()
    }

    /// As [`finish`](Self::finish), and leaves everything running.
    pub fn compare(self) -> Result<Quiet> {
        let Stage { scenario, east, west, fleet, watch, load, ticker, west_gate, .. } = self;
        drop(watch);
        let acknowledged = load.stop()?.total() + ticker.stop()?.total();
        let wanted = RawReader::new(&east.bootstrap())?.ends(TOPIC)?;
        let mut reader = RawReader::new(&west.bootstrap())?;
        let caught_up = poll_until(CATCH_UP_LIMIT, POLL, || {
            let found = reader.ends(TOPIC);
            found.map(|found| (found == wanted).then_some(())).transpose()
        });
        caught_up.with_context(|| format!("not caught up after {CATCH_UP_LIMIT:?}"))??;
        wait_no_lag(fleet.any()?, WEST, LINK, TOPIC)?;
        check_active(fleet.any()?, WEST, LINK, TOPIC)?;
        scenario.note("caught up");
        let records = compare_ends(&east, &west, TOPIC)?;
        // A producer without idempotence may repeat what a slow broker took: more, never fewer.
        ensure!(records >= acknowledged, "{records} at both ends, {acknowledged} acknowledged");
        Ok(Quiet { east, west, west_gate, fleet })
    }
}

/// A stage whose load has ended and whose topics were found equal.
#[derive(Debug)]
pub struct Quiet {
    pub east: KafkaCluster,
    pub west: KafkaCluster,
    pub west_gate: Option<Gate>,
    pub fleet: Fleet,
}

/// What has just moved is left where it is for so long.
const REST: Duration = Duration::from_secs(60);

/// Partitions that none of `touched` owned before went on, in the same run or by a planned move.
fn judge(
    before: &BTreeMap<u64, Run>,
    after: &BTreeMap<u64, Run>,
    stalls: &BTreeMap<i32, Duration>,
    touched: &[&str],
    lasted: Duration,
) -> Result<Paused> {
    let mut paused = Paused::default();
    for (partition, was) in before {
        let is = after.get(partition).with_context(|| format!("no partition {partition} any more"))?;
        let number = i32::try_from(*partition).context("a partition's number")?;
        let stall = stalls.get(&number).copied().unwrap_or_default();
        if touched.contains(&was.node.as_str()) || touched.contains(&is.node.as_str()) {
            paused.touched_max = paused.touched_max.max(stall);
            continue;
        }
        if was.node == is.node && lasted < REST {
            ensure!(was == is, "partition {partition} wasn't touched, but ran as {was:?}, now as {is:?}");
        } else if was != is {
            // An earlier event is still being balanced; over a longer time there and back again.
            paused.moved += 1;
        }
        ensure!(
            stall <= HICCUP_MAX,
            "partition {partition} ({was:?}, then {is:?}) wasn't touched and stood for {stall:?}"
        );
        paused.untouched += 1;
        paused.untouched_max = paused.untouched_max.max(stall);
    }
    Ok(paused)
}

fn start_clusters(scenario: &Scenario, setup: Setup) -> Result<(KafkaCluster, KafkaCluster, Option<Gate>)> {
    let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
    let mut west = KafkaConfig::single(WEST, scenario.directory());
    west.brokers = setup.destination_brokers;
    for (key, value) in setup.age.destination_properties() {
        west = west.property(key, value);
    }
    if !setup.gated {
        return Ok((east, KafkaCluster::start(west)?, None));
    }
    ensure!(setup.destination_brokers == 1, "one gate is for one broker");
    let gate = Gate::open()?;
    let west = west.property("advertised.listeners", &format!("PLAINTEXT://{}", gate.address()));
    let west = KafkaCluster::start(west)?;
    gate.aim(west.bootstrap().parse().context("the broker's address")?);
    Ok((east, west, Some(gate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(of: &[(&str, &str)]) -> BTreeMap<u64, Run> {
        let run = |(node, since): &(&str, &str)| Run {
            node: (*node).to_owned(),
            state: "RUNNING".to_owned(),
            since: (*since).to_owned(),
            guarded: Some(true),
            unclean: false,
        };
        (0..).zip(of.iter().map(run)).collect()
    }

    #[test]
    fn an_untouched_partition_may_neither_start_again_nor_stand_still() {
        let before = runs(&[("a", "1"), ("b", "1"), ("b", "1")]);
        let none = BTreeMap::new();
        let taken_over = runs(&[("b", "2"), ("b", "1"), ("b", "1")]);
        let paused = judge(&before, &taken_over, &none, &["a"], Duration::ZERO).unwrap();
        assert_eq!((paused.moved, paused.untouched), (0, 2));
        let moved_too = runs(&[("b", "2"), ("c", "2"), ("b", "1")]);
        assert_eq!(judge(&before, &moved_too, &none, &["a"], Duration::ZERO).unwrap().moved, 1);
        let again = runs(&[("b", "2"), ("b", "3"), ("b", "1")]);
        assert!(judge(&before, &again, &none, &["a"], Duration::ZERO).is_err(), "started again");
        let there_and_back = judge(&before, &again, &none, &["a"], REST).unwrap();
        assert_eq!(there_and_back.moved, 1);
        let stalls = |partition| BTreeMap::from([(partition, HICCUP_MAX * 2)]);
        assert_eq!(
            judge(&before, &taken_over, &stalls(0), &["a"], Duration::ZERO).unwrap().touched_max,
            HICCUP_MAX * 2
        );
        assert!(judge(&before, &taken_over, &stalls(1), &["a"], Duration::ZERO).is_err(), "stood still");
        assert!(
            judge(&before, &runs(&[("b", "2")]), &none, &["a"], Duration::ZERO).is_err(),
            "partitions are missing"
        );
    }
}

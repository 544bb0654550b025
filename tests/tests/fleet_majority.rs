//! The majority of a fleet is lost: what is guarded goes on, changes are refused for now, and one node
//! that is left becomes a fleet again. And a fleet that returns after somebody wrote to its mirror stops
//! there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::client::{Batching, write_records};
use tests::compare::{self, Side};
use tests::fleet::Fleet;
use tests::fleet::stage::{PARTITIONS, Quiet, Stage, THREE};
use tests::pair::{LINK, TOPIC, WEST};
use tests::poll_until;
use tests::scenario::Scenario;
use tests::wire::RawReader;

/// Longer than any lease and any limit after which somebody counts as lost.
const WITHOUT: Duration = Duration::from_secs(6);
/// It asks a member, is told, and stops.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
const FOREIGN_PARTITION: i32 = 1;
const FOREIGN_RECORDS: u32 = 5;
/// Both logs are looked at before the first append.
const FAILED_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

#[test]
fn the_last_node_goes_on_and_becomes_a_fleet_again() {
    Scenario::run("fleet-majority", |scenario| {
        let mut stage = Stage::start(scenario, THREE)?;
        let left = stage.fleet.busiest()?;
        let lost: Vec<String> = stage.fleet.names().into_iter().filter(|name| *name != left).collect();
        let before = stage.wait_runs()?;
        stage.watch.reset();
        lost.iter().try_for_each(|name| stage.fleet.kill(name))?;
        std::thread::sleep(WITHOUT);
        let answer = stage.fleet.node(&left)?.post(&format!("/lockstep/v1/nodes/{left}:drain"))?;
        ensure!(answer.status == 503 && answer.retry_after.is_some(), "without a majority: {answer:?}");
        stage.check_went_on(&before, |run| run.node == left).context("without a majority")?;
        scenario.note("the last node goes on alone");

        recover(&mut stage, &left)?;
        stage.wait_flowing().context("after the recovery")?;
        scenario.note("everything flows on the last node");
        let mut removed = stage.fleet.forget(&lost[0])?;
        stage.fleet.forget(&lost[1])?;
        for name in ["node-4", "node-5"] {
            stage.fleet.add(name)?;
        }
        stage.fleet.wait_settled(3).context("with two new nodes")?;
        scenario.note("two new nodes have joined");
        let status = removed.start_and_end(TOLD_LIMIT).context("a node from before the recovery")?;
        ensure!(!status.success(), "a node from before the recovery ended with {status}");
        let told = removed.log_text()?;
        ensure!(told.contains("was removed from its fleet"), "it wasn't told: {told}");
        scenario.note("a node from before was told");

        returns_after_a_foreign_write(stage.compare()?)
    });
}

fn recover(stage: &mut Stage, left: &str) -> Result<()> {
    let node = stage.fleet.node(left)?;
    node.sigterm()?;
    let data = node.data();
    let data = data.to_str().context("a path in UTF-8")?;
    node.cli(&["node", "recover", "--data-dir", data, "--yes"])?;
    node.restart()
}

/// Nothing of ours lands behind what others wrote, and all other partitions go on.
fn returns_after_a_foreign_write(quiet: Quiet) -> Result<()> {
    let Quiet { east, west, mut fleet, west_gate } = quiet;
    let all = fleet.names();
    all.iter().try_for_each(|name| fleet.kill(name))?;
    let (source, destination) = (east.bootstrap(), west.bootstrap());
    let foreign = write_records(&destination, TOPIC, FOREIGN_PARTITION, FOREIGN_RECORDS, Batching::Single)?;
    for partition in 0..PARTITIONS {
        write_records(&source, TOPIC, partition, 2 * FOREIGN_RECORDS, Batching::Single)?;
    }
    all.iter().try_for_each(|name| fleet.restart(name))?;
    let failed = poll_until(FAILED_LIMIT, POLL, || {
        let mirror = fleet.any().ok()?.mirror_json(WEST, LINK, TOPIC).ok()?;
        (mirror["mirror_topic_error"] == "FOREIGN_WRITE").then_some(mirror)
    });
    let failed = failed.with_context(|| format!("no FOREIGN_WRITE after {FAILED_LIMIT:?}"))?;
    let told = failed["mirror_topic_error_message"].as_str().unwrap_or_default();
    let place = format!("partition {FOREIGN_PARTITION} at offset {}:", foreign.start);
    ensure!(told.contains(&place), "{place:?} isn't in {told:?}");
    others_are_exact(&mut fleet, &source, &destination)?;
    let end = RawReader::new(&destination)?.log_end(TOPIC, FOREIGN_PARTITION)?;
    ensure!(end == foreign.end, "foreign {foreign:?}, log end {end}: written behind what others wrote");
    fleet.end()?;
    drop(west_gate);
    Ok(())
}

fn others_are_exact(fleet: &mut Fleet, source: &str, destination: &str) -> Result<()> {
    let side =
        |name, bootstrap: &str| Side { name, bootstrap: bootstrap.to_owned(), topic: TOPIC.to_owned() };
    let (source, destination) = (side("source", source), side("destination", destination));
    for partition in (0..PARTITIONS).filter(|partition| *partition != FOREIGN_PARTITION) {
        let mut last = None;
        let same = poll_until(FAILED_LIMIT, POLL, || {
            let compared = compare::raw_partition(&source, &destination, partition);
            compared.map_err(|error| last = Some(error)).ok().filter(|compared| compared.records > 0)
        });
        same.with_context(|| format!("partition {partition}: {last:?}; {:?}", fleet.members()))?;
    }
    Ok(())
}

//! Cables are cut: between a node and all others, between two nodes alone, and between an owner and the
//! destination alone.
//! While a node is cut off, two nodes append to the same partitions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::fleet::Fleet;
use tests::fleet::stage::{Setup, Stage, THREE};
use tests::scenario::{self, Scenario};

const SETUP: Setup = Setup { gated: true, ..THREE };

/// Lost after 2 s, without a lease after 3 s: its partitions were taken over when it can speak again.
const CUT: Duration = Duration::from_secs(7);
/// Longer than any request may take.
const CUT_LONG: Duration = Duration::from_secs(45);

#[test]
fn a_cut_cable_costs_no_record_and_doubles_none() {
    Scenario::run("fleet-cuts", |scenario| {
        let mut stage = Stage::start(scenario, SETUP)?;
        let held = if scenario::all_cells() { CUT_LONG } else { CUT };
        let owner = stage.fleet.busiest()?;
        let other = stage.fleet.other_than(&owner)?;
        let cut = |fleet: &mut Fleet| fleet.isolate(&owner);
        cut_off(&mut stage, "cut between an owner and its peers", (&owner, &other), held, cut)?;
        let leader = stage.fleet.raft_leader()?;
        let cut = |fleet: &mut Fleet| fleet.isolate(&leader);
        let other = stage.fleet.other_than(&leader)?;
        cut_off(&mut stage, "cut between the Raft leader and its peers", (&leader, &other), held, cut)?;
        let (leader, follower) = (stage.fleet.raft_leader()?, stage.fleet.follower()?);
        let cut = |fleet: &mut Fleet| fleet.part(&leader, &follower);
        // The third node still reaches both.
        let ends = (&*follower, &*leader);
        cut_off(&mut stage, "cut between the Raft leader and a follower alone", ends, held, cut)?;
        let owner = stage.fleet.busiest()?;
        stage.event("cut between an owner and the destination", &[&owner], |stage| {
            let pid = stage.fleet.node(&owner)?.pid()?;
            let gate = stage.west_gate.as_ref().context("no gate")?;
            gate.cut(pid);
            std::thread::sleep(held);
            gate.heal();
            Ok(())
        })?;
        stage.finish()
    });
}

/// The named node is lost to the Raft leader for a time, as the teller, who doesn't reach it, says.
fn cut_off(
    stage: &mut Stage,
    what: &str,
    (name, teller): (&str, &str),
    held: Duration,
    cut: impl FnOnce(&mut Fleet) -> Result<()>,
) -> Result<()> {
    stage.event(what, &[name], |stage| {
        cut(&mut stage.fleet)?;
        std::thread::sleep(held);
        let others = stage.fleet.members_told_by(teller)?;
        let cut_off = others.iter().find(|member| member.name == name).context("it is a member")?;
        ensure!(!cut_off.live, "the others still reach it: {others:?}");
        ensure!(cut_off.owned == 0, "the others have left it its partitions: {others:?}");
        stage.fleet.heal();
        stage.fleet.wait_settled(3).map(drop)
    })?;
    Ok(())
}

//! How long partitions stand still when their node is killed, and when it is stopped: seen at the
//! destination under live load. `cargo xtask bench fleet` runs it and writes the report; figures fail
//! nothing here.

use std::time::Duration;

use anyhow::Result;
use tests::fleet::stage::{Setup, Stage, THREE};
use tests::pair::{Age, FRESH, OLD};
use tests::scenario::Scenario;

/// The error of every figure, together with the watch's pace.
const TICK: Duration = Duration::from_millis(20);
const GUARDED_RUNS: u32 = 10;
const UNGUARDED_RUNS: u32 = 3;
const STOPS: u32 = 10;

#[test]
#[ignore = "a measurement of several minutes"]
fn times_of_takeovers_and_stops() {
    Scenario::run("fleet-times-guarded", |scenario| {
        let mut stage = start(scenario, FRESH)?;
        kills(&mut stage, "guarded", GUARDED_RUNS)?;
        stops(&mut stage)?;
        stage.finish()
    });
    Scenario::run("fleet-times-unguarded", |scenario| {
        let mut stage = start(scenario, OLD)?;
        kills(&mut stage, "unguarded", UNGUARDED_RUNS)?;
        stage.finish()
    });
}

fn start(scenario: &Scenario, age: Age) -> Result<Stage<'_>> {
    Stage::start(scenario, Setup { age, tick: TICK, ..THREE })
}

/// Every other time the Raft leader, which costs an election as well.
fn kills(stage: &mut Stage, kind: &str, runs: u32) -> Result<()> {
    for run in 0..runs {
        let leads = run % 2 == 1;
        let name = if leads { stage.fleet.raft_leader()? } else { stage.fleet.follower()? };
        let paused = stage.event("kill", &[&name], |stage| stage.fleet.kill(&name))?;
        let role = if leads { "Raft leader" } else { "follower" };
        figure(&format!("{kind} {role}"), paused.touched_max);
        stage.fleet.restart(&name)?;
        stage.fleet.wait_settled(3)?;
    }
    Ok(())
}

fn stops(stage: &mut Stage) -> Result<()> {
    for run in 0..STOPS {
        let leads = run % 2 == 1;
        let name = if leads { stage.fleet.raft_leader()? } else { stage.fleet.follower()? };
        let paused = stage.event("stop", &[&name], |stage| stage.fleet.stop(&name))?;
        figure("stop", paused.touched_max);
        stage.fleet.restart(&name)?;
        stage.fleet.wait_settled(3)?;
    }
    Ok(())
}

/// As xtask reads it.
fn figure(kind: &str, pause: Duration) {
    println!("FIGURE {kind} {}", pause.as_millis());
}

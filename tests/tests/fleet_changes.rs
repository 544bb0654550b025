//! What operators do to a fleet under load: none of it stops a mirror, and every owner is seen to stop.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::fleet::stage::{PARTITIONS, Stage, THREE};
use tests::poll_until;
use tests::scenario::Scenario;

/// A share is handed over within seconds, or after a minute where partitions have moved lately, as the Raft
/// leader remembers: here it has just changed. A busy machine takes the rest.
const SHARE_LIMIT: Duration = Duration::from_secs(120);
const SHARE_POLL: Duration = Duration::from_millis(250);
/// One second is promised and measured by the bench; here processes wait for two cores.
const HAND_OVER_MAX: Duration = Duration::from_secs(4);
/// It asks a member, is told, and stops.
const TOLD_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn nodes_restart_move_drain_join_and_go_without_stopping_a_mirror() {
    Scenario::run("fleet-changes", |scenario| {
        let mut stage = Stage::start(scenario, THREE)?;
        // Before anything has moved, so that nothing rests.
        join(&mut stage)?;
        roll(&mut stage)?;
        let drained = drain(&mut stage)?;
        change_address(&mut stage)?;
        undo_drain(&mut stage, &drained)?;
        remove(&mut stage)?;
        stage.finish()
    });
}

/// SIGTERM, start, next; the Raft leader last.
fn roll(stage: &mut Stage) -> Result<()> {
    let leader = stage.fleet.raft_leader()?;
    let others = stage.fleet.names().into_iter().filter(|name| *name != leader);
    for name in others.chain([leader.clone()]) {
        let paused = stage.orderly_event(&format!("restart of {name}"), &[&name], |stage| {
            stage.fleet.stop(&name)?;
            stage.fleet.restart(&name)?;
            stage.fleet.wait_settled(4).map(drop)
        })?;
        ensure!(paused.touched_max <= HAND_OVER_MAX, "the restart of {name} stopped a mirror: {paused:?}");
    }
    Ok(())
}

fn drain(stage: &mut Stage) -> Result<String> {
    let name = stage.fleet.follower()?;
    let paused = stage.orderly_event(&format!("drain of {name}"), &[&name], |stage| {
        stage.fleet.any()?.cli(&["node", "drain", &name, "--wait=30s"])?;
        let member = stage.fleet.member(&name)?;
        ensure!(member.owned == 0 && member.duty == "DRAINS", "drained: {member:?}");
        Ok(())
    })?;
    ensure!(paused.touched_max <= HAND_OVER_MAX, "the drain stopped a mirror: {paused:?}");
    Ok(name)
}

fn undo_drain(stage: &mut Stage, name: &str) -> Result<()> {
    let paused = stage.orderly_event(&format!("drain of {name} undone"), &[name], |stage| {
        stage.fleet.any()?.cli(&["node", "drain", name, "--undo"])?;
        wait_share(stage, name)
    })?;
    ensure!(paused.touched_max <= HAND_OVER_MAX, "the end of the drain stopped a mirror: {paused:?}");
    Ok(())
}

fn join(stage: &mut Stage) -> Result<()> {
    const NEW: &str = "node-4";
    let paused = stage.orderly_event("join of a fourth node", &[NEW], |stage| {
        stage.fleet.add(NEW)?;
        wait_share(stage, NEW)
    })?;
    ensure!(paused.touched_max <= HAND_OVER_MAX, "the join stopped a mirror: {paused:?}");
    Ok(())
}

/// Until the node owns about as much as the others.
fn wait_share(stage: &mut Stage, name: &str) -> Result<()> {
    let members = u64::try_from(stage.fleet.members()?.len())?;
    let share = u64::try_from(PARTITIONS)? / members;
    let got = poll_until(SHARE_LIMIT, SHARE_POLL, || {
        let member = stage.fleet.member(name).ok()?;
        (member.owned + 1 >= share && member.owned > 0 && member.moving == 0).then_some(())
    });
    got.with_context(|| format!("{name} has no share after {SHARE_LIMIT:?}: {:?}", stage.fleet.members()))
}

fn change_address(stage: &mut Stage) -> Result<()> {
    let name = stage.fleet.raft_leader()?;
    stage.event(&format!("restart of {name} at another address"), &[&name], |stage| {
        stage.fleet.kill(&name)?;
        stage.fleet.move_address(&name)?;
        stage.fleet.restart(&name)?;
        stage.fleet.wait_settled(4).context("it is found again").map(drop)
    })?;
    Ok(())
}

/// Drained, removed while it is away, and told so when it comes back.
fn remove(stage: &mut Stage) -> Result<()> {
    let name = stage.fleet.follower()?;
    stage.orderly_event(&format!("removal of {name}"), &[&name], |stage| {
        stage.fleet.any()?.cli(&["node", "drain", &name, "--wait=30s"])?;
        stage.fleet.stop(&name)?;
        stage.fleet.any()?.cli(&["node", "remove", &name, "--yes"])?;
        stage.fleet.wait_settled(3).map(drop)
    })?;
    let mut removed = stage.fleet.forget(&name)?;
    let status = removed.start_and_end(TOLD_LIMIT).context("a removed node that comes back")?;
    ensure!(!status.success(), "a removed node ended with {status}");
    let told = removed.log_text()?;
    ensure!(told.contains("was removed from its fleet"), "it wasn't told: {told}");
    Ok(())
}

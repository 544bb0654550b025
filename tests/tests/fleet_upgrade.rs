//! A fleet of an older build becomes one of this build, node by node, without stopping a mirror: between
//! the first restart and the last, both builds share the partitions and elect a Raft leader from both.
//! `cargo xtask nightly` builds the older one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::fleet::stage::{Stage, THREE};
use tests::node::find_binary;
use tests::scenario::Scenario;

/// Names the older binary.
const OLDER_VARIABLE: &str = "LOCKSTEP_OLDER_BIN";
/// One second is promised and measured by the bench; here processes wait for two cores.
const HAND_OVER_MAX: Duration = Duration::from_secs(4);

#[test]
#[ignore = "wants the binary of an older commit in LOCKSTEP_OLDER_BIN"]
fn an_older_build_and_this_one_are_one_fleet() {
    Scenario::run("fleet-upgrade", |scenario| {
        let older =
            std::env::var_os(OLDER_VARIABLE).with_context(|| format!("{OLDER_VARIABLE} isn't set"))?;
        let (older, newer) = (PathBuf::from(older), find_binary()?);
        let mut stage = Stage::start_binary(scenario, THREE, older)?;
        for name in stage.fleet.names() {
            upgrade(&mut stage, &name, &newer)?;
            // In whichever build, the Raft leadership and partitions go from one to the other.
            let leader = stage.fleet.raft_leader()?;
            stage.event("kill -9 of the Raft leader", &[&leader], |stage| {
                stage.fleet.kill(&leader)?;
                stage.fleet.restart(&leader)?;
                stage.fleet.wait_settled(3).map(drop)
            })?;
        }
        operate(&mut stage)?;
        stage.finish()
    });
}

fn upgrade(stage: &mut Stage, name: &str, newer: &Path) -> Result<()> {
    let paused = stage.event(&format!("upgrade of {name}"), &[name], |stage| {
        stage.fleet.stop(name)?;
        stage.fleet.node(name)?.replace_binary(newer.to_path_buf());
        stage.fleet.restart(name)?;
        stage.fleet.wait_settled(3).map(drop)
    })?;
    ensure!(paused.touched_max <= HAND_OVER_MAX, "the upgrade of {name} stopped a mirror: {paused:?}");
    Ok(())
}

/// What all builds of the fleet had to know first is possible now.
fn operate(stage: &mut Stage) -> Result<()> {
    let name = stage.fleet.follower()?;
    stage.event(&format!("drain of {name}"), &[&name], |stage| {
        stage.fleet.any()?.cli(&["node", "drain", &name, "--wait=30s"]).map(drop)
    })?;
    Ok(())
}

//! A fleet of three loses whichever node it loses, and then all of them at once: the mirror goes on,
//! what the lost node didn't own goes on without a pause, and every record ends up where it belongs.

use anyhow::{Context, Result};
use tests::fleet::stage::{Setup, Stage, THREE};
use tests::scenario::Scenario;

const SETUP: Setup = Setup { destination_brokers: 3, ..THREE };

#[test]
fn any_node_may_be_killed_and_so_may_all_of_them() {
    Scenario::run("fleet-losses", |scenario| {
        let mut stage = Stage::start(scenario, SETUP)?;

        let leader = stage.fleet.raft_leader()?;
        lose_and_return(&mut stage, "kill -9 of the Raft leader", &leader)?;
        let follower = stage.fleet.follower()?;
        lose_and_return(&mut stage, "kill -9 of a follower", &follower)?;
        let busiest = stage.fleet.busiest()?;
        lose_and_return(&mut stage, "kill -9 of the busiest owner", &busiest)?;

        let victim = stage.fleet.busiest()?;
        let all = stage.fleet.names();
        let everybody: Vec<&str> = all.iter().map(String::as_str).collect();
        // Every partition that broker led is touched, so nobody's run is judged.
        stage.event("kill -9 of a node and of a broker at once", &everybody, |stage| {
            stage.west.kill(2)?;
            stage.fleet.kill(&victim)?;
            stage.fleet.any().map(drop)
        })?;
        stage.west.restart(2)?;
        stage.fleet.restart(&victim)?;

        stage.event("kill -9 of all nodes at once", &everybody, |stage| {
            all.iter().try_for_each(|name| stage.fleet.kill(name))?;
            all.iter().try_for_each(|name| stage.fleet.restart(name)).context("start all of them again")
        })?;
        stage.finish()
    });
}

/// Kills the node, sees its partitions flow elsewhere, and takes it back.
fn lose_and_return(stage: &mut Stage, what: &str, name: &str) -> Result<()> {
    stage.event(what, &[name], |stage| stage.fleet.kill(name))?;
    stage.event("its return", &[name], |stage| {
        stage.fleet.restart(name)?;
        stage.fleet.wait_settled(3).map(drop)
    })?;
    Ok(())
}

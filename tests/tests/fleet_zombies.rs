//! An owner that hangs until it counts as lost, and then goes on as if nothing had happened: whatever
//! it still sends does no harm, neither where the destination remembers the mirror's producer (guarded)
//! nor where it doesn't (unguarded).

use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use tests::fleet::stage::{Setup, Stage, THREE};
use tests::pair::{Age, FRESH, OLD};
use tests::scenario::{self, Scenario};

/// Lost after 2 s, without a lease after 3 s; on unguarded partitions the next owner still waits when
/// the zombie wakes up.
const HELD: Duration = Duration::from_secs(7);
/// Every takeover is over when it wakes up, and every request of its own has ended.
const HELD_LONG: Duration = Duration::from_secs(60);

#[test]
fn a_zombie_does_no_harm_to_a_guarded_mirror() {
    a_zombie_does_no_harm("zombie-guarded", FRESH);
}

#[test]
fn a_zombie_does_no_harm_to_an_unguarded_mirror() {
    a_zombie_does_no_harm("zombie-unguarded", OLD);
}

fn a_zombie_does_no_harm(name: &str, age: Age) {
    Scenario::run(name, |scenario| {
        let mut stage = Stage::start(scenario, Setup { age, ..THREE })?;
        let all = scenario::all_cells();
        // Each takes half a minute where nothing is guarded: a normal run draws one.
        let draws_leader = scenario.rng().random_bool(0.5);
        if all || (!age.guarded && !draws_leader) {
            let owner = stage.fleet.busiest()?;
            hold(&mut stage, "SIGSTOP of an owner", &owner, HELD)?;
        }
        if all || age.guarded || draws_leader {
            let leader = stage.fleet.raft_leader()?;
            hold(&mut stage, "SIGSTOP of the Raft leader", &leader, HELD)?;
        }
        if all || age.guarded {
            let owner = stage.fleet.busiest()?;
            hold(&mut stage, "SIGSTOP of an owner for a minute", &owner, HELD_LONG)?;
        }
        stage.finish()
    });
}

fn hold(stage: &mut Stage, what: &str, name: &str, held: Duration) -> Result<()> {
    stage.event(what, &[name], |stage| {
        stage.fleet.pause(name)?;
        std::thread::sleep(held);
        stage.fleet.resume(name)?;
        stage.fleet.wait_settled(3).map(drop)
    })?;
    Ok(())
}

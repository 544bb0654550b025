//! A fleet fails a mirror topic over while one of its owners hangs: after STOPPED, whatever that one still
//! sends when it wakes up is refused, and the topic is its clients' alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::fleet::stage::{PARTITIONS, Setup, Stage, THREE};
use tests::load::{Load, LoadConfig, PROFILES};
use tests::pair::{Age, FRESH, LINK, OLD, TOPIC, WEST};
use tests::scenario::{self, Scenario};
use tests::stopped;

/// Everything that the zombie had under way, and each of its tries, ends within it.
const AWAKE: Duration = Duration::from_secs(15);
const RECORDS_PER_SECOND: u32 = 300;

#[test]
fn an_owner_that_hung_writes_nothing_after_stopped() {
    let drawn = if scenario::seed().expect("a seed").is_multiple_of(2) { FRESH } else { OLD };
    let ages = if scenario::all_cells() { vec![FRESH, OLD] } else { vec![drawn] };
    for age in ages {
        Scenario::run(&format!("fleet-stops-{}", age.name), |scenario| fail_over(scenario, age));
    }
}

fn fail_over(scenario: &Scenario, age: Age) -> Result<()> {
    let mut stage = Stage::start(scenario, Setup { age, ..THREE })?;
    let (zombie, other) = {
        let busiest = stage.fleet.busiest()?;
        let other = stage.fleet.other_than(&busiest)?;
        (busiest, other)
    };
    stage.fleet.pause(&zombie)?;
    let said = stage.fleet.node(&other)?.cli_said(&[
        "mirror",
        "failover",
        TOPIC,
        "--link",
        LINK,
        "--yes",
        "--wait=60s",
    ])?;
    ensure!(said.status.success() && said.stderr.contains("has STOPPED"), "{said:?}");
    eprintln!("{}", said.stderr.trim());
    let mirror = stage.fleet.node(&other)?.mirror_json(WEST, LINK, TOPIC)?;
    let ends = stopped::ends(&mirror)?;
    let load = Load::start(&LoadConfig {
        bootstrap: stage.west.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })?;
    stage.fleet.resume(&zombie)?;
    std::thread::sleep(AWAKE);
    stopped::write_on(load, &stage.west.bootstrap(), TOPIC, &ends)?;
    let mirror = stage.fleet.node(&zombie)?.mirror_json(WEST, LINK, TOPIC)?;
    ensure!(mirror["mirror_status"] == "STOPPED", "{mirror:#}");
    ensure!(mirror["mirror_topic_error"] == "NO_ERROR", "{mirror:#}");
    ensure!(stopped::ends(&mirror)? == ends, "{mirror:#}");
    stage.end()
}

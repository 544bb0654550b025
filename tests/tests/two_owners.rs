//! Two nodes that both believe a mirror is theirs, as after a restored backup or a partition of the
//! network: the destination's brokers, who remember the mirror's producer, keep it exact.

use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, wait_caught_up};
use tests::node::Node;
use tests::scenario::Scenario;
use tests::settled::{check_active, compare_ends, wait_no_lag};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 8;
const RECORDS_PER_SECOND: u32 = 1_500;

/// The first node mirrors alone for so long.
const ALONE_MS: std::ops::RangeInclusive<u64> = 3_000..=5_000;
/// Each round one node is held, both run, and the second is killed: it looks at the logs while the
/// first appends.
const ROUNDS: u32 = 12;
const TOGETHER: Duration = Duration::from_millis(1_000);
/// One of the two is held now and then: what it sends afterwards is older than what the brokers
/// recognise as duplicates.
const HELD_MS: std::ops::RangeInclusive<u64> = 100..=1_200;
/// Counts batches the broker took from a node, and those it recognised as duplicates.
const APPENDED: &str = "lockstep_mirror_batches_total";

const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn two_owners_of_one_mirror_leave_no_record_out_and_none_twice() {
    Scenario::run("two-owners", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let west = KafkaCluster::start(KafkaConfig::single(WEST, scenario.directory()))?;
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let load = Load::start(&LoadConfig {
            bootstrap: east.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: Duration::ZERO,
        })?;
        let mut first = Node::bootstrap("first", scenario.directory())?;
        create_mirror(&first, &east, &west, LINK, TOPIC)?;
        let mut rng = scenario.rng();
        std::thread::sleep(Duration::from_millis(rng.random_range(ALONE_MS)));

        first.pause()?;
        let copied = first.copy("second", scenario.directory());
        first.resume()?;
        let mut second = copied?;
        second.restart()?;

        let mut rounds_with_both = 0;
        for _ in 0..ROUNDS {
            let before = (first.metric(APPENDED)?, second.metric(APPENDED)?);
            let held = if rng.random_bool(0.5) { &mut first } else { &mut second };
            held.pause()?;
            std::thread::sleep(Duration::from_millis(rng.random_range(HELD_MS)));
            held.resume()?;
            std::thread::sleep(TOGETHER);
            let now = (first.metric(APPENDED)?, second.metric(APPENDED)?);
            rounds_with_both += u32::from(now.0 > before.0 && now.1 > before.1);
            for node in [&first, &second] {
                check_active(node, WEST, LINK, TOPIC)?;
            }
            second.kill9()?;
            second.restart()?;
        }
        eprintln!("both nodes appended in {rounds_with_both} of {ROUNDS} rounds");
        // One of them standing still all the time would prove nothing.
        ensure!(rounds_with_both > ROUNDS / 2, "both appended in {rounds_with_both} of {ROUNDS} rounds only");
        first.kill9()?;

        let report = load.stop()?;
        wait_caught_up(&mut second, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        wait_no_lag(&second, WEST, LINK, TOPIC)?;
        check_active(&second, WEST, LINK, TOPIC)?;
        let records = compare_ends(&east, &west, TOPIC)?;
        ensure!(records == report.total(), "{records} at both ends, acknowledged {}", report.total());
        second.sigterm()
    });
}

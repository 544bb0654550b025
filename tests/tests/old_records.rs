//! Records dated days back: brokers forget the mirror's producer by record timestamp, so nothing
//! but care about what may still arrive keeps records from appearing twice.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, mirrored, wait_caught_up};
use tests::node::Node;
use tests::scenario::Scenario;
use tests::settled::wait_no_lag;
use tests::wire::RawReader;

const TOPIC: &str = "archive";
const LINK: &str = "east-west";
const PARTITIONS: i32 = 6;
/// One batch at a time a partition: slower than fresh data.
const RECORDS_PER_SECOND: u32 = 800;
/// A broker remembers a producer for one day by its newest record timestamp.
const AGE: Duration = Duration::from_secs(5 * 24 * 3600);
/// Brokers look for producers to forget every ten minutes by default; here at once.
const FORGET_CHECK: (&str, &str) = ("producer.id.expiration.check.interval.ms", "1000");

const KILLS: u32 = 4;
/// Longer than the wait after an unclean stop (20 s), so that each life mirrors something.
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 21_500..=25_000;
/// The wait of the last life, and the backlog behind it.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(150);

#[test]
fn a_mirror_of_old_records_is_exact_after_kills_though_the_brokers_forget_it() {
    Scenario::run("old-records", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let forgetful =
            KafkaConfig::single("west", scenario.directory()).property(FORGET_CHECK.0, FORGET_CHECK.1);
        let west = KafkaCluster::start(forgetful)?;
        // Retention by time would delete records this old at both ends, each in its own time.
        create_topic(&east.bootstrap(), TOPIC, PARTITIONS, &[("retention.ms", "-1")])?;
        let load = Load::start(&LoadConfig {
            bootstrap: east.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: AGE,
        })?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;

        let mut rng = scenario.rng();
        let mut west_reader = RawReader::new(&west.bootstrap())?;
        let (mut before, mut lives_with_progress) = (0, 0);
        for kill in 1..=KILLS {
            let wait = Duration::from_millis(rng.random_range(KILL_AFTER_MS));
            std::thread::sleep(wait);
            node.kill9().with_context(|| format!("kill {kill}"))?;
            let now = mirrored(&mut west_reader, TOPIC)?;
            lives_with_progress += u32::from(now > before);
            before = now;
            node.restart().with_context(|| format!("after kill {kill}, {wait:?} after the start"))?;
        }
        eprintln!("{before} offsets mirrored during the kills, in {lives_with_progress} of {KILLS} lives");
        // Kills that hit an idle mirror would prove nothing.
        ensure!(lives_with_progress >= 2, "{lives_with_progress} of {KILLS} lives mirrored anything");

        let report = load.stop()?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        let source = Side { name: "source", bootstrap: east.bootstrap(), topic: TOPIC.to_owned() };
        let destination = Side { name: "destination", bootstrap: west.bootstrap(), topic: TOPIC.to_owned() };
        let by_batch = compare::raw_batches(&source, &destination)?;
        let by_record = compare::records(&source, &destination)?;
        eprintln!("equal by batch {by_batch:?}, by record {by_record:?}");
        ensure!(by_batch.records == report.total(), "{by_batch:?}, acknowledged {}", report.total());
        ensure!(by_record.records == report.total(), "{by_record:?}, acknowledged {}", report.total());
        // Both ends may have been equal already when the last life began, which first waits: it
        // knows whether it is guarded once it has looked.
        wait_no_lag(&node, west.name(), LINK, TOPIC)?;
        let shown = node.mirror_json(west.name(), LINK, TOPIC)?;
        let rows = shown["mirror_lags"].as_array().context("no rows of partitions")?;
        // The same run on guarded partitions would prove nothing of what this test is about.
        ensure!(rows.iter().all(|row| row["guarded"] == false), "guarded with old records: {shown}");
        node.sigterm()
    });
}

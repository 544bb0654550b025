//! The promise the product stands on: whatever happens to the node, the mirror ends up with the
//! same records at the same offsets, byte for byte, none lost, none twice.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_mirror, mirrored, wait_caught_up};
use tests::node::Node;
use tests::scenario::{self, Scenario};
use tests::wire::RawReader;

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const PARTITIONS: i32 = 16;
/// About 1 MB/s: every partition has something in flight at each kill, and two brokers on two
/// cores keep up.
const RECORDS_PER_SECOND: u32 = 1_500;

/// In a normal run.
const KILLS: u32 = 20;
/// From "still starting" to "settled and idle".
const KILL_AFTER_MS: std::ops::RangeInclusive<u64> = 200..=3_000;
/// A mirror of this load is seconds behind at most; the rest is for retries with back-off.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_mirror_is_exact_after_twenty_kills_of_its_node() {
    Scenario::run("mirror-survives-kills", |scenario| {
        let east = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let west = KafkaCluster::start(KafkaConfig::single("west", scenario.directory()))?;
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

        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_mirror(&node, &east, &west, LINK, TOPIC)?;

        let mut rng = scenario.rng();
        let mut west_reader = RawReader::new(&west.bootstrap())?;
        let kills = scenario::kills(KILLS)?;
        let (mut during, mut lives_with_progress) = (0, 0);
        for kill in 1..=kills {
            let wait = Duration::from_millis(rng.random_range(KILL_AFTER_MS));
            std::thread::sleep(wait);
            node.kill9().with_context(|| format!("kill {kill}"))?;
            let now = mirrored(&mut west_reader, TOPIC)?;
            lives_with_progress += u32::from(now > during);
            during = now;
            node.restart().with_context(|| format!("after kill {kill}, {wait:?} after the start"))?;
        }
        eprintln!("{during} offsets mirrored during the kills, in {lives_with_progress} of {kills} lives");
        // Kills that hit an idle mirror would prove nothing.
        ensure!(during > 0, "nothing was mirrored between the first and the last kill");

        let report = load.stop()?;
        wait_caught_up(&mut node, &east, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        eprintln!("caught up; {} records acknowledged", report.total());

        let source = Side { name: "source", bootstrap: east.bootstrap(), topic: TOPIC.to_owned() };
        let destination = Side { name: "destination", bootstrap: west.bootstrap(), topic: TOPIC.to_owned() };
        let by_batch = compare::raw_batches(&source, &destination)?;
        let by_record = compare::records(&source, &destination)?;
        eprintln!("equal by batch {by_batch:?}, by record {by_record:?}");
        ensure!(by_batch.records == report.total(), "{by_batch:?}, acknowledged {}", report.total());
        ensure!(by_record.records == report.total(), "{by_record:?}, acknowledged {}", report.total());
        node.sigterm()
    });
}

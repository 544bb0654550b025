//! The embedded cluster answers as real Kafka does.
//!
//! A normal run plays a few sequences of a fixed seed and of a fresh one; `LOCKSTEP_TEST_ALL_CELLS=1` all
//! of them. One sequence alone: `LOCKSTEP_TEST_SEED=s LOCKSTEP_TEST_SEQUENCE=n`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::differential::{Embedded, End, Real, Recorded, Recorder, Sequence, all_spoken, common, play};
use tests::scenario::{Scenario, all_cells};
use tokio::runtime::Runtime;

/// Where a difference once was is looked at again in each run.
const FIXED_SEED: u64 = 1;
const SEQUENCES_ALL: u64 = 200;
/// Of the fixed seed, in a normal run.
const SEQUENCES_FIXED: u64 = 30;
/// Of the run's own seed: a taste. Looking for what nobody has seen yet is the nightly run's.
const SEQUENCES_FRESH: u64 = 4;
/// One sequence alone, of the run's seed.
const SEQUENCE_VARIABLE: &str = "LOCKSTEP_TEST_SEQUENCE";
/// A directory that real answers are kept in.
const RECORD_VARIABLE: &str = "LOCKSTEP_TEST_RECORD";
/// A directory that they are read from, instead of from a broker.
const REPLAY_VARIABLE: &str = "LOCKSTEP_TEST_REPLAY";
/// Reports are long, and one difference often shows in many sequences.
const REPORTED: usize = 5;

/// Old timestamps are part of what is compared; what a clock does to them isn't. Nor are delays.
const UNCLOCKED: [(&str, &str); 7] = [
    ("group.initial.rebalance.delay.ms", "0"),
    // Kafka's default: groups in the same partition share what a transaction may commit.
    ("offsets.topic.num.partitions", "50"),
    ("log.initial.task.delay.ms", "86400000"),
    ("log.cleaner.backoff.ms", "86400000"),
    ("log.retention.check.interval.ms", "86400000"),
    ("producer.id.expiration.check.interval.ms", "86400000"),
    ("max.incremental.fetch.session.cache.slots", "100000"),
];

#[test]
fn the_embedded_cluster_answers_as_the_newest_kafka_4_does() {
    compare("4.4.0");
}

#[test]
fn the_embedded_cluster_answers_as_kafka_3_9_does() {
    compare("3.9.1");
}

fn compare(version: &str) {
    if let Ok(directory) = std::env::var(REPLAY_VARIABLE) {
        let reference = |sequence| {
            let name = format!("Kafka {version}");
            let end = Recorded::open(&PathBuf::from(&directory), &name, sequence)?;
            Ok(Box::new(end) as Box<dyn End>)
        };
        let seed = tests::scenario::seed().expect("the seed");
        return replay(seed, reference).expect("the recorded answers");
    }
    Scenario::run(&format!("differential-{version}"), |scenario| {
        let mut config = KafkaConfig::single("reference", scenario.directory());
        config.version = version.to_owned();
        for (key, value) in UNCLOCKED {
            config = config.property(key, value);
        }
        if version.starts_with("3.") {
            // Kafka 4's default; Kafka 3 has no limit.
            config = config.property("log.message.timestamp.after.max.ms", "3600000");
        }
        let cluster = KafkaCluster::start(config)?;
        let mut real = Real::ready(version, cluster.bootstrap().parse()?)?;
        let runtime = Runtime::new().context("start a runtime")?;
        let versions = common(&real.versions()?, &Embedded::start(&runtime, 0, 0)?.versions()?);
        let mut differences = Vec::new();
        for sequence in sequences(scenario.seed())? {
            if let Ok(directory) = std::env::var(RECORD_VARIABLE) {
                let mut recorder = Recorder::new(&mut real, &PathBuf::from(directory), sequence)?;
                play(sequence, &versions, &mut recorder, None)?;
                continue;
            }
            let mut embedded = Embedded::start(&runtime, real.now_ms(), sequence.seed)?;
            differences.extend(play(sequence, &versions, &mut real, Some(&mut embedded)).err());
        }
        scenario.note("played all sequences");
        judge(&differences, REPORTED)?;
        // Dropping the cluster kills it: a clean stop would sync every partition of data that nobody needs.
        all_spoken(&versions)
    });
}

fn replay(seed: u64, reference: impl Fn(Sequence) -> Result<Box<dyn End>>) -> Result<()> {
    let runtime = Runtime::new().context("start a runtime")?;
    let mut differences = Vec::new();
    for sequence in sequences(seed)? {
        let mut recorded = reference(sequence)?;
        let mut embedded = Embedded::start(&runtime, recorded.now_ms(), sequence.seed)?;
        let versions = common(&recorded.versions()?, &embedded.versions()?);
        differences.extend(play(sequence, &versions, &mut *recorded, Some(&mut embedded)).err());
    }
    judge(&differences, differences.len())
}

fn sequences(seed: u64) -> Result<Vec<Sequence>> {
    if let Ok(text) = std::env::var(SEQUENCE_VARIABLE) {
        let number = text.trim().parse().with_context(|| format!("{SEQUENCE_VARIABLE}={text:?}"))?;
        return Ok(vec![Sequence { seed, number, traced: true }]);
    }
    let numbered = |seed, count| (0..count).map(move |number| Sequence { seed, number, traced: false });
    if all_cells() {
        return Ok(numbered(seed, SEQUENCES_ALL).collect());
    }
    let fresh = numbered(seed, if seed == FIXED_SEED { 0 } else { SEQUENCES_FRESH });
    Ok(numbered(FIXED_SEED, SEQUENCES_FIXED).chain(fresh).collect())
}

fn judge(differences: &[anyhow::Error], reported: usize) -> Result<()> {
    for difference in differences.iter().take(reported) {
        eprintln!("{difference:#}\n");
    }
    if !differences.is_empty() {
        bail!("{} sequences differ; the first of them are above", differences.len());
    }
    Ok(())
}

//! The harness against real brokers, without the product: can what judges the product be trusted?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tests::artifacts::KAFKA_VERSIONS;
use tests::client::add_partitions;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, LoadReport, PROFILES, Profile, create_topic};
use tests::poll_until;
use tests::scenario::Scenario;
use tests::wire::{RawReader, RawRecord};

const PARTITIONS: i32 = 4;
/// Enough for every shape of record to occur, the rarest being three in a thousand.
const RECORDS: u64 = 4_000;
const LOAD_LIMIT: Duration = Duration::from_secs(60);
const CONSUMER_LIMIT: Duration = Duration::from_secs(30);
const GROWTH_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn both_witnesses_read_what_was_acknowledged() {
    Scenario::run("both-witnesses", |scenario| {
        let cluster = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let bootstrap = cluster.bootstrap();
        create_topic(&bootstrap, "orders", PARTITIONS, &[])?;
        let report = run_load(&bootstrap, "orders", &PROFILES, scenario.seed())?;
        let codecs = check_witnesses(&bootstrap, "orders", &report)?;
        ensure!(codecs == BTreeSet::from([0, 1, 2, 3, 4]), "codecs seen: {codecs:?}");

        let side = Side { name: "east", bootstrap, topic: "orders".to_owned() };
        let by_batch = compare::raw_batches(&side, &side)?;
        let by_record = compare::records(&side, &side)?;
        ensure!(by_batch.records == report.total(), "{by_batch:?}, acknowledged {}", report.total());
        ensure!(by_record.records == report.total(), "{by_record:?}, acknowledged {}", report.total());
        check_growth(&cluster.bootstrap(), "orders")?;
        ensure!(by_batch.batches > 0 && by_batch.batches < by_batch.records, "{by_batch:?}");
        cluster.stop()
    });
}

/// A reader that looked before sees partitions that came later.
fn check_growth(bootstrap: &str, topic: &str) -> Result<()> {
    let mut reader = RawReader::new(bootstrap)?;
    let before = reader.ends_if_exists(topic)?.context("no topic")?;
    add_partitions(bootstrap, topic, before.len() + 1)?;
    let seen = poll_until(GROWTH_LIMIT, Duration::from_millis(100), || {
        let ends = reader.ends_if_exists(topic).ok().flatten();
        ends.filter(|ends| ends.len() == before.len() + 1)
    });
    seen.context("the partition that was added isn't seen").map(drop)
}

#[test]
fn batches_compressed_by_java_are_read() {
    Scenario::run("java-codecs", |scenario| {
        let cluster = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let bootstrap = cluster.bootstrap();
        let plain = Profile { codec: "none", idempotent: true, linger_ms: 20, batch_records_max: 10_000 };
        for (number, codec) in [(1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
            // The broker compresses again what arrives otherwise.
            create_topic(&bootstrap, codec, PARTITIONS, &[("compression.type", codec)])?;
            let report = run_load(&bootstrap, codec, &[plain], scenario.seed())?;
            let codecs = check_witnesses(&bootstrap, codec, &report)?;
            ensure!(codecs == BTreeSet::from([number]), "{codec}: codecs seen: {codecs:?}");
        }
        cluster.stop()
    });
}

#[test]
fn every_injected_difference_is_found() {
    Scenario::run("injected-differences", |scenario| {
        let cluster = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let bootstrap = cluster.bootstrap();
        let side = |topic: &str| Side {
            name: if topic == "original" { "source" } else { "destination" },
            bootstrap: bootstrap.clone(),
            topic: topic.to_owned(),
        };
        write_samples(&bootstrap, "original", &samples())?;
        write_samples(&bootstrap, "same", &samples())?;
        let (original, same) = (side("original"), side("same"));
        ensure!(compare::raw_batches(&original, &same)?.records == SAMPLES as u64);
        ensure!(compare::records(&original, &same)?.records == SAMPLES as u64);

        for (topic, spoil) in SPOILS {
            let mut spoilt = samples();
            spoil(&mut spoilt);
            write_samples(&bootstrap, topic, &spoilt)?;
            let by_batch = compare::raw_batches(&original, &side(topic));
            let by_record = compare::records(&original, &side(topic));
            let by_batch = by_batch.err().with_context(|| format!("{topic}: equal by batch"))?;
            let by_record = by_record.err().with_context(|| format!("{topic}: equal by record"))?;
            eprintln!("{topic}\n  by batch:  {by_batch:#}\n  by record: {by_record:#}");
            let place = format!("partition 0 at offset {}", if topic == "lost" { SAMPLES - 1 } else { 3 });
            ensure!(format!("{by_record:#}").contains(&place), "{topic}: {by_record:#}");
        }
        cluster.stop()
    });
}

#[test]
fn a_broker_comes_back_from_every_fault_with_its_data() {
    Scenario::run("broker-faults", |scenario| {
        let mut cluster = KafkaCluster::start(KafkaConfig::single("east", scenario.directory()))?;
        let bootstrap = cluster.bootstrap();
        create_topic(&bootstrap, "orders", PARTITIONS, &[])?;
        let load = Load::start(&load_config(&bootstrap, "orders", &PROFILES[1..2], scenario.seed()))?;
        load.wait_acknowledged(RECORDS / 4, LOAD_LIMIT)?;
        cluster.kill(1)?;
        cluster.restart(1)?;
        load.wait_acknowledged(load.acknowledged() + RECORDS / 4, LOAD_LIMIT)?;
        cluster.pause(1)?;
        std::thread::sleep(Duration::from_secs(1));
        cluster.resume(1)?;
        load.wait_acknowledged(load.acknowledged() + RECORDS / 4, LOAD_LIMIT)?;
        cluster.stop_broker(1)?;
        cluster.restart(1)?;
        load.wait_acknowledged(load.acknowledged() + RECORDS / 4, LOAD_LIMIT)?;
        let report = load.stop()?;
        check_witnesses(&bootstrap, "orders", &report)?;
        Ok(())
    });
}

#[test]
fn three_brokers_go_on_without_one() {
    Scenario::run("three-brokers", |scenario| {
        let mut config = KafkaConfig::single("east", scenario.directory());
        config.brokers = 3;
        let mut cluster = KafkaCluster::start(config)?;
        let bootstrap = cluster.bootstrap();
        create_topic(&bootstrap, "orders", PARTITIONS, &[])?;
        let load = Load::start(&load_config(&bootstrap, "orders", &PROFILES[1..2], scenario.seed()))?;
        load.wait_acknowledged(RECORDS / 4, LOAD_LIMIT)?;
        cluster.kill(2)?;
        load.wait_acknowledged(load.acknowledged() + RECORDS / 2, LOAD_LIMIT)?;
        cluster.restart(2)?;
        load.wait_acknowledged(load.acknowledged() + RECORDS / 4, LOAD_LIMIT)?;
        let report = load.stop()?;
        check_witnesses(&bootstrap, "orders", &report)?;
        Ok(())
    });
}

#[test]
fn every_kafka_version_starts() {
    Scenario::run("versions", |scenario| {
        for version in KAFKA_VERSIONS {
            let mut config = KafkaConfig::single(version, scenario.directory());
            config.version = version.to_owned();
            let cluster = KafkaCluster::start(config)?;
            let bootstrap = cluster.bootstrap();
            create_topic(&bootstrap, "orders", PARTITIONS, &[])?;
            let report = run_load(&bootstrap, "orders", &PROFILES, scenario.seed())?;
            check_witnesses(&bootstrap, "orders", &report).with_context(|| format!("Kafka {version}"))?;
            cluster.stop()?;
        }
        Ok(())
    });
}

fn load_config(bootstrap: &str, topic: &str, profiles: &[Profile], seed: u64) -> LoadConfig {
    LoadConfig {
        bootstrap: bootstrap.to_owned(),
        topic: topic.to_owned(),
        partitions: PARTITIONS,
        profiles: profiles.to_vec(),
        records_per_second: 2_000,
        seed,
        age: Duration::ZERO,
    }
}

fn run_load(bootstrap: &str, topic: &str, profiles: &[Profile], seed: u64) -> Result<LoadReport> {
    let load = Load::start(&load_config(bootstrap, topic, profiles, seed))?;
    load.wait_acknowledged(RECORDS, LOAD_LIMIT)?;
    load.stop()
}

/// Our reader and librdkafka must see the same records, as many as were acknowledged, at every
/// offset from 0. Returns the codecs of the batches.
fn check_witnesses(bootstrap: &str, topic: &str, report: &LoadReport) -> Result<BTreeSet<i16>> {
    let mut reader = RawReader::new(bootstrap)?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "harness")
        .set("enable.auto.commit", "false")
        .create()
        .context("create a consumer")?;
    let mut codecs = BTreeSet::new();
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    for (partition, (start, end)) in reader.ends(topic)? {
        ensure!(start == 0, "partition {partition} starts at {start}");
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Beginning).context("assign")?;
        consumer.assign(&assignment).context("assign")?;
        let mut next = 0;
        for batch in reader.batches(topic, partition, start..end) {
            let batch = batch?;
            codecs.insert(batch.codec());
            for record in batch.records()? {
                ensure!(record.offset == next, "partition {partition}: {} after {next}", record.offset);
                next += 1;
                let polled = consumer.poll(CONSUMER_LIMIT).context("librdkafka reads nothing")?;
                same(&record, &polled.context("librdkafka")?)
                    .with_context(|| format!("{topic}-{partition} at {}", record.offset))?;
            }
        }
        ensure!(next == end, "partition {partition}: records up to {next}, log end {end}");
        counts.insert(partition, u64::try_from(end)?);
    }
    ensure!(counts == report.acknowledged, "read {counts:?}, acknowledged {:?}", report.acknowledged);
    Ok(codecs)
}

fn same(ours: &RawRecord, theirs: &BorrowedMessage) -> Result<()> {
    let headers: Vec<(String, Option<Vec<u8>>)> = theirs
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect();
    ensure!(ours.offset == theirs.offset(), "librdkafka has offset {}", theirs.offset());
    ensure!(Some(ours.timestamp_ms) == theirs.timestamp().to_millis(), "timestamps differ");
    ensure!(ours.key.as_deref() == theirs.key(), "keys differ");
    ensure!(ours.value.as_deref() == theirs.payload(), "values differ");
    ensure!(ours.headers == headers, "headers differ: {:?} and {headers:?}", ours.headers);
    Ok(())
}

const SAMPLES: usize = 8;
const SAMPLE_TIME_MS: i64 = 1_700_000_000_000;
/// Longer than any start of a value that messages show, so that the end must be compared too.
const SAMPLE_VALUE_BYTES: usize = 200;

#[derive(Clone)]
struct Sample {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    header: &'static str,
    timestamp_ms: i64,
}

fn samples() -> Vec<Sample> {
    let sample = |index: usize| Sample {
        key: Some(format!("key-{index}").into_bytes()),
        value: vec![b'v'; SAMPLE_VALUE_BYTES],
        header: "one",
        timestamp_ms: SAMPLE_TIME_MS + index as i64,
    };
    (0..SAMPLES).map(sample).collect()
}

type Spoil = (&'static str, fn(&mut Vec<Sample>));

/// Each changes record 3, but for the one that loses the last.
const SPOILS: [Spoil; 8] = [
    ("value-start", |samples| samples[3].value[0] = b'x'),
    ("value-end", |samples| samples[3].value[SAMPLE_VALUE_BYTES - 1] = b'x'),
    ("value-shorter", |samples| samples[3].value.truncate(SAMPLE_VALUE_BYTES - 1)),
    ("key-null", |samples| samples[3].key = None),
    ("header", |samples| samples[3].header = "two"),
    ("time", |samples| samples[3].timestamp_ms -= 1),
    ("order", |samples| samples.swap(3, 4)),
    ("lost", |samples| samples.truncate(SAMPLES - 1)),
];

/// One batch: librdkafka lingers until it is told to flush.
fn write_samples(bootstrap: &str, topic: &str, samples: &[Sample]) -> Result<()> {
    create_topic(bootstrap, topic, 1, &[("retention.ms", "-1")])?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "5000")
        .create()
        .context("create a producer")?;
    for sample in samples {
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some(sample.header) });
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(0)
            .payload(&sample.value)
            .headers(headers)
            .timestamp(sample.timestamp_ms);
        record.key = sample.key.as_deref();
        producer.send(record).map_err(|(error, _)| error).context("send a sample")?;
    }
    producer.flush(LOAD_LIMIT).context("flush the samples")
}

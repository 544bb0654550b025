//! What a seed draws before anything runs. Printed first, so that a failure says what world it was.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::chance::Chance;
use crate::clusters::{Mood, UNREACHABLE};
use crate::faults::{self, Fault, Unclean};

/// Time for the operator, for producers and for faults; what follows is quiet.
const BUSY: RangeInclusive<u64> = 15..=45;

/// Without faults, at the end, at least: what was under way may still arrive for 12 s, and the product
/// waits for 20 s where it is in doubt.
const QUIET_MIN: Duration = Duration::from_secs(25);
/// And at most: longer than the slowest thing that must then come right. That is a request on a connection
/// that lost a message (30 s at most), then the longest wait before the next look (30 s), then the
/// ambiguity wait (20 s), then the records themselves.
const QUIET_MAX: Duration = Duration::from_secs(110);

/// Commands of the operator, beside those that found clusters and links.
const COMMANDS: RangeInclusive<u64> = 8..=40;

/// One way, between any two hosts.
const LATENCY_MS: RangeInclusive<u64> = 2..=60;

/// How soon a broker notices that it may forget a producer. Kafka's default is ten minutes; between two
/// requests in flight it happens seldom then, and often here.
const PRODUCER_CHECK_MS: [i64; 4] = [10, 50, 1_000, 20_000];

/// Percent of seeds in which acknowledged records may be lost, for either cluster.
const UNCLEAN_PERCENT: u64 = 12;

/// How old a partition's records are when they are sent. The destination's brokers forget the producer of
/// records older than a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Fresh,
    Old,
    /// Either, batch by batch.
    Mixed,
}

impl Age {
    pub const ALL: [Age; 3] = [Age::Fresh, Age::Old, Age::Mixed];
}

#[derive(Clone, Debug)]
pub struct SourceTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i16,
    pub in_sync_min: i16,
    pub age: Age,
    /// Producers with a producer id of their own.
    pub is_idempotent: bool,
    /// Between a producer's bursts, on average.
    pub pause: Duration,
    /// Batches in each of its partitions before anything runs, at most.
    pub preloaded_max: u64,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub busy: Duration,
    /// The run ends when all has come right, at the earliest and at the latest so long after.
    pub quiet: RangeInclusive<Duration>,
    pub latency_max: Duration,
    pub commands: u64,
    pub topics: Vec<SourceTopic>,
    /// `request.timeout.ms` of the product's clients.
    pub request_timeout_ms: u64,
    pub producer_check_ms: i64,
    /// Of the cluster that never answers.
    pub mood: Mood,
    /// In the order in which they happen.
    pub faults: Vec<Fault>,
}

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "options");
        let busy = Duration::from_secs(chance.between(BUSY));
        let unclean =
            Unclean { source: chance.percent(UNCLEAN_PERCENT), destination: chance.percent(UNCLEAN_PERCENT) };
        Self {
            seed,
            busy,
            quiet: QUIET_MIN..=QUIET_MAX,
            latency_max: Duration::from_millis(chance.between(LATENCY_MS)),
            commands: chance.between(COMMANDS),
            topics: (1..=chance.between(1..=4)).map(|number| topic(number, &mut chance)).collect(),
            request_timeout_ms: *chance.pick(&[2_000, 5_000, 30_000]),
            producer_check_ms: *chance.pick(&PRODUCER_CHECK_MS),
            mood: *chance.pick(&Mood::ALL),
            faults: faults::draw(&mut chance, busy, unclean),
        }
    }
}

fn topic(number: u64, chance: &mut Chance) -> SourceTopic {
    let replication = *chance.pick(&[2, 3, 3]);
    SourceTopic {
        name: format!("topic-{number}"),
        partitions: chance.between(1..=3) as i32,
        replication,
        in_sync_min: *chance.pick(&[1, 1, 2]),
        age: *chance.pick(&Age::ALL),
        is_idempotent: chance.percent(60),
        pause: Duration::from_millis(chance.between(20..=1_500)),
        preloaded_max: *chance.pick(&[0, 3, 40]),
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "  busy for {:?}, then quiet for up to {:?}", self.busy, self.quiet.end())?;
        writeln!(f, "  latency up to {:?}, {} commands", self.latency_max, self.commands)?;
        writeln!(f, "  requests of the product wait {} ms", self.request_timeout_ms)?;
        writeln!(f, "  producers that may be forgotten are every {} ms", self.producer_check_ms)?;
        for topic in &self.topics {
            let SourceTopic { name, partitions, replication, in_sync_min, age, .. } = topic;
            let idempotent = if topic.is_idempotent { "idempotent" } else { "plain" };
            let (pause, preloaded) = (topic.pause, topic.preloaded_max);
            writeln!(
                f,
                "  {name}: {partitions} partitions, {replication} replicas, {in_sync_min} in sync; {age:?} records, \
                 {idempotent} producers that pause for {pause:?}, up to {preloaded} batches before"
            )?;
        }
        writeln!(f, "  cluster {} {}", UNREACHABLE.name, self.mood)?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}

//! What a seed draws before anything runs. Printed first, so that a failure says what world it was.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use actors::credit::CreditLimits;

use crate::answer_faults;
use crate::chance::Chance;
use crate::clusters::{Mood, UNREACHABLE};
use crate::faults::{self, Ambush, Fault, Kind, Unclean};
use crate::fleet_faults;
use crate::machine_faults::{self, OfMachine};
use crate::stops::Stops;
use crate::time::Rate;

/// Time for the operator, for producers and for faults; what follows is quiet.
const BUSY: RangeInclusive<u64> = 15..=45;

/// Mostly three.
const NODES: [u64; 10] = [1, 1, 3, 3, 3, 3, 3, 2, 3, 5];

/// As in production, and so that members that were away are sent a snapshot.
const SNAPSHOTS: [(u64, u64); 4] = [(5_000, 1_000), (100, 20), (20, 5), (8, 1)];

/// Some fleets have more time: an unclean takeover of an unguarded partition takes half a minute.
const LONG_PERCENT: u64 = 30;
const LONGER: Duration = Duration::from_secs(40);

/// Without faults, at the end, at least: what was under way may still arrive for 12 s, and the product
/// waits for 20 s where it is in doubt.
const QUIET_MIN: Duration = Duration::from_secs(25);
/// And at most: longer than the slowest thing that must then come right. That is a request to the destination
/// on a connection that lost a message (30 s at most), then the longest wait before the next look (30 s), both
/// again for the source, then the ambiguity wait (20 s), then the records themselves.
const QUIET_MAX: Duration = Duration::from_secs(170);

/// Commands of the operator, beside those that found clusters and links.
const COMMANDS: RangeInclusive<u64> = 8..=40;

/// One way, between any two hosts.
const LATENCY_MS: RangeInclusive<u64> = 2..=60;

/// How soon a broker notices that it may forget a producer. Kafka's default is ten minutes; between two
/// requests in flight it happens seldom then, and often here.
const PRODUCER_CHECK_MS: [i64; 4] = [10, 50, 1_000, 20_000];

/// Percent of seeds in which acknowledged records may be lost, for either cluster.
const UNCLEAN_PERCENT: u64 = 12;

/// Percent of topics whose logs begin above zero: a mirror's prefix must be filled.
const HIGH_PERCENT: u64 = 40;

/// The size of a source topic's batches, at most. The largest that a producer here writes has some 21 KB;
/// the less a filler batch may hold, the longer a fill lasts.
const BATCH_BYTES_MAX: [u64; 3] = [32_768, 32_768, 1_048_588];

/// What a link may hold in memory, and what a partition, where they aren't as in production. Smaller than
/// what a fetch waits for and what its source has ready; large enough for two fetches a destination broker.
const LINK_BYTES_MAX: [usize; 3] = [288 << 10, 512 << 10, 2 << 20];
const PARTITION_BYTES_MAX: [usize; 3] = [16 << 10, 64 << 10, 16 << 20];

/// `replica.fetch.response.max.bytes` of links, its default and the least that a link takes.
const RESPONSE_BYTES_MAX: [usize; 2] = [8 << 20, 64 << 10];
/// `replica.fetch.max.bytes`; a batch may be larger, and comes whole then.
const PARTITION_RESPONSE_BYTES_MAX: [u64; 3] = [1 << 20, 64 << 10, 32 << 10];
/// `replica.fetch.wait.max.ms`. Where little credit is shared, fetches that wait for data keep others from
/// theirs: it is always short there.
const FETCH_WAIT_MAX_MS: [u64; 2] = [50, 500];

/// In so many seeds of a hundred there are consumer groups, and they are synced.
const GROUPS_PERCENT: u64 = 50;
const GROUPS_MAX: u64 = 3;
const EVERY_GROUP: &str = r#"{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}"#;

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
    pub batch_bytes_max: u64,
    /// What each of its partitions has lost before anything runs, where its logs begin above zero.
    pub lost: Option<Lost>,
}

/// The beginning of a log that is gone.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// So many batches of many small records, and then of what was preloaded so many hundredths: their end
    /// may lie inside a batch.
    pub batches: u64,
    pub percent: u64,
}

/// What bounds the memory of a link.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub credit: CreditLimits,
    pub response_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// So many nodes are the fleet.
    pub nodes: u64,
    /// How their machines' clocks run.
    pub rates: Vec<Rate>,
    /// Entries between two snapshots of the catalog, and kept behind one.
    pub log: (u64, u64),
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
    pub memory: Memory,
    /// Of the link between the clusters with data.
    pub link_configs: BTreeMap<String, String>,
    /// The source topic of each consumer group.
    pub groups: Vec<String>,
    /// In the order in which they happen.
    pub faults: Vec<Fault>,
    /// Each waits for a prefix that is being filled.
    pub ambushes: Vec<Ambush>,
    pub stops: Stops,
}

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "options");
        let mut fleet = Chance::of(seed, "fleet");
        let nodes = *fleet.pick(&NODES);
        let mut busy = Duration::from_secs(chance.between(BUSY));
        let unclean =
            Unclean { source: chance.percent(UNCLEAN_PERCENT), destination: chance.percent(UNCLEAN_PERCENT) };
        let memory = memory(&mut Chance::of(seed, "memory"));
        let mut options = Self {
            seed,
            nodes,
            rates: Vec::new(),
            log: *Chance::of(seed, "snapshots").pick(&SNAPSHOTS),
            busy,
            quiet: QUIET_MIN..=QUIET_MAX,
            latency_max: Duration::from_millis(chance.between(LATENCY_MS)),
            commands: chance.between(COMMANDS),
            topics: (1..=chance.between(1..=4)).map(|number| topic(number, seed, &mut chance)).collect(),
            request_timeout_ms: *chance.pick(&[2_000, 5_000, 30_000]),
            producer_check_ms: *chance.pick(&PRODUCER_CHECK_MS),
            mood: *chance.pick(&Mood::ALL),
            memory,
            link_configs: link_configs(memory, &mut Chance::of(seed, "link configs")),
            groups: Vec::new(),
            faults: faults::draw(&mut chance, busy, unclean),
            ambushes: faults::draw_ambushes(&mut Chance::of(seed, "ambushes")),
            stops: Stops::default(),
        };
        options.draw_groups(&mut Chance::of(seed, "groups"));
        if nodes > 1 {
            if fleet.percent(LONG_PERCENT) {
                busy += LONGER;
                options.busy = busy;
            }
            options.draw_fleet_faults(&mut fleet);
        }
        let (rates, faults) = machine_faults::draw(&mut Chance::of(seed, "machine"), busy, nodes);
        options.rates = rates;
        options.faults.extend(faults);
        options.faults.extend(answer_faults::draw(&mut Chance::of(seed, "answers"), busy));
        options.faults.extend(machine_faults::draw_damage(&mut Chance::of(seed, "damage"), &options));
        options.faults.sort_by_key(|fault| fault.at);
        let topics: Vec<String> = options.topics.iter().map(|topic| topic.name.clone()).collect();
        options.stops = Stops::of(seed, busy, &topics);
        options
    }

    pub fn damages_a_disk(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, Kind::Machine(OfMachine::DamagedDisk { .. })))
    }

    fn draw_groups(&mut self, chance: &mut Chance) {
        if !chance.percent(GROUPS_PERCENT) {
            return;
        }
        let names: Vec<String> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        self.groups = (0..chance.between(1..=GROUPS_MAX)).map(|_| chance.pick(&names).clone()).collect();
        let synced = [
            ("consumer.offset.sync.enable", "true".to_owned()),
            ("consumer.offset.group.filters", EVERY_GROUP.to_owned()),
        ];
        self.link_configs.extend(synced.map(|(key, value)| (key.to_owned(), value)));
    }

    fn draw_fleet_faults(&mut self, fleet: &mut Chance) {
        let kinds = self.faults.iter_mut().map(|fault| &mut fault.kind);
        for kind in kinds.chain(self.ambushes.iter_mut().map(|ambush| &mut ambush.kind)) {
            kind.aim(fleet.next());
        }
        self.faults.extend(fleet_faults::draw(fleet, self.busy, self.nodes));
        self.faults.sort_by_key(|fault| fault.at);
    }
}

fn memory(chance: &mut Chance) -> Memory {
    let credit = if chance.percent(50) {
        CreditLimits {
            link_bytes_max: *chance.pick(&LINK_BYTES_MAX),
            partition_bytes_max: *chance.pick(&PARTITION_BYTES_MAX),
        }
    } else {
        CreditLimits::default()
    };
    Memory { credit, response_bytes_max: *chance.pick(&RESPONSE_BYTES_MAX) }
}

fn link_configs(memory: Memory, chance: &mut Chance) -> BTreeMap<String, String> {
    let set = |key: &str, value: String| (key.to_owned(), value);
    let has_plenty = memory.credit == CreditLimits::default();
    let waits = if has_plenty { &FETCH_WAIT_MAX_MS[..] } else { &FETCH_WAIT_MAX_MS[..1] };
    BTreeMap::from([
        set("replica.fetch.response.max.bytes", memory.response_bytes_max.to_string()),
        set("replica.fetch.max.bytes", chance.pick(&PARTITION_RESPONSE_BYTES_MAX).to_string()),
        set("replica.fetch.wait.max.ms", chance.pick(waits).to_string()),
    ])
}

/// What has streams of its own was added later.
fn topic(number: u64, seed: u64, chance: &mut Chance) -> SourceTopic {
    let mut later = Chance::of(seed, &format!("topic {number}"));
    let lost = Lost { batches: *later.pick(&[0, 3, 30]), percent: later.between(0..=100) };
    let lost = later.percent(HIGH_PERCENT).then_some(lost);
    let replication = *chance.pick(&[1, 1, 2, 3, 3]);
    SourceTopic {
        name: format!("topic-{number}"),
        partitions: chance.between(1..=3) as i32,
        replication,
        in_sync_min: replication.min(*chance.pick(&[1, 1, 2])),
        age: *chance.pick(&Age::ALL),
        is_idempotent: chance.percent(60),
        pause: Duration::from_millis(chance.between(20..=1_500)),
        preloaded_max: *chance.pick(&[0, 3, 40]),
        batch_bytes_max: *later.pick(&BATCH_BYTES_MAX),
        lost,
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "  {} nodes, a snapshot every {} entries, {} kept", self.nodes, self.log.0, self.log.1)?;
        for (number, rate) in (1..).zip(&self.rates).filter(|(_, rate)| **rate != Rate::default()) {
            writeln!(f, "  the clock of node {number} {rate}")?;
        }
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
                 {idempotent} producers that pause for {pause:?}, up to {preloaded} batches before, each of {} bytes \
                 at most",
                topic.batch_bytes_max
            )?;
            if let Some(Lost { batches, percent }) = topic.lost {
                writeln!(f, "    of which {percent} of 100 are gone, and {batches} large ones before them")?;
            }
        }
        writeln!(f, "  cluster {} {}", UNREACHABLE.name, self.mood)?;
        let Memory { credit, .. } = self.memory;
        let (link, partition) = (credit.link_bytes_max, credit.partition_bytes_max);
        writeln!(f, "  a link holds {link} bytes at most, a partition {partition}; {:?}", self.link_configs)?;
        if !self.groups.is_empty() {
            writeln!(f, "  consumer groups of {:?}", self.groups)?;
        }
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        for ambush in &self.ambushes {
            writeln!(f, "  {ambush}")?;
        }
        self.stops.fmt(f)
    }
}

//! What is measured: scenes, each a loaded topic and the contenders that mirror it in turn.
//! Pure: from the flags to a list.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// The largest topic on a slow disk.
const MEMORY_LIMIT: Duration = Duration::from_secs(60);

/// What `--only` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Three loads, one and 16 partitions
    Throughput,
    /// Single records at rest, 100 a second
    Latency,
    /// TLS to both clusters
    Tls,
    /// The source behind 80 ms of round trip
    Delay,
    /// Resident memory while catching up on 64 partitions
    Memory,
    /// MirrorMaker 2 in the parts chosen; alone, in all that it takes part in
    Mm2,
    /// Where Lockstep's CPU time goes
    Profile,
}

/// Shape of a load, as `raw-path load` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    Large,
    Small,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Floor,
    /// The floor, joining small batches.
    FloorJoining,
    Lockstep,
    MirrorMaker,
}

/// How the clusters are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Road {
    Plain,
    Tls,
    /// The source behind the proxy, which adds this much.
    Proxied {
        round_trip_ms: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A full topic, copied.
    Copy,
    /// An idle topic, probed.
    Probe,
    /// A copy, watched by a profiler.
    Profile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    pub system: System,
    pub road: Road,
}

/// A topic and who mirrors it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub part: Part,
    pub kind: Kind,
    pub shape: Shape,
    pub partitions: i32,
    /// At the source, before compression.
    pub bytes: u64,
    pub contenders: Vec<Contender>,
    /// How often each contender has its turn.
    pub rounds: u32,
    /// From first to last record; what came until then counts.
    pub limit: Duration,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub quick: bool,
    pub rounds: u32,
    /// Of a copy of large batches.
    pub bytes: u64,
}

/// The round trip of the part `delay`: between continents.
pub const ROUND_TRIP_MS: u64 = 80;

impl Shape {
    pub fn argument(self) -> &'static str {
        match self {
            Shape::Large => "large",
            Shape::Small => "small",
            Shape::Json => "json",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Shape::Large => "1 KiB records, 256 KiB batches",
            Shape::Small => "1 KiB records, 16 KiB batches",
            Shape::Json => "zstd JSON (raw GB)",
        }
    }
}

impl System {
    pub fn label(self) -> &'static str {
        match self {
            System::Floor => "floor",
            System::FloorJoining => "floor, joining",
            System::Lockstep => "Lockstep",
            System::MirrorMaker => "MirrorMaker 2",
        }
    }
}

impl Road {
    pub fn label(self) -> String {
        match self {
            Road::Plain => "plain".to_owned(),
            Road::Tls => "TLS".to_owned(),
            Road::Proxied { round_trip_ms } => format!("proxy, {round_trip_ms} ms"),
        }
    }
}

impl Scale {
    pub fn new(quick: bool, rounds: Option<u32>, megabytes: Option<u64>) -> Scale {
        let (default_rounds, default_megabytes) = if quick { (1, 400) } else { (3, 1_500) };
        Scale {
            quick,
            rounds: rounds.unwrap_or(default_rounds),
            bytes: megabytes.unwrap_or(default_megabytes) * 1_000_000,
        }
    }

    fn bytes_of(&self, shape: Shape) -> u64 {
        match shape {
            Shape::Large => self.bytes,
            // As they come, small batches take three times as long.
            Shape::Small => self.bytes / 2,
            // Per raw GB, compressed ones take a fraction.
            Shape::Json => self.bytes * 2,
        }
    }

    fn partition_counts(&self) -> &'static [i32] {
        if self.quick { &[16] } else { &[1, 16] }
    }

    /// A full topic, copied within the usual limit.
    fn scene(&self, part: Part, shape: Shape, partitions: i32, contenders: Vec<Contender>) -> Scene {
        let (bytes, rounds, limit) = (self.bytes_of(shape), self.rounds, self.copy_limit());
        Scene { part, kind: Kind::Copy, shape, partitions, bytes, contenders, rounds, limit }
    }

    fn memory_bytes(&self) -> u64 {
        if self.quick { GIB / 2 } else { 4 * GIB }
    }

    /// Several times what a healthy copy takes.
    fn copy_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 8 } else { 20 })
    }

    /// Rates behind a long round trip are steady, so that a part of the topic tells.
    fn delay_limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 6 } else { 12 })
    }

    /// Records of one probe, after as many seconds of warming up as it has hundreds.
    pub fn probe_records(&self) -> usize {
        if self.quick { 200 } else { 1_000 }
    }
}

/// What brokers do before they are measured: their code is compiled by use, and the first copy
/// would pay for it.
pub fn warm_up(scenes: &[Scene], scale: Scale) -> Vec<Scene> {
    let mut contenders = vec![plain(System::FloorJoining); 2];
    let of_tls = |scene: &Scene| scene.contenders.iter().any(|contender| contender.road == Road::Tls);
    if scenes.iter().any(of_tls) {
        contenders.push(tls(System::Lockstep));
    }
    let of = |shape, contenders| {
        let scene = scale.scene(Part::Throughput, shape, 16, contenders);
        Scene { rounds: 1, limit: scale.delay_limit(), ..scene }
    };
    vec![of(Shape::Small, contenders), of(Shape::Large, vec![plain(System::Floor); 2])]
}

/// Everything to be measured, in order. `only` empty means all.
pub fn scenes(only: &[Part], scale: Scale) -> Vec<Scene> {
    let all = only.is_empty();
    let alone = only == [Part::Mm2];
    let wanted = |part: Part| all || only.contains(&part) || alone && takes_mirror_maker(part);
    let mut scenes = Vec::new();
    // Those with goals first: what comes last suffers when the time is up.
    for part in [Part::Throughput, Part::Latency, Part::Memory, Part::Delay, Part::Profile, Part::Tls] {
        if wanted(part) {
            scenes.extend(scenes_of(part, scale));
        }
    }
    let with_mirror_maker = all || only.contains(&Part::Mm2);
    for scene in &mut scenes {
        // Its start takes longer than everything else in a quick scene.
        let worth_it = !scale.quick || scene.part == Part::Latency || scene.shape == Shape::Large;
        scene.contenders.retain(|contender| match contender.system {
            System::MirrorMaker => with_mirror_maker && worth_it,
            _ => !alone,
        });
    }
    scenes
}

fn takes_mirror_maker(part: Part) -> bool {
    matches!(part, Part::Throughput | Part::Latency | Part::Tls | Part::Delay)
}

fn scenes_of(part: Part, scale: Scale) -> Vec<Scene> {
    let lockstep = vec![plain(System::Lockstep)];
    match part {
        Part::Throughput => throughput(scale),
        Part::Latency => {
            let contenders = vec![
                plain(System::Floor),
                plain(System::Lockstep),
                plain(System::MirrorMaker),
                tls(System::Lockstep),
            ];
            let scene = scale.scene(part, Shape::Small, 1, contenders);
            vec![Scene { kind: Kind::Probe, bytes: 0, ..scene }]
        }
        Part::Tls => {
            let contenders = vec![plain(System::Lockstep), tls(System::Lockstep), tls(System::MirrorMaker)];
            vec![scale.scene(part, Shape::Large, 16, contenders)]
        }
        Part::Delay => delay(scale),
        Part::Memory => {
            let scene = scale.scene(part, Shape::Large, 64, lockstep);
            vec![Scene { bytes: scale.memory_bytes(), limit: MEMORY_LIMIT, ..scene }]
        }
        Part::Profile => {
            let of = |shape| {
                let scene = scale.scene(part, shape, 16, lockstep.clone());
                Scene { kind: Kind::Profile, rounds: 1, ..scene }
            };
            vec![of(Shape::Large), of(Shape::Small)]
        }
        Part::Mm2 => Vec::new(),
    }
}

fn throughput(scale: Scale) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for shape in [Shape::Large, Shape::Small, Shape::Json] {
        let mut systems = vec![System::Floor];
        if shape == Shape::Small {
            systems.push(System::FloorJoining);
        }
        systems.extend([System::Lockstep, System::MirrorMaker]);
        for partitions in scale.partition_counts() {
            let contenders = systems.iter().copied().map(plain).collect();
            scenes.push(scale.scene(Part::Throughput, shape, *partitions, contenders));
        }
    }
    scenes
}

/// Lockstep without delay goes through the proxy as well: only the delay differs.
fn delay(scale: Scale) -> Vec<Scene> {
    let behind = |system, round_trip_ms| Contender { system, road: Road::Proxied { round_trip_ms } };
    let contenders = vec![
        behind(System::Lockstep, 0),
        behind(System::Lockstep, ROUND_TRIP_MS),
        behind(System::Floor, ROUND_TRIP_MS),
        behind(System::MirrorMaker, ROUND_TRIP_MS),
    ];
    let of = |partitions: &i32| {
        let scene = scale.scene(Part::Delay, Shape::Large, *partitions, contenders.clone());
        Scene { limit: scale.delay_limit(), ..scene }
    };
    scale.partition_counts().iter().map(of).collect()
}

fn plain(system: System) -> Contender {
    Contender { system, road: Road::Plain }
}

fn tls(system: System) -> Contender {
    Contender { system, road: Road::Tls }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn systems(only: &[Part]) -> Vec<(Part, System)> {
        let scenes = scenes(only, Scale::new(false, None, None));
        let pairs = |scene: &Scene| {
            let part = scene.part;
            scene.contenders.iter().map(move |contender| (part, contender.system)).collect::<Vec<_>>()
        };
        scenes.iter().flat_map(pairs).collect()
    }

    #[test]
    fn without_only_every_part_and_system_is_measured() {
        let all = systems(&[]);
        for part in [Part::Throughput, Part::Latency, Part::Tls, Part::Delay, Part::Memory, Part::Profile] {
            assert!(all.contains(&(part, System::Lockstep)), "{part:?}");
            assert_eq!(all.contains(&(part, System::MirrorMaker)), takes_mirror_maker(part), "{part:?}");
        }
    }

    #[test]
    fn a_part_alone_goes_without_mirror_maker() {
        let of = systems(&[Part::Latency]);
        assert_eq!(of.len(), 3);
        assert!(!of.contains(&(Part::Latency, System::MirrorMaker)), "{of:?}");
        assert!(systems(&[Part::Latency, Part::Mm2]).contains(&(Part::Latency, System::MirrorMaker)));
    }

    #[test]
    fn a_quick_bench_has_every_part_but_starts_mirror_maker_seldom() {
        let of = |quick| {
            let scenes = scenes(&[], Scale::new(quick, None, None));
            let parts: std::collections::BTreeSet<Part> = scenes.iter().map(|scene| scene.part).collect();
            let contenders = scenes.iter().flat_map(|scene| &scene.contenders);
            let starts = contenders.filter(|contender| contender.system == System::MirrorMaker).count();
            (parts, starts)
        };
        let ((quick_parts, quick_starts), (parts, starts)) = (of(true), of(false));
        assert_eq!(quick_parts, parts);
        assert_eq!((quick_starts, starts), (4, 10));
    }

    #[test]
    fn brokers_warm_up_their_tls_when_it_will_be_measured() {
        let scale = Scale::new(false, None, None);
        let warms_tls = |only: &[Part]| {
            let warming = warm_up(&scenes(only, scale), scale);
            let mut contenders = warming.iter().flat_map(|scene| &scene.contenders);
            contenders.any(|contender| contender.road == Road::Tls)
        };
        assert!(warms_tls(&[Part::Tls]));
        assert!(!warms_tls(&[Part::Throughput]));
    }

    #[test]
    fn mirror_maker_alone_is_measured_wherever_it_takes_part() {
        let of = systems(&[Part::Mm2]);
        assert!(of.iter().all(|(_, system)| *system == System::MirrorMaker));
        assert!(of.iter().any(|(part, _)| *part == Part::Delay));
    }
}

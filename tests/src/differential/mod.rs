//! The embedded cluster against real Kafka: sequences of requests, drawn from a seed, go to both ends in
//! the same order, and what comes back is compared field by field but for a short [list](allowed) of what
//! may differ, and another of what Kafka 3.9 does [otherwise](allowed_kafka_3) than Kafka 4. Where the two
//! ends differ, Kafka is right and `broker/` is mended.
//!
//! Only here may the harness use the protocol crate that the product uses too: it writes and reads
//! structures, and judges nothing.

pub mod allowed;
pub mod allowed_kafka_3;
mod batches;
mod connection;
mod draw;
mod ends;
mod ids;
mod localise;
mod members;
mod recording;
mod records;
mod world;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::messages::ApiKey;
use rand::SeedableRng;
use rand::rngs::StdRng;

use allowed::Answering;
use connection::{Answer, Call};
pub use draw::Versions;
pub use ends::{Embedded, End, Real};
use ids::Ids;
pub use recording::{Recorded, Recorder};
use world::World;

pub const REQUESTS: usize = 50;
/// What of a request is printed: batches of a megabyte say nothing.
const PRINTED_CHARS: usize = 6_000;
const DIFFERING_LINES: usize = 60;

/// Versions that clients don't send, or that name what the sequences don't model.
const HIGHEST: &[(ApiKey, i16)] = &[
    // Later ones are sent by brokers only.
    (ApiKey::AddPartitionsToTxn, 3),
    // From 5 on each transaction has an epoch of its own.
    (ApiKey::EndTxn, 4),
    // From 6 on there are prepared transactions.
    (ApiKey::InitProducerId, 5),
    (ApiKey::Metadata, 12),
];

/// One of a run's sequences.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    pub seed: u64,
    pub number: u64,
    /// Each request and its answer are printed.
    pub traced: bool,
}

impl Sequence {
    /// Begins the names of all topics and transactional ids of the sequence.
    pub fn prefix(&self) -> String {
        format!("d{}-{}-", self.seed, self.number)
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(self.number))
    }
}

/// What both ends speak of what is drawn.
pub fn common(reference: &Versions, subject: &Versions) -> Versions {
    let mut common = BTreeMap::new();
    for api in draw::kinds() {
        let (Some(here), Some(there)) = (reference.get(&(api as i16)), subject.get(&(api as i16))) else {
            continue;
        };
        let cap = HIGHEST.iter().find(|(capped, _)| *capped == api).map_or(i16::MAX, |(_, cap)| *cap);
        let range = (here.0.max(there.0), here.1.min(there.1).min(cap));
        if range.0 <= range.1 {
            common.insert(api as i16, range);
        }
    }
    common
}

/// Kinds that are drawn when both ends speak them, and `versions` lacks.
pub fn unspoken(versions: &Versions) -> Vec<ApiKey> {
    draw::kinds().filter(|api| !versions.contains_key(&(*api as i16))).collect()
}

/// Plays one sequence; without a subject only the reference hears it. The error of a difference holds all
/// that is needed to look into it.
pub fn play(
    sequence: Sequence,
    versions: &Versions,
    reference: &mut dyn End,
    mut subject: Option<&mut dyn End>,
) -> Result<()> {
    let kafka_3 = reference.name().contains(" 3.");
    let mut world = World::new(sequence.prefix(), reference.now_ms(), kafka_3);
    let mut rng = sequence.rng();
    let (mut known_here, mut known_there) = (Ids::default(), Ids::default());
    for number in 0..REQUESTS {
        let calls = draw::draw(&mut world, &mut rng, versions, number);
        let place = |call: &Call| {
            let Sequence { seed, number: sequence, .. } = sequence;
            format!("sequence {sequence} of seed {seed}, request {number}: {}", printed(&call.request))
        };
        let whole = || calls.iter().map(place).collect::<Vec<_>>().join("\nand ");
        let expected = ask(reference, &calls, &mut known_here, &world, kafka_3).with_context(whole)?;
        if sequence.traced {
            for (call, expected) in calls.iter().zip(&expected) {
                eprintln!("{}: version {}\n  {}", place(call), call.version, printed(expected));
            }
        }
        if let Some(subject) = &mut subject {
            let found = ask(*subject, &calls, &mut known_there, &world, kafka_3).with_context(whole)?;
            let mut both = calls.iter().zip(expected.iter().zip(&found));
            if let Some((call, (expected, found))) = both.find(|(_, (expected, found))| expected != found) {
                reference.leave(&world)?;
                bail!("{}", report(&whole(), call, expected, found, [reference.name(), subject.name()]));
            }
        }
        for (call, expected) in calls.iter().zip(&expected) {
            world.learn(call, expected);
        }
        for call in &calls {
            reference.settle(call, &world).with_context(whole)?;
            if let Some(subject) = &mut subject {
                subject.settle(call, &world).with_context(whole)?;
            }
        }
        if kafka_3 && calls.iter().any(allowed_kafka_3::forgets_groups) {
            let call = world.deletes_empty_groups();
            reference.ask(std::slice::from_ref(&call)).with_context(whole)?;
            if let Some(subject) = &mut subject {
                subject.ask(std::slice::from_ref(&call)).with_context(whole)?;
            }
        }
    }
    reference.leave(&world)
}

fn ask(
    end: &mut dyn End,
    calls: &[Call],
    ids: &mut Ids,
    world: &World,
    kafka_3: bool,
) -> Result<Vec<Answer>> {
    let own = calls.iter().cloned().map(|mut call| {
        localise::localise(&mut call.request, ids);
        call
    });
    let answers = end.ask(&own.collect::<Vec<_>>())?;
    let now_ms = end.now_ms();
    let alike = answers.into_iter().zip(calls).map(|(answer, call)| match answer {
        Answer::Response(response) => {
            let (request, prefix) = (&call.request, &*world.prefix);
            let old_epoch = world.is_of_old_epoch(request);
            let mut answering = Answering { request, ids, now_ms, prefix, kafka_3, old_epoch };
            Answer::Response(Box::new(allowed::alike(*response, &mut answering)))
        }
        other => other,
    });
    Ok(alike.collect())
}

fn report(place: &str, call: &Call, expected: &Answer, found: &Answer, names: [&str; 2]) -> String {
    let mut out = format!("{place}: {:?} version {}\n", call.api, call.version);
    let _ = writeln!(out, "{}: {}", names[0], printed(expected));
    let _ = writeln!(out, "{}: {}", names[1], printed(found));
    let _ = writeln!(out, "what differs (- {}, + {}):", names[0], names[1]);
    for line in differing(&format!("{expected:#?}"), &format!("{found:#?}")).iter().take(DIFFERING_LINES) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

/// The lines that only one side has, in order, by the longest common subsequence.
fn differing(expected: &str, found: &str) -> Vec<String> {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let width = found.len() + 1;
    let mut common = vec![0u32; (expected.len() + 1) * width];
    for here in (0..expected.len()).rev() {
        for there in (0..found.len()).rev() {
            common[here * width + there] = if expected[here] == found[there] {
                common[(here + 1) * width + there + 1] + 1
            } else {
                common[(here + 1) * width + there].max(common[here * width + there + 1])
            };
        }
    }
    let (mut here, mut there, mut lines) = (0, 0, Vec::new());
    while here < expected.len() || there < found.len() {
        if here < expected.len() && there < found.len() && expected[here] == found[there] {
            (here, there) = (here + 1, there + 1);
        } else if there == found.len()
            || (here < expected.len()
                && common[(here + 1) * width + there] >= common[here * width + there + 1])
        {
            lines.push(format!("- {}", expected[here].trim()));
            here += 1;
        } else {
            lines.push(format!("+ {}", found[there].trim()));
            there += 1;
        }
    }
    lines
}

fn printed(what: &impl Debug) -> String {
    let text = format!("{what:?}").replace(", unknown_tagged_fields: {}", "");
    match text.char_indices().nth(PRINTED_CHARS) {
        Some((at, _)) => format!("{}… ({} bytes in all)", &text[..at], text.len()),
        None => text,
    }
}

/// Fails when a kind that should be compared isn't spoken by one end.
pub fn all_spoken(versions: &Versions) -> Result<()> {
    let missing = unspoken(versions);
    ensure!(missing.is_empty(), "not spoken by both ends: {missing:?}");
    Ok(())
}

//! Produce: mostly one legal batch a partition, and every way in which one can be wrong.

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, RequestKind, TransactionalId};
use rand::Rng;
use rand::rngs::StdRng;

use super::{one_of, text, topic_name, weighted};
use crate::differential::batches::{Batch, CONTROL, LOG_APPEND_TIME, Record, Spoil, TRANSACTIONAL};
use crate::differential::ids::FOREIGN_PRODUCERS;
use crate::differential::world::{Place, Producer, Sent, World};

const BY_ID_FROM_VERSION: i16 = 13;
const HOUR_MS: i64 = 3_600_000;
/// November 2023.
const LONG_AGO_MS: i64 = 1_700_000_000_000;
/// Beyond the default of `max.message.bytes`.
const OVERSIZED_VALUE_BYTES: usize = 1_100_000;
/// A batch is sent again from among so many.
const RESENT_AMONG: usize = 8;

pub fn produce(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let mut transactional_id = None;
    let mut topics = Vec::new();
    let most = weighted(rng, &[(6, 1), (2, 3)]);
    for (name, partitions) in world.any_places(rng, most) {
        let mut rows = Vec::new();
        for index in partitions {
            let place = (name.clone(), index);
            let mut batch = batch(world, rng, &place);
            let owner = world.producers.iter().find(|producer| producer.id == batch.producer_id);
            // Else Kafka 3.9 takes nothing from this producer afterwards.
            if owner.is_some_and(|owner| batch.producer_epoch < owner.epoch) {
                batch.base_sequence = batch.base_sequence.max(0);
            }
            if batch.flags & TRANSACTIONAL != 0 && rng.random_bool(0.9) {
                transactional_id = owner.and_then(|owner| owner.transactional_id.clone());
            }
            // Never null: Kafka fails in its own error message then, and the connection hangs for ever.
            let records = if rng.random_bool(0.01) { bytes::Bytes::new() } else { batch.encode() };
            world.sent.push(Sent { place, batch });
            world.just_sent += 1;
            rows.push(PartitionProduceData::default().with_index(index).with_records(Some(records)));
        }
        let topic = TopicProduceData::default().with_partition_data(rows);
        topics.push(match version >= BY_ID_FROM_VERSION {
            true => topic.with_topic_id(world.topic_id(&name)),
            false => topic.with_name(topic_name(name)),
        });
    }
    if rng.random_bool(0.01) {
        transactional_id = Some(format!("{}nobody", world.prefix));
    }
    RequestKind::Produce(
        ProduceRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_acks(weighted(rng, &[(60, -1), (25, 1), (6, 0), (2, 7), (1, -2)]))
            .with_timeout_ms(one_of(rng, &[1_000, 30_000]))
            .with_topic_data(topics),
    )
}

fn batch(world: &World, rng: &mut StdRng, place: &Place) -> Batch {
    let again = world.sent.iter().rev().take(RESENT_AMONG).filter(|sent| sent.place == *place);
    let again: Vec<&Sent> = again.collect();
    if !again.is_empty() && rng.random_bool(0.12) {
        return again[rng.random_range(0..again.len())].batch.clone();
    }
    let mut batch = Batch::new(timestamp(world, rng), records(rng));
    batch.codec = weighted(rng, &[(10, 0), (2, 1), (2, 2), (2, 3), (2, 4)]);
    batch.leader_epoch = one_of(rng, &[-1, 0, 0, 5]);
    if rng.random_bool(0.65) {
        number(world, rng, place, &mut batch);
    }
    if rng.random_bool(0.2) {
        spoil(rng, &mut batch);
    }
    batch
}

fn timestamp(world: &World, rng: &mut StdRng) -> i64 {
    let within = i64::from(rng.random_range(0..1_000));
    match rng.random_range(0..20) {
        0 => world.now_ms + 3 * HOUR_MS + within,
        1 => -1,
        2 => 0,
        3 => world.now_ms + HOUR_MS / 2 + within,
        4..=9 => world.now_ms - 2 * HOUR_MS + within,
        _ => LONG_AGO_MS + within,
    }
}

fn records(rng: &mut StdRng) -> Vec<Record> {
    let oversized = rng.random_bool(0.01);
    let count = if oversized { 1 } else { weighted(rng, &[(4, 1), (4, 3), (2, 10), (1, 40)]) };
    let keyless = rng.random_bool(0.1);
    let one = |offset_delta: i32| Record {
        timestamp_delta: if rng.random_bool(0.2) { -5 } else { i64::from(rng.random_range(0..50)) },
        offset_delta,
        key: (!keyless && rng.random_bool(0.95)).then(|| format!("key-{offset_delta}").into_bytes()),
        value: if oversized {
            // Not to be compressed to nothing.
            Some((0..OVERSIZED_VALUE_BYTES).map(|_| rng.random()).collect())
        } else {
            rng.random_bool(0.9).then(|| vec![b'v'; rng.random_range(0..200)])
        },
        headers: if rng.random_bool(0.2) { 2 } else { 0 },
    };
    let mut records: Vec<Record> = (0..count).map(one).collect();
    records[0].timestamp_delta = 0;
    records
}

/// Gives the batch a producer and a sequence number.
fn number(world: &World, rng: &mut StdRng, place: &Place, batch: &mut Batch) {
    if world.producers.is_empty() || rng.random_bool(0.03) {
        batch.producer_id = FOREIGN_PRODUCERS + i64::from(rng.random_range(0..3));
        batch.producer_epoch = one_of(rng, &[0, 3]);
        batch.base_sequence = one_of(rng, &[0, 0, 17]);
        return;
    }
    let producer = &world.producers[rng.random_range(0..world.producers.len())];
    batch.producer_id = producer.id;
    batch.producer_epoch = match rng.random_range(0..40) {
        0 => producer.epoch.wrapping_sub(1),
        1 => producer.epoch.wrapping_add(1),
        2 => -1,
        _ => producer.epoch,
    };
    let next = producer.next_sequence.get(place).copied();
    batch.base_sequence = match (next, rng.random_range(0..40)) {
        (None, 0..=5) => i32::MAX - rng.random_range(0..4),
        (None, 6..=8) => 40,
        (Some(next), 0..=2) => next.wrapping_add(rng.random_range(1..5)).max(0),
        (Some(next), 3) => (next - 1).max(0),
        (_, 10) => -1,
        (_, 11..=12) => 0,
        (next, _) => next.unwrap_or(0),
    };
    let transacts = in_transaction(producer, place, rng);
    if transacts {
        batch.flags |= TRANSACTIONAL;
        // Kafka 3.9 takes an epoch that nobody has into an open transaction, Kafka 4 does not.
        batch.producer_epoch = batch.producer_epoch.min(producer.epoch);
    }
}

fn in_transaction(producer: &Producer, place: &Place, rng: &mut StdRng) -> bool {
    match &producer.transactional_id {
        Some(_) if producer.added.contains(place) => rng.random_bool(0.95),
        Some(_) => rng.random_bool(0.3),
        None => rng.random_bool(0.02),
    }
}

fn spoil(rng: &mut StdRng, batch: &mut Batch) {
    let last = batch.records.len() - 1;
    match rng.random_range(0..26) {
        0 => batch.base_offset = one_of(rng, &[1, 100, -1]),
        1 => batch.count += 1,
        2 => batch.count -= 1,
        3 => batch.last_offset_delta += one_of(rng, &[1, -1, 5]),
        4 => batch.spoils.push(Spoil::Checksum),
        5 => batch.magic = one_of(rng, &[0, 1, 3, -1]),
        6 | 7 => batch.spoils.push(Spoil::Twice),
        8..=10 => batch.spoils.push(Spoil::TwiceCut(one_of(rng, &[1, 8, 12, 16, 17, 30, 61, 70]))),
        11 => batch.spoils.push(Spoil::Cut(one_of(rng, &[1, 11, 12, 16, 17, 40, 61, 64]))),
        12 => batch.spoils.push(Spoil::TooLong),
        13 => batch.spoils.push(Spoil::Trailing),
        14 => {
            batch.codec = one_of(rng, &[1, 2, 3, 4]);
            batch.spoils.push(Spoil::Payload);
        }
        15 => batch.codec = one_of(rng, &[5, 6, 7]),
        16 => batch.flags |= CONTROL,
        17 => batch.flags |= CONTROL | TRANSACTIONAL,
        18 => batch.flags |= LOG_APPEND_TIME,
        19 => batch.flags |= TRANSACTIONAL,
        20 => (batch.records, batch.count, batch.last_offset_delta) = (Vec::new(), 0, -1),
        21 => (batch.records, batch.count) = (Vec::new(), 0),
        22 => batch.max_timestamp += one_of(rng, &[-1_000, 1_000, 86_400_000]),
        23 => batch.records[last].timestamp_delta = one_of(rng, &[-50, 100 * HOUR_MS]),
        24 => batch.records[last].key = None,
        _ => batch.flags |= one_of(rng, &[0x40, 0x80, 0x100]),
    }
}

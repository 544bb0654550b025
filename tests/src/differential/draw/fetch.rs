//! Fetch: at every kind of offset, with sessions and without, cut anywhere.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, RequestKind};
use rand::Rng;
use rand::rngs::StdRng;

use super::{one_of, topic_name, weighted};
use crate::differential::world::{Place, Session, World};

const BY_ID_FROM_VERSION: i16 = 13;
const SESSIONS_FROM_VERSION: i16 = 7;
const LEADER_EPOCH_FROM_VERSION: i16 = 9;
const LAST_EPOCH_FROM_VERSION: i16 = 12;

pub fn fetch(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let request = FetchRequest::default()
        .with_max_wait_ms(one_of(rng, &[0, 0, 0, 5, 20]))
        .with_min_bytes(one_of(rng, &[0, 1, 1, 1, 500]))
        .with_max_bytes(weighted(rng, &[(6, 50 << 20), (2, 500), (1, 1), (1, 0), (1, 2_000)]))
        .with_isolation_level(one_of(rng, &[0, 1]));
    let by_id = version >= BY_ID_FROM_VERSION;
    let mine: Vec<&Session> = world.sessions.iter().filter(|session| session.by_id == by_id).collect();
    let request = if version < SESSIONS_FROM_VERSION {
        request.with_topics(topics(world, rng, version, 4))
    } else if !mine.is_empty() && rng.random_bool(0.4) {
        // The youngest: the others are for wrong epochs only.
        let session = mine[mine.len() - 1];
        incremental(world, rng, version, session, request)
    } else {
        let (id, epoch) = match rng.random_range(0..20) {
            0 => (0x1234, 1),
            1 => (0, 1),
            2 => (world.sessions.last().map_or(5, |session| session.id), 0),
            3 => (world.sessions.last().map_or(5, |session| session.id), -1),
            4..=9 => (0, 0),
            _ => (0, -1),
        };
        let topics = topics(world, rng, version, 4);
        request.with_session_id(id).with_session_epoch(epoch).with_topics(topics)
    };
    RequestKind::Fetch(request)
}

fn incremental(
    world: &World,
    rng: &mut StdRng,
    version: i16,
    session: &Session,
    request: FetchRequest,
) -> FetchRequest {
    let epoch = session.next_epoch + weighted(rng, &[(18, 0), (1, 1), (1, -1)]);
    let request = request.with_session_id(session.id).with_session_epoch(epoch);
    let request = match rng.random_range(0..3) {
        0 => request,
        1 => request.with_topics(topics(world, rng, version, 2)),
        _ => {
            let mut moved = Vec::new();
            for (name, partition) in &session.places {
                if rng.random_bool(0.6) {
                    let place = (name.clone(), *partition);
                    moved.push(topic(world, version, name, vec![wanted(world, rng, version, &place)]));
                }
            }
            request.with_topics(moved)
        }
    };
    if rng.random_bool(0.75) || session.places.is_empty() {
        return request;
    }
    let (name, partition) = &session.places[rng.random_range(0..session.places.len())];
    let forgotten = ForgottenTopic::default().with_partitions(vec![*partition]);
    let forgotten = match version >= BY_ID_FROM_VERSION {
        true => forgotten.with_topic_id(world.topic_id(name)),
        false => forgotten.with_topic(topic_name(name.clone())),
    };
    request.with_forgotten_topics_data(vec![forgotten])
}

fn topics(world: &World, rng: &mut StdRng, version: i16, most: usize) -> Vec<FetchTopic> {
    let places = world.any_places(rng, most);
    let topics = places.into_iter().map(|(name, partitions)| {
        let rows = partitions.into_iter().map(|partition| {
            let place = (name.clone(), partition);
            wanted(world, rng, version, &place)
        });
        let rows = rows.collect();
        topic(world, version, &name, rows)
    });
    topics.collect()
}

fn topic(world: &World, version: i16, name: &str, rows: Vec<FetchPartition>) -> FetchTopic {
    let topic = FetchTopic::default().with_partitions(rows);
    match version >= BY_ID_FROM_VERSION {
        true => topic.with_topic_id(world.topic_id(name)),
        false => topic.with_topic(topic_name(name)),
    }
}

fn wanted(world: &World, rng: &mut StdRng, version: i16, place: &Place) -> FetchPartition {
    let end = world.end(place);
    let offset = match rng.random_range(0..12) {
        0 => end + 1,
        1 => end + 1_000,
        2 => -1,
        3 | 4 => end,
        5..=8 => 0,
        _ => rng.random_range(0..=end),
    };
    let mut wanted = FetchPartition::default()
        .with_partition(place.1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(weighted(rng, &[(6, 1 << 20), (2, 300), (1, 1), (1, 0), (1, 80)]));
    if version >= LEADER_EPOCH_FROM_VERSION {
        wanted.current_leader_epoch = weighted(rng, &[(12, -1), (12, 0), (1, 1), (1, 7)]);
    }
    if version >= LAST_EPOCH_FROM_VERSION {
        wanted.last_fetched_epoch = weighted(rng, &[(16, -1), (3, 0), (1, 3)]);
    }
    wanted
}

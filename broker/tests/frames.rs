//! What isn't quite a request: read as Kafka reads it, or refused by ending that connection and no other.

mod support;

use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, FetchRequest};
use kafka_protocol::protocol::Encodable;
use support::{World, text, topic_name};
use tokio::time::{Instant, timeout};

const CORRELATION_ID: i32 = 7;

/// A request of an old version, whose header has no tags; a client without a name.
fn frame(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let header = [&(api as i16).to_be_bytes()[..], &version.to_be_bytes(), &CORRELATION_ID.to_be_bytes()];
    let request = [&header.concat()[..], &(-1_i16).to_be_bytes(), body].concat();
    [&(request.len() as i32).to_be_bytes()[..], &request].concat()
}

#[tokio::test]
async fn bytes_behind_a_request_are_passed_over() {
    let world = World::new(1);
    let answer = world.connect(1).raw(&frame(ApiKey::ApiVersions, 0, &[1, 2, 3])).await;
    assert_eq!(answer.expect("an answer")[..4], CORRELATION_ID.to_be_bytes());
}

#[tokio::test]
async fn what_cannot_be_a_request_ends_its_connection_and_no_other() {
    let world = World::new(1);
    let mut other = world.connect(1);
    let claims_many = i32::MAX.to_be_bytes();
    for rubbish in [
        &frame(ApiKey::Metadata, 1, &claims_many)[..],
        &frame(ApiKey::DescribeGroups, 0, &claims_many),
        &frame(ApiKey::Metadata, 99, &[]),
        &frame(ApiKey::Vote, 0, &[]),
        b"GET / HTTP/1.1\r\n\r\n",
        &(-1_i32).to_be_bytes(),
    ] {
        assert_eq!(world.connect(1).raw(rubbish).await, None, "{rubbish:?}");
        assert!(other.raw(&frame(ApiKey::ApiVersions, 0, &[])).await.is_some());
    }
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_is_is_told_no_versions() {
    let world = World::new(1);
    let client = |name, version| {
        let request = ApiVersionsRequest::default().with_client_software_name(text(name));
        request.with_client_software_version(text(version))
    };
    for (name, version, code) in
        [("librdkafka", "v2.16.1", 0), ("a-b.c", "1", 0), ("", "1", 42), ("a b", "1", 42), ("a", "1-", 42)]
    {
        let response = world.connect(1).call(3, &client(name, version)).await;
        assert_eq!(
            (response.error_code, response.api_keys.is_empty()),
            (code, code != 0),
            "{name} {version}"
        );
    }
}

/// The body of a request that waits for as long as there is nothing in the topic's first partition.
fn fetch_for_ever(topic: &str) -> BytesMut {
    let partition = FetchPartition::default().with_partition_max_bytes(1);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    let request =
        FetchRequest::default().with_max_wait_ms(i32::MAX).with_min_bytes(1).with_topics(vec![topic]);
    let mut body = BytesMut::new();
    request.encode(&mut body, 4).expect("a request");
    body
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stands_still_for_ten_minutes_is_ended() {
    let world = World::new(1);
    world.topic("empty", 1, 1);
    let half = &frame(ApiKey::ApiVersions, 0, &[])[..6];
    for sent in [&[][..], half, &frame(ApiKey::Fetch, 4, &fetch_for_ever("empty"))] {
        let (mut wire, began) = (world.connect(1), Instant::now());
        let ended = timeout(Duration::from_secs(3_600), wire.raw(sent)).await;
        assert_eq!((ended, began.elapsed()), (Ok(None), Duration::from_secs(600)));
    }
}

//! Fetch sessions, over the wire.
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

mod support;

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use support::{World, topic_name};

const UNSUPPORTED_VERSION: i16 = 35;

#[tokio::test]
async fn an_old_version_that_goes_on_with_a_newer_ones_session_cannot_be_told_where_logs_part() {
    let world = World::new(1);
    world.topic("orders", 1, 1);
    world.topic("clicks", 1, 1);
    let mut wire = world.connect(1);
    // Beyond the end of an empty log, in an epoch that ended at 0.
    let wanted = FetchPartition::default()
        .with_fetch_offset(1_000)
        .with_last_fetched_epoch(0)
        .with_partition_max_bytes(1);
    let topic = FetchTopic::default().with_topic(topic_name("orders")).with_partitions(vec![wanted]);
    let open = FetchRequest::default().with_max_wait_ms(0).with_topics(vec![topic]).with_session_epoch(0);
    let opened = wire.call(12, &open).await;
    assert_eq!(opened.responses[0].partitions[0].diverging_epoch.end_offset, 0);
    let named = |topic: &str| {
        let wanted = FetchPartition::default().with_partition_max_bytes(1);
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted])
    };
    let mut go_on = async |version, epoch, topics| {
        let request = FetchRequest::default().with_max_wait_ms(0).with_session_id(opened.session_id);
        let response = wire.call(version, &request.with_session_epoch(epoch).with_topics(topics)).await;
        assert_eq!(response.session_id, opened.session_id);
        let rows = response.responses.iter().map(|topic| {
            let codes = topic.partitions.iter().map(|row| row.error_code);
            (topic.topic.to_string(), codes.collect::<Vec<_>>())
        });
        (response.error_code, rows.collect::<Vec<_>>())
    };
    assert_eq!(go_on(9, 1, vec![]).await, (UNSUPPORTED_VERSION, vec![]));
    // Refused is what the request itself names.
    let refused = ("clicks".to_owned(), vec![UNSUPPORTED_VERSION]);
    assert_eq!(go_on(9, 2, vec![named("clicks")]).await, (UNSUPPORTED_VERSION, vec![refused]));
    // What couldn't be told of `clicks` counts as told.
    assert_eq!(go_on(12, 3, vec![]).await, (0, vec![("orders".to_owned(), vec![0])]));
}

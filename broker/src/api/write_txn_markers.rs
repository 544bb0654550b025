//! WriteTxnMarkers: markers of any producer id, transactional or not, which end whatever transaction
//! stands open there. Any caller may, for there are no ACLs.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step, Wait};
use crate::fault::Caller;
use crate::log::Marker;
use crate::state::State;
use crate::transactions::Key;

/// `request.timeout.ms` of the broker: so long it waits for followers.
const TIMEOUT_MS: i64 = 30_000;
const NO_PRODUCER: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(crate) struct WriteTxnMarkers;

/// One marker for one partition.
struct Row {
    producer_id: i64,
    key: Key,
    progress: Progress,
}

#[derive(Clone, Copy)]
enum Progress {
    /// Appended up to this offset, and to be replicated.
    Waits(i64),
    Ended(Result<(), Code>),
}

impl Handler for WriteTxnMarkers {
    type Request = WriteTxnMarkersRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 1..=1;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: WriteTxnMarkersRequest,
    ) -> Step<WriteTxnMarkersResponse> {
        let broker = caller.broker;
        let mut rows = Vec::new();
        for marker in &request.markers {
            if !can_be_written(state, broker, marker) {
                return Step::Done(failed(&request));
            }
            for topic in &marker.topics {
                for index in &topic.partition_indexes {
                    let key = (topic.name.to_string(), *index);
                    let progress = match append(state, broker, marker, &key) {
                        Ok(end) => Progress::Waits(end),
                        Err(code) => Progress::Ended(Err(code)),
                    };
                    rows.push(Row { producer_id: marker.producer_id.0, key, progress });
                }
            }
        }
        state.changed();
        if let Some(response) = poll(state, broker, &mut rows, false) {
            return Step::Done(response);
        }
        let until_ms = state.now_ms + TIMEOUT_MS;
        let poll = move |state: &mut State, expired: bool| poll(state, broker, &mut rows, expired);
        Step::Wait(Wait { until_ms, poll: Box::new(poll) })
    }
}

fn is_here(state: &State, broker: i32, topic: &str, index: i32) -> bool {
    state.partition(topic, index).is_some_and(|found| found.replicas.contains(&broker))
}

/// Kafka trips over a marker of no producer; what came before is written by then.
fn can_be_written(state: &State, broker: i32, marker: &WritableTxnMarker) -> bool {
    let named = marker.producer_id.0 != NO_PRODUCER && marker.producer_epoch != NO_EPOCH;
    let mut partitions = marker
        .topics
        .iter()
        .flat_map(|topic| topic.partition_indexes.iter().map(move |index| (topic.name.as_str(), *index)));
    named || !partitions.any(|(topic, index)| is_here(state, broker, topic, index))
}

/// Of markers that can't be told apart any more.
fn failed(request: &WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let rows = request.markers.iter().flat_map(|marker| {
        let partitions = |topic: &WritableTxnMarkerTopic| {
            let name = topic.name.to_string();
            topic.partition_indexes.iter().map(move |index| (name.clone(), *index)).collect::<Vec<_>>()
        };
        marker.topics.iter().flat_map(partitions).map(|key| Row {
            producer_id: marker.producer_id.0,
            key,
            progress: Progress::Ended(Err(Code::UnknownServerError)),
        })
    });
    answer(&rows.collect::<Vec<_>>())
}

fn append(state: &mut State, broker: i32, asked: &WritableTxnMarker, key: &Key) -> Result<i64, Code> {
    let (topic, index) = (key.0.as_str(), key.1);
    if !is_here(state, broker, topic, index) {
        return Err(Code::UnknownTopicOrPartition);
    }
    let in_sync = state.led(broker, topic, index, -1)?.in_sync.len();
    let now_ms = state.now_ms;
    let found = state.topics.get_mut(topic).ok_or(Code::UnknownTopicOrPartition)?;
    let rules = found.configs.rules();
    let partition = &mut found.partitions[index as usize];
    if in_sync < found.configs.in_sync_min(partition.replicas.len()) {
        return Err(Code::NotEnoughReplicas);
    }
    let (leader_epoch, high_watermark) = (partition.leader_epoch, partition.high_watermark());
    let marker = Marker {
        producer_id: asked.producer_id.0,
        producer_epoch: asked.producer_epoch,
        commit: asked.transaction_result,
        coordinator_epoch: asked.coordinator_epoch,
    };
    partition.log.append_marker(marker, &rules, leader_epoch, now_ms, high_watermark)?;
    Ok(partition.log.end())
}

/// None while followers are waited for.
fn poll(state: &State, broker: i32, rows: &mut [Row], expired: bool) -> Option<WriteTxnMarkersResponse> {
    let mut waits = false;
    for row in rows.iter_mut() {
        let Progress::Waits(end) = row.progress else { continue };
        match state.replicated(broker, &row.key.0, row.key.1, end) {
            Some(result) => row.progress = Progress::Ended(result),
            None if expired => row.progress = Progress::Ended(Err(Code::RequestTimedOut)),
            None => waits = true,
        }
    }
    (!waits).then(|| answer(rows))
}

/// One entry a producer id; of several markers for one partition the last is answered.
fn answer(rows: &[Row]) -> WriteTxnMarkersResponse {
    let mut by_producer: BTreeMap<i64, BTreeMap<&str, BTreeMap<i32, i16>>> = BTreeMap::new();
    for Row { producer_id, key, progress } in rows {
        let code = match progress {
            Progress::Ended(Err(code)) => code.code(),
            Progress::Ended(Ok(())) | Progress::Waits(_) => 0,
        };
        let topics = by_producer.entry(*producer_id).or_default();
        topics.entry(&key.0).or_default().insert(key.1, code);
    }
    let markers = by_producer.into_iter().map(|(producer_id, topics)| {
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, code)| {
                WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code)
            });
            WritableTxnMarkerTopicResult::default()
                .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                .with_partitions(partitions.collect())
        });
        WritableTxnMarkerResult::default()
            .with_producer_id(ProducerId(producer_id))
            .with_topics(topics.collect())
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}

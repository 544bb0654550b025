//! The way out: a request's marks become an end's own ids.

use kafka_protocol::messages::{ProducerId, RequestKind};
use kafka_protocol::protocol::StrBytes;

use super::ids::Ids;
use super::records;

/// Puts an end's own ids in place of a request's marks.
pub fn localise(request: &mut RequestKind, ids: &Ids) {
    let producer = |id: &mut ProducerId| id.0 = ids.producer(id.0);
    let member = |text: &mut StrBytes| *text = StrBytes::from_string(ids.member(text));
    match request {
        RequestKind::Produce(request) => {
            request.topic_data.iter_mut().for_each(|topic| topic.topic_id = ids.topic(topic.topic_id));
            let rows = request.topic_data.iter_mut().flat_map(|topic| &mut topic.partition_data);
            for records in rows.filter_map(|row| row.records.as_mut()) {
                *records = records::localised(records, |mark| ids.producer(mark));
            }
        }
        RequestKind::Fetch(request) => {
            request.session_id = ids.session(request.session_id);
            request.topics.iter_mut().for_each(|topic| topic.topic_id = ids.topic(topic.topic_id));
            let forgotten = request.forgotten_topics_data.iter_mut();
            forgotten.for_each(|topic| topic.topic_id = ids.topic(topic.topic_id));
        }
        RequestKind::Metadata(request) => {
            let topics = request.topics.iter_mut().flatten();
            topics.for_each(|topic| topic.topic_id = ids.topic(topic.topic_id));
        }
        RequestKind::DeleteTopics(request) => {
            request.topics.iter_mut().for_each(|topic| topic.topic_id = ids.topic(topic.topic_id));
        }
        RequestKind::InitProducerId(request) => producer(&mut request.producer_id),
        RequestKind::AddPartitionsToTxn(request) => producer(&mut request.v3_and_below_producer_id),
        RequestKind::EndTxn(request) => producer(&mut request.producer_id),
        RequestKind::AddOffsetsToTxn(request) => producer(&mut request.producer_id),
        RequestKind::TxnOffsetCommit(request) => {
            producer(&mut request.producer_id);
            member(&mut request.member_id);
        }
        RequestKind::WriteTxnMarkers(request) => {
            request.markers.iter_mut().for_each(|marker| producer(&mut marker.producer_id));
        }
        RequestKind::JoinGroup(request) => member(&mut request.member_id),
        RequestKind::SyncGroup(request) => {
            member(&mut request.member_id);
            request.assignments.iter_mut().for_each(|given| member(&mut given.member_id));
        }
        RequestKind::Heartbeat(request) => member(&mut request.member_id),
        RequestKind::LeaveGroup(request) => {
            member(&mut request.member_id);
            request.members.iter_mut().for_each(|leaving| member(&mut leaving.member_id));
        }
        RequestKind::OffsetCommit(request) => member(&mut request.member_id),
        _ => {}
    }
}

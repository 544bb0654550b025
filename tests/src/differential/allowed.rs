//! What two ends may answer differently: a short list, each with its reason. Everything else of an answer
//! is compared, as the structures that the protocol crate decodes, its unknown tagged fields included.

use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{ProducerId, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

use super::allowed_kafka_3::OF_KAFKA_3;
use super::ids::Ids;
use super::records;

/// A sequence takes seconds. Times that requests carry are hours away from the clock.
const NOW_RANGE_MS: std::ops::RangeInclusive<i64> = -300_000..=10_000;

/// What an allowance needs to know of the end that answered.
pub struct Answering<'a> {
    pub request: &'a RequestKind,
    pub ids: &'a mut Ids,
    pub now_ms: i64,
    /// All topics of the sequence begin with this.
    pub prefix: &'a str,
    /// Whether the reference is of that version.
    pub kafka_3: bool,
    /// Whether the request names an older epoch than its producer is known to have.
    pub old_epoch: bool,
}

pub struct Allowance {
    pub name: &'static str,
    pub reason: &'static str,
    /// Makes the two ends alike.
    pub(super) apply: fn(&mut ResponseKind, &mut Answering),
}

/// In the order that they are applied: ids are told apart by where they come up.
pub const ALLOWANCES: &[Allowance] = &[
    Allowance {
        name: "other topics",
        reason: "the real cluster keeps internal topics and those of other sequences, and their groups",
        apply: other_topics,
    },
    Allowance {
        name: "order",
        reason: "Kafka keeps these rows in hash maps: clients find them by name",
        apply: order,
    },
    Allowance {
        name: "ids",
        reason: "each cluster draws its own producer ids, topic ids, session ids and member ids; they are \
                 mapped one to one by order of appearance",
        apply: ids,
    },
    Allowance {
        name: "addresses",
        reason: "each cluster listens on ports of its own and has an id of its own",
        apply: addresses,
    },
    Allowance {
        name: "wall clock",
        reason: "the two ends append at different moments: LogAppendTime and the times of markers; only \
                 where the value is within minutes of the end's clock",
        apply: wall_clock,
    },
    Allowance {
        name: "texts",
        reason: "error messages are for people and change from version to version; that there is one is \
                 compared",
        apply: texts,
    },
    Allowance {
        name: "versions",
        reason: "the embedded cluster advertises what it models (broker/README.md)",
        apply: versions,
    },
];

/// Applies the whole list, and that of Kafka 3 when one of the ends is.
pub fn alike(mut response: ResponseKind, answering: &mut Answering) -> ResponseKind {
    let lists = [ALLOWANCES, if answering.kafka_3 { OF_KAFKA_3 } else { &[] }];
    for allowance in lists.into_iter().flatten() {
        (allowance.apply)(&mut response, answering);
    }
    response
}

fn ids(response: &mut ResponseKind, answering: &mut Answering) {
    let ids = &mut *answering.ids;
    let mut producer = |id: &mut ProducerId| id.0 = ids.producer_mark(id.0);
    match response {
        ResponseKind::InitProducerId(response) => producer(&mut response.producer_id),
        ResponseKind::EndTxn(response) => producer(&mut response.producer_id),
        ResponseKind::DescribeProducers(response) => {
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            for state in partitions.flat_map(|partition| &mut partition.active_producers) {
                producer(&mut state.producer_id);
            }
        }
        ResponseKind::DescribeTransactions(response) => {
            response.transaction_states.iter_mut().for_each(|state| producer(&mut state.producer_id));
        }
        ResponseKind::Metadata(response) => {
            response.topics.iter_mut().for_each(|topic| topic.topic_id = ids.topic_mark(topic.topic_id));
            // Of those that aren't there only the ids are told.
            response.topics.sort_by(|a, b| (&a.name, a.topic_id).cmp(&(&b.name, b.topic_id)));
        }
        ResponseKind::Produce(response) => {
            response.responses.iter_mut().for_each(|topic| topic.topic_id = ids.topic_mark(topic.topic_id));
            response.responses.sort_by(|a, b| (&a.name, a.topic_id).cmp(&(&b.name, b.topic_id)));
        }
        ResponseKind::CreateTopics(response) => {
            response.topics.iter_mut().for_each(|topic| topic.topic_id = ids.topic_mark(topic.topic_id));
        }
        ResponseKind::DeleteTopics(response) => {
            response.responses.iter_mut().for_each(|topic| topic.topic_id = ids.topic_mark(topic.topic_id));
        }
        ResponseKind::Fetch(response) => {
            response.session_id = ids.session_mark(response.session_id);
            for topic in &mut response.responses {
                topic.topic_id = ids.topic_mark(topic.topic_id);
                for partition in &mut topic.partitions {
                    for aborted in partition.aborted_transactions.iter_mut().flatten() {
                        aborted.producer_id = ProducerId(ids.producer_mark(aborted.producer_id.0));
                    }
                }
            }
        }
        ResponseKind::JoinGroup(response) => {
            let member = |text: &mut StrBytes| *text = StrBytes::from_string(ids.member_mark(text));
            let own = [&mut response.member_id, &mut response.leader];
            own.into_iter()
                .chain(response.members.iter_mut().map(|member| &mut member.member_id))
                .for_each(member);
            response.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        }
        ResponseKind::LeaveGroup(response) => {
            let rows = response.members.iter_mut();
            rows.for_each(|row| row.member_id = StrBytes::from_string(ids.member_mark(&row.member_id)));
        }
        ResponseKind::DescribeGroups(response) => {
            for members in response.groups.iter_mut().map(|group| &mut group.members) {
                let rows = members.iter_mut();
                rows.for_each(|row| row.member_id = StrBytes::from_string(ids.member_mark(&row.member_id)));
                members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
            }
        }
        ResponseKind::WriteTxnMarkers(response) => {
            response.markers.iter_mut().for_each(|marker| producer(&mut marker.producer_id));
            response.markers.sort_by_key(|marker| marker.producer_id);
        }
        _ => {}
    }
}

fn addresses(response: &mut ResponseKind, _: &mut Answering) {
    let place = |host: &mut StrBytes, port: &mut i32| {
        if !host.is_empty() {
            (*host, *port) = (StrBytes::from_static_str("host"), 9092);
        }
    };
    match response {
        ResponseKind::Metadata(response) => {
            response.brokers.iter_mut().for_each(|broker| place(&mut broker.host, &mut broker.port));
            response.cluster_id = response.cluster_id.take().map(|_| StrBytes::from_static_str("cluster"));
        }
        ResponseKind::FindCoordinator(response) => {
            place(&mut response.host, &mut response.port);
            let each = response.coordinators.iter_mut();
            each.for_each(|coordinator| place(&mut coordinator.host, &mut coordinator.port));
        }
        ResponseKind::Fetch(response) => {
            response.node_endpoints.iter_mut().for_each(|node| place(&mut node.host, &mut node.port));
        }
        ResponseKind::Produce(response) => {
            response.node_endpoints.iter_mut().for_each(|node| place(&mut node.host, &mut node.port));
        }
        _ => {}
    }
}

fn wall_clock(response: &mut ResponseKind, answering: &mut Answering) {
    let now_ms = answering.now_ms;
    let is_now = |time: i64| NOW_RANGE_MS.contains(&time.saturating_sub(now_ms));
    let clock = |time: &mut i64| {
        if is_now(*time) {
            *time = 0;
        }
    };
    match response {
        ResponseKind::Produce(response) => {
            let rows = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
            rows.for_each(|row| clock(&mut row.log_append_time_ms));
        }
        ResponseKind::ListOffsets(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.for_each(|row| clock(&mut row.timestamp));
        }
        ResponseKind::DescribeProducers(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.flat_map(|row| &mut row.active_producers).for_each(|state| clock(&mut state.last_timestamp));
        }
        ResponseKind::DescribeTransactions(response) => {
            let states = response.transaction_states.iter_mut();
            states.for_each(|state| clock(&mut state.transaction_start_time_ms));
        }
        ResponseKind::Fetch(response) => {
            let rows = response.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
            for records in rows.filter_map(|row| row.records.as_mut()) {
                *records = records::marked(records, |id| answering.ids.producer_mark(id), is_now);
            }
        }
        _ => {}
    }
}

fn texts(response: &mut ResponseKind, _: &mut Answering) {
    let text = |message: &mut Option<StrBytes>| {
        if message.as_ref().is_some_and(|message| !message.is_empty()) {
            *message = Some(StrBytes::from_static_str("text"));
        }
    };
    match response {
        ResponseKind::Produce(response) => {
            for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
                text(&mut row.error_message);
                row.record_errors.iter_mut().for_each(|record| text(&mut record.batch_index_error_message));
            }
        }
        ResponseKind::CreateTopics(response) => {
            response.topics.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::DeleteTopics(response) => {
            response.responses.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::CreatePartitions(response) => {
            response.results.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::DescribeConfigs(response) => {
            response.results.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::IncrementalAlterConfigs(response) => {
            response.responses.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::DescribeProducers(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::DescribeGroups(response) => {
            response.groups.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        ResponseKind::FindCoordinator(response) => {
            text(&mut response.error_message);
            response.coordinators.iter_mut().for_each(|row| text(&mut row.error_message));
        }
        _ => {}
    }
}

fn order(response: &mut ResponseKind, _: &mut Answering) {
    match response {
        ResponseKind::Produce(response) => {
            response.responses.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.responses.iter_mut();
            topics.for_each(|topic| topic.partition_responses.sort_by_key(|row| row.index));
        }
        ResponseKind::ListOffsets(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::DeleteRecords(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::OffsetForLeaderEpoch(response) => {
            response.topics.sort_by(|a, b| a.topic.cmp(&b.topic));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition));
        }
        ResponseKind::AddPartitionsToTxn(response) => {
            let later = response.results_by_transaction.iter_mut().flat_map(|txn| &mut txn.topic_results);
            let topics = response.results_by_topic_v3_and_below.iter_mut().chain(later);
            topics.for_each(|topic| topic.results_by_partition.sort_by_key(|row| row.partition_index));
            response.results_by_topic_v3_and_below.sort_by(|a, b| a.name.cmp(&b.name));
        }
        ResponseKind::Metadata(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::DescribeProducers(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.for_each(|row| row.active_producers.sort_by_key(|state| state.producer_id));
        }
        ResponseKind::CreateTopics(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            for configs in response.topics.iter_mut().filter_map(|topic| topic.configs.as_mut()) {
                configs.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        ResponseKind::DeleteTopics(response) => {
            response.responses.sort_by(|a, b| (&a.name, a.topic_id).cmp(&(&b.name, b.topic_id)));
        }
        ResponseKind::WriteTxnMarkers(response) => {
            for topics in response.markers.iter_mut().map(|marker| &mut marker.topics) {
                topics.sort_by(|a, b| a.name.cmp(&b.name));
                topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
            }
        }
        ResponseKind::CreatePartitions(response) => response.results.sort_by(|a, b| a.name.cmp(&b.name)),
        ResponseKind::DescribeConfigs(response) => {
            response.results.sort_by(|a, b| a.resource_name.cmp(&b.resource_name));
            for row in &mut response.results {
                row.configs.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        _ => order_of_groups(response),
    }
}

fn order_of_groups(response: &mut ResponseKind) {
    match response {
        ResponseKind::OffsetFetch(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
            for group in &mut response.groups {
                group.topics.sort_by(|a, b| a.name.cmp(&b.name));
                let topics = group.topics.iter_mut();
                topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
            }
        }
        ResponseKind::OffsetCommit(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::TxnOffsetCommit(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::OffsetDelete(response) => {
            response.topics.sort_by(|a, b| a.name.cmp(&b.name));
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.sort_by_key(|row| row.partition_index));
        }
        ResponseKind::DescribeGroups(response) => {
            response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        }
        ResponseKind::ListGroups(response) => response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id)),
        _ => {}
    }
}

fn other_topics(response: &mut ResponseKind, answering: &mut Answering) {
    if let ResponseKind::ListGroups(response) = response {
        response.groups.retain(|group| group.group_id.starts_with(answering.prefix));
    }
    if let ResponseKind::Metadata(response) = response {
        let own = |name: &str| name.starts_with(answering.prefix);
        let named =
            |topic: &MetadataResponseTopic| topic.name.as_ref().filter(|name| !name.is_empty()).cloned();
        response.topics.retain(|topic| named(topic).is_none_or(|name| own(&name)));
    }
}

fn versions(response: &mut ResponseKind, _: &mut Answering) {
    if let ResponseKind::ApiVersions(response) = response {
        response.api_keys.clear();
        response.supported_features.clear();
        response.finalized_features.clear();
        response.finalized_features_epoch = -1;
    }
}

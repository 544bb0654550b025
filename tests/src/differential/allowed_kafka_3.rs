//! Where Kafka 3.9 itself answers otherwise than Kafka 4, which the embedded cluster follows: what may
//! differ when one of the ends is of that version.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::{RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

use super::allowed::{Allowance, Answering};
use super::connection::Call;

pub const OF_KAFKA_3: &[Allowance] = &[
    Allowance {
        name: "configs",
        reason: "Kafka 4 has topic configs that 3.9 lacks, and the other way round; what \
                 min.insync.replicas falls back to has another source (KIP-966), and which broker configs \
                 stand behind times is told otherwise",
        apply: configs_of_kafka_3,
    },
    Allowance {
        name: "asked for twice",
        reason: "ListOffsets refuses a partition that is asked for twice: Kafka 3.9 in as many rows, Kafka \
                 4 in one",
        apply: asked_for_twice,
    },
    Allowance {
        name: "strangers' commits",
        reason: "a commit by nobody's member or to a group that isn't there: ILLEGAL_GENERATION from the \
                 group coordinator of Kafka 3.9, UNKNOWN_MEMBER_ID or GROUP_ID_NOT_FOUND from that of Kafka 4",
        apply: strangers_commits,
    },
    Allowance {
        name: "empty groups",
        reason: "Kafka 3.9 makes a group of one whose join or commit it refuses, and forgets it with its last \
                 offset; Kafka 4 does neither. So groups without members may be there or not",
        apply: empty_groups,
    },
    Allowance {
        name: "assignments of groups that rebalance",
        reason: "Kafka 3.9 shows them of stable groups only, Kafka 4 as long as they stand",
        apply: assignments_of_kafka_3,
    },
    Allowance {
        name: "configs of groups",
        reason: "groups have configs from Kafka 4 on, so that more can be done to a group",
        apply: operations_of_kafka_3,
    },
    Allowance {
        name: "old epochs",
        reason: "a transactional batch of an old epoch is refused by the log of Kafka 3.9, which tells its \
                 start and looks at the records first, and by the coordinator of Kafka 4, which has none and \
                 does neither; Kafka 3.9 asks the coordinator whether it is part of a transaction before it \
                 looks at the epoch, and Kafka 4.4 after",
        apply: old_epochs,
    },
    Allowance {
        name: "offsets of old epochs",
        reason: "a commit within a transaction that is open, but of an older epoch: Kafka 3.9 looks for any \
                 transaction of the producer and asks the group whether its member may commit, Kafka 4.4 \
                 looks for one of that epoch",
        apply: offsets_of_old_epochs,
    },
    Allowance {
        name: "stable offsets that are deleted",
        reason: "where a transaction is open whose first records are deleted, Kafka 3.9 tells the log start \
                 as the last stable offset, and Kafka 4.4 where the batch begins that holds it; of an answer \
                 that has no log start (Fetch below version 5) the last stable offset isn't compared",
        apply: deleted_stable_offsets,
    },
];

/// Of one of the two versions only, or with a default that has changed.
const CHANGED_CONFIGS: &[&str] = &[
    "errors.deadletterqueue.group.enable",
    "max.decompressed.message.bytes",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
];
const MIN_IN_SYNC: &str = "min.insync.replicas";
const TOLD_OTHERWISE: &[&str] = &[MIN_IN_SYNC, "flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"];
const DYNAMIC_TOPIC_CONFIG: i8 = 1;
/// `DESCRIBE_CONFIGS` and `ALTER_CONFIGS`, as bits.
const OPERATIONS_ON_CONFIGS: i32 = 1 << 10 | 1 << 11;

fn configs_of_kafka_3(response: &mut ResponseKind, _: &mut Answering) {
    let source = |name: &str, source: &mut i8| {
        if name == MIN_IN_SYNC && *source != DYNAMIC_TOPIC_CONFIG {
            *source = 0;
        }
    };
    match response {
        ResponseKind::CreateTopics(response) => {
            for configs in response.topics.iter_mut().filter_map(|topic| topic.configs.as_mut()) {
                configs.retain(|config| !CHANGED_CONFIGS.contains(&config.name.as_str()));
                configs.iter_mut().for_each(|config| source(&config.name, &mut config.config_source));
            }
        }
        ResponseKind::DescribeConfigs(response) => {
            for row in &mut response.results {
                row.configs.retain(|config| !CHANGED_CONFIGS.contains(&config.name.as_str()));
                for config in &mut row.configs {
                    source(&config.name, &mut config.config_source);
                    if TOLD_OTHERWISE.contains(&config.name.as_str()) {
                        config.synonyms.clear();
                    }
                }
            }
        }
        _ => {}
    }
}

fn asked_for_twice(response: &mut ResponseKind, _: &mut Answering) {
    if let ResponseKind::ListOffsets(response) = response {
        response.topics.iter_mut().for_each(|topic| topic.partitions.dedup());
    }
}

fn strangers_commits(response: &mut ResponseKind, _: &mut Answering) {
    let strange = [Code::GroupIdNotFound, Code::UnknownMemberId].map(|code| code.code());
    let refused = |code: &mut i16| {
        if strange.contains(code) {
            *code = Code::IllegalGeneration.code();
        }
    };
    match response {
        ResponseKind::OffsetCommit(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.for_each(|row| refused(&mut row.error_code));
        }
        ResponseKind::TxnOffsetCommit(response) => {
            let rows = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            rows.for_each(|row| refused(&mut row.error_code));
        }
        _ => {}
    }
}

/// Whether Kafka 3.9 may forget groups without members over `call`, and with them their generation and who
/// was given an id, which shows later on.
pub(super) fn forgets_groups(call: &Call) -> bool {
    matches!(&call.request, RequestKind::DeleteTopics(_) | RequestKind::OffsetDelete(_))
}

fn empty_groups(response: &mut ResponseKind, _: &mut Answering) {
    let found = |code: &mut i16| {
        if *code == Code::GroupIdNotFound.code() {
            *code = 0;
        }
    };
    match response {
        ResponseKind::DescribeGroups(response) => {
            let without_members = |group: &&mut DescribedGroup| group.members.is_empty();
            for group in response.groups.iter_mut().filter(without_members) {
                if group.group_state.as_str() == "Dead" {
                    group.group_state = StrBytes::from_static_str("Empty");
                }
                group.protocol_type = StrBytes::default();
            }
        }
        // Before version 4 a list doesn't say which of them have members.
        ResponseKind::ListGroups(response) => {
            response.groups.retain(|group| !["", "Empty"].contains(&group.group_state.as_str()));
        }
        ResponseKind::DeleteGroups(response) => {
            response.results.iter_mut().for_each(|row| found(&mut row.error_code));
        }
        ResponseKind::OffsetDelete(response) => {
            found(&mut response.error_code);
            let subscribed = Code::GroupSubscribedToTopic.code();
            let topics = response.topics.iter_mut();
            topics.for_each(|topic| topic.partitions.retain(|row| row.error_code == subscribed));
            response.topics.retain(|topic| !topic.partitions.is_empty());
        }
        _ => {}
    }
}

fn assignments_of_kafka_3(response: &mut ResponseKind, _: &mut Answering) {
    if let ResponseKind::DescribeGroups(response) = response {
        let moving = response.groups.iter_mut().filter(|group| group.group_state.as_str() != "Stable");
        moving.flat_map(|group| &mut group.members).for_each(|member| member.member_assignment.clear());
    }
}

fn operations_of_kafka_3(response: &mut ResponseKind, _: &mut Answering) {
    if let ResponseKind::DescribeGroups(response) = response {
        let told = response.groups.iter_mut().filter(|group| group.authorized_operations >= 0);
        told.for_each(|group| group.authorized_operations &= !OPERATIONS_ON_CONFIGS);
    }
}

fn old_epochs(response: &mut ResponseKind, answering: &mut Answering) {
    let (ResponseKind::Produce(response), RequestKind::Produce(request)) = (response, answering.request)
    else {
        return;
    };
    let of_epochs = [Code::InvalidProducerEpoch, Code::InvalidTxnState];
    let of_records = [Code::InvalidTimestamp, Code::InvalidRecord];
    let is_transactional = request.transactional_id.is_some();
    let alike = |code: i16| {
        of_epochs.iter().any(|of| of.code() == code)
            || is_transactional && of_records.iter().any(|of| of.code() == code)
    };
    for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        if alike(row.error_code) {
            row.error_code = Code::InvalidProducerEpoch.code();
            row.log_start_offset = -1;
            row.record_errors.clear();
            row.error_message = None;
        }
    }
}

fn offsets_of_old_epochs(response: &mut ResponseKind, answering: &mut Answering) {
    let ResponseKind::TxnOffsetCommit(response) = response else { return };
    let of_groups = [Code::IllegalGeneration, Code::UnknownMemberId, Code::FencedInstanceId];
    for row in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if answering.old_epoch && of_groups.iter().any(|of| of.code() == row.error_code) {
            row.error_code = Code::InvalidProducerEpoch.code();
        }
    }
}

const UNKNOWN: i64 = -1;

fn deleted_stable_offsets(response: &mut ResponseKind, _: &mut Answering) {
    if let ResponseKind::Fetch(response) = response {
        for row in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if row.log_start_offset < 0 {
                row.last_stable_offset = UNKNOWN;
            } else if row.last_stable_offset >= 0 {
                row.last_stable_offset = row.last_stable_offset.max(row.log_start_offset);
            }
        }
    }
}

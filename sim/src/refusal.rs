//! What a broker answers that refuses, in any of the answers that say so with an error code; and one that
//! throttles its client.

use broker::Fault;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeConfigsRequest, DescribeProducersRequest,
    EndTxnRequest, EndTxnResponse, FetchRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::Request;

/// A topic of the cluster that answered, one of its partitions or all, and the error with which a mirror
/// there may then stop.
pub type GivenUp = (String, Option<i32>, &'static str);

pub trait Refuse: Request + 'static {
    /// Without effect. What has none anyway is answered as ever, and then without what was asked for.
    fn refuse(&self, code: i16) -> Fault<Self::Response>;

    /// What a person must see to after such an answer: nothing else tells the product that it isn't so.
    fn given_up(&self, _code: i16) -> Vec<GivenUp> {
        Vec::new()
    }

    fn throttled(answer: Self::Response, by_ms: i32) -> Self::Response;
}

/// The field has the same name in each of them.
macro_rules! throttled {
    () => {
        fn throttled(answer: Self::Response, by_ms: i32) -> Self::Response {
            answer.with_throttle_time_ms(by_ms)
        }
    };
}

impl Refuse for ProduceRequest {
    fn refuse(&self, code: i16) -> Fault<ProduceResponse> {
        let topics = self.topic_data.iter().map(|topic| {
            let rows = topic.partition_data.iter().map(|data| {
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code)
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
            });
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(rows.collect())
        });
        Fault::Answer(ProduceResponse::default().with_responses(topics.collect()))
    }

    /// UNSUPPORTED_FOR_MESSAGE_FORMAT, UNSUPPORTED_COMPRESSION_TYPE and INVALID_RECORD say that the batch
    /// can't be written, INVALID_PRODUCER_EPOCH and PRODUCER_FENCED that another producer has taken over.
    fn given_up(&self, code: i16) -> Vec<GivenUp> {
        let error = match code {
            43 | 76 | 87 => "UNSUPPORTED_MESSAGE_FORMAT",
            47 | 90 => "ILLEGAL_STATE",
            _ => return Vec::new(),
        };
        let topics = self.topic_data.iter();
        let rows = topics.flat_map(|topic| topic.partition_data.iter().map(move |data| (topic, data.index)));
        rows.map(|(topic, index)| (topic.name.to_string(), Some(index), error)).collect()
    }

    throttled!();
}

impl Refuse for FetchRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            let rows = answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
            let mut any = false;
            for row in rows {
                any = true;
                (row.error_code, row.high_watermark, row.records) = (code, -1, None);
            }
            if !any {
                (answer.error_code, answer.session_id) = (code, 0);
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for ListOffsetsRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            for row in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                (row.error_code, row.offset, row.timestamp) = (code, -1, -1);
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for MetadataRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            for topic in &mut answer.topics {
                topic.error_code = code;
                topic.partitions.clear();
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for DescribeProducersRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            for row in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                row.error_code = code;
                row.active_producers.clear();
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for DescribeConfigsRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            for result in &mut answer.results {
                result.error_code = code;
                result.configs.clear();
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for FindCoordinatorRequest {
    fn refuse(&self, code: i16) -> Fault<Self::Response> {
        Fault::ApplyThenAnswer(Box::new(move |mut answer| {
            (answer.error_code, answer.node_id) = (code, (-1).into());
            for found in &mut answer.coordinators {
                (found.error_code, found.node_id) = (code, (-1).into());
            }
            answer
        }))
    }

    throttled!();
}

impl Refuse for InitProducerIdRequest {
    fn refuse(&self, code: i16) -> Fault<InitProducerIdResponse> {
        let answer = InitProducerIdResponse::default().with_error_code(code);
        Fault::Answer(answer.with_producer_id((-1).into()).with_producer_epoch(-1))
    }

    throttled!();
}

impl Refuse for AddPartitionsToTxnRequest {
    fn refuse(&self, code: i16) -> Fault<AddPartitionsToTxnResponse> {
        let topics = self.v3_and_below_topics.iter().map(|topic| {
            let rows = topic.partitions.iter().map(|partition| {
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*partition)
                    .with_partition_error_code(code)
            });
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(rows.collect())
        });
        let answer = AddPartitionsToTxnResponse::default();
        Fault::Answer(answer.with_results_by_topic_v3_and_below(topics.collect()))
    }

    throttled!();
}

impl Refuse for EndTxnRequest {
    fn refuse(&self, code: i16) -> Fault<EndTxnResponse> {
        Fault::Answer(EndTxnResponse::default().with_error_code(code))
    }

    throttled!();
}

impl Refuse for IncrementalAlterConfigsRequest {
    fn refuse(&self, code: i16) -> Fault<IncrementalAlterConfigsResponse> {
        let rows = self.resources.iter().map(|resource| {
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        Fault::Answer(IncrementalAlterConfigsResponse::default().with_responses(rows.collect()))
    }

    throttled!();
}

impl Refuse for CreateTopicsRequest {
    fn refuse(&self, code: i16) -> Fault<CreateTopicsResponse> {
        let topics = self
            .topics
            .iter()
            .map(|topic| CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code));
        Fault::Answer(CreateTopicsResponse::default().with_topics(topics.collect()))
    }

    /// What was asked for is wrong, and would be asked for again: INVALID_TOPIC_EXCEPTION,
    /// INVALID_PARTITIONS, INVALID_CONFIG, INVALID_REQUEST and POLICY_VIOLATION.
    fn given_up(&self, code: i16) -> Vec<GivenUp> {
        if self.validate_only || ![17, 37, 40, 42, 44].contains(&code) {
            return Vec::new();
        }
        self.topics.iter().map(|topic| (topic.name.to_string(), None, "ILLEGAL_STATE")).collect()
    }

    throttled!();
}

impl Refuse for DeleteRecordsRequest {
    fn refuse(&self, code: i16) -> Fault<DeleteRecordsResponse> {
        let topics = self.topics.iter().map(|topic| {
            let rows = topic.partitions.iter().map(|partition| {
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(partition.partition_index)
                    .with_low_watermark(-1)
                    .with_error_code(code)
            });
            DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(rows.collect())
        });
        Fault::Answer(DeleteRecordsResponse::default().with_topics(topics.collect()))
    }

    /// POLICY_VIOLATION: a compacted topic, as far as one can tell.
    fn given_up(&self, code: i16) -> Vec<GivenUp> {
        if code != 44 {
            return Vec::new();
        }
        let topics = self.topics.iter();
        let rows =
            topics.flat_map(|topic| topic.partitions.iter().map(move |row| (topic, row.partition_index)));
        rows.map(|(topic, index)| (topic.name.to_string(), Some(index), "GAP_FILL_REFUSED")).collect()
    }

    throttled!();
}

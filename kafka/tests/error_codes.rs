//! Whatever error code a broker answers with, in whichever response: it reaches the caller as that
//! code, and is never taken for success. What the caller does about it is decided in `actors`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

use bytes::Bytes;
use kafka::batch;
use kafka::client::{Client, Dial, DialFuture};
use kafka::connection::BoxedStream;
use kafka::fetch::{FetchLimits, Isolation, Position, Session, TopicPartition};
use kafka::filler::filler_batch;
use kafka::produce::{self, Part};
use kafka::topics::{self, CreateError};
use kafka::transactions::{self, Transactional};
use kafka::{ClientConfig, Error, ErrorCode, offsets, producers};
use kafka_protocol::messages::{self as m, ApiKey, BrokerId, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const TOPIC: &str = "orders";
/// Added to a code that a fetch response is to carry for the whole request, not for a partition.
const WHOLE: i16 = 10_000;
/// What is never an error here.
const NONE: ApiKey = ApiKey::ApiVersions;

/// Which response carries which error code; all others are of success.
#[derive(Default)]
struct Refusal {
    key: AtomicI16,
    code: AtomicI16,
}

impl Refusal {
    fn set(&self, key: ApiKey, code: i16) {
        self.key.store(key as i16, Ordering::Relaxed);
        self.code.store(code, Ordering::Relaxed);
    }

    fn code_in(&self, key: ApiKey) -> i16 {
        if self.key.load(Ordering::Relaxed) == key as i16 { self.code.load(Ordering::Relaxed) } else { 0 }
    }
}

struct Broker(Arc<Refusal>);

impl Dial for Broker {
    fn dial(&self, _: Arc<str>) -> DialFuture {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(far, self.0.clone()));
        Box::pin(async move { Ok(Box::new(near) as BoxedStream) })
    }
}

/// Answers until the client closes.
async fn serve(mut stream: DuplexStream, refusal: Arc<Refusal>) {
    while let Ok(length) = stream.read_i32().await {
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await.expect("the whole request");
        let key = ApiKey::try_from(i16::from_be_bytes([request[0], request[1]])).expect("a known request");
        let (body, flexible) = answer(key, refusal.code_in(key));
        let mut frame = ((4 + usize::from(flexible) + body.len()) as i32).to_be_bytes().to_vec();
        frame.extend_from_slice(&request[4..8]);
        if flexible {
            frame.push(0);
        }
        frame.extend_from_slice(&body);
        stream.write_all(&frame).await.expect("the client reads");
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

fn encode(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    response.encode(&mut out, version).expect("a response of ours");
    out
}

/// Body and whether its header has tags.
fn answer(key: ApiKey, code: i16) -> (Vec<u8>, bool) {
    match key {
        ApiKey::ApiVersions => (api_versions(), false),
        ApiKey::Metadata => (metadata(code), true),
        ApiKey::FindCoordinator => {
            let response =
                m::FindCoordinatorResponse::default().with_error_code(code).with_node_id(BrokerId(1));
            (encode(&response, 2), false)
        }
        ApiKey::InitProducerId => {
            (encode(&m::InitProducerIdResponse::default().with_error_code(code), 1), false)
        }
        ApiKey::CreateTopics => {
            use m::create_topics_response::CreatableTopicResult;
            let result = CreatableTopicResult::default().with_name(topic()).with_error_code(code);
            (encode(&m::CreateTopicsResponse::default().with_topics(vec![result]), 7), true)
        }
        ApiKey::CreatePartitions => {
            use m::create_partitions_response::CreatePartitionsTopicResult;
            let result = CreatePartitionsTopicResult::default().with_name(topic()).with_error_code(code);
            (encode(&m::CreatePartitionsResponse::default().with_results(vec![result]), 1), false)
        }
        ApiKey::DescribeConfigs => {
            use m::describe_configs_response::DescribeConfigsResult;
            let result =
                DescribeConfigsResult::default().with_resource_name(text(TOPIC)).with_error_code(code);
            (encode(&m::DescribeConfigsResponse::default().with_results(vec![result]), 2), false)
        }
        ApiKey::IncrementalAlterConfigs => {
            use m::incremental_alter_configs_response::AlterConfigsResourceResponse;
            let result = AlterConfigsResourceResponse::default().with_error_code(code);
            (encode(&m::IncrementalAlterConfigsResponse::default().with_responses(vec![result]), 0), false)
        }
        ApiKey::EndTxn => (encode(&m::EndTxnResponse::default().with_error_code(code), 1), false),
        _ => of_partition(key, code),
    }
}

/// Responses with an error code for each partition.
fn of_partition(key: ApiKey, code: i16) -> (Vec<u8>, bool) {
    match key {
        ApiKey::ListOffsets => {
            use m::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
            let partition = ListOffsetsPartitionResponse::default().with_error_code(code);
            let topic =
                ListOffsetsTopicResponse::default().with_name(topic()).with_partitions(vec![partition]);
            (encode(&m::ListOffsetsResponse::default().with_topics(vec![topic]), 5), false)
        }
        ApiKey::DescribeProducers => {
            use m::describe_producers_response::{PartitionResponse, TopicResponse};
            let partition = PartitionResponse::default().with_error_code(code);
            let topic = TopicResponse::default().with_name(topic()).with_partitions(vec![partition]);
            (encode(&m::DescribeProducersResponse::default().with_topics(vec![topic]), 0), true)
        }
        ApiKey::AddPartitionsToTxn => {
            use m::add_partitions_to_txn_response::{
                AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
            };
            let partition = AddPartitionsToTxnPartitionResult::default().with_partition_error_code(code);
            let topic = AddPartitionsToTxnTopicResult::default()
                .with_name(topic())
                .with_results_by_partition(vec![partition]);
            let response =
                m::AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![topic]);
            (encode(&response, 1), false)
        }
        ApiKey::WriteTxnMarkers => {
            use m::write_txn_markers_response::{
                WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
            };
            let partition = WritableTxnMarkerPartitionResult::default().with_error_code(code);
            let topic =
                WritableTxnMarkerTopicResult::default().with_name(topic()).with_partitions(vec![partition]);
            let marker = WritableTxnMarkerResult::default().with_topics(vec![topic]);
            (encode(&m::WriteTxnMarkersResponse::default().with_markers(vec![marker]), 1), true)
        }
        ApiKey::DeleteRecords => {
            use m::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
            let partition = DeleteRecordsPartitionResult::default().with_error_code(code);
            let topic =
                DeleteRecordsTopicResult::default().with_name(topic()).with_partitions(vec![partition]);
            (encode(&m::DeleteRecordsResponse::default().with_topics(vec![topic]), 1), false)
        }
        ApiKey::Produce => {
            use m::produce_response::{PartitionProduceResponse, TopicProduceResponse};
            let partition = PartitionProduceResponse::default().with_error_code(code);
            let topic =
                TopicProduceResponse::default().with_name(topic()).with_partition_responses(vec![partition]);
            (encode(&m::ProduceResponse::default().with_responses(vec![topic]), 8), false)
        }
        ApiKey::Fetch => {
            use m::fetch_response::{FetchableTopicResponse, PartitionData};
            let partition = PartitionData::default().with_error_code(code).with_records(Some(Bytes::new()));
            let topic =
                FetchableTopicResponse::default().with_topic(topic()).with_partitions(vec![partition]);
            let whole = if code > WHOLE { code - WHOLE } else { 0 };
            let response = m::FetchResponse::default().with_error_code(whole).with_responses(vec![topic]);
            (encode(&response, 11), false)
        }
        other => panic!("{other:?} was not to be asked"),
    }
}

fn api_versions() -> Vec<u8> {
    use m::api_versions_response::ApiVersion;
    let api = |(key, version): (ApiKey, i16)| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(version).with_max_version(version)
    };
    let apis = [
        (ApiKey::Produce, 8),
        (ApiKey::Fetch, 11),
        (ApiKey::ListOffsets, 5),
        (ApiKey::Metadata, 12),
        (ApiKey::FindCoordinator, 2),
        (ApiKey::CreateTopics, 7),
        (ApiKey::DeleteRecords, 1),
        (ApiKey::InitProducerId, 1),
        (ApiKey::DescribeConfigs, 2),
        (ApiKey::CreatePartitions, 1),
        (ApiKey::DescribeProducers, 0),
        (ApiKey::IncrementalAlterConfigs, 0),
        (ApiKey::AddPartitionsToTxn, 1),
        (ApiKey::EndTxn, 1),
        (ApiKey::WriteTxnMarkers, 1),
    ];
    encode(&m::ApiVersionsResponse::default().with_api_keys(apis.into_iter().map(api).collect()), 0)
}

fn metadata(code: i16) -> Vec<u8> {
    use m::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
    let broker =
        MetadataResponseBroker::default().with_node_id(BrokerId(1)).with_host(text("b")).with_port(9092);
    let topic = MetadataResponseTopic::default().with_name(Some(topic())).with_error_code(code);
    let response = m::MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text("cluster")))
        .with_topics(vec![topic]);
    encode(&response, 12)
}

fn client(refusal: &Arc<Refusal>) -> Client {
    let configs = BTreeMap::from([("bootstrap.servers".to_owned(), "b:9092".to_owned())]);
    Client::new(ClientConfig::from_configs(&configs).expect("configs"), Arc::new(Broker(refusal.clone())))
}

fn transactional() -> Transactional {
    Transactional { id: "id".into(), producer_id: 7, producer_epoch: 1 }
}

/// The code that a call ended with; 0 when it succeeded.
fn code_of<T>(result: Result<T, Error>) -> i16 {
    match result {
        Ok(_) => 0,
        Err(Error::Broker { code, .. }) => code.0,
        Err(other) => panic!("no code: {other}"),
    }
}

fn created<T>(result: Result<T, CreateError>) -> i16 {
    match result {
        Ok(_) => 0,
        Err(CreateError::Refused { code, .. }) => code.0,
        Err(CreateError::Failed(other)) => panic!("no code: {other}"),
    }
}

/// Asks so that the response of this kind is awaited, and returns the code it gave.
async fn ask(client: &Client, key: ApiKey) -> i16 {
    let connection = client.control(1).await.expect("a connection");
    match key {
        ApiKey::Metadata => match &client.metadata(Some(&[TOPIC])).await.expect("metadata").topics[TOPIC] {
            Ok(_) => 0,
            Err(code) => code.0,
        },
        ApiKey::FindCoordinator | ApiKey::InitProducerId => {
            code_of(producers::init_producer_id(client, "id", None).await)
        }
        ApiKey::CreateTopics => {
            created(topics::create_topic(client, TOPIC, 1, None, &BTreeMap::new(), false).await)
        }
        ApiKey::CreatePartitions => created(topics::create_partitions(client, TOPIC, 2).await),
        ApiKey::DescribeConfigs => code_of(topics::topic_configs(client, TOPIC).await),
        ApiKey::IncrementalAlterConfigs => {
            let configs = BTreeMap::from([("compression.type".to_owned(), None)]);
            created(topics::alter_topic_configs(client, TOPIC, &configs, None).await)
        }
        ApiKey::AddPartitionsToTxn => {
            code_of(transactions::add_partitions(client, &transactional(), TOPIC, &[0], None).await)
        }
        ApiKey::EndTxn => code_of(transactions::commit(client, &transactional(), None).await),
        ApiKey::WriteTxnMarkers => {
            code_of(transactions::write_markers(&connection, (7, 1), TOPIC, &[0], None).await)
        }
        ApiKey::ListOffsets => code_of(offsets::log_ends(&connection, TOPIC, 0, 3).await),
        ApiKey::DescribeProducers => code_of(producers::describe_producers(&connection, TOPIC, 0).await),
        ApiKey::DeleteRecords => code_of(offsets::delete_records(&connection, TOPIC, 0, 5).await),
        ApiKey::Produce => {
            let batch = filler_batch(0, 1).readdress(7, 0, 0);
            let parts = [Part { topic: TOPIC.into(), partition: 0, batch }];
            let timeout = client.request_timeout();
            let mut reply = produce::start(&connection, &parts, timeout, None).await.expect("sent");
            let (answers, _) =
                produce::answers(&connection, reply.wait().await.expect("answer")).expect("decoded");
            answers[0].base_offset.as_ref().err().map_or(0, |(code, _)| code.0)
        }
        ApiKey::Fetch => match fetch(client).await {
            Ok(shares) => shares[0].error.map_or(0, |code| code.0),
            Err(error) => panic!("{error}"),
        },
        other => panic!("{other:?} isn't asked"),
    }
}

async fn fetch(client: &Client) -> Result<Vec<kafka::fetch::Share>, Error> {
    let connection = client.control(1).await.expect("a connection");
    let limits = FetchLimits {
        wait_max_ms: 0,
        min_bytes: 0,
        isolation: Isolation::ReadCommitted,
        response_bytes_max: 1024,
        partition_bytes_max: 1024,
    };
    let partition = TopicPartition { topic: TOPIC.into(), partition: 0 };
    let position = Position { topic_id: uuid::Uuid::nil(), offset: 0, leader_epoch: -1 };
    let mut session = Session::default();
    let wanted = BTreeMap::from([(partition, position)]);
    let body = session.start(&connection, &wanted, limits).await?.wait().await?;
    let shares = session.finish(&connection, body)?;
    shares.iter().for_each(|share| assert!(batch::cut(&share.records, 0).batches.is_empty()));
    Ok(shares)
}

#[tokio::test]
async fn every_error_code_of_every_response_reaches_the_caller() {
    let refusal = Arc::new(Refusal::default());
    let client = client(&refusal);
    for key in [
        ApiKey::Metadata,
        ApiKey::FindCoordinator,
        ApiKey::InitProducerId,
        ApiKey::CreateTopics,
        ApiKey::CreatePartitions,
        ApiKey::DescribeConfigs,
        ApiKey::ListOffsets,
        ApiKey::DescribeProducers,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::AddPartitionsToTxn,
        ApiKey::EndTxn,
        ApiKey::WriteTxnMarkers,
        ApiKey::DeleteRecords,
        ApiKey::Produce,
        ApiKey::Fetch,
    ] {
        refusal.set(NONE, 0);
        assert_eq!(ask(&client, key).await, 0, "{key:?} without an error");
        for code in ErrorCode::every() {
            refusal.set(key, code.0);
            assert_eq!(ask(&client, key).await, code.0, "{key:?}");
        }
    }
}

/// A session that the broker has lost begins anew; anything else ends the fetcher's connection.
#[tokio::test]
async fn every_error_code_of_a_whole_fetch_response_is_an_error_or_a_new_session() {
    let refusal = Arc::new(Refusal::default());
    let client = client(&refusal);
    for code in ErrorCode::every().filter(|code| code.0 > 0) {
        refusal.set(ApiKey::Fetch, WHOLE + code.0);
        match fetch(&client).await {
            Ok(shares) => {
                assert!([70, 71, 106].contains(&code.0), "{code} begins a new session");
                assert!(shares.is_empty(), "{code}: nothing of it counts");
            }
            Err(Error::Broker { code: told, .. }) => {
                assert_eq!(told, code);
                assert!(![70, 71, 106].contains(&code.0), "{code} is an error");
            }
            Err(other) => panic!("{code}: {other}"),
        }
    }
}

//! A small Kafka client for load and proof. It shares nothing with the product's, so that neither can
//! hide the other's mistakes.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CALL_MAX: Duration = Duration::from_secs(10);
const FRAME_BYTES_MAX: usize = 64 << 20;
const PRODUCE_WAIT_MS: i32 = 5_000;
const FETCH_WAIT_MS: i32 = 200;
const FETCH_BYTES_MAX: i32 = 1 << 20;
const ACKS_ALL: i16 = -1;

mod version {
    pub const METADATA: i16 = 9;
    pub const PRODUCE: i16 = 8;
    pub const FETCH: i16 = 11;
}

/// A connection to the leader of one partition.
pub struct Partition {
    stream: TcpStream,
    correlation_id: i32,
    topic: TopicName,
    index: i32,
}

impl Partition {
    /// Finds the leader by any of the addresses, and connects to it.
    pub async fn open(bootstrap: &str, topic: &str, index: i32) -> Result<Self> {
        let topic = TopicName(StrBytes::from_string(topic.to_owned()));
        let mut failed = anyhow::anyhow!("no addresses");
        for address in bootstrap.split(',') {
            match Self::connect(address, topic.clone(), index).await {
                Ok(mut any) => {
                    let leader = any.leader().await?;
                    return if leader == address {
                        Ok(any)
                    } else {
                        Self::connect(&leader, topic, index).await
                    };
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect(address: &str, topic: TopicName, index: i32) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, correlation_id: 0, topic, index })
    }

    async fn leader(&mut self) -> Result<String> {
        let topic = MetadataRequestTopic::default().with_name(Some(self.topic.clone()));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let response = self.call(version::METADATA, &request).await?;
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let found = partitions.into_iter().find(|partition| partition.partition_index == self.index);
        let leader: BrokerId = found.context("the topic isn't there yet")?.leader_id;
        let broker = response.brokers.iter().find(|broker| broker.node_id == leader).context("no leader")?;
        Ok(format!("{}:{}", &*broker.host, broker.port))
    }

    /// Appends one batch; its first offset.
    pub async fn produce(&mut self, batch: Bytes) -> Result<i64> {
        let data = PartitionProduceData::default().with_index(self.index).with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(self.topic.clone()).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(ACKS_ALL)
            .with_timeout_ms(PRODUCE_WAIT_MS)
            .with_topic_data(vec![topic]);
        let response = self.call(version::PRODUCE, &request).await?;
        let row = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let row = row.context("an answer without the partition")?;
        ensure!(row.error_code == 0, "produce: error {}", row.error_code);
        Ok(row.base_offset)
    }

    /// Records from `offset` on, as a consumer sees them; none when there are none yet.
    pub async fn fetch(&mut self, offset: i64) -> Result<Vec<Record>> {
        let partition = FetchPartition::default()
            .with_partition(self.index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES_MAX);
        let topic = FetchTopic::default().with_topic(self.topic.clone()).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = self.call(version::FETCH, &request).await?;
        ensure!(response.error_code == 0, "fetch: error {}", response.error_code);
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let data = data.context("an answer without the partition")?;
        ensure!(data.error_code == 0, "fetch at {offset}: error {}", data.error_code);
        let mut batches = whole_batches(data.records.unwrap_or_default());
        let sets = RecordBatchDecoder::decode_all(&mut batches)?;
        let records = sets.into_iter().flat_map(|set| set.records);
        Ok(records.filter(|record| record.offset >= offset && !record.control).collect())
    }

    async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Result<Q::Response> {
        tokio::time::timeout(CALL_MAX, self.exchange(version, request)).await.context("no answer")?
    }

    async fn exchange<Q: Request>(&mut self, version: i16, request: &Q) -> Result<Q::Response> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("lockstep-demo")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        encode_request_header_into_buffer(&mut frame, &header)?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;

        let length = usize::try_from(self.stream.read_i32().await?)?;
        ensure!(length <= FRAME_BYTES_MAX, "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, Q::Response::header_version(version))?;
        if header.correlation_id != self.correlation_id {
            bail!("an answer to another request");
        }
        Q::Response::decode(&mut answer, version)
    }
}

/// Without the batch that a broker cut off at the end.
fn whole_batches(records: Bytes) -> Bytes {
    const OVERHEAD_BYTES: usize = 12;
    let mut whole = 0;
    while let Some(mut length) = records.get(whole + 8..whole + OVERHEAD_BYTES) {
        let end = whole + OVERHEAD_BYTES + length.get_u32() as usize;
        if end > records.len() {
            break;
        }
        whole = end;
    }
    records.slice(..whole)
}

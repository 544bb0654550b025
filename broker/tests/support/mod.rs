//! A small client over an in-memory stream, one cluster a test, and batches made by hand.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

pub mod transactional;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use broker::{Cluster, Endpoint, Settings, TopicConfigs};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, RequestHeader, ResponseHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// When tests begin, milliseconds since 1970.
pub const START_MS: i64 = 1_700_000_000_000;
pub const DAY_MS: i64 = 86_400_000;

/// A cluster whose time stands still unless a test moves it.
pub struct World {
    pub cluster: Cluster,
    now_ms: Arc<AtomicI64>,
}

impl World {
    pub fn new(brokers: i32) -> Self {
        Self::with(brokers, |_| {})
    }

    pub fn with(brokers: i32, adjust: impl FnOnce(&mut Settings)) -> Self {
        let endpoint = |id| Endpoint { id, host: "broker".to_owned(), port: 9_090 + id as u16 };
        let mut settings = Settings::new("cluster", (1..=brokers).map(endpoint).collect(), 7);
        adjust(&mut settings);
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = now_ms.clone();
        let cluster = Cluster::new(settings, Arc::new(move || clock.load(Ordering::Relaxed)));
        Self { cluster, now_ms }
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Time passes, and what falls due by then happens.
    pub fn pass(&self, milliseconds: i64) {
        self.now_ms.fetch_add(milliseconds, Ordering::Relaxed);
        self.cluster.with(|_| ());
    }

    pub fn topic(&self, name: &str, partitions: i32, replication: i16) {
        self.cluster.with(|state| {
            state.create_topic(name, partitions, replication, TopicConfigs::default());
        });
    }

    pub fn connect(&self, broker: i32) -> Wire {
        let (client, server) = duplex(1 << 20);
        let cluster = self.cluster.clone();
        tokio::spawn(async move { cluster.serve(broker, server).await });
        Wire { stream: client, correlation_id: 0 }
    }

    pub fn leader(&self, topic: &str) -> i32 {
        self.cluster.with(|state| state.partition(topic, 0).unwrap().leader.unwrap())
    }
}

pub struct Wire {
    stream: DuplexStream,
    correlation_id: i32,
}

impl Wire {
    pub async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        self.try_call(version, request).await.expect("the connection ended without an answer")
    }

    /// None when the connection ends instead.
    pub async fn try_call<Q: Request>(&mut self, version: i16, request: &Q) -> Option<Q::Response> {
        self.correlation_id += 1;
        let mut frame = BytesMut::from(&[0; 4][..]);
        RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text("test")))
            .encode(&mut frame, ApiKey::try_from(Q::KEY).unwrap().request_header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.ok()?;
        let length = self.stream.read_u32().await.ok()?;
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await.ok()?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, Q::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, self.correlation_id);
        let response = Q::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "bytes behind the answer");
        Some(response)
    }

    /// Sends bytes as they are; what comes back, without its length. None when the connection ends instead.
    pub async fn raw(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.stream.write_all(bytes).await.ok()?;
        let length = self.stream.read_u32().await.ok()?;
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await.ok()?;
        Some(answer)
    }

    /// Appends one batch to partition 0 of a topic with `acks=all`.
    pub async fn produce(&mut self, topic: &str, batch: &BatchOf<'_>) -> PartitionProduceResponse {
        let request = produce_request(topic, batch);
        let response = self.call(batch.version, &request).await;
        response.responses[0].partition_responses[0].clone()
    }
}

pub fn produce_request(topic: &str, batch: &BatchOf<'_>) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.bytes()));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(batch.transactional_id.map(|id| TransactionalId(text(id))))
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic])
}

pub fn text(of: &str) -> StrBytes {
    StrBytes::from_string(of.to_owned())
}

pub fn topic_name(of: &str) -> TopicName {
    TopicName(text(of))
}

/// One batch: as many records as there are values, all with the same timestamp.
#[derive(Clone)]
pub struct BatchOf<'a> {
    pub values: &'a [&'a str],
    pub producer: (i64, i16, i32),
    pub timestamp_ms: i64,
    /// Makes it a transactional one.
    pub transactional_id: Option<&'a str>,
    /// Of the Produce request.
    pub version: i16,
}

impl<'a> BatchOf<'a> {
    pub fn plain(values: &'a [&'a str]) -> Self {
        let (timestamp_ms, version) = (START_MS, 9);
        Self { values, producer: (-1, -1, -1), timestamp_ms, transactional_id: None, version }
    }

    pub fn of(producer_id: i64, epoch: i16, sequence: i32, values: &'a [&'a str]) -> Self {
        Self { producer: (producer_id, epoch, sequence), ..Self::plain(values) }
    }

    pub fn bytes(&self) -> Bytes {
        let mut records = BytesMut::new();
        for (delta, value) in self.values.iter().enumerate() {
            // Attributes, timestamp delta, offset delta, no key, value, no headers; one-byte varints.
            let body =
                [&[0, 0, (delta as u8) << 1, 1, (value.len() as u8) << 1], value.as_bytes(), &[0]].concat();
            records.put_u8((body.len() as u8) << 1);
            records.put_slice(&body);
        }
        let mut covered = BytesMut::new();
        covered.put_i16(if self.transactional_id.is_some() { 0x10 } else { 0 });
        covered.put_i32(self.values.len() as i32 - 1);
        covered.put_i64(self.timestamp_ms);
        covered.put_i64(self.timestamp_ms);
        covered.put_i64(self.producer.0);
        covered.put_i16(self.producer.1);
        covered.put_i32(self.producer.2);
        covered.put_i32(self.values.len() as i32);
        covered.put_slice(&records);
        let mut batch = BytesMut::new();
        batch.put_i64(0);
        batch.put_i32(covered.len() as i32 + 9);
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(crc32c::crc32c(&covered));
        batch.put_slice(&covered);
        batch.freeze()
    }
}

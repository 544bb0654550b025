//! A transactional producer, one request at a time.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProducerId, TransactionalId,
};

use super::{BatchOf, Wire, World, text, topic_name};

pub const ID: &str = "tx";

pub struct Transactional {
    pub wire: Wire,
    pub producer_id: i64,
    pub epoch: i16,
}

pub fn transactional_id() -> TransactionalId {
    TransactionalId(text(ID))
}

impl World {
    pub fn connect_coordinator(&self) -> Wire {
        self.connect(self.cluster.with(|state| state.coordinator(ID)).unwrap())
    }

    pub async fn init(&self, timeout_ms: i32) -> InitProducerIdResponse {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id()))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        self.connect_coordinator().call(4, &request).await
    }

    /// A producer with this transactional id.
    pub async fn transactional(&self) -> Transactional {
        let given = self.init(60_000).await;
        assert_eq!(given.error_code, 0);
        let wire = self.connect_coordinator();
        Transactional { wire, producer_id: given.producer_id.0, epoch: given.producer_epoch }
    }
}

impl Transactional {
    /// The error code for partition 0.
    pub async fn add(&mut self, topic: &str) -> i16 {
        let topic = AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id())
            .with_v3_and_below_producer_id(ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let response = self.wire.call(3, &request).await;
        response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    pub async fn end(&mut self, commit: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id())
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        self.wire.call(3, &request).await.error_code
    }

    pub fn batch<'a>(&self, sequence: i32, values: &'a [&'a str]) -> BatchOf<'a> {
        let transactional_id = Some(ID);
        BatchOf { transactional_id, ..BatchOf::of(self.producer_id, self.epoch, sequence, values) }
    }
}

//! DescribeTransactions: what a coordinator knows of its transactional ids (KIP-664).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;
use crate::transactions::Transaction;

pub(crate) struct DescribeTransactions;

impl Handler for DescribeTransactions {
    type Request = DescribeTransactionsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=0;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DescribeTransactionsRequest,
    ) -> Step<DescribeTransactionsResponse> {
        let states = request.transactional_ids.iter().map(|id| {
            let described = match find(state, caller.broker, id) {
                Ok(transaction) => described(transaction),
                Err(code) => TransactionState::default().with_error_code(code.code()),
            };
            described.with_transactional_id(id.clone())
        });
        let states = states.collect();
        Step::Done(DescribeTransactionsResponse::default().with_transaction_states(states))
    }
}

fn find<'s>(state: &'s State, broker: i32, id: &str) -> Result<&'s Transaction, Code> {
    if id.is_empty() {
        return Err(Code::InvalidRequest);
    }
    state.check_coordinator(broker, id)?;
    state.transactions.get(id).ok_or(Code::TransactionalIdNotFound)
}

fn described(transaction: &Transaction) -> TransactionState {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &transaction.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let topic = TopicName(StrBytes::from_string(topic.to_owned()));
        TopicData::default().with_topic(topic).with_partitions(partitions)
    });
    TransactionState::default()
        .with_transaction_state(StrBytes::from_static_str(transaction.status.name()))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(transaction.started_ms)
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_producer_epoch(transaction.producer_epoch)
        .with_topics(topics.collect())
}

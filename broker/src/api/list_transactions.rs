//! ListTransactions: the transactional ids that the asked broker coordinates (KIP-664, KIP-994).

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;
use crate::transactions::{Status, Transaction};

pub(crate) struct ListTransactions;

impl Handler for ListTransactions {
    type Request = ListTransactionsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=1;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> Step<ListTransactionsResponse> {
        let is_state = |name: &StrBytes| Status::ALL.iter().any(|status| status.name() == name.as_str());
        let unknown = request.state_filters.iter().filter(|name| !is_state(name)).cloned().collect();
        let own = state.transactions.iter().filter(|(id, transaction)| {
            state.coordinator(id) == Some(caller.broker) && matches(transaction, &request, state.now_ms)
        });
        let listed = own.map(|(id, transaction)| {
            TransactionState::default()
                .with_transactional_id(TransactionalId(StrBytes::from_string(id.to_owned())))
                .with_producer_id(ProducerId(transaction.producer_id))
                .with_transaction_state(StrBytes::from_static_str(transaction.status.name()))
        });
        let listed = listed.collect();
        Step::Done(
            ListTransactionsResponse::default()
                .with_unknown_state_filters(unknown)
                .with_transaction_states(listed),
        )
    }
}

fn matches(transaction: &Transaction, request: &ListTransactionsRequest, now_ms: i64) -> bool {
    let (states, producers) = (&request.state_filters, &request.producer_id_filters);
    let longer_than_ms = request.duration_filter;
    (states.is_empty() || states.iter().any(|name| name.as_str() == transaction.status.name()))
        && (producers.is_empty() || producers.iter().any(|id| id.0 == transaction.producer_id))
        && (longer_than_ms < 0 || now_ms - transaction.started_ms > longer_than_ms)
}

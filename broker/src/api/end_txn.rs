//! EndTxn: answered when the coordinator has made up its mind; the markers follow.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::add_partitions_to_txn::known_code;
use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct EndTxn;

impl Handler for EndTxn {
    type Request = EndTxnRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(state: &mut State, caller: &Caller, request: EndTxnRequest) -> Step<EndTxnResponse> {
        let ended = end(state, caller.broker, &request);
        let code = ended.err().map_or(0, |code| known_code(code, caller.version).code());
        Step::Done(EndTxnResponse::default().with_error_code(code))
    }
}

fn end(state: &mut State, broker: i32, request: &EndTxnRequest) -> Result<(), Code> {
    let id = request.transactional_id.as_str();
    if id.is_empty() {
        return Err(Code::InvalidRequest);
    }
    state.check_coordinator(broker, id)?;
    let at = state.moment();
    let producer = (request.producer_id.0, request.producer_epoch);
    let ended = state.transactions.end(id, producer, request.committed, at);
    state.changed();
    ended
}

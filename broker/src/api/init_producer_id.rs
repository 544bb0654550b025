//! InitProducerId: a fresh id, or that of a transactional id with the next epoch.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

const NO_PRODUCER_ID: i64 = -1;
const NO_EPOCH: i16 = -1;
/// Clients understand `PRODUCER_FENCED` from here on.
const FENCED_FROM_VERSION: i16 = 4;

pub(crate) struct InitProducerId;

impl Handler for InitProducerId {
    type Request = InitProducerIdRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=4;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: InitProducerIdRequest,
    ) -> Step<InitProducerIdResponse> {
        let given = init(state, caller.broker, &request);
        let (producer_id, epoch) = *given.as_ref().unwrap_or(&(NO_PRODUCER_ID, NO_EPOCH));
        let code = given.err().map(|code| match code {
            Code::ProducerFenced if caller.version < FENCED_FROM_VERSION => Code::InvalidProducerEpoch,
            code => code,
        });
        Step::Done(
            InitProducerIdResponse::default()
                .with_error_code(code.map_or(0, |code| code.code()))
                .with_producer_id(ProducerId(producer_id))
                .with_producer_epoch(epoch),
        )
    }
}

fn init(state: &mut State, broker: i32, request: &InitProducerIdRequest) -> Result<(i64, i16), Code> {
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (NO_PRODUCER_ID, NO_EPOCH) => None,
        (NO_PRODUCER_ID, _) | (_, NO_EPOCH) => return Err(Code::InvalidRequest),
        expected => Some(expected),
    };
    let Some(id) = &request.transactional_id else {
        return Ok((state.transactions.fresh_producer_id(broker), 0));
    };
    if id.is_empty() {
        return Err(Code::InvalidRequest);
    }
    let timeout_ms = request.transaction_timeout_ms;
    if !(1..=state.settings.transaction_max_timeout_ms).contains(&timeout_ms) {
        return Err(Code::InvalidTransactionTimeout);
    }
    state.check_coordinator(broker, id)?;
    let at = state.moment();
    let given = state.transactions.init(broker, id, timeout_ms, expected, at);
    state.changed();
    given
}

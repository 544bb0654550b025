//! AddOffsetsToTxn: a transaction will commit offsets of a group.

use std::collections::BTreeSet;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::add_partitions_to_txn::add;
use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;
use crate::transactions::offsets_key;

pub(crate) struct AddOffsetsToTxn;

impl Handler for AddOffsetsToTxn {
    type Request = AddOffsetsToTxnRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: AddOffsetsToTxnRequest,
    ) -> Step<AddOffsetsToTxnResponse> {
        let key = offsets_key(&request.group_id);
        let producer = (request.producer_id.0, request.producer_epoch);
        let added = add(state, caller, &request.transactional_id, producer, BTreeSet::from([key]));
        let code = added.err().map_or(0, |code| code.code());
        Step::Done(AddOffsetsToTxnResponse::default().with_error_code(code))
    }
}

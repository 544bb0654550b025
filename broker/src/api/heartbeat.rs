//! Heartbeat: a member is alive, and hears of a rebalance.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct Heartbeat;

impl Handler for Heartbeat {
    type Request = HeartbeatRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=4;

    fn handle(state: &mut State, caller: &Caller, request: HeartbeatRequest) -> Step<HeartbeatResponse> {
        let code = heartbeat(state, caller, &request).err().map_or(0, |code| code.code());
        Step::Done(HeartbeatResponse::default().with_error_code(code))
    }
}

fn heartbeat(state: &mut State, caller: &Caller, request: &HeartbeatRequest) -> Result<(), Code> {
    if request.group_id.is_empty() {
        return Err(Code::InvalidGroupId);
    }
    state.check_coordinator(caller.broker, &request.group_id)?;
    let now_ms = state.now_ms;
    state.groups.heartbeat(request, now_ms)
}

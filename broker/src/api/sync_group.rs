//! SyncGroup: a member fetches its assignment; the leader brings those of all.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Handler, Step, answered};
use crate::fault::Caller;
use crate::groups::refused_sync;
use crate::state::State;

/// The request names its protocol from here on.
const PROTOCOL_FROM_VERSION: i16 = 5;

pub(crate) struct SyncGroup;

impl Handler for SyncGroup {
    type Request = SyncGroupRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=5;

    fn handle(state: &mut State, caller: &Caller, request: SyncGroupRequest) -> Step<SyncGroupResponse> {
        let named = request.protocol_type.is_some() && request.protocol_name.is_some();
        if caller.version >= PROTOCOL_FROM_VERSION && !named {
            return Step::Done(refused_sync(Code::InconsistentGroupProtocol));
        }
        if request.group_id.is_empty() {
            return Step::Done(refused_sync(Code::InvalidGroupId));
        }
        if let Err(code) = state.check_coordinator(caller.broker, &request.group_id) {
            return Step::Done(refused_sync(code));
        }
        answered(state, refused_sync(Code::NotCoordinator), move |state, reply| {
            let now_ms = state.now_ms;
            state.groups.sync(&request, now_ms, reply);
        })
    }
}

//! LeaveGroup: members go, or an administrator removes them.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

/// From here on a request names several members, each with its own error.
const SEVERAL_FROM_VERSION: i16 = 3;

pub(crate) struct LeaveGroup;

impl Handler for LeaveGroup {
    type Request = LeaveGroupRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=5;

    fn handle(state: &mut State, caller: &Caller, request: LeaveGroupRequest) -> Step<LeaveGroupResponse> {
        let several = caller.version >= SEVERAL_FROM_VERSION;
        let refused = |code: Code| Step::Done(LeaveGroupResponse::default().with_error_code(code.code()));
        if request.group_id.is_empty() {
            return refused(Code::InvalidGroupId);
        }
        if let Err(code) = state.check_coordinator(caller.broker, &request.group_id) {
            return refused(code);
        }
        let leaving = if several {
            request.members
        } else {
            vec![MemberIdentity::default().with_member_id(request.member_id)]
        };
        let now_ms = state.now_ms;
        let members = state.groups.leave(&request.group_id, &leaving, now_ms);
        state.changed();
        let response = if several {
            LeaveGroupResponse::default().with_members(members)
        } else {
            let code = members.first().map_or(0, |member| member.error_code);
            LeaveGroupResponse::default().with_error_code(code)
        };
        Step::Done(response)
    }
}

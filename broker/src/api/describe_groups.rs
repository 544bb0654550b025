//! DescribeGroups: state, members, and while the group is stable their subscriptions and assignments.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::{Member, Phase};
use crate::state::State;

/// An unknown group is an error from here on (KIP-1043), before it was a dead one.
const NOT_FOUND_FROM_VERSION: i16 = 6;
/// All that can be done to a group (read, delete, describe, describe configs, alter configs), as bits: there
/// are no ACLs.
const OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) struct DescribeGroups;

impl Handler for DescribeGroups {
    type Request = DescribeGroupsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=6;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DescribeGroupsRequest,
    ) -> Step<DescribeGroupsResponse> {
        let groups = request.groups.iter().map(|id| {
            let described = describe(state, caller, id);
            if request.include_authorized_operations && described.error_code == 0 {
                described.with_authorized_operations(OPERATIONS)
            } else {
                described
            }
        });
        Step::Done(DescribeGroupsResponse::default().with_groups(groups.collect()))
    }
}

fn describe(state: &State, caller: &Caller, id: &GroupId) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(id.clone());
    if let Err(code) = state.check_coordinator(caller.broker, id) {
        return described.with_error_code(code.code());
    }
    let Some(group) = state.groups.get(id) else {
        let dead = described.with_group_state(StrBytes::from_static_str(Phase::DEAD));
        if caller.version < NOT_FOUND_FROM_VERSION {
            return dead;
        }
        let message = StrBytes::from_string(format!("Group {} not found.", id.as_str()));
        return dead.with_error_code(Code::GroupIdNotFound.code()).with_error_message(Some(message));
    };
    let protocol = if group.phase() == Phase::Stable { group.protocol().cloned() } else { None };
    let members = group.members().map(|member| describe_member(member, protocol.as_deref()));
    described
        .with_group_state(StrBytes::from_string(group.phase().to_string()))
        .with_protocol_type(group.protocol_type().cloned().unwrap_or_default())
        .with_members(members.collect())
        .with_protocol_data(protocol.clone().unwrap_or_default())
}

fn describe_member(member: &Member, protocol: Option<&str>) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(member.id.clone())
        .with_group_instance_id(member.instance_id.clone())
        .with_client_id(member.client_id.clone())
        .with_client_host(member.client_host.clone())
        .with_member_metadata(protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default())
        .with_member_assignment(member.assignment.clone())
}

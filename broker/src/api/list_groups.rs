//! ListGroups: the groups that this broker coordinates.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step};
use crate::fault::Caller;
use crate::groups::Group;
use crate::state::State;

/// Of groups by the classic protocol: there are no others here.
const GROUP_TYPE: &str = "classic";

pub(crate) struct ListGroups;

impl Handler for ListGroups {
    type Request = ListGroupsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=5;

    fn handle(state: &mut State, caller: &Caller, request: ListGroupsRequest) -> Step<ListGroupsResponse> {
        let passes = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(value))
        };
        let wanted = |group: &Group| {
            passes(&request.states_filter, &group.phase().to_string())
                && passes(&request.types_filter, GROUP_TYPE)
        };
        let own = state.groups.iter().filter(|(id, _)| state.coordinator(id) == Some(caller.broker));
        let groups = own.filter(|(_, group)| wanted(group)).map(|(id, group)| list(id, group));
        Step::Done(ListGroupsResponse::default().with_groups(groups.collect()))
    }
}

fn list(id: &str, group: &Group) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(GroupId(StrBytes::from_string(id.to_owned())))
        .with_protocol_type(group.protocol_type().cloned().unwrap_or_default())
        .with_group_state(StrBytes::from_string(group.phase().to_string()))
        .with_group_type(StrBytes::from_static_str(GROUP_TYPE))
}

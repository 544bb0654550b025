//! DeleteGroups: groups without members go, with their offsets.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::{Handler, Step};
use crate::fault::Caller;
use crate::state::State;

pub(crate) struct DeleteGroups;

impl Handler for DeleteGroups {
    type Request = DeleteGroupsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=2;

    fn handle(
        state: &mut State,
        caller: &Caller,
        request: DeleteGroupsRequest,
    ) -> Step<DeleteGroupsResponse> {
        let results = request.groups_names.into_iter().map(|id| {
            let code = delete(state, caller, &id).err().map_or(0, |code| code.code());
            DeletableGroupResult::default().with_group_id(id).with_error_code(code)
        });
        Step::Done(DeleteGroupsResponse::default().with_results(results.collect()))
    }
}

fn delete(state: &mut State, caller: &Caller, id: &GroupId) -> Result<(), Code> {
    state.check_coordinator(caller.broker, id)?;
    state.groups.delete(id)
}

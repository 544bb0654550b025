//! JoinGroup: answered when the group has come together.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Handler, Step, answered};
use crate::fault::Caller;
use crate::groups::{Joiner, refused_join};
use crate::state::State;

/// A rebalance has a timeout of its own from here on; before, it was the session's.
const REBALANCE_TIMEOUT_FROM_VERSION: i16 = 1;
/// KIP-394.
const MEMBER_ID_REQUIRED_FROM_VERSION: i16 = 4;
const NULL_PROTOCOL_FROM_VERSION: i16 = 7;
/// KIP-814.
const SKIP_ASSIGNMENT_FROM_VERSION: i16 = 9;
/// What DescribeGroups shows as a member's host: the cluster doesn't see where a stream comes from.
const CLIENT_HOST: &str = "/127.0.0.1";

pub(crate) struct JoinGroup;

impl Handler for JoinGroup {
    type Request = JoinGroupRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=9;

    fn handle(state: &mut State, caller: &Caller, mut request: JoinGroupRequest) -> Step<JoinGroupResponse> {
        let version = caller.version;
        if version < REBALANCE_TIMEOUT_FROM_VERSION {
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        let settings = &state.groups.settings;
        let sessions = settings.session_timeout_min_ms..=settings.session_timeout_max_ms;
        let refused =
            |member_id: StrBytes, code: Code| Step::Done(in_words_of(version, refused_join(member_id, code)));
        if request.group_id.is_empty() {
            return refused(request.member_id, Code::InvalidGroupId);
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return refused(request.member_id, Code::InvalidSessionTimeout);
        }
        if let Err(code) = state.check_coordinator(caller.broker, &request.group_id) {
            return refused(StrBytes::default(), code);
        }
        let joiner = Joiner {
            client_id: caller.client_id.clone(),
            client_host: CLIENT_HOST.to_owned(),
            id_suffix: state.random_id().to_string(),
            must_know_id: version >= MEMBER_ID_REQUIRED_FROM_VERSION,
            can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM_VERSION,
        };
        let forgotten = refused_join(request.member_id.clone(), Code::NotCoordinator);
        answered(state, forgotten, move |state, reply| {
            let now_ms = state.now_ms;
            state.groups.join(&request, &joiner, now_ms, reply);
        })
        .map(move |response| in_words_of(version, response))
    }
}

/// No protocol is no name or an empty one, by version.
fn in_words_of(version: i16, response: JoinGroupResponse) -> JoinGroupResponse {
    let name = response.protocol_name.clone().filter(|name| !name.is_empty());
    let none = (version < NULL_PROTOCOL_FROM_VERSION).then(StrBytes::default);
    response.with_protocol_name(name.or(none))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_protocol_old_versions_are_told_an_empty_name_and_new_ones_none() {
        let named = |version, name: Option<&'static str>| {
            let name = name.map(StrBytes::from_static_str);
            let response = JoinGroupResponse::default().with_protocol_name(name);
            in_words_of(version, response).protocol_name.map(|name| name.to_string())
        };
        for none in [None, Some("")] {
            assert_eq!((named(6, none), named(7, none)), (Some(String::new()), None));
        }
        assert_eq!(named(9, Some("range")).as_deref(), Some("range"));
    }
}

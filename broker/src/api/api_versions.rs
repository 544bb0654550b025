//! ApiVersions: what this cluster models, and nothing else, so that clients choose what it can answer.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::{APIS, Handler, Reply, Step, encode};
use crate::connection::Refused;
use crate::fault::Caller;
use crate::state::State;

/// Clients say what they are from here on (KIP-511).
const NAMED_FROM_VERSION: i16 = 3;

pub(crate) struct ApiVersions;

impl Handler for ApiVersions {
    type Request = ApiVersionsRequest;

    const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;

    fn handle(_: &mut State, caller: &Caller, request: ApiVersionsRequest) -> Step<ApiVersionsResponse> {
        let named = [&request.client_software_name, &request.client_software_version];
        if caller.version >= NAMED_FROM_VERSION && !named.into_iter().all(|name| is_software(name)) {
            return Step::Done(ApiVersionsResponse::default().with_error_code(Code::InvalidRequest.code()));
        }
        let ranges = APIS.iter().map(|api| range(api.key, *api.versions.start(), *api.versions.end()));
        Step::Done(ApiVersionsResponse::default().with_api_keys(ranges.collect()))
    }
}

/// The answer to a version that isn't known is one of version 0 that says which are (KIP-511).
pub(crate) fn unsupported_version(correlation_id: i32) -> Result<Reply, Refused> {
    let (first, last) = ApiVersions::VERSIONS.into_inner();
    let response = ApiVersionsResponse::default()
        .with_error_code(Code::UnsupportedVersion.code())
        .with_api_keys(vec![range(ApiKey::ApiVersions, first, last)]);
    encode(&response, correlation_id, 0).map(Reply::Answer).map_err(Refused)
}

/// Letters and digits; within, dots and hyphens as well.
fn is_software(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.bytes().all(inner) && outer(name.bytes().next()) && outer(name.bytes().last())
}

fn range(key: ApiKey, first: i16, last: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(key as i16).with_min_version(first).with_max_version(last)
}

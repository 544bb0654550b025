//! Every answer that isn't a success: one body, `{error_code, message}`.
//!
//! A message names the field or the thing and the way out. It never repeats a configuration's
//! value, which may be a secret.

use actors::preflight::PreflightError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::Refusal;
use consensus::SubmitError;

use super::types::ErrorBody;

pub const INVALID: u32 = 40_002;
pub const NO_TOPIC: u32 = 40_403;
pub const NO_LINK: u32 = 40_404;
pub const EXISTS: u32 = 40_902;
/// What is to be deleted is on its way there: the call may be repeated.
pub const STILL_STOPPING: u32 = 40_903;
/// It may have been done, or may be done yet. After any other 503 nothing was done.
pub const IN_DOUBT: u32 = 50_301;

/// An election takes about a second.
const RETRY_AFTER_ELECTION: HeaderValue = HeaderValue::from_static("1");
/// A broker that is away seldom returns within a second.
const RETRY_AFTER_BROKER: HeaderValue = HeaderValue::from_static("5");

#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: u32,
    pub message: String,
    retry_after: Option<HeaderValue>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: status.as_u16().into(), message: message.into(), retry_after: None }
    }

    /// A request that can't be taken as it is.
    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("{field}: {message}"))
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: INVALID, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub fn no_link(name: &str, cluster: &str) -> Self {
        let message = format!("there is no link '{name}' on cluster '{cluster}'");
        Self { code: NO_LINK, ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub fn no_mirror(topic: &str, link: &str) -> Self {
        let message = format!("link '{link}' has no mirror topic '{topic}'");
        Self { code: NO_TOPIC, ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub fn no_cluster(name: &str) -> Self {
        let message =
            format!("there is no cluster '{name}'; register it with POST /lockstep/v1/clusters first");
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// What was asked for has begun and goes on; asked again, it is waited for again.
    pub fn still_stopping(message: String) -> Self {
        Self { code: STILL_STOPPING, ..Self::new(StatusCode::CONFLICT, message) }
    }

    /// Something the node needs is away for now.
    fn unavailable(message: String, retry_after: HeaderValue) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Some of what was asked for may have been done, or may be done yet.
    pub fn in_doubt(self) -> Self {
        Self { code: IN_DOUBT, ..self }
    }

    /// A cluster that a request describes can't be used as described.
    pub fn from_probe(error: PreflightError) -> Self {
        match error {
            PreflightError::Unreachable { .. } => Self::invalid("bootstrap.servers", error),
            other => other.into(),
        }
    }
}

impl From<PreflightError> for ApiError {
    fn from(error: PreflightError) -> Self {
        let message = error.to_string();
        match error {
            PreflightError::Invalid { .. } => Self::bad_request(message),
            PreflightError::TopicNotFound { .. } => {
                Self { code: NO_TOPIC, ..Self::new(StatusCode::NOT_FOUND, message) }
            }
            PreflightError::TopicStays { .. } | PreflightError::Unauthorized { .. } => {
                Self::new(StatusCode::CONFLICT, message)
            }
            PreflightError::TopicExists { .. } => {
                Self { code: EXISTS, ..Self::new(StatusCode::CONFLICT, message) }
            }
            PreflightError::Unreachable { .. } => Self::unavailable(message, RETRY_AFTER_BROKER),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Exists { .. } => Self { code: EXISTS, ..Self::new(StatusCode::CONFLICT, message) },
            Refusal::NotFound { what, .. } => {
                let code = match what.as_str() {
                    "link" => NO_LINK,
                    "mirror topic" => NO_TOPIC,
                    _ => 404,
                };
                Self { code, ..Self::new(StatusCode::NOT_FOUND, message) }
            }
            Refusal::InUse { .. } | Refusal::Stale(_) | Refusal::Illegal(_) => {
                Self::new(StatusCode::CONFLICT, message)
            }
            Refusal::Invalid { .. } => Self::bad_request(message),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::NoLeader { .. } => Self::unavailable(error.to_string(), RETRY_AFTER_ELECTION),
            // Deadline and end of consensus; of what isn't known yet, the worst is assumed.
            other => Self::unavailable(other.to_string(), RETRY_AFTER_ELECTION).in_doubt(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error_code: self.code, message: self.message };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

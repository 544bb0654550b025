//! Reads path, query and body of a request; whatever doesn't fit is answered with an error body
//! that names the field. Nothing is guessed and nothing unknown is passed over.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::error::ApiError;

/// A request body, at most: a link with its filters is some KiB.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A JSON body.
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let given = request.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or_default());
        let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let message = format!(
                "Content-Type: must be application/json, not '{essence}'; send the header with the JSON body"
            );
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(body_error)?;
        read_json(&bytes).map(Self)
    }
}

fn body_error(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes; send less at a time");
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
    }
    ApiError::new(rejection.status(), format!("the body can't be read: {}", rejection.body_text()))
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::bad_request("the body is empty; send a JSON object"));
    }
    // serde would take an array for an object, its elements as fields in order.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(ApiError::bad_request("the body: must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = without_value(&error.inner().to_string());
        match path.as_str() {
            "." => ApiError::bad_request(format!("the body: {message}")),
            field => ApiError::invalid(field, message),
        }
    })?;
    reader.end().map_err(|error| ApiError::bad_request(format!("the body: {error}")))?;
    Ok(value)
}

/// serde quotes the value it found; it may be a secret.
fn without_value(message: &str) -> String {
    let quotes = message.starts_with("invalid type:") || message.starts_with("invalid value:");
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("wrong type, expected {expected}"),
        _ => message.to_owned(),
    }
}

/// Query parameters.
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let reason = text.trim_start_matches("Failed to deserialize query string: ");
            ApiError::bad_request(format!("query: {}", reason.replace(" field ", " parameter ")))
        })?;
        Ok(Self(value))
    }
}

/// For calls without query parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// Parts of the path.
pub struct ApiPath<T>(pub T);

/// Of a registered cluster.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ClusterPath {
    /// Registered name, or Kafka cluster id.
    pub cluster: String,
}

/// Of a member of the fleet.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct NodePath {
    /// Its name, or its id.
    pub node: String,
}

/// Of a certificate authority of the fleet.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AuthorityPath {
    /// The SHA-256 fingerprint of its certificate, in hexadecimal.
    pub authority: String,
}

/// Of what is on a destination cluster.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct DestinationPath {
    /// The destination: registered name, or Kafka cluster id; in lists `-` for all.
    pub cluster: String,
}

/// Of one link.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct LinkPath {
    /// The destination: registered name, or Kafka cluster id; in lists `-` for all.
    pub cluster: String,
    /// The link's name; in lists of mirrors `-` for all.
    pub link: String,
}

/// Of one key of a link.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct LinkConfigPath {
    /// The destination: registered name, or Kafka cluster id.
    pub cluster: String,
    /// The link's name.
    pub link: String,
    /// The key, such as `metadata.max.age.ms`.
    pub name: String,
}

/// Of one mirror topic.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MirrorPath {
    /// The destination: registered name, or Kafka cluster id.
    pub cluster: String,
    /// The link's name.
    pub link: String,
    /// The mirror topic's name at the destination.
    pub topic: String,
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::invalid("path", rejection.body_text())),
        }
    }
}

//! The API's description, OpenAPI 3.1: `/openapi.json`.
//!
//! Paths, parameters and bodies come from the handlers and types themselves; here is what they share.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder};

use super::routes;
use super::types::ErrorBody;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Lockstep",
        description = "Cluster links and mirror topics. Paths under /kafka/v3 follow Confluent's REST API v3 for \
                       cluster links; the cluster in them is the destination."
    ),
    components(schemas(ErrorBody))
)]
struct General;

/// All but the routes.
pub fn general() -> OpenApi {
    General::openapi()
}

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    describe().to_pretty_json().expect("a description is made of strings, numbers and lists")
});

/// The whole description.
pub fn describe() -> OpenApi {
    let mut description = routes().into_openapi();
    let operations = description.paths.paths.values_mut().flat_map(operations);
    operations.for_each(answers_errors);
    description
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn answers_errors(operation: &mut Operation) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let response = ResponseBuilder::new()
        .description(
            "what went wrong, and the way out; 503 comes with Retry-After, and \
                      with error_code 50301 where it may have been done all the same",
        )
        .content("application/json", body)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(response));
}

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "showDescription",
    tag = "probes",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION.as_str())
}

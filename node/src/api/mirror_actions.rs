//! What is done to several mirror topics at once: `mirrors:pause`, `:resume`, `:promote`, `:failover`. One
//! topic's refusal is its own row and stops none of the others.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use catalog::{Action, Link, MirrorKey};
use consensus::SubmitError;
use regex::RegexBuilder;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, LinkPath};
use super::types::{AlterMirrorRow, AlterMirrors, Page, PageMetadata};
use super::{Api, find_link, rows};

/// Each topic is a durable write of a fraction of a millisecond.
const TOPICS_MAX: usize = 1_000;
/// Compiled size of a pattern; Kafka topic names need a fraction of it.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ActionQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PromoteQuery {
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
    /// Take a promotion back that still catches up.
    cancel: bool,
}

type Target = ApiPath<LinkPath>;
type Answer = ApiResult<Json<Page<AlterMirrorRow>>>;

/// Stops mirroring for now; positions are kept.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors:pause",
    operation_id = "pauseMirrors",
    tag = "mirrors",
    params(LinkPath, ActionQuery),
    request_body = AlterMirrors,
    responses((status = 200, description = "a row per topic, with its own error", body = Page<AlterMirrorRow>))
)]
pub async fn pause(
    State(api): State<Api>,
    uri: Uri,
    target: Target,
    ApiQuery(query): ApiQuery<ActionQuery>,
    ApiJson(body): ApiJson<AlterMirrors>,
) -> Answer {
    alter(&api, &uri, target, query, &body, |mirror| Action::PauseMirror { mirror }).await
}

/// Goes on after a pause, or tries again after a failure.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors:resume",
    operation_id = "resumeMirrors",
    tag = "mirrors",
    params(LinkPath, ActionQuery),
    request_body = AlterMirrors,
    responses((status = 200, description = "a row per topic, with its own error", body = Page<AlterMirrorRow>))
)]
pub async fn resume(
    State(api): State<Api>,
    uri: Uri,
    target: Target,
    ApiQuery(query): ApiQuery<ActionQuery>,
    ApiJson(body): ApiJson<AlterMirrors>,
) -> Answer {
    alter(&api, &uri, target, query, &body, |mirror| Action::ResumeMirror { mirror }).await
}

/// Stops being a mirror once it has caught up with a quiet source. Final from its fence on.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors:promote",
    operation_id = "promoteMirrors",
    tag = "mirrors",
    params(LinkPath, PromoteQuery),
    request_body = AlterMirrors,
    responses((status = 200, description = "a row per topic, with its own error", body = Page<AlterMirrorRow>))
)]
pub async fn promote(
    State(api): State<Api>,
    uri: Uri,
    target: Target,
    ApiQuery(PromoteQuery { validate_only, cancel }): ApiQuery<PromoteQuery>,
    ApiJson(body): ApiJson<AlterMirrors>,
) -> Answer {
    let query = ActionQuery { validate_only };
    let action = |mirror| match cancel {
        true => Action::CancelPromotion { mirror },
        false => Action::PromoteMirror { mirror },
    };
    alter(&api, &uri, target, query, &body, action).await
}

/// Stops being a mirror at once with what is there, whatever the source does. Final.
#[utoipa::path(
    post,
    path = "/kafka/v3/clusters/{cluster}/links/{link}/mirrors:failover",
    operation_id = "failOverMirrors",
    tag = "mirrors",
    params(LinkPath, ActionQuery),
    request_body = AlterMirrors,
    responses((status = 200, description = "a row per topic, with its own error", body = Page<AlterMirrorRow>))
)]
pub async fn failover(
    State(api): State<Api>,
    uri: Uri,
    target: Target,
    ApiQuery(query): ApiQuery<ActionQuery>,
    ApiJson(body): ApiJson<AlterMirrors>,
) -> Answer {
    alter(&api, &uri, target, query, &body, |mirror| Action::FailOverMirror { mirror }).await
}

async fn alter(
    api: &Api,
    uri: &Uri,
    ApiPath(LinkPath { cluster, link }): Target,
    query: ActionQuery,
    body: &AlterMirrors,
    action: impl Fn(MirrorKey) -> Action,
) -> Answer {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    let mut data = Vec::new();
    for topic in topics(link, body)? {
        let refusal = if !link.mirrors.contains_key(topic.as_str()) {
            Some(ApiError::no_mirror(&topic, &link.name))
        } else {
            let action = action(link.key(&topic.as_str().into()));
            if query.validate_only {
                api.would_apply(&applied.catalog, action).err()
            } else {
                match api.propose(action).await {
                    Ok(_) => None,
                    Err(SubmitError::Refused(refusal)) => Some(refusal.into()),
                    // Says nothing about this topic, and the call may be repeated as it is.
                    Err(other) if data.is_empty() => return Err(other.into()),
                    Err(other) => return Err(ApiError::from(other).in_doubt()),
                }
            }
        };
        let path = rows::mirror_path(link, &topic);
        let row = AlterMirrorRow {
            mirror_topic_name: topic,
            error_code: refusal.as_ref().map(|e| e.code),
            error_message: refusal.map(|e| e.message),
        };
        data.push(rows::resource("KafkaAlterMirrorData", path, row));
    }
    let metadata = PageMetadata { path: uri.to_string(), next: None };
    Ok(Json(Page { kind: "KafkaAlterMirrorDataList".into(), metadata, data }))
}

fn topics(link: &Link, body: &AlterMirrors) -> ApiResult<BTreeSet<String>> {
    let topics: BTreeSet<String> = match (&body.mirror_topic_names, &body.mirror_topic_name_pattern) {
        (Some(names), None) if names.is_empty() => {
            return Err(ApiError::invalid("mirror_topic_names", "name at least one mirror topic"));
        }
        (Some(names), None) => names.iter().cloned().collect(),
        (None, Some(pattern)) => {
            let wrong = |e: regex::Error| ApiError::invalid("mirror_topic_name_pattern", e);
            // Alone first: what isn't a pattern by itself could become one between the anchors.
            let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
            build(pattern).map_err(wrong)?;
            let anchored = build(&format!("^(?:{pattern})$")).map_err(wrong)?;
            let names = link.mirrors.keys().filter(|name| anchored.is_match(name));
            names.map(ToString::to_string).collect()
        }
        _ => {
            let message = "give either it or mirror_topic_name_pattern";
            return Err(ApiError::invalid("mirror_topic_names", message));
        }
    };
    if topics.len() > TOPICS_MAX {
        let message = format!("{} topics; at most {TOPICS_MAX} at once", topics.len());
        return Err(ApiError::invalid("mirror_topic_names", message));
    }
    Ok(topics)
}

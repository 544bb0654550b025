//! Deleting a link, and failing its mirrors over first when that is asked for:
//! `DELETE /kafka/v3/clusters/{cluster}/links/{link}`.
//!
//! The link goes only when every mirror topic of it has STOPPED: the catalog refuses it before. So nothing is left half
//! stopped, whatever ends this call or this node: what has begun goes on by itself, and the call may be repeated.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use catalog::{Action, Catalog, Command, Link, LinkId, MirrorStatus, MirrorTopic, Refusal};
use consensus::SubmitError;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiPath, ApiQuery, LinkPath};
use super::types::{LinkRow, Resource};
use super::{Api, find_link, links, rows};

/// Failing over takes seconds where the destination answers. Callers wait for a minute.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A mirror that isn't set up takes two; more when others change it meanwhile.
const ROUNDS_MAX: u32 = 5;

/// At most so many topics are named in an answer.
const NAMED_MAX: usize = 20;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Fail all its mirror topics over first, with what they have, and forget those that aren't set up yet. Final.
    force: bool,
    /// Only say whether it could be done, and in `warnings` what would become of each mirror topic; change nothing.
    validate_only: bool,
}

/// Deletes a link whose mirror topics have all STOPPED or are to be failed over.
#[utoipa::path(
    delete,
    path = "/kafka/v3/clusters/{cluster}/links/{link}",
    operation_id = "deleteLink",
    tag = "links",
    params(LinkPath, DeleteQuery),
    responses((status = 200, description = "what was deleted", body = Resource<LinkRow>), (status = 409, description = "still in use; with error_code 40903 its mirror topics are on their way to STOPPED: repeat the call", body = super::types::ErrorBody))
)]
pub async fn delete(
    State(api): State<Api>,
    ApiPath(LinkPath { cluster, link }): ApiPath<LinkPath>,
    ApiQuery(query): ApiQuery<DeleteQuery>,
) -> ApiResult<Json<Resource<LinkRow>>> {
    let applied = api.catalog();
    let link = find_link(&applied.catalog, &cluster, &link)?;
    match query {
        DeleteQuery { force: false, validate_only } => {
            api.submit(Action::DeleteLink { link: link.id.clone() }, validate_only).await?;
            Ok(Json(links::row(&api, &applied.catalog, link, false).await))
        }
        DeleteQuery { force: true, validate_only: true } => {
            let warnings = would_become(&api, &applied.catalog, link)?;
            let mut row = links::row(&api, &applied.catalog, link, false).await;
            row.body.warnings = warnings;
            Ok(Json(row))
        }
        DeleteQuery { force: true, validate_only: false } => forced(&api, link, STOP_LIMIT).await.map(Json),
    }
}

/// Until the link is gone, or time is up: a link that makes mirrors by itself may have made another meanwhile.
pub(super) async fn forced(api: &Api, link: &Link, limit: Duration) -> ApiResult<Resource<LinkRow>> {
    let deadline = Instant::now() + limit;
    loop {
        stop_all(api, link, deadline).await?;
        let in_time = timeout_at(deadline, all_stopped(api, &link.id)).await.is_ok();
        let applied = api.catalog();
        let link = still_there(&applied.catalog, link)?;
        if !in_time {
            return Err(still_stopping(link, limit));
        }
        let row = links::row(api, &applied.catalog, link, false).await;
        match api.propose(Action::DeleteLink { link: link.id.clone() }).await {
            Ok(_) => return Ok(row),
            Err(SubmitError::Refused(Refusal::InUse { .. })) if Instant::now() < deadline => {}
            Err(SubmitError::Refused(refusal)) => return Err(refusal.into()),
            Err(error) => return Err(ApiError::from(error).in_doubt()),
        }
    }
}

/// Begins the end of each mirror topic, one command after the other, as far as time goes.
async fn stop_all(api: &Api, link: &Link, deadline: Instant) -> ApiResult<()> {
    for round in 1.. {
        let applied = api.catalog();
        let steps = next_steps(still_there(&applied.catalog, link)?);
        if steps.is_empty() {
            break;
        }
        for action in steps {
            if Instant::now() >= deadline {
                return Ok(());
            }
            match api.propose(action).await {
                Ok(_) | Err(SubmitError::Refused(Refusal::NotFound { .. })) => {}
                // It has changed meanwhile: the next round looks again.
                Err(SubmitError::Refused(_)) if round < ROUNDS_MAX => {}
                Err(SubmitError::Refused(refusal)) => return Err(refusal.into()),
                // Others may be failing over by now.
                Err(error) => return Err(ApiError::from(error).in_doubt()),
            }
        }
    }
    Ok(())
}

/// What brings each mirror topic a step nearer to its end, unless it gets there by itself.
///
/// Of one that isn't set up there is nothing to fail over. It is paused before it is forgotten: if its set-up ends
/// before the pause, it is failed over as the others; if it ends after it, nothing is written.
fn next_steps(link: &Link) -> Vec<Action> {
    let step = |mirror: &MirrorTopic| {
        let mirror_key = link.key(&mirror.name);
        match (mirror.status, mirror.producer) {
            _ if mirror.is_fenced() => None,
            (MirrorStatus::PendingMirror, _) => Some(Action::PauseMirror { mirror: mirror_key }),
            (_, None) => Some(Action::DeleteMirror { mirror: mirror_key }),
            (_, Some(_)) => Some(Action::FailOverMirror { mirror: mirror_key }),
        }
    };
    going(link).filter_map(step).collect()
}

async fn all_stopped(api: &Api, id: &LinkId) {
    let mut watch = api.consensus.watch();
    let stopped = |catalog: &Catalog| catalog.links.get(id).is_none_or(|link| going(link).next().is_none());
    // An error: consensus has stopped, as the command that follows says.
    let _ = watch.wait_for(|applied| stopped(&applied.catalog)).await;
}

/// Mirror topics that haven't STOPPED.
fn going(link: &Link) -> impl Iterator<Item = &MirrorTopic> {
    link.mirrors.values().map(|mirror| &**mirror).filter(|mirror| mirror.status != MirrorStatus::Stopped)
}

/// As it is now.
fn still_there<'a>(catalog: &'a Catalog, link: &Link) -> ApiResult<&'a Arc<Link>> {
    catalog.links.get(&link.id).ok_or_else(|| ApiError::no_link(&link.name, &link.destination))
}

fn still_stopping(link: &Link, limit: Duration) -> ApiError {
    let of = |mirror: &MirrorTopic| format!("'{}' ({})", mirror.name, mirror.shown_status());
    let named: Vec<String> = going(link).take(NAMED_MAX).map(of).collect();
    let more = match going(link).count().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    ApiError::still_stopping(format!(
        "link '{}' stays: not STOPPED within {} s are {}{more}; what has begun goes on by itself; repeat the call, which \
         waits for them and deletes the link; describe says what each waits for",
        link.name,
        limit.as_secs(),
        named.join(", ")
    ))
}

/// What would become of each, if the catalog takes all of it.
fn would_become(api: &Api, catalog: &Catalog, link: &Link) -> ApiResult<Vec<String>> {
    let mut then = catalog.clone();
    for _ in 0..ROUNDS_MAX {
        for action in next_steps(still_there(&then, link)?) {
            then.apply(Command { at_ms: api.clock.now_ms(), action })?;
        }
    }
    let fate = |mirror: &MirrorTopic| match (mirror.producer.is_some(), mirror.is_fenced()) {
        (false, _) => format!("mirror topic '{}' isn't set up and would be forgotten", mirror.name),
        (true, true) => format!("mirror topic '{}' is about to stop already", mirror.name),
        (true, false) => format!("mirror topic '{}' would be failed over with what it has", mirror.name),
    };
    Ok(rows::first(going(link).map(fate), |more| format!("and {more} mirror topics more")))
}

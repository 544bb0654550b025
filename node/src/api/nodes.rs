//! Members of the fleet: `/lockstep/v1/nodes`, and the tokens that let new ones in.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use catalog::fleet::JoinToken;
use catalog::{Action, Catalog, Duty, Node, NodeId};
use consensus::Status;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{ApiError, ApiResult};
use super::extract::{ApiJson, ApiPath, ApiQuery, NoParameters, NodePath};
use super::paging::{self, PageQuery};
use super::rows::resource;
use super::types::{CreateJoinToken, JoinTokenBody, NodeRow, Page, Resource};
use super::{Api, rows};
use crate::status::Seen;

const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60 * 60);
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Members, and whether each answers.
#[utoipa::path(
    get,
    path = "/lockstep/v1/nodes",
    operation_id = "listNodes",
    tag = "fleet",
    params(PageQuery),
    responses((status = 200, description = "members of the fleet", body = Page<NodeRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> ApiResult<Json<Page<NodeRow>>> {
    let rows = rows_of(&api).await.into_iter().map(|row| (row.name.clone(), row));
    let page = paging::select(rows, query.page_size, query.page_token.as_deref())?;
    Ok(Json(page.into_page("LockstepNode", &uri, node_resource)))
}

/// One member.
#[utoipa::path(
    get,
    path = "/lockstep/v1/nodes/{node}",
    operation_id = "showNode",
    tag = "fleet",
    params(NodePath),
    responses((status = 200, description = "the member", body = Resource<NodeRow>))
)]
pub async fn show(
    State(api): State<Api>,
    ApiPath(NodePath { node }): ApiPath<NodePath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Resource<NodeRow>>> {
    let (id, _) = find(&api.catalog().catalog, &node)?;
    shown(&api, id, &node).await
}

/// Changes what a member is to do. `{node}` is `NAME:drain`: it hands its partitions over and takes none;
/// or `NAME:undrain`: it takes part again.
#[utoipa::path(
    post,
    path = "/lockstep/v1/nodes/{node}",
    operation_id = "changeNode",
    tag = "fleet",
    params(NodePath),
    responses((status = 200, description = "the member, as it is now", body = Resource<NodeRow>))
)]
pub async fn change(
    State(api): State<Api>,
    ApiPath(NodePath { node }): ApiPath<NodePath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Resource<NodeRow>>> {
    let (name, duty) = match node.rsplit_once(':') {
        Some((name, "drain")) => (name, Duty::Drains),
        Some((name, "undrain")) => (name, Duty::Mirrors),
        _ => return Err(ApiError::invalid("path", format!("'{node}' must end in :drain or :undrain"))),
    };
    let (id, _) = find(&api.catalog().catalog, name)?;
    api.submit(Action::SetDuty { node: id, duty }, false).await?;
    shown(&api, id, name).await
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// It is lost for good: its partitions are taken over as from a node that failed.
    lost: bool,
    /// Only say whether it could be done; change nothing.
    validate_only: bool,
}

/// Takes a member out of the fleet. Its id never comes back.
#[utoipa::path(
    delete,
    path = "/lockstep/v1/nodes/{node}",
    operation_id = "removeNode",
    tag = "fleet",
    params(NodePath, RemoveQuery),
    responses((status = 200, description = "what was removed", body = Resource<NodeRow>))
)]
pub async fn remove(
    State(api): State<Api>,
    ApiPath(NodePath { node }): ApiPath<NodePath>,
    ApiQuery(query): ApiQuery<RemoveQuery>,
) -> ApiResult<Json<Resource<NodeRow>>> {
    let (id, _) = find(&api.catalog().catalog, &node)?;
    let before = shown(&api, id, &node).await?;
    if query.lost && before.body.state == LIVE {
        let message = format!("node '{node}' answers, so it isn't lost: drain it, then remove it");
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    api.submit(Action::RemoveNode { node: id, lost: query.lost }, query.validate_only).await?;
    Ok(before)
}

/// Makes a token that lets one node in, once.
#[utoipa::path(
    post,
    path = "/lockstep/v1/join-tokens",
    operation_id = "createJoinToken",
    tag = "fleet",
    request_body = CreateJoinToken,
    responses((status = 201, description = "the token, shown this once", body = Resource<JoinTokenBody>))
)]
pub async fn create_token(
    State(api): State<Api>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
    ApiJson(body): ApiJson<CreateJoinToken>,
) -> ApiResult<(StatusCode, Json<Resource<JoinTokenBody>>)> {
    let life = body.expires_in_seconds.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs);
    if life.is_zero() || life > TOKEN_LIFE_MAX {
        let message = format!("must be 1 to {}", TOKEN_LIFE_MAX.as_secs());
        return Err(ApiError::invalid("expires_in_seconds", message));
    }
    let token = peers::Token::of(api.entropy.bytes(), api.entropy.bytes());
    let since_1970 = Duration::from_millis(u64::try_from(api.clock.now_ms()).unwrap_or_default()) + life;
    let expires_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    let held = JoinToken { secret: token.secret.clone(), expires_ms, used_by: None };
    api.submit(Action::IssueToken { id: token.id.clone(), token: held }, false).await?;
    let nodes = api.catalog();
    let addresses = nodes.catalog.nodes.values().filter_map(|node| node.address.as_deref());
    let body = JoinTokenBody {
        token: token.reveal(),
        expires_at: humantime::format_rfc3339_seconds(UNIX_EPOCH + since_1970).to_string(),
        addresses: addresses.map(str::to_owned).collect(),
    };
    let path = "/lockstep/v1/join-tokens".to_owned();
    Ok((StatusCode::CREATED, Json(rows::resource("LockstepJoinToken", path, body))))
}

const LIVE: &str = "LIVE";
const SILENT: &str = "SILENT";

fn find<'a>(catalog: &'a Catalog, name: &str) -> ApiResult<(NodeId, &'a Node)> {
    let missing = || {
        let message =
            format!("there is no node '{name}' in the fleet; 'lockstep node list' shows its members");
        ApiError::new(StatusCode::NOT_FOUND, message)
    };
    catalog.node_named(name).ok_or_else(missing)
}

async fn shown(api: &Api, id: NodeId, name: &str) -> ApiResult<Json<Resource<NodeRow>>> {
    let id = id.to_string();
    let row = rows_of(api).await.into_iter().find(|row| row.node_id == id);
    // Removed by somebody else meanwhile.
    let gone = || ApiError::new(StatusCode::NOT_FOUND, format!("node '{name}' is no longer a member"));
    Ok(Json(node_resource(row.ok_or_else(gone)?)))
}

fn node_resource(row: NodeRow) -> Resource<NodeRow> {
    resource("LockstepNode", format!("/lockstep/v1/nodes/{}", row.name), row)
}

/// A row per member.
pub async fn rows_of(api: &Api) -> Vec<NodeRow> {
    let applied = api.catalog();
    let seen = api.fleet.everybody(&applied.catalog).await;
    rows_from(&applied.catalog, &api.consensus.status(), &seen)
}

/// As [`rows_of`], pure.
pub fn rows_from(catalog: &Catalog, status: &Status, seen: &Seen) -> Vec<NodeRow> {
    let mirrors = catalog.links.values().flat_map(|link| link.mirrors.values());
    let owners = mirrors.flat_map(|m| &m.partitions).filter_map(|p| Some(p.assignment.as_ref()?.node));
    let assignments = counted(owners);
    let moves = &catalog.fleet.hand_overs;
    let leaving = counted(moves.keys().filter_map(|key| catalog.owner(key)));
    let coming = counted(moves.values().copied());
    let row = |(id, node): (&NodeId, &Node)| {
        let why = seen.silent.get(id);
        let role = match status.leader == Some(*id) {
            true => "LEADER",
            false if status.voters.contains(id) => "VOTER",
            false => "LEARNER",
        };
        NodeRow {
            node_id: id.to_string(),
            name: node.name.to_string(),
            address: node.address.as_ref().map(ToString::to_string),
            version: node.version.to_string(),
            state: why.map_or(LIVE, |_| SILENT).to_owned(),
            state_message: why.cloned(),
            duty: node.duty.name().to_owned(),
            raft_role: role.to_owned(),
            starts: node.starts,
            assignments: count(&assignments, id),
            leaving: count(&leaving, id),
            coming: count(&coming, id),
        }
    };
    catalog.nodes.iter().map(row).collect()
}

fn count(counts: &BTreeMap<NodeId, u64>, id: &NodeId) -> u64 {
    counts.get(id).copied().unwrap_or_default()
}

fn counted(nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, u64> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

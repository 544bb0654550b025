//! The fleet's certificate authorities: `/lockstep/v1/authorities`. Never shows a key.
//!
//! Which member's certificate is of which authority, members say themselves: it is asked at each request.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use catalog::fleet::Authority;
use catalog::{Action, Catalog, Node, NodeId, Refusal};
use peers::authority::{fingerprint, found};
use peers::validity::Validity;
use rustls::pki_types::CertificateDer;

use super::Api;
use super::error::{ApiError, ApiResult};
use super::extract::{ApiPath, ApiQuery, AuthorityPath, NoParameters};
use super::paging::{self, PageQuery};
use super::rows::resource;
use super::types::{AuthorityRow, Page, Resource};
use crate::status::Seen;

const AUTHORITIES: &str = "/lockstep/v1/authorities";

/// Authorities that members trust, and whose certificates each has signed.
#[utoipa::path(
    get,
    path = "/lockstep/v1/authorities",
    operation_id = "listAuthorities",
    tag = "fleet",
    params(PageQuery),
    responses((status = 200, description = "authorities of the fleet", body = Page<AuthorityRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> ApiResult<Json<Page<AuthorityRow>>> {
    let (applied, seen) = seen(&api).await;
    let rows = rows_from(&applied.catalog, &seen).into_iter().map(|row| (row.authority_id.clone(), row));
    let page = paging::select(rows, query.page_size, query.page_token.as_deref())?;
    Ok(Json(page.into_page("LockstepAuthority", &uri, authority_resource)))
}

/// Makes a new authority that signs from now on; the one before stays trusted until it is removed.
#[utoipa::path(
    post,
    path = "/lockstep/v1/authorities",
    operation_id = "rotateAuthority",
    tag = "fleet",
    responses((status = 201, description = "the new authority", body = Resource<AuthorityRow>))
)]
pub async fn rotate(
    State(api): State<Api>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<(StatusCode, Json<Resource<AuthorityRow>>)> {
    let conflict = |message: &str| ApiError::new(StatusCode::CONFLICT, message);
    if api.fleet.tls.get().is_some_and(|tls| tls.trust().own) {
        return Err(conflict(
            "nodes of this fleet have certificates of an authority of your own: change it in the files that \
             --peer-authority names",
        ));
    }
    let fleet = api.catalog().catalog.fleet.id.clone();
    let fleet = fleet.ok_or_else(|| conflict("this fleet isn't founded yet; try again in a moment"))?;
    let made = found(&fleet, api.clock.now_ms())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let id = fingerprint(&made.certificate);
    api.submit(Action::AddAuthority { authority: made }, false).await?;
    let (applied, seen) = seen(&api).await;
    let row = rows_from(&applied.catalog, &seen).into_iter().find(|row| row.authority_id == id);
    let row = row.ok_or_else(|| conflict("the new authority was removed at once by somebody else"))?;
    Ok((StatusCode::CREATED, Json(authority_resource(row))))
}

/// Trusts an authority no more. Refused while a member has a certificate of it, or may have.
#[utoipa::path(
    delete,
    path = "/lockstep/v1/authorities/{authority}",
    operation_id = "removeAuthority",
    tag = "fleet",
    params(AuthorityPath),
    responses((status = 200, description = "what was removed", body = Resource<AuthorityRow>))
)]
pub async fn remove(
    State(api): State<Api>,
    ApiPath(AuthorityPath { authority }): ApiPath<AuthorityPath>,
    ApiQuery(NoParameters {}): ApiQuery<NoParameters>,
) -> ApiResult<Json<Resource<AuthorityRow>>> {
    let (applied, seen) = seen(&api).await;
    let catalog = &applied.catalog;
    let certificate = find(catalog, &authority)?.certificate.clone();
    may_remove(catalog, &seen, &certificate, api.clock.now_ms())?;
    let id = fingerprint(&certificate);
    let row = rows_from(catalog, &seen).into_iter().find(|row| row.authority_id == id);
    api.submit(Action::RemoveAuthority { certificate }, false).await?;
    Ok(Json(authority_resource(row.ok_or_else(|| no_authority(&authority))?)))
}

async fn seen(api: &Api) -> (std::sync::Arc<consensus::Applied>, Seen) {
    let applied = api.catalog();
    let seen = api.fleet.trust(&applied.catalog).await;
    (applied, seen)
}

/// By its fingerprint, also as other tools write it: in capitals, with colons.
fn find<'a>(catalog: &'a Catalog, id: &str) -> ApiResult<&'a Authority> {
    let wanted = id.replace(':', "").to_lowercase();
    let mut held = catalog.fleet.authorities.iter();
    held.find(|held| fingerprint(&held.certificate) == wanted).ok_or_else(|| no_authority(id))
}

fn no_authority(id: &str) -> ApiError {
    let message =
        format!("there is no authority '{id}' in the fleet; 'lockstep node authority list' shows them");
    ApiError::new(StatusCode::NOT_FOUND, message)
}

/// Whether no member would be left with a certificate that others don't trust. A certificate that was signed
/// for a node on its way in is of the authority that signs, or that node is a member already.
pub fn may_remove(catalog: &Catalog, seen: &Seen, certificate: &[u8], at_ms: i64) -> ApiResult<()> {
    if catalog.fleet.authorities.last().is_some_and(|last| *last.certificate == *certificate) {
        // Never the last one: said before what waits for whom.
        let remove = Action::RemoveAuthority { certificate: certificate.into() };
        return super::would_apply(catalog, at_ms, remove);
    }
    let id = fingerprint(certificate);
    let why = |(node, member): (&NodeId, &Node)| {
        let why = match seen.trust.get(node) {
            Some(trust) if trust.own => return None,
            Some(trust) if trust.signed_by.as_ref() == Some(&id) => "has a certificate of it".to_owned(),
            Some(trust) if trust.signed_by.is_some() => return None,
            Some(_) => "has a certificate of none that it trusts".to_owned(),
            None => match seen.silent.get(node) {
                Some(why) => format!("doesn't answer ({why})"),
                None => {
                    "doesn't say whose certificate it has; if it doesn't just start, upgrade it".to_owned()
                }
            },
        };
        Some(format!("node '{}' {why}", member.name))
    };
    let whys: Vec<String> = catalog.nodes.iter().filter_map(why).collect();
    if whys.is_empty() {
        return Ok(());
    }
    let by = format!(
        "{}. Members renew by themselves within seconds of the moment when all trust the new authority; one that \
         never comes back is in the way until 'lockstep node remove NAME --lost'",
        whys.join("; ")
    );
    Err(Refusal::InUse { what: "authority".into(), name: id, by }.into())
}

/// A row per authority, the one that signs last. Pure.
pub fn rows_from(catalog: &Catalog, seen: &Seen) -> Vec<AuthorityRow> {
    let names = |wanted: &dyn Fn(&NodeId) -> bool| {
        let found = catalog.nodes.iter().filter(|(node, _)| wanted(node));
        found.map(|(_, node)| node.name.to_string()).collect::<Vec<_>>()
    };
    let authorities = &catalog.fleet.authorities;
    let row = |(index, authority): (usize, &Authority)| {
        let id = fingerprint(&authority.certificate);
        let validity = Validity::of(&CertificateDer::from(&*authority.certificate));
        AuthorityRow {
            not_before: validity.and_then(|validity| rfc3339(validity.not_before_ms)),
            not_after: validity.and_then(|validity| rfc3339(validity.not_after_ms)),
            signs: index + 1 == authorities.len(),
            held_by: names(&|node| {
                seen.trust.get(node).is_some_and(|trust| !trust.own && trust.signed_by.as_ref() == Some(&id))
            }),
            not_known_of: names(&|node| !seen.trust.contains_key(node)),
            authority_id: id,
        }
    };
    authorities.iter().enumerate().map(row).collect()
}

fn authority_resource(row: AuthorityRow) -> Resource<AuthorityRow> {
    resource("LockstepAuthority", format!("{AUTHORITIES}/{}", row.authority_id), row)
}

fn rfc3339(ms: i64) -> Option<String> {
    let since_1970 = Duration::from_millis(u64::try_from(ms).ok()?);
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH.checked_add(since_1970)?).to_string())
}

//! What the ACL sync would do with a link's configs, for whoever is about to set them. Writes nothing.

use std::sync::Arc;

use catalog::{Catalog, Link};
use kafka::Client;
use kafka::acls::Permission;
use kafka::client::Dial;

use super::limits;
use super::plan::Plan;
use super::read::{Seen, look, own_principals, planned, principals_of_others};
use super::settings::{AclSettings, Mode};
use crate::preflight;

/// Lines of each kind, at most.
const LINES_MAX: usize = 100;

/// In words, a line each; nothing where ACLs aren't synced.
///
/// # Errors
/// Why it isn't known.
pub async fn preview(dial: Arc<dyn Dial>, catalog: &Catalog, link: &Link) -> Result<Vec<String>, String> {
    let Some(settings) = AclSettings::of(&link.configs) else { return Ok(Vec::new()) };
    let (source, destination) =
        preflight::client_configs(catalog, link).map_err(|error| error.to_string())?;
    let source = Client::of_cluster(source, dial.clone(), link.source_cluster_id.clone());
    let destination = Client::of_cluster(destination, dial.clone(), link.destination_cluster_id.clone());
    let seen = async {
        let mut own = own_principals(&source, &destination, &settings).await?;
        own.extend(principals_of_others(&dial, catalog, link, settings.mode).await?);
        look(&source, &destination, &own, 0).await
    };
    let Seen { lists, .. } = seen.await.map_err(|error| error.message)?;
    let mut plan = planned(catalog, link, &settings, &lists);
    let kept = plan.keep_too_many(settings.delete_max_percent);
    Ok(kept.into_iter().chain(in_words(&plan, settings.mode)).collect())
}

fn in_words(plan: &Plan, mode: Mode) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |all: Vec<String>| {
        let more = all.len().saturating_sub(LINES_MAX);
        lines.extend(all.into_iter().take(LINES_MAX));
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
    };
    add(plan.deletions().iter().map(|acl| format!("AclSync would delete {acl}")).collect());
    let denies = plan.of(Permission::Deny);
    let held = plan.held(&denies);
    let created = plan.create.iter().filter(|acl| !held.contains_key(*acl));
    add(created.map(|acl| format!("AclSync would create {acl}")).collect());
    add(held
        .iter()
        .map(|(acl, deny)| format!("AclSync would leave {acl}: {}", limits::waits_for(deny)))
        .collect());
    add(plan.errors.iter().map(|(acl, why)| format!("AclSync would leave {acl}: {why}")).collect());
    add(plan.remarks.iter().map(|(acl, why)| format!("AclSync would leave {acl}: {why}")).collect());
    if mode == Mode::Mirror && plan.delete.is_empty() {
        lines.push("AclSync would delete nothing now".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::acls::fixture::{acl, acls};

    const READ: &str = "ALLOW User:a READ TOPIC LITERAL orders *";

    #[test]
    fn what_would_be_deleted_is_named_first_and_not_without_end() {
        let mut plan = Plan { create: acls(&[READ]), delete: acls(&[READ]), ..Plan::default() };
        plan.remarks.insert(acl(READ), "why".into());
        let words = "ALLOW User:a READ on TOPIC LITERAL 'orders' from *";
        let expected = [
            format!("AclSync would delete {words}"),
            format!("AclSync would create {words}"),
            format!("AclSync would leave {words}: why"),
        ];
        assert_eq!(in_words(&plan, Mode::Mirror), expected);
        assert_eq!(in_words(&Plan::default(), Mode::Mirror), ["AclSync would delete nothing now"]);
        assert!(in_words(&Plan::default(), Mode::Owned).is_empty());
        let many: Vec<String> = (0..150).map(|i| format!("ALLOW User:a READ TOPIC LITERAL t{i} *")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let lines = in_words(&Plan { create: acls(&many), ..Plan::default() }, Mode::Owned);
        assert_eq!((lines.len(), lines[100].as_str()), (101, "and 50 more"));
    }
}

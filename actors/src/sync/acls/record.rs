//! What the catalog remembers of a link's ACLs: read, changed, in commands of a bounded size.

use std::collections::BTreeSet;

use catalog::acls::{ACL_CHANGES_MAX, AclBinding, AclChange, AclState};
use catalog::{Action, Catalog, LinkId};
use consensus::SubmitError;
use kafka::acls::{Acl, Operation, PatternType, Permission, ResourceType};

use super::plan::Recorded;
use crate::catalog_port::CatalogPort;

pub fn recorded(catalog: &Catalog, link: &LinkId) -> Recorded {
    let acls = catalog.acls.get(link).into_iter().flat_map(|record| &record.acls);
    acls.filter_map(|(acl, state)| Some((known(acl)?, *state))).collect()
}

/// What a link wrote, or may have.
pub fn written(catalog: &Catalog, link: &LinkId) -> BTreeSet<Acl> {
    let acls = catalog.acls.get(link).into_iter().flat_map(|record| record.written());
    acls.filter_map(known).collect()
}

/// From what is recorded by now to these.
pub fn changes(
    recorded: &Recorded,
    states: impl IntoIterator<Item = (Acl, Option<AclState>)>,
) -> Vec<AclChange> {
    let change = |(acl, state): (Acl, Option<AclState>)| {
        let expected = recorded.get(&acl).copied();
        (expected != state).then(|| AclChange { acl: binding(&acl), expected, state })
    };
    states.into_iter().filter_map(change).collect()
}

/// What is forgotten goes first: at the limit that makes room. Everything or, with the error, not all of it.
pub async fn record(
    catalog: &dyn CatalogPort,
    link: &LinkId,
    mut changes: Vec<AclChange>,
) -> Result<(), SubmitError> {
    changes.sort_by_key(|change| change.state.is_some());
    for some in changes.chunks(ACL_CHANGES_MAX) {
        let (link, changes) = (link.clone(), some.to_vec());
        catalog.submit(Action::RecordAcls { link, as_of_ms: None, changes }).await?;
    }
    Ok(())
}

/// What a refused one goes back to: it isn't ours, and a failover is to know what denies at the source.
pub fn refused(acl: &Acl) -> Option<AclState> {
    (acl.permission == Permission::Deny).then_some(AclState::Withheld)
}

pub fn binding(acl: &Acl) -> AclBinding {
    AclBinding {
        resource_type: acl.resource_type.code(),
        pattern_type: acl.pattern_type.code(),
        resource_name: acl.resource_name.clone(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.code(),
        permission: acl.permission.code(),
    }
}

/// None: a newer version wrote it, and this one doesn't know its kind.
fn known(acl: &AclBinding) -> Option<Acl> {
    Some(Acl {
        resource_type: ResourceType::of_code(acl.resource_type)?,
        pattern_type: PatternType::of_code(acl.pattern_type)?,
        resource_name: acl.resource_name.clone(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: Operation::of_code(acl.operation)?,
        permission: Permission::of_code(acl.permission)?,
    })
}

//! What is remembered of a link's ACLs.

use std::sync::Arc;

use super::Applied;
use crate::acls::{ACL_CHANGES_MAX, ACL_NAME_BYTES_MAX, ACLS_MAX, AclChange};
use crate::command::{Outcome, Refusal};
use crate::model::{Catalog, LinkId};

impl Catalog {
    pub(super) fn record_acls(
        &mut self,
        link: &LinkId,
        expected_revision: u64,
        changes: Vec<AclChange>,
    ) -> Applied {
        let name = &self.links.get(link).ok_or_else(|| Refusal::not_found("link", &link.0))?.name;
        let record = self.acls.get(link);
        if record.map_or(0, |record| record.revision) != expected_revision {
            return Err(Refusal::Stale(format!("what is recorded of the ACLs of link '{name}'")));
        }
        let invalid = |message| Err(Refusal::Invalid { field: "acls".into(), message });
        if changes.len() > ACL_CHANGES_MAX {
            return invalid(format!("{} changes; at most {ACL_CHANGES_MAX} at once", changes.len()));
        }
        if changes.iter().any(|(acl, _)| !acl.is_bounded()) {
            return invalid(format!("a name of more than {ACL_NAME_BYTES_MAX} bytes"));
        }
        let mut acls = record.map(|record| record.acls.clone()).unwrap_or_default();
        for (acl, state) in changes {
            match state {
                Some(state) => drop(acls.insert(acl, state)),
                None => drop(acls.remove(&acl)),
            }
        }
        if acls.len() > ACLS_MAX {
            return invalid(format!("more than {ACLS_MAX} ACLs of one link: filter them"));
        }
        if record.is_some_and(|record| record.acls == acls) || (record.is_none() && acls.is_empty()) {
            return Ok(Outcome::Unchanged);
        }
        let record = Arc::make_mut(self.acls.entry(link.clone()).or_default());
        record.acls = acls;
        record.revision += 1;
        Ok(Outcome::Done)
    }
}

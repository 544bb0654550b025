//! What is remembered of a link's ACLs, and of its mirrors that have stopped and were deleted.

use std::sync::Arc;

use super::Applied;
use crate::acls::{ACL_CHANGES_MAX, ACL_NAME_BYTES_MAX, ACLS_MAX, AclChange, AclRecord, STOPPED_MAX};
use crate::command::{Outcome, Refusal};
use crate::model::{Catalog, LinkId, MirrorKey};
use crate::stop::StopKind;

/// Members below it don't remember: `apply` does the same everywhere.
const REMEMBERED_FROM_LEVEL: u32 = 5;

impl Catalog {
    pub(super) fn record_acls(
        &mut self,
        link: &LinkId,
        as_of_ms: Option<i64>,
        changes: Vec<AclChange>,
    ) -> Applied {
        let name = &self.links.get(link).ok_or_else(|| Refusal::not_found("link", &link.0))?.name;
        let invalid = |message| Err(Refusal::Invalid { field: "acls".into(), message });
        if changes.len() > ACL_CHANGES_MAX {
            return invalid(format!("{} changes; at most {ACL_CHANGES_MAX} at once", changes.len()));
        }
        if changes.iter().any(|change| !change.acl.is_bounded()) {
            return invalid(format!("a name of more than {ACL_NAME_BYTES_MAX} bytes"));
        }
        let before = self.acls.get(link);
        let mut record = before.map(|record| AclRecord::clone(record)).unwrap_or_default();
        for AclChange { acl, expected, state } in changes {
            let found = record.acls.get(&acl).copied();
            // What is as it is to be was perhaps done by this very command, whose outcome was lost.
            if found != expected && found != state {
                return Err(Refusal::Stale(format!("what is recorded of the ACLs of link '{name}'")));
            }
            match state {
                Some(state) => drop(record.acls.insert(acl, state)),
                None => drop(record.acls.remove(&acl)),
            }
        }
        if record.acls.len() > ACLS_MAX {
            return invalid(format!("more than {ACLS_MAX} ACLs of one link: filter them"));
        }
        record.as_of_ms = as_of_ms.unwrap_or(record.as_of_ms);
        if before.is_some_and(|before| **before == record) || (before.is_none() && record.is_empty()) {
            return Ok(Outcome::Unchanged);
        }
        self.set_acls(link, record);
        Ok(Outcome::Done)
    }

    /// A mirror that has stopped is about to be deleted: its topic stays the destination's.
    pub(super) fn remember_stopped(&mut self, key: &MirrorKey, kind: StopKind) {
        if self.level() < REMEMBERED_FROM_LEVEL {
            return;
        }
        let mut record = self.acls.get(&key.link).map(|record| AclRecord::clone(record)).unwrap_or_default();
        record.acls.retain(|acl, _| !acl.names(&key.topic));
        if record.stopped.contains_key(&key.topic) || record.stopped.len() < STOPPED_MAX {
            record.stopped.insert(key.topic.clone(), kind);
        } else {
            record.stopped_unnamed = record.stopped_unnamed.saturating_add(1);
        }
        self.set_acls(&key.link, record);
    }

    /// The topic is a mirror again.
    pub(super) fn forget_stopped(&mut self, key: &MirrorKey) {
        let Some(record) = self.acls.get(&key.link).filter(|record| record.stopped.contains_key(&key.topic))
        else {
            return;
        };
        let mut record = AclRecord::clone(record);
        record.stopped.remove(&key.topic);
        self.set_acls(&key.link, record);
    }

    /// An empty one is none: a build that doesn't know of records reads a catalog without them.
    fn set_acls(&mut self, link: &LinkId, record: AclRecord) {
        match record.is_empty() {
            true => drop(self.acls.remove(link)),
            false => drop(self.acls.insert(link.clone(), Arc::new(record))),
        }
    }
}

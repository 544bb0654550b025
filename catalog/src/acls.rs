//! What a link's ACL sync must remember: an ACL at the destination doesn't tell who wrote it, and a topic doesn't tell
//! that it was a mirror.
//!
//! An ACL is recorded before it is written, so that whatever ends a node in between, nothing of ours is there that
//! isn't known. What a broker has refused is forgotten again: it may be written by others then.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stop::StopKind;

/// Changes in one command, at most.
pub const ACL_CHANGES_MAX: usize = 1_000;
/// ACLs recorded of a link, at most.
pub const ACLS_MAX: usize = 20_000;
/// Bytes of each of an ACL's names, at most: topics have up to 249, certificates' names some hundred.
pub const ACL_NAME_BYTES_MAX: usize = 1_024;
/// Deleted mirrors of a link whose names are remembered, at most: some megabytes.
pub const STOPPED_MAX: usize = 20_000;

/// An ACL with Kafka's codes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AclBinding {
    pub resource_type: i8,
    pub pattern_type: i8,
    pub resource_name: Arc<str>,
    pub principal: Arc<str>,
    pub host: Arc<str>,
    pub operation: i8,
    pub permission: i8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclState {
    /// About to be written where it wasn't. Whether it was isn't known: nothing is deleted for it.
    Intended,
    /// Ours at the destination: it wasn't there, and a broker took it from us.
    Written,
    /// The source has it and the destination doesn't: one that waits for a mirror's stop, or one that denies and can't
    /// be written. A failover can't ask the source.
    Withheld,
}

/// Of one link. There is none that is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRecord {
    pub acls: BTreeMap<AclBinding, AclState>,
    /// Topics that had stopped being mirrors when these were deleted, and how: they are the destination's.
    pub stopped: BTreeMap<Arc<str>, StopKind>,
    /// Deleted mirrors that had stopped and are too many to be remembered by name.
    pub stopped_unnamed: u64,
    /// When the source was read that this was decided on; milliseconds since 1970.
    pub as_of_ms: i64,
}

/// Of one ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclChange {
    pub acl: AclBinding,
    /// What was recorded when this was decided: otherwise the change is refused.
    pub expected: Option<AclState>,
    /// None: nothing of it is remembered any more.
    pub state: Option<AclState>,
}

impl AclBinding {
    pub fn is_bounded(&self) -> bool {
        [&self.resource_name, &self.principal, &self.host].iter().all(|name| name.len() <= ACL_NAME_BYTES_MAX)
    }

    /// Whether it is about this topic alone.
    pub fn names(&self, topic: &str) -> bool {
        const TOPIC: i8 = 2;
        const LITERAL: i8 = 3;
        (self.resource_type, self.pattern_type) == (TOPIC, LITERAL) && &*self.resource_name == topic
    }
}

impl AclRecord {
    /// What is, or may be, at the destination because this link wrote it.
    pub fn written(&self) -> impl Iterator<Item = &AclBinding> {
        self.acls.iter().filter(|(_, state)| **state != AclState::Withheld).map(|(acl, _)| acl)
    }

    pub fn is_empty(&self) -> bool {
        self.acls.is_empty() && self.stopped.is_empty() && self.stopped_unnamed == 0
    }
}

//! What a link's ACL sync must remember: an ACL at the destination doesn't tell who wrote it.
//!
//! Recorded before it is written, so that whatever ends a node in between, nothing of ours is there that isn't
//! known as ours. What is recorded and isn't there is written, or forgotten, by the next round.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Changes in one command, at most.
pub const ACL_CHANGES_MAX: usize = 1_000;
/// ACLs recorded of a link, at most.
pub const ACLS_MAX: usize = 20_000;
/// Bytes of each of an ACL's names, at most: topics have up to 249, certificates' names some hundred.
pub const ACL_NAME_BYTES_MAX: usize = 1_024;

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
    /// Ours at the destination, or about to be.
    Written,
    /// The source has it, and it waits for a mirror's stop: a failover can't ask the source.
    Withheld,
}

/// Of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRecord {
    /// Rises with each change: whoever decided on an older one is refused.
    pub revision: u64,
    pub acls: BTreeMap<AclBinding, AclState>,
}

/// None: nothing of it is remembered any more.
pub type AclChange = (AclBinding, Option<AclState>);

impl AclBinding {
    pub fn is_bounded(&self) -> bool {
        [&self.resource_name, &self.principal, &self.host].iter().all(|name| name.len() <= ACL_NAME_BYTES_MAX)
    }
}

impl AclRecord {
    pub fn written(&self) -> impl Iterator<Item = &AclBinding> {
        self.of(AclState::Written)
    }

    pub fn withheld(&self) -> impl Iterator<Item = &AclBinding> {
        self.of(AclState::Withheld)
    }

    fn of(&self, wanted: AclState) -> impl Iterator<Item = &AclBinding> {
        self.acls.iter().filter(move |(_, state)| **state == wanted).map(|(acl, _)| acl)
    }
}

//! This node among the others of its fleet: how it becomes a member, whom it trusts, what it answers.
//!
//! - [`membership`]: from a data directory to a fleet's certificate: founded, joined, or held already.
//! - [`door`]: who may join at this node. [`services`]: who answers a member's calls.
//! - [`trust`]: certificates renewed, authorities followed, and whether this node was removed.

pub(crate) mod door;
pub(crate) mod membership;
pub mod services;
pub(crate) mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use catalog::command::NodeDescription;
use catalog::fleet::LEVEL;
use peers::Token;

/// What a node was told about its peers.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub data_dir: PathBuf,
    /// `host:port` where others reach this node.
    pub address: Arc<str>,
    pub join: Vec<String>,
    /// A one-time token, or the reference to its file: read when the node joins.
    pub token: Option<String>,
    /// The secret that all nodes were given.
    pub shared: Option<Token>,
    pub own: Option<OwnCertificates>,
}

/// PEM files of an operator's own authority, in place of the fleet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnCertificates {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

impl Setup {
    pub fn description(&self, name: &str) -> NodeDescription {
        NodeDescription {
            name: name.into(),
            address: Some(self.address.clone()),
            level: LEVEL,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

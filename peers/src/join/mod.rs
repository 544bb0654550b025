//! How a node gets into a fleet: joiner and member prove to each other that they know a token's secret,
//! then the member's [`Gate`] decides.
//!
//! Over TLS 1.3 in which nobody's certificate is checked: each proof covers what only the two ends of
//! this very session know (RFC 8446 section 7.5), so whoever sits between two sessions can pass on
//! neither proof. The joiner proves itself first: whoever only connects learns nothing to try guesses on.
//!
//! ```text
//! joiner  token id, proof ──►
//!         ◄── proof                             member (or: why not)
//!         node id, description, public key ──►
//!         ◄── certificate, authorities, members (or: why not)
//! ```

mod ask;
pub(crate) mod proof;
pub(crate) mod serve;
mod tries;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use catalog::command::NodeDescription;
use catalog::{FleetId, NodeId};
use serde::{Deserialize, Serialize};

pub use ask::{Channel, Joiner, join};

/// What a joiner says of itself, after both proofs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    pub node: NodeId,
    pub description: NodeDescription,
    /// For [`crate::authority::sign`]. The joiner has the key to it. Empty in an unprotected network.
    pub public_key: Arc<[u8]>,
    /// The token that it came with; none: the secret that all nodes were given.
    pub token: Option<Arc<str>>,
}

/// What a joiner gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    pub fleet: FleetId,
    /// Its certificate (DER); none where nodes have certificates of the operator's.
    pub certificate: Option<Arc<[u8]>>,
    /// Certificates (DER) of the authorities that the fleet trusts.
    pub authorities: Vec<Arc<[u8]>>,
    /// Members and where they are, the one that admits among them.
    pub members: Vec<(NodeId, Arc<str>)>,
}

pub type AdmitFuture = Pin<Box<dyn Future<Output = Result<Admitted, String>> + Send>>;

/// Decides at a member who comes in.
pub trait Gate: Send + Sync {
    /// The secret of an open token, or of the one used already: its node's answer may have been lost.
    /// [`crate::token::SHARED`] names the one that all nodes were given.
    fn secret(&self, token: &str) -> Option<Arc<[u8]>>;

    /// Makes it a member, durably, and signs its certificate; or says in words why not. A node that
    /// was admitted before and asks again is admitted again.
    fn admit(&self, request: JoinRequest) -> AdmitFuture;
}

/// Why a node didn't get in at one address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Worth trying again, here or elsewhere.
    #[error("no node answers at {address}: {why}")]
    Unreachable { address: String, why: String },
    /// Its words; trying again is of use only where they say so.
    #[error("{address} doesn't let this node in: {why}")]
    Refused { address: String, why: String },
    /// It doesn't know the secret, or someone sits between.
    #[error(
        "{address} didn't prove that it knows the join secret: it isn't a member of that fleet, or \
         someone is between it and this node. Nothing was told to it"
    )]
    Unproven { address: String },
}

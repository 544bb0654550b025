//! The seam between whoever calls a member and however the call gets there.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;

use crate::refusal::Refusal;

/// Who a call is for, at the member that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Service {
    /// Consensus: entries, votes, snapshots, forwarded commands.
    Raft = 1,
    /// The coordinator: reports and leases.
    Fleet = 2,
    /// Whoever answers for what runs on that node.
    Status = 3,
}

impl Service {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Fleet => "fleet",
            Self::Status => "status",
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Raft, Self::Fleet, Self::Status].into_iter().find(|service| *service as u8 == byte)
    }
}

pub type CallFuture = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;
pub type ServeFuture = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// No call waits for longer: what takes longer is asked for again.
pub const WITHIN_MAX: Duration = Duration::from_secs(60);

/// Calls other members.
pub trait Call: Send + Sync {
    /// Sends `request` to the member's service; its answer, or why there is none after at most
    /// `within` (and never more than [`WITHIN_MAX`]). Without an answer the request may have been served all the same.
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture;

    /// Those of whom an address is known, as far as anybody told.
    fn members(&self) -> Vec<NodeId> {
        Vec::new()
    }
}

/// Answers other members. An error is for the service to put into the bytes that it answers with.
///
/// The future is dropped when it isn't done some time after the caller gave up ([`crate::transport`]).
pub trait Serve: Send + Sync {
    fn serve(&self, from: NodeId, service: Service, request: Bytes) -> ServeFuture;
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody knows where it is. Not sent.
    #[error("the address of node {0} isn't known")]
    NoAddress(NodeId),
    /// No connection, or it broke: in doubt if anything was sent.
    #[error("node {node} at {address} can't be reached: {why}")]
    Unreachable { node: NodeId, address: String, why: String },
    /// One of the two refuses the other: another fleet, another version, a certificate, a removed node.
    /// Not sent.
    #[error("node {node} at {address} and this one don't talk: {why}")]
    Refused { node: NodeId, address: String, why: Refusal },
    #[error("node {node} didn't answer within {within:?}")]
    Deadline { node: NodeId, within: Duration },
    /// Not sent.
    #[error("{bytes} bytes are too many for a call, {max} at most")]
    TooLarge { bytes: usize, max: usize },
    /// Too many calls to it are under way. Not served.
    #[error("node {0} is busy with as many calls as it may have at once")]
    Busy(NodeId),
    /// It took the call, and gives no answer.
    #[error("node {node} gives no answer: {why}")]
    Unanswered { node: NodeId, why: String },
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

impl CallError {
    /// For metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "no_address",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Deadline { .. } => "deadline",
            Self::TooLarge { .. } => "too_large",
            Self::Busy(_) => "busy",
            Self::Unanswered { .. } => "unanswered",
            Self::Stopping => "stopping",
        }
    }
}

/// Of a fleet of one: nobody can be called.
pub struct Alone;

impl Call for Alone {
    fn call(&self, to: NodeId, _: Service, _: Bytes, _: Duration) -> CallFuture {
        Box::pin(std::future::ready(Err(CallError::NoAddress(to))))
    }
}

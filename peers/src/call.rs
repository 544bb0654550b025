//! The seam between whoever calls a member and however the call gets there.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;

/// Who a call is for, at the member that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Consensus: entries, votes, snapshots, forwarded commands.
    Raft,
    /// The coordinator: reports and leases.
    Fleet,
    /// Whoever answers for what runs on that node.
    Status,
}

pub type CallFuture = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;
pub type ServeFuture = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// Calls other members.
pub trait Call: Send + Sync {
    /// Sends `request` to the member's service; its answer, or why there is none after at most
    /// `within`. Without an answer the request may have been served all the same.
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture;
}

/// Answers other members. An error is for the service to put into the bytes that it answers with.
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
    /// It refuses this node: another fleet, another version, a certificate, a removed node.
    #[error("node {node} at {address} refuses: {why}")]
    Refused { node: NodeId, address: String, why: String },
    #[error("node {node} didn't answer within {within:?}")]
    Deadline { node: NodeId, within: Duration },
    /// Not sent.
    #[error("{bytes} bytes are too many for a call, {max} at most")]
    TooLarge { bytes: usize, max: usize },
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Of a fleet of one: nobody can be called.
pub struct Alone;

impl Call for Alone {
    fn call(&self, to: NodeId, _: Service, _: Bytes, _: Duration) -> CallFuture {
        Box::pin(std::future::ready(Err(CallError::NoAddress(to))))
    }
}

//! Calls to the other members of the group.
//!
//! A group of one has nobody to call, so every call answers Unreachable. It never opens a socket.

use std::fmt;

use openraft::BasicNode;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

use crate::raft::Types;

/// Factory of the calls of a group of one.
pub(crate) struct Alone;

/// The way to a member that this build can't reach.
pub(crate) struct NoWay {
    target: u64,
}

#[derive(Debug)]
struct NoPeers {
    target: u64,
}

impl fmt::Display for NoPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node {} can't be called: this build runs groups of one node only",
            catalog::NodeId(self.target)
        )
    }
}

impl std::error::Error for NoPeers {}

type CallError<E> = RPCError<u64, BasicNode, E>;

impl NoWay {
    fn unreachable<E: std::error::Error>(&self) -> CallError<E> {
        RPCError::Unreachable(Unreachable::new(&NoPeers { target: self.target }))
    }
}

impl RaftNetworkFactory<Types> for Alone {
    type Network = NoWay;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> NoWay {
        NoWay { target }
    }
}

impl RaftNetwork<Types> for NoWay {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError<RaftError<u64>>> {
        Err(self.unreachable())
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, CallError<RaftError<u64, InstallSnapshotError>>> {
        Err(self.unreachable())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError<RaftError<u64>>> {
        Err(self.unreachable())
    }
}

//! Who answers a member's calls.

use std::sync::{Arc, OnceLock};

use actors::engine::Engine;
use bytes::Bytes;
use catalog::NodeId;
use consensus::Consensus;
use peers::{Serve, ServeFuture, Service};

use crate::status::Fleet;

pub struct Services {
    pub consensus: Consensus,
    /// Set when the data plane has started; until then the empty answer says that nothing runs.
    pub engine: Arc<OnceLock<Engine>>,
    pub fleet: Fleet,
}

impl Serve for Services {
    fn serve(&self, from: NodeId, service: Service, request: Bytes) -> ServeFuture {
        match service {
            Service::Raft => {
                let consensus = self.consensus.clone();
                Box::pin(async move { consensus.serve(from, request).await })
            }
            Service::Fleet => {
                let answer = self.engine.get().map(|engine| engine.serve(from, request)).unwrap_or_default();
                Box::pin(std::future::ready(answer))
            }
            Service::Status => Box::pin(std::future::ready(self.fleet.serve(&request))),
        }
    }
}

//! Calls through a transport that comes later: consensus is opened first, because the transport needs to
//! know what it holds. Until then every call says that nobody's address is known; none waits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::{Call, CallError, CallFuture, Service, Transport};
use bytes::Bytes;
use catalog::NodeId;

#[derive(Clone, Default)]
pub struct LatePeers(Arc<OnceLock<Transport>>);

impl LatePeers {
    /// Once.
    pub fn set(&self, transport: Transport) {
        let _ = self.0.set(transport);
    }
}

impl Call for LatePeers {
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture {
        match self.0.get() {
            Some(transport) => transport.call(to, service, request, within),
            None => Box::pin(std::future::ready(Err(CallError::NoAddress(to)))),
        }
    }

    fn members(&self) -> Vec<NodeId> {
        self.0.get().map(Call::members).unwrap_or_default()
    }
}

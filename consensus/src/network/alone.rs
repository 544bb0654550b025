//! The peers of a node that has none.

use std::future;
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use peers::{Call, CallError, CallFuture, Service};

/// Knows nobody's address.
pub(crate) struct Alone;

impl Call for Alone {
    fn call(&self, to: NodeId, _service: Service, _request: Bytes, _within: Duration) -> CallFuture {
        Box::pin(future::ready(Err(CallError::NoAddress(to))))
    }
}

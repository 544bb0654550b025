//! Calls members, and is called by them.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use catalog::fleet::FleetId;
use tokio::sync::watch;

use crate::book::Book;
use crate::call::{Call, CallError, CallFuture, Serve, Service};
use crate::dial::{Dial, Listen};
use crate::heard::Heard;
use crate::join::Gate;
use crate::refusal::Refusal;
use crate::tls::Security;

/// Who this node is among the others, and by which means it reaches them.
pub struct Options {
    pub node: NodeId,
    pub fleet: FleetId,
    /// `host:port` where others reach it.
    pub address: Arc<str>,
    /// Of its build: [`catalog::fleet::LEVEL`], and the version for people.
    pub level: u32,
    pub version: Arc<str>,
    pub security: Security,
    pub dial: Arc<dyn Dial>,
    pub book: watch::Receiver<Arc<Book>>,
}

/// What refuses this node, and why. Kept until that member takes it again.
pub type Refusals = std::collections::BTreeMap<NodeId, Refusal>;

/// Cheap to clone. Must be made within a tokio runtime.
#[derive(Clone)]
pub struct Transport {
    heard: Heard,
    refusals: Arc<watch::Sender<Refusals>>,
}

impl Transport {
    pub fn new(_options: Options) -> Self {
        Self { heard: Heard::default(), refusals: Arc::default() }
    }

    /// Takes calls from now on. `gate` decides who joins; none: nobody joins here.
    pub fn listen(&self, _listener: Box<dyn Listen>, _serve: Arc<dyn Serve>, _gate: Option<Arc<dyn Gate>>) {}

    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    pub fn refusals(&self) -> watch::Receiver<Refusals> {
        self.refusals.subscribe()
    }

    /// Every call fails with [`CallError::Stopping`], every connection is closed, none is taken.
    pub fn stop(&self) {}
}

impl Call for Transport {
    fn call(&self, to: NodeId, _: Service, _: Bytes, _: Duration) -> CallFuture {
        Box::pin(async move { Err(CallError::NoAddress(to)) })
    }
}

//! Calls members, and is called by them.
//!
//! Connections are made when a call needs them and closed when none did for a minute. Every call ends by
//! its deadline; served calls are dropped a second after it. Nothing is sent twice.
//!
//! | bound | what |
//! |---|---|
//! | [`CALL_BYTES_MAX`] | a request, and an answer |
//! | 32 calls (Raft, fleet), 8 (status), 2 (bulk: above 64 KiB) | sent to one member and not answered; twice as many are served for one |
//! | 8 times as many | callers of one member; more fail with [`CallError::Busy`] |
//! | 1,000 | connections of members; 128 of callers that haven't said who they are; 8 joins |

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use catalog::{FleetId, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::book::{Book, Said};
use crate::call::{Call, CallError, CallFuture, Serve, Service, WITHIN_MAX};
use crate::dial::{Dial, Listen};
pub use crate::frame::CALL_BYTES_MAX;
use crate::frame::{Frame, Kind};
use crate::guest::{self, Guests};
use crate::heard::Heard;
use crate::join::Gate;
use crate::join::serve::Door;
use crate::lane::Lane;
use crate::meters;
use crate::reception::Reception;
use crate::refusal::Refusal;
use crate::shared::Shared;
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

/// Who refuses this node (or whom it refuses), and why. Kept until the two have met.
pub type Refusals = std::collections::BTreeMap<NodeId, Refusal>;

/// Cheap to clone; stops when the last clone is dropped. Must be made within a tokio runtime.
#[derive(Clone)]
pub struct Transport(Arc<Owner>);

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop.send_replace(true);
    }
}

impl Transport {
    pub fn new(options: Options) -> Self {
        let Options { node, fleet, address, level, version, security, dial, book } = options;
        let shared = Arc::new(Shared {
            node,
            fleet,
            own_address: address,
            level,
            version,
            security,
            dial,
            book,
            said: Said::default(),
            heard: Heard::default(),
            refusals: watch::Sender::default(),
            serve: OnceLock::new(),
            guests: Guests::default(),
            lines: Mutex::default(),
            turned_away: Mutex::default(),
            stop: watch::Sender::new(false),
        });
        tokio::spawn(follow_book(shared.clone()));
        Self(Arc::new(Owner(shared)))
    }

    /// Takes calls from now on; at several addresses when called several times, with the first `serve`
    /// for calls of this node to itself. `gate` decides who joins; none: nobody joins here.
    pub fn listen(&self, listener: Box<dyn Listen>, serve: Arc<dyn Serve>, gate: Option<Arc<dyn Gate>>) {
        let shared = &self.0.0;
        let _ = shared.serve.set(serve.clone());
        tokio::spawn(Reception::new(shared.clone(), serve, Door::of(gate)).run(listener));
    }

    pub fn heard(&self) -> Heard {
        self.0.0.heard.clone()
    }

    /// [`Refusal::Removed`] among them: this node is no member any more and is to stop.
    pub fn refusals(&self) -> watch::Receiver<Refusals> {
        self.0.0.refusals.subscribe()
    }

    /// Every call fails with [`CallError::Stopping`], every connection is closed, none is taken.
    pub fn stop(&self) {
        self.0.0.stop.send_replace(true);
    }
}

async fn follow_book(shared: Arc<Shared>) {
    let mut book = shared.book.clone();
    loop {
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            changed = book.changed() => match changed {
                Ok(()) => shared.tidy(),
                Err(_) => return,
            },
        }
    }
}

impl Call for Transport {
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture {
        let shared = self.0.0.clone();
        Box::pin(async move {
            let answer = tokio::select! {
                biased;
                () = shared.stopped() => Err(CallError::Stopping),
                answer = call(&shared, to, service, request, within) => answer,
            };
            meters::call(service, answer.as_ref().err().map_or("answered", CallError::name));
            answer
        })
    }

    fn members(&self) -> Vec<NodeId> {
        let book = self.0.0.book();
        book.members.iter().filter_map(|(id, address)| address.as_ref().and(Some(*id))).collect()
    }
}

async fn call(
    shared: &Arc<Shared>,
    to: NodeId,
    service: Service,
    request: Bytes,
    within: Duration,
) -> Result<Bytes, CallError> {
    if request.len() > CALL_BYTES_MAX {
        return Err(CallError::TooLarge { bytes: request.len(), max: CALL_BYTES_MAX });
    }
    let within = within.min(WITHIN_MAX);
    let late = CallError::Deadline { node: to, within };
    if to == shared.node {
        return call_itself(shared, service, request, within, late).await;
    }
    let deadline = Instant::now() + within;
    let line = shared.line(to, Lane::for_call(service, request.len()))?;
    let _caller = line.enter()?;
    let connection = line.connection(shared, deadline).await?;
    connection.call(service, request, deadline, late).await
}

async fn call_itself(
    shared: &Shared,
    service: Service,
    request: Bytes,
    within: Duration,
    late: CallError,
) -> Result<Bytes, CallError> {
    let serve = shared.serve.get().ok_or(CallError::NoAddress(shared.node))?;
    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    let frame = Frame { within_ms, ..Frame::new(Kind::Request, request) };
    let answer = tokio::time::timeout(within, guest::served(&**serve, shared.node, service, frame)).await;
    match answer.map_err(|_| late)? {
        Frame { kind: Kind::Answer, body, .. } => Ok(body),
        Frame { body, .. } => {
            let why = String::from_utf8_lossy(&body).into_owned();
            Err(CallError::Unanswered { node: shared.node, why })
        }
    }
}

//! Nodes on a network in memory.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use catalog::{FleetId, NodeId};
use peers::dial::{AcceptFuture, Accepted, BoxedStream, Dial, DialFuture, Listen};
use peers::{Book, Call, CallError, Gate, Security, Serve, ServeFuture, Service, Transport, transport};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};

pub const A: NodeId = NodeId(0xa);
pub const B: NodeId = NodeId(0xb);
pub const SECOND: Duration = Duration::from_secs(1);

/// What a stream holds on its way, as a socket does.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub struct Net {
    pub state: Arc<NetState>,
    /// Where who dials calls from.
    pub from: &'static str,
}

impl Default for Net {
    fn default() -> Self {
        Self { state: Arc::default(), from: "10.0.0.1:40000" }
    }
}

#[derive(Default)]
pub struct NetState {
    listeners: Mutex<BTreeMap<String, mpsc::UnboundedSender<Accepted>>>,
    dials: AtomicUsize,
}

impl Net {
    pub fn dials(&self) -> usize {
        self.state.dials.load(Ordering::SeqCst)
    }

    pub fn listener(&self, address: &str) -> NetListener {
        let (sender, accepted) = mpsc::unbounded_channel();
        self.state.listeners.lock().expect("not poisoned").insert(address.into(), sender);
        NetListener(accepted)
    }

    /// A bare stream to whoever listens there.
    pub fn open(&self, address: &str) -> io::Result<DuplexStream> {
        self.state.dials.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let accepted = Accepted { stream: Box::new(far), from: self.from.into() };
        let listeners = self.state.listeners.lock().expect("not poisoned");
        let sent = listeners.get(address).map(|listener| listener.send(accepted));
        match sent {
            Some(Ok(())) => Ok(near),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl Dial for Net {
    fn dial(&self, address: Arc<str>) -> DialFuture {
        let opened = self.open(&address);
        Box::pin(async move { opened.map(|stream| Box::new(stream) as BoxedStream) })
    }
}

pub struct NetListener(mpsc::UnboundedReceiver<Accepted>);

impl NetListener {
    pub async fn next(&mut self) -> BoxedStream {
        self.0.recv().await.expect("a connection").stream
    }
}

impl Listen for NetListener {
    fn accept(&mut self) -> AcceptFuture<'_> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        })
    }
}

/// Answers with what a function makes of a request.
pub struct Answer<F>(pub F);

impl<F, R> Serve for Answer<F>
where
    F: Fn(NodeId, Service, Bytes) -> R + Send + Sync,
    R: Future<Output = Bytes> + Send + 'static,
{
    fn serve(&self, from: NodeId, service: Service, request: Bytes) -> ServeFuture {
        Box::pin((self.0)(from, service, request))
    }
}

pub fn echo() -> Arc<dyn Serve> {
    Arc::new(Answer(|_, _, request| async move { request }))
}

pub fn fleet() -> FleetId {
    FleetId("aB_-xyzXYZ0123456789ab".into())
}

pub fn book(addresses: &[(NodeId, &str)]) -> Book {
    let members = addresses.iter().map(|(node, address)| (*node, Some(Arc::from(*address)))).collect();
    Book { members, removed: BTreeSet::new() }
}

/// How to make one.
pub struct Spec {
    pub net: Net,
    pub node: NodeId,
    pub address: &'static str,
    pub fleet: FleetId,
    pub security: Security,
    pub book: Book,
    pub serve: Arc<dyn Serve>,
    pub gate: Option<Arc<dyn Gate>>,
}

impl Spec {
    pub fn new(net: &Net, node: NodeId, address: &'static str) -> Self {
        Self {
            net: net.clone(),
            node,
            address,
            fleet: fleet(),
            security: Security::UnprotectedForSimulation,
            book: book(&[(A, "a:1"), (B, "b:1")]),
            serve: echo(),
            gate: None,
        }
    }

    pub fn start(self) -> Member {
        let (book, received) = watch::channel(Arc::new(self.book));
        let transport = Transport::new(transport::Options {
            node: self.node,
            fleet: self.fleet,
            address: self.address.into(),
            level: 2,
            version: "0.1.0".into(),
            security: self.security,
            dial: Arc::new(self.net.clone()),
            book: received,
        });
        transport.listen(Box::new(self.net.listener(self.address)), self.serve, self.gate);
        Member { transport, book }
    }
}

pub struct Member {
    pub transport: Transport,
    pub book: watch::Sender<Arc<Book>>,
}

impl Member {
    pub async fn call(&self, to: NodeId, request: impl Into<Bytes>) -> Result<Bytes, CallError> {
        self.transport.call(to, Service::Raft, request.into(), SECOND).await
    }

    /// What is said of a call that is refused.
    pub async fn refusal(&self, to: NodeId) -> String {
        match self.call(to, "hello").await {
            Err(CallError::Refused { why, .. }) => format!("{}: {why}", why.name()),
            other => format!("not refused: {other:?}"),
        }
    }
}

pub fn pair(net: &Net) -> (Member, Member) {
    (Spec::new(net, A, "a:1").start(), Spec::new(net, B, "b:1").start())
}

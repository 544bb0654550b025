//! Stands for consensus: one catalog, in which every command is at once agreed on, and members that can
//! be cut off from it and from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actors::catalog_port::{CatalogPort, ChangeFuture, ReadFuture, SubmitFuture};
use actors::engine::Engine;
use bytes::Bytes;
use catalog::voters::{Change, Members};
use catalog::{Action, Command, NodeId};
use consensus::{Applied, Status, SubmitError};
use peers::{Call, CallError, CallFuture, Service};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a commit takes.
const COMMIT: Duration = Duration::from_millis(3);
const WAY: Duration = Duration::from_micros(500);

pub struct Group(Mutex<Inner>);

struct Inner {
    applied: Applied,
    leader: Option<NodeId>,
    term: u64,
    cut: BTreeMap<NodeId, Instant>,
    /// Members that hear each other, and to which no entries come.
    behind: BTreeSet<NodeId>,
    /// Members whose commands reach nobody, though they hear and report.
    mute: BTreeSet<NodeId>,
    seats: BTreeMap<NodeId, watch::Sender<Arc<Applied>>>,
    engines: BTreeMap<NodeId, Engine>,
}

impl Inner {
    fn publish(&self) {
        for (node, seat) in &self.seats {
            if !self.cut.contains_key(node) && !self.behind.contains(node) {
                seat.send_replace(Arc::new(self.applied.clone()));
            }
        }
    }

    fn is_cut(&self, node: NodeId) -> bool {
        self.cut.contains_key(&node)
    }
}

impl Group {
    pub fn new(nodes: impl Iterator<Item = NodeId>) -> Arc<Self> {
        let seats: BTreeMap<NodeId, _> = nodes.map(|node| (node, watch::Sender::default())).collect();
        let leader = seats.keys().next().copied();
        let (cut, behind, mute) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (applied, engines) = (Applied::default(), BTreeMap::new());
        Arc::new(Self(Mutex::new(Inner { applied, leader, term: 1, cut, behind, mute, seats, engines })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics in here")
    }

    pub fn apply(&self, action: Action) -> Result<catalog::Outcome, catalog::Refusal> {
        let mut inner = self.lock();
        inner.applied.index += 1;
        let outcome = inner.applied.catalog.apply(Command { at_ms: 0, action });
        inner.publish();
        outcome
    }

    pub fn catalog(&self) -> catalog::Catalog {
        self.lock().applied.catalog.clone()
    }

    pub fn entries(&self) -> u64 {
        self.lock().applied.index
    }

    pub fn add(&self, node: NodeId, engine: Engine) {
        self.lock().engines.insert(node, engine);
    }

    pub fn engine(&self, node: NodeId) -> Engine {
        self.lock().engines[&node].clone()
    }

    /// The node hears of nothing any more, and nobody hears it.
    pub fn cut_off(&self, node: NodeId) {
        self.lock().cut.insert(node, Instant::now());
    }

    pub fn bring_back(&self, node: NodeId) {
        let mut inner = self.lock();
        inner.cut.remove(&node);
        inner.publish();
    }

    /// Nothing more is applied at the node, though it hears and is heard.
    pub fn hold_back(&self, node: NodeId) {
        self.lock().behind.insert(node);
    }

    pub fn catch_up(&self, node: NodeId) {
        let mut inner = self.lock();
        inner.behind.remove(&node);
        inner.publish();
    }

    pub fn mute(&self, node: NodeId) {
        self.lock().mute.insert(node);
    }

    pub fn unmute(&self, node: NodeId) {
        self.lock().mute.remove(&node);
    }

    pub fn lead(&self, node: Option<NodeId>) {
        let mut inner = self.lock();
        inner.leader = node;
        inner.term += 1;
    }
}

pub struct Port {
    pub group: Arc<Group>,
    pub node: NodeId,
}

impl Port {
    fn available(&self) -> Result<(), SubmitError> {
        let inner = self.group.lock();
        if inner.leader.is_none() || inner.is_cut(self.node) {
            return Err(SubmitError::NoLeader { leader: None });
        }
        Ok(())
    }
}

impl CatalogPort for Port {
    fn node(&self) -> NodeId {
        self.node
    }

    fn submit(&self, action: Action) -> SubmitFuture<'_> {
        Box::pin(async move {
            tokio::time::sleep(COMMIT).await;
            self.available()?;
            if self.group.lock().mute.contains(&self.node) {
                return Err(SubmitError::NoLeader { leader: None });
            }
            Ok(self.group.apply(action)?)
        })
    }

    fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.group.lock().seats[&self.node].subscribe()
    }

    fn read(&self) -> ReadFuture<'_> {
        Box::pin(async {
            tokio::time::sleep(COMMIT).await;
            self.available()?;
            Ok(self.watch().borrow().clone())
        })
    }

    fn status(&self) -> Status {
        let inner = self.group.lock();
        let is_leader = inner.leader == Some(self.node);
        let cut = inner.cut.get(&self.node).map(|at| at.elapsed().as_millis() as u64);
        Status {
            node_id: self.node,
            node_name: self.node.to_string(),
            is_leader,
            leader: inner.leader,
            term: inner.term,
            last_applied: inner.seats[&self.node].borrow().index,
            millis_since_quorum_ack: is_leader.then(|| cut.unwrap_or(0)),
            voters: inner.seats.keys().copied().collect(),
            stopped: None,
            removed: false,
        }
    }

    fn members(&self) -> Option<Members> {
        let voters: BTreeSet<NodeId> = self.group.lock().seats.keys().copied().collect();
        // Who votes is another's test.
        let _ = voters;
        None
    }

    fn change(&self, _: Change) -> ChangeFuture<'_> {
        Box::pin(async { Ok(()) })
    }
}

pub struct Calls {
    pub group: Arc<Group>,
    pub from: NodeId,
}

impl Call for Calls {
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture {
        let (group, from) = (self.group.clone(), self.from);
        Box::pin(async move {
            assert_eq!(service, Service::Fleet);
            let reach = || {
                let inner = group.lock();
                let lost = inner.is_cut(from) || inner.is_cut(to);
                (!lost).then(|| inner.engines.get(&to).cloned()).flatten()
            };
            tokio::time::sleep(WAY).await;
            let Some(engine) = reach() else {
                tokio::time::sleep(within).await;
                return Err(CallError::Deadline { node: to, within });
            };
            let answer = engine.serve(from, request);
            tokio::time::sleep(WAY).await;
            Ok(answer)
        })
    }
}

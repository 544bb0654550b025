//! A network in memory: messages take time, get lost, and are cut off one way or both. A request that
//! arrived takes effect even if its answer doesn't.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use consensus::Consensus;
use peers::{Call, CallError, CallFuture, Service};
use tokio::time::{sleep, timeout};

use super::chance::Chance;

#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    nodes: BTreeMap<NodeId, Consensus>,
    cut: BTreeSet<(NodeId, NodeId)>,
    chance: Chance,
    latency_max: Duration,
    /// Of a hundred messages.
    lost: u64,
    /// Calls by the caller, and their largest.
    calls: BTreeMap<NodeId, u64>,
    bytes_max: usize,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            chance: Chance::new(seed),
            latency_max: Duration::from_millis(5),
            lost: 0,
            calls: BTreeMap::new(),
            bytes_max: 0,
        })))
    }

    /// The way out of the node that will be known as `me`.
    pub fn way(&self) -> Way {
        Way { net: self.clone(), me: Arc::default() }
    }

    pub fn up(&self, way: &Way, consensus: &Consensus) {
        *way.me.lock().expect("no panic while held") = Some(consensus.node_id());
        self.state().nodes.insert(consensus.node_id(), consensus.clone());
    }

    pub fn down(&self, node: NodeId) {
        self.state().nodes.remove(&node);
    }

    /// Nothing passes from the one to the other; the other way it does.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    pub fn isolate(&self, node: NodeId) {
        let mut state = self.state();
        let others: Vec<NodeId> = state.nodes.keys().copied().filter(|id| *id != node).collect();
        for other in others {
            state.cut.extend([(node, other), (other, node)]);
        }
    }

    pub fn heal(&self) {
        self.state().cut.clear();
    }

    pub fn lose(&self, of_a_hundred: u64) {
        self.state().lost = of_a_hundred;
    }

    pub fn latency_max(&self, latency: Duration) {
        self.state().latency_max = latency;
    }

    pub fn bytes_max(&self) -> usize {
        self.state().bytes_max
    }

    pub fn calls(&self) -> BTreeMap<NodeId, u64> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }

    /// How long a message takes; none: it never arrives.
    fn message(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut state = self.state();
        let max = u64::try_from(state.latency_max.as_micros()).expect("short");
        let latency = Duration::from_micros(state.chance.below(max.max(1)));
        let lost = state.chance.below(100) < state.lost;
        (!lost && !state.cut.contains(&(from, to))).then_some(latency)
    }

    async fn carry(self, from: NodeId, to: NodeId, request: Bytes) -> Result<Bytes, CallError> {
        let never = std::future::pending::<Result<Bytes, CallError>>();
        {
            let mut state = self.state();
            *state.calls.entry(from).or_default() += 1;
            state.bytes_max = state.bytes_max.max(request.len());
        }
        let Some(latency) = self.message(from, to) else { return never.await };
        sleep(latency).await;
        let server = self.state().nodes.get(&to).cloned();
        let Some(server) = server else {
            let (address, why) = ("memory".to_owned(), "down".to_owned());
            return Err(CallError::Unreachable { node: to, address, why });
        };
        // Served to its end whether or not the caller still waits.
        let served = tokio::spawn(async move { server.serve(from, request).await });
        let Ok(answer) = served.await else { return never.await };
        let Some(latency) = self.message(to, from) else { return never.await };
        sleep(latency).await;
        Ok(answer)
    }
}

#[derive(Clone)]
pub struct Way {
    net: Net,
    me: Arc<Mutex<Option<NodeId>>>,
}

impl Call for Way {
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture {
        assert_eq!(service, Service::Raft);
        let me = *self.me.lock().expect("no panic while held");
        let net = self.net.clone();
        Box::pin(async move {
            let Some(me) = me else { return Err(CallError::NoAddress(to)) };
            match timeout(within, net.carry(me, to, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(CallError::Deadline { node: to, within }),
            }
        })
    }

    fn members(&self) -> Vec<NodeId> {
        self.net.state().nodes.keys().copied().collect()
    }
}

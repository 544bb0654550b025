//! A fleet with real consensus on disk: each node has a runtime of its own that can be killed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actors::engine::Engine;
use bytes::Bytes;
use catalog::command::{Move, NodeDescription};
use catalog::fleet::LEVEL;
use catalog::{Action, Assignment, Catalog, Duty, NodeId, Refusal};
use consensus::{Consensus, Options, SubmitError};
use peers::{Call, CallError, CallFuture, Service};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;

use crate::clusters::{Clusters, LOOK_EVERY, mirror};

/// For a fleet on a busy machine to come to something.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Seat {
    consensus: Consensus,
    engine: Option<Engine>,
    runtime: Handle,
}

/// Carries calls between the nodes.
#[derive(Clone, Default)]
struct Switch(Arc<Mutex<BTreeMap<NodeId, Seat>>>);

impl Switch {
    fn seats(&self) -> MutexGuard<'_, BTreeMap<NodeId, Seat>> {
        self.0.lock().expect("no panic while held")
    }
}

/// The way out of a node, which learns its id when it opens its store.
#[derive(Clone)]
struct Way {
    switch: Switch,
    me: Arc<Mutex<Option<NodeId>>>,
}

impl Call for Way {
    fn call(&self, to: NodeId, service: Service, request: Bytes, within: Duration) -> CallFuture {
        let me = *self.me.lock().expect("no panic while held");
        let seat = self.switch.seats().get(&to).cloned();
        Box::pin(async move {
            let unreachable =
                |why: &str| CallError::Unreachable { node: to, address: "memory".into(), why: why.into() };
            let (Some(me), Some(seat)) = (me, seat) else { return Err(unreachable("down")) };
            let served = seat.runtime.spawn(async move {
                match (service, seat.engine) {
                    (Service::Raft, _) => Some(seat.consensus.serve(me, request).await),
                    (Service::Fleet, Some(engine)) => Some(engine.serve(me, request)),
                    _ => None,
                }
            });
            match tokio::time::timeout(within, served).await {
                Ok(Ok(Some(answer))) => Ok(answer),
                Ok(_) => Err(unreachable("gone")),
                Err(_) => Err(CallError::Deadline { node: to, within }),
            }
        })
    }
}

struct RealNode {
    runtime: Runtime,
    consensus: Consensus,
    engine: Engine,
}

pub struct RealFleet {
    pub clusters: Clusters,
    nodes: BTreeMap<NodeId, RealNode>,
    switch: Switch,
    dir: TempDir,
}

fn description(id: u64) -> NodeDescription {
    NodeDescription {
        name: format!("n{id}").into(),
        address: Some(format!("n{id}:9000").into()),
        level: LEVEL,
        version: "test".into(),
    }
}

impl RealFleet {
    /// Founds a fleet, lets the others join, and waits until the Raft group is whole.
    pub async fn start(nodes: u64, partitions: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (clusters, switch) = (Clusters::new(partitions), Switch::default());
        let mut fleet = Self { clusters, nodes: BTreeMap::new(), switch, dir };
        for id in 1..=nodes {
            fleet.join(id).await;
        }
        let voters = catalog::voters::wanted(usize::try_from(nodes).expect("few"));
        fleet.until("all vote", PATIENCE, || fleet.any().status().voters.len() == voters).await;
        for command in fleet.clusters.commands() {
            fleet.submit(command).await;
        }
        fleet
    }

    async fn join(&mut self, id: u64) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let way = Way { switch: self.switch.clone(), me: Arc::default() };
        let peers: Arc<dyn Call> = Arc::new(way.clone());
        let path = self.dir.path().join(id.to_string());
        let options = Options { peers: peers.clone(), ..Options::new(path, format!("n{id}")) };
        let founds = self.nodes.is_empty();
        let open = async move {
            let consensus =
                if founds { Consensus::bootstrap(options).await } else { Consensus::enter(options).await };
            consensus.expect("a store")
        };
        let consensus = runtime.spawn(open).await.expect("opened");
        let node = consensus.node_id();
        *way.me.lock().expect("no panic while held") = Some(node);
        let seat = Seat { consensus: consensus.clone(), engine: None, runtime: runtime.handle().clone() };
        self.switch.seats().insert(node, seat);
        let description = description(id);
        if !founds {
            let admit = Action::AdmitNode { node, description: description.clone(), token: None };
            self.submit(admit).await;
        }
        let (recorder, clusters) = (consensus.clone(), self.clusters.clone());
        let start = async move {
            let record = Action::RecordStart { node, description };
            while let Err(error) = recorder.submit(record.clone()).await {
                assert!(matches!(error, SubmitError::NoLeader { .. } | SubmitError::Deadline), "{error}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let engine = Engine::start(
                recorder,
                clusters.clocks(),
                clusters.dial(),
                peers,
                actors::credit::CreditLimits::default(),
            )
            .await
            .expect("actors");
            tokio::spawn(engine.member().clone().run());
            engine
        };
        let engine = runtime.spawn(start).await.expect("started");
        self.switch.seats().get_mut(&node).expect("seated").engine = Some(engine.clone());
        self.nodes.insert(node, RealNode { runtime, consensus, engine });
    }

    /// Whatever is asked for here does nothing when it is taken a second time.
    async fn submit(&self, action: Action) {
        let since = Instant::now();
        while let Err(error) = self.any().submit(action.clone()).await {
            if matches!(error, SubmitError::Refused(Refusal::Exists { .. })) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub async fn drain(&self, node: NodeId) {
        self.submit(Action::SetDuty { node, duty: Duty::Drains }).await;
    }

    /// Asked of another member, once.
    pub async fn remove(&self, node: NodeId) -> Result<catalog::Outcome, SubmitError> {
        let asked = self.nodes.values().find(|other| other.consensus.node_id() != node).expect("another");
        asked.consensus.submit(Action::RemoveNode { node, lost: false }).await
    }

    pub fn voters(&self) -> Vec<NodeId> {
        self.any().status().voters
    }

    pub async fn hand_over(&self, partition: u32, to: NodeId) {
        let expected_epoch = self.epochs()[partition as usize];
        let m = Move { mirror: mirror(), partition, node: to, expected_epoch };
        self.submit(Action::HandOver { moves: vec![m] }).await;
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn any(&self) -> &Consensus {
        &self.nodes.values().next().expect("a node").consensus
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&RealNode| node.consensus.status().is_leader;
        self.nodes.values().find(leads).map(|node| node.consensus.node_id())
    }

    pub fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader();
        self.nodes.keys().copied().filter(|id| Some(*id) != leader).collect()
    }

    pub fn catalog(&self) -> Catalog {
        self.any().watch().borrow().catalog.clone()
    }

    fn assignments(&self) -> Vec<Option<Assignment>> {
        let catalog = self.catalog();
        let mirror = catalog.mirror(&mirror());
        mirror
            .map(|mirror| mirror.partitions.iter().map(|p| p.assignment.clone()).collect())
            .unwrap_or_default()
    }

    pub fn owners(&self) -> Vec<Option<NodeId>> {
        self.assignments().into_iter().map(|assignment| assignment.map(|a| a.node)).collect()
    }

    pub fn epochs(&self) -> Vec<Option<u64>> {
        self.assignments().into_iter().map(|assignment| assignment.map(|a| a.epoch)).collect()
    }

    /// As by SIGKILL: nothing of it runs on, and its connections are gone.
    pub fn kill(&mut self, node: NodeId) {
        self.switch.seats().remove(&node);
        self.nodes.remove(&node).expect("runs").runtime.shutdown_background();
    }

    pub fn engine(&self, node: NodeId) -> Engine {
        self.nodes[&node].engine.clone()
    }

    pub async fn until(&self, what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Duration {
        let since = Instant::now();
        while !holds() {
            if since.elapsed() >= within {
                let ends: Vec<_> = (0..self.clusters.partitions).map(|p| self.clusters.ends(p)).collect();
                panic!("not within {within:?}: {what}; {ends:?}, owners {:?}", self.owners());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        since.elapsed()
    }

    pub async fn flows(&self) {
        let flows = || (0..self.clusters.partitions).all(|p| self.clusters.mirror_end(p) > 100);
        self.until("every partition flows", PATIENCE, flows).await;
    }

    pub async fn is_exact(&self) {
        self.until("the mirror has caught up", PATIENCE, || self.clusters.is_whole()).await;
        self.clusters.assert_exact();
        assert_eq!(self.catalog().mirror(&mirror()).expect("a mirror").first_failure(), None);
    }
}

impl Drop for RealFleet {
    fn drop(&mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.runtime.shutdown_background();
        }
    }
}

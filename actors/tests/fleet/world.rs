//! Engines of several nodes in this process, in a group that agrees at once.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use actors::engine::Engine;
use catalog::command::{Move, NodeDescription};
use catalog::fleet::LEVEL;
use catalog::{Action, Assignment, NodeId};

use crate::clusters::{Clusters, LOOK_EVERY, mirror};
use crate::group::{Calls, Group, Port};

pub struct World {
    pub group: Arc<Group>,
    pub clusters: Clusters,
}

impl Deref for World {
    type Target = Clusters;

    fn deref(&self) -> &Clusters {
        &self.clusters
    }
}

pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn description(id: u64) -> NodeDescription {
    NodeDescription {
        name: format!("n{id}").into(),
        address: Some(format!("n{id}:9000").into()),
        level: LEVEL,
        version: "test".into(),
    }
}

impl World {
    /// A fleet of so many nodes; partition i of the mirror is owned by node 1 + i mod their number.
    pub async fn start(nodes: u64, partitions: u32) -> Self {
        let world = Self { group: Group::new((1..=nodes).map(node)), clusters: Clusters::new(partitions) };
        for id in 1..=nodes {
            let (node, description) = (node(id), description(id));
            let admit = Action::AdmitNode { node, description: description.clone(), token: None };
            world.group.apply(admit).expect("admitted");
            world.group.apply(Action::RecordStart { node, description }).expect("started");
        }
        for command in world.commands() {
            world.group.apply(command).expect("taken");
        }
        let moves = (0..partitions).map(|partition| Move {
            mirror: mirror(),
            partition,
            node: node(1 + u64::from(partition) % nodes),
            expected_epoch: None,
        });
        world.group.apply(Action::Assign { moves: moves.collect() }).expect("owners");
        for id in 1..=nodes {
            world.run_node(id).await;
        }
        world
    }

    async fn run_node(&self, id: u64) {
        let node = node(id);
        let port = Arc::new(Port { group: self.group.clone(), node });
        let calls = Arc::new(Calls { group: self.group.clone(), from: node });
        let engine = Engine::start_on(
            port,
            self.clocks(),
            self.dial(),
            calls,
            actors::credit::CreditLimits::default(),
        )
        .await
        .expect("actors");
        self.group.add(node, engine.clone());
        tokio::spawn(engine.member().clone().run());
    }

    pub fn assignment(&self, partition: u32) -> Assignment {
        let mirror = self.group.catalog().mirror(&mirror()).expect("a mirror").clone();
        mirror.partitions[partition as usize].assignment.clone().expect("an owner")
    }

    pub fn owner(&self, partition: u32) -> NodeId {
        self.assignment(partition).node
    }

    fn a_move(&self, partition: u32, to: u64) -> Vec<Move> {
        let expected_epoch = Some(self.assignment(partition).epoch);
        vec![Move { mirror: mirror(), partition, node: node(to), expected_epoch }]
    }

    /// As from an owner that is lost.
    pub fn take_away(&self, partition: u32, to: u64) {
        self.group.apply(Action::Assign { moves: self.a_move(partition, to) }).expect("taken");
    }

    pub fn hand_over(&self, partition: u32, to: u64) {
        self.group.apply(Action::HandOver { moves: self.a_move(partition, to) }).expect("taken");
    }

    pub fn state(&self, id: u64, partition: u32) -> Option<&'static str> {
        let rows = self.group.engine(node(id)).observatory().partitions(&mirror());
        rows.into_iter().find(|row| row.partition == partition).map(|row| row.state)
    }

    pub async fn until(&self, what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(within, async {
            while !holds() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if waited.await.is_err() {
            for partition in 0..self.partitions {
                let states = self.group.catalog().nodes.into_keys().map(|id| self.state(id.0, partition));
                let (ends, assignment) = (self.ends(partition), self.assignment(partition));
                eprintln!("partition {partition}: {ends:?} {assignment:?} {:?}", states.collect::<Vec<_>>());
            }
            panic!("not within {within:?}: {what}");
        }
    }

    pub async fn flows(&self) {
        let all = || (0..self.partitions).all(|partition| self.mirror_end(partition) > 100);
        self.until("every partition flows", Duration::from_secs(10), all).await;
    }

    /// The mirror is, batch for batch, the source.
    pub async fn is_exact(&self, within: Duration) {
        self.until("the mirror has caught up", within, || self.is_whole()).await;
        self.assert_exact();
        let mirror = self.group.catalog().mirror(&mirror()).expect("a mirror").clone();
        assert_eq!(mirror.first_failure(), None);
    }
}

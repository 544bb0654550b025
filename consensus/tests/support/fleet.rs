//! Nodes of one fleet on disks and a network in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::command::NodeDescription;
use catalog::{Action, NodeId, Outcome};
use consensus::{Consensus, Options, Status};
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::disk::Disk;
use super::net::Net;
use super::still_clock;

pub const MS: Duration = Duration::from_millis(1);
/// Longer than anything that comes right by itself takes.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Fleet {
    pub net: Net,
    pub nodes: Vec<Member>,
    seed: u64,
    pub snapshot_after: u64,
    pub log_kept: u64,
}

pub struct Member {
    pub id: NodeId,
    pub disk: Disk,
    consensus: Option<Consensus>,
}

impl Member {
    pub fn get(&self) -> &Consensus {
        self.consensus.as_ref().expect("it runs")
    }

    pub fn runs(&self) -> bool {
        self.consensus.is_some()
    }
}

enum Start {
    Bootstrap,
    Enter,
    Open,
}

impl Fleet {
    /// A founder alone.
    pub async fn founded(seed: u64) -> Self {
        Self::founded_with(seed, 5_000, 1_000).await
    }

    pub async fn founded_with(seed: u64, snapshot_after: u64, log_kept: u64) -> Self {
        let mut fleet = Self { net: Net::new(seed), nodes: Vec::new(), seed, snapshot_after, log_kept };
        let founder = fleet.begin(0, Disk::default(), Start::Bootstrap).await;
        fleet.nodes.push(founder);
        let start = Action::RecordStart { node: fleet.nodes[0].id, description: description(0) };
        assert_eq!(fleet.nodes[0].get().submit(start).await.expect("submit"), Outcome::Done);
        fleet
    }

    /// All of them vote.
    pub async fn of(size: usize, seed: u64) -> Self {
        Self::with(size, seed, 5_000, 1_000).await
    }

    pub async fn with(size: usize, seed: u64, snapshot_after: u64, log_kept: u64) -> Self {
        let mut fleet = Self::founded_with(seed, snapshot_after, log_kept).await;
        for _ in 1..size {
            fleet.admit().await;
        }
        fleet.let_all_vote().await;
        fleet
    }

    /// One more, as a learner that has caught up.
    pub async fn admit(&mut self) -> NodeId {
        let id = self.wait_to_join().await;
        let leader = self.leader().await;
        leader.add_learner(id).await.expect("added");
        self.until("the learner has caught up", |fleet| {
            fleet.led().is_some_and(|leader| leader.members().caught_up.contains(&id))
        })
        .await;
        id
    }

    /// One more, known to the catalog and not in the group.
    pub async fn wait_to_join(&mut self) -> NodeId {
        let number = self.nodes.len();
        let member = self.begin(number, Disk::default(), Start::Enter).await;
        let id = member.id;
        self.nodes.push(member);
        let admit = Action::AdmitNode { node: id, description: description(number), token: None };
        self.leader().await.submit(admit).await.expect("admitted");
        id
    }

    pub async fn let_all_vote(&self) {
        let all: BTreeSet<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let leader = self.leader().await;
        leader.set_voters(all.clone()).await.expect("set");
        self.until("all know that they vote", |fleet| {
            fleet.nodes.iter().all(|node| node.get().members().voters == all)
        })
        .await;
    }

    async fn begin(&self, number: usize, disk: Disk, start: Start) -> Member {
        let way = self.net.way();
        let chance = Mutex::new(Chance::new(self.seed.wrapping_mul(31).wrapping_add(number as u64)));
        let options = Options {
            clock: still_clock(),
            entropy: Arc::new(move || chance.lock().expect("no panic while held").draw()),
            peers: Arc::new(way.clone()),
            snapshot_after_entries: self.snapshot_after,
            log_kept_entries: self.log_kept,
            ..Options::new(Path::new("memory"), format!("node-{number}"))
        };
        let consensus = match start {
            Start::Bootstrap => Consensus::bootstrap_on(disk.clone(), options).await,
            Start::Enter => Consensus::enter_on(disk.clone(), options).await,
            Start::Open => Consensus::open_on(disk.clone(), options).await,
        };
        let consensus = consensus.expect("it starts");
        self.net.up(&way, &consensus);
        Member { id: consensus.node_id(), disk, consensus: Some(consensus) }
    }

    /// As a killed process: the others get no answer from it, and nobody is told.
    pub async fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        self.net.down(node.id);
        // The store must be closed before it is opened again; nothing is said to others on the way.
        node.consensus.take().expect("it runs").shutdown().await;
    }

    pub async fn start(&mut self, number: usize) {
        let disk = self.nodes[number].disk.clone();
        self.nodes[number] = self.begin(number, disk, Start::Open).await;
    }

    /// The Raft leader of the highest term, with a quorum behind it.
    pub fn led(&self) -> Option<&Consensus> {
        self.running()
            .filter(|node| node.status().is_leader && node.status().stopped.is_none())
            .max_by_key(|node| node.status().term)
            .filter(|node| node.status().millis_since_quorum_ack.is_some_and(|age| age < 1_000))
    }

    pub async fn leader(&self) -> &Consensus {
        self.until("there is a Raft leader", |fleet| fleet.led().is_some()).await;
        self.led().expect("just seen")
    }

    pub fn number_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a member")
    }

    pub async fn a_follower(&self) -> usize {
        let leader = self.leader().await.node_id();
        self.nodes.iter().position(|node| node.id != leader && node.runs()).expect("there is one")
    }

    pub fn running(&self) -> impl Iterator<Item = &Consensus> {
        self.nodes.iter().filter_map(|node| node.consensus.as_ref())
    }

    pub fn statuses(&self) -> Vec<Status> {
        self.running().map(Consensus::status).collect()
    }

    /// Waits, for a long time at most.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < LONG, "seed {}: never: {what}: {:#?}", self.seed, self.statuses());
            sleep(5 * MS).await;
        }
        started.elapsed()
    }

    /// All that run have applied the same, and it is the same (CT-1).
    pub async fn until_equal(&self) {
        self.until("all have applied as much", |fleet| {
            let mut indexes: BTreeSet<u64> = fleet.statuses().iter().map(|s| s.last_applied).collect();
            indexes.pop_last();
            indexes.is_empty()
        })
        .await;
        let mut applied = self.running().map(|node| node.watch().borrow().clone());
        let first = applied.next().expect("one runs");
        for other in applied {
            assert_eq!(first, other);
        }
    }
}

pub fn description(number: usize) -> NodeDescription {
    NodeDescription {
        name: format!("node-{number}").into(),
        address: None,
        level: catalog::fleet::LEVEL,
        version: "test".into(),
    }
}

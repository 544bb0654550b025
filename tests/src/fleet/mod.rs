//! Several nodes that are one fleet, as processes: founded, joined by token, and asked for what a
//! person would ask for.
//!
//! - [`gate`]: a cable that can be cut, in front of a node's or a broker's port.
//! - [`stage`]: a fleet between two clusters under load, and what must hold of it after any event.
//! - [`ticker`]: a record for every partition, many times a second.
//! - [`watch`]: how long each partition of the mirror stood still.

pub mod gate;
#[cfg(feature = "witness")]
pub mod stage;
#[cfg(feature = "witness")]
pub mod ticker;
#[cfg(feature = "witness")]
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::gate::Gate;
use crate::node::{Node, find_binary};
use crate::poll_until;

/// An election, a join and a new voter each take below 2 s; the rest is a busy machine's.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// The nodes by name; dropping it kills them.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    parent: PathBuf,
    nodes: BTreeMap<String, Node>,
    /// In front of each node's peer port, where cables are to be cut.
    gates: Option<BTreeMap<String, Gate>>,
    paused: BTreeSet<String>,
}

/// One row of the list of members.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub live: bool,
    pub duty: String,
    pub raft_role: String,
    pub owned: u64,
    pub moving: u64,
}

impl Fleet {
    /// Founds a fleet of `count` nodes, `node-1` and so on, and waits until it has settled.
    pub fn found(parent: &Path, count: usize, gated: bool) -> Result<Fleet> {
        Fleet::found_binary(find_binary()?, parent, count, gated)
    }

    /// [`found`](Self::found) with the binary at this path.
    pub fn found_binary(binary: PathBuf, parent: &Path, count: usize, gated: bool) -> Result<Fleet> {
        eprintln!("a fleet of {}", binary.display());
        let gates = gated.then(BTreeMap::new);
        let parent = parent.to_path_buf();
        let mut fleet = Fleet { binary, parent, nodes: BTreeMap::new(), gates, paused: BTreeSet::new() };
        let mut first = fleet.prepare("node-1")?;
        first.start(&["--bootstrap"])?;
        fleet.nodes.insert("node-1".to_owned(), first);
        for number in 2..=count {
            fleet.add(&format!("node-{number}"))?;
        }
        fleet.wait_settled(count)?;
        Ok(fleet)
    }

    /// A new node joins with a one-time token.
    pub fn add(&mut self, name: &str) -> Result<()> {
        let token = self.any()?.cli(&["node", "token"])?;
        let members: Vec<String> = self.listed()?.iter().filter_map(|row| row.1.clone()).collect();
        let mut node = self.prepare(name)?;
        node.start(&["--join", &members.join(","), "--join-token", token.trim()])
            .with_context(|| format!("{name} joins at {members:?}"))?;
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    fn prepare(&mut self, name: &str) -> Result<Node> {
        let mut node = Node::prepare(self.binary.clone(), name, &self.parent)?;
        let mut settings = vec!["--node-name".to_owned(), name.to_owned()];
        if let Some(gates) = &mut self.gates {
            let gate = Gate::open()?;
            gate.aim(node.peer_address());
            settings.extend(["--advertise".to_owned(), gate.address().to_string()]);
            gates.insert(name.to_owned(), gate);
        }
        node.set(settings);
        Ok(node)
    }

    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("the fleet has no {name}"))
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Nodes that run and aren't paused.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.is_running() && !self.paused.contains(node.name()))
    }

    /// Some node that can be asked.
    pub fn any(&self) -> Result<&Node> {
        self.running().next().context("no node runs")
    }

    /// The members, as the first node tells that can.
    pub fn members(&self) -> Result<Vec<Member>> {
        Ok(self.listed()?.into_iter().map(|(member, _)| member).collect())
    }

    /// The members, as another node than this one sees them.
    pub fn members_told_by(&self, name: &str) -> Result<Vec<Member>> {
        let teller = self.running().find(|node| node.name() == name).context("it doesn't run")?;
        Ok(members_of(&teller.get_json("/lockstep/v1/nodes")?)?
            .into_iter()
            .map(|(member, _)| member)
            .collect())
    }

    fn listed(&self) -> Result<Vec<(Member, Option<String>)>> {
        let mut last = None;
        for node in self.running() {
            match node.get_json("/lockstep/v1/nodes") {
                Ok(list) => return members_of(&list),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no node runs")))
    }

    pub fn member(&self, name: &str) -> Result<Member> {
        let found = self.members()?.into_iter().find(|member| member.name == name);
        found.with_context(|| format!("{name} isn't a member"))
    }

    /// The name of the Raft leader.
    /// Any node that runs, but this one.
    pub fn other_than(&self, name: &str) -> Result<String> {
        let other = self.running().find(|node| node.name() != name);
        Ok(other.context("no other node runs")?.name().to_owned())
    }

    pub fn raft_leader(&self) -> Result<String> {
        let leader = poll_until(SETTLE_LIMIT, SETTLE_POLL, || {
            self.members().ok()?.into_iter().find(|member| member.raft_role == "LEADER" && member.live)
        });
        Ok(leader.with_context(|| format!("no Raft leader after {SETTLE_LIMIT:?}"))?.name)
    }

    /// A voter that doesn't lead.
    pub fn follower(&self) -> Result<String> {
        let found = self.members()?.into_iter().find(|m| m.raft_role == "VOTER" && m.live);
        Ok(found.context("no follower")?.name)
    }

    /// Who owns the most mirror partitions.
    pub fn busiest(&self) -> Result<String> {
        let busiest = self.members()?.into_iter().filter(|m| m.live).max_by_key(|m| m.owned);
        let busiest = busiest.context("no node is live")?;
        ensure!(busiest.owned > 0, "nobody owns anything");
        Ok(busiest.name)
    }

    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.node(name)?.kill9()
    }

    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.node(name)?.restart()
    }

    /// SIGKILL to all of them.
    pub fn kill_all(&mut self) -> Result<()> {
        self.nodes.values_mut().filter(|node| node.is_running()).try_for_each(Node::kill9)
    }

    /// Starts all of them at once, and waits until each is ready.
    pub fn restart_all(&mut self) -> Result<()> {
        std::thread::scope(|scope| {
            let starts: Vec<_> = self.nodes.values_mut().map(|node| scope.spawn(|| node.restart())).collect();
            starts.into_iter().try_for_each(|start| match start.join() {
                Ok(started) => started,
                Err(_) => bail!("a node's start panicked"),
            })
        })
    }

    pub fn stop(&mut self, name: &str) -> Result<()> {
        self.node(name)?.sigterm()
    }

    /// Moves its peer port to another number, behind no gate.
    pub fn move_address(&mut self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        node.move_peer_port()?;
        node.set(vec!["--node-name".to_owned(), name.to_owned()]);
        Ok(())
    }

    pub fn pause(&mut self, name: &str) -> Result<()> {
        self.node(name)?.pause()?;
        self.paused.insert(name.to_owned());
        Ok(())
    }

    pub fn resume(&mut self, name: &str) -> Result<()> {
        self.paused.remove(name);
        self.node(name)?.resume()
    }

    /// Takes a node out of our sight, for a test that has removed it.
    pub fn forget(&mut self, name: &str) -> Result<Node> {
        self.nodes.remove(name).with_context(|| format!("the fleet has no {name}"))
    }

    /// No byte passes between this node and any other, in either direction.
    pub fn isolate(&mut self, name: &str) -> Result<()> {
        let pid = self.node(name)?.pid()?;
        for (of, gate) in self.gates.as_ref().context("this fleet has no gates")? {
            if of == name { gate.cut_all() } else { gate.cut(pid) }
        }
        Ok(())
    }

    /// No byte passes between these two, while everybody else reaches both.
    pub fn part(&mut self, one: &str, other: &str) -> Result<()> {
        for (name, peer) in [(one, other), (other, one)] {
            let pid = self.node(peer)?.pid()?;
            let gates = self.gates.as_ref().context("this fleet has no gates")?;
            gates.get(name).with_context(|| format!("no gate in front of {name}"))?.cut(pid);
        }
        Ok(())
    }

    /// Undoes every [`isolate`](Self::isolate) and every [`part`](Self::part).
    pub fn heal(&self) {
        self.gates.iter().flat_map(BTreeMap::values).for_each(Gate::heal);
    }

    /// So many members, each live, as many voters as can be, one Raft leader, and no mirror partition
    /// on its way.
    pub fn wait_settled(&self, count: usize) -> Result<Vec<Member>> {
        self.wait_members(|members| {
            let voters = members.iter().filter(|member| member.raft_role != "LEARNER").count();
            members.len() == count
                && members.iter().all(|member| member.live)
                && voters == voters_of(count)
                && is_calm(members)
        })
    }

    /// As [`wait_settled`](Self::wait_settled) of the nodes that run, whoever else is a member.
    pub fn wait_calm(&self) -> Result<Vec<Member>> {
        self.wait_members(|members| {
            let is_live = |name: &str| members.iter().any(|member| member.name == name && member.live);
            self.running().all(|node| is_live(node.name())) && is_calm(members)
        })
    }

    fn wait_members(&self, wanted: impl Fn(&[Member]) -> bool) -> Result<Vec<Member>> {
        let mut last = String::new();
        let settled = poll_until(SETTLE_LIMIT, SETTLE_POLL, || match self.members() {
            Ok(members) if wanted(&members) => Some(members),
            other => {
                last = format!("{other:?}");
                None
            }
        });
        settled.with_context(|| format!("the fleet hasn't settled after {SETTLE_LIMIT:?}: {last}"))
    }

    /// SIGTERM to all, one after the other.
    pub fn end(mut self) -> Result<()> {
        self.nodes.values_mut().filter(|node| node.is_running()).try_for_each(Node::sigterm)
    }
}

/// An odd number up to five.
fn voters_of(nodes: usize) -> usize {
    match nodes {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// There is a Raft leader, and nothing is on its way.
fn is_calm(members: &[Member]) -> bool {
    members.iter().any(|member| member.raft_role == "LEADER" && member.live)
        && members.iter().all(|member| member.moving == 0)
}

fn members_of(list: &Value) -> Result<Vec<(Member, Option<String>)>> {
    let rows = list["data"].as_array().with_context(|| format!("no members in {list}"))?;
    let member = |row: &Value| {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let wanted = |name: &str| text(name).with_context(|| format!("no {name} in {row}"));
        let number = |name: &str| row[name].as_u64().with_context(|| format!("no {name} in {row}"));
        let member = Member {
            name: wanted("name")?,
            live: wanted("state")? == "LIVE",
            duty: wanted("duty")?,
            raft_role: wanted("raft_role")?,
            owned: number("assignments")?,
            moving: number("leaving")? + number("coming")?,
        };
        Ok((member, text("address")))
    };
    rows.iter().map(member).collect()
}

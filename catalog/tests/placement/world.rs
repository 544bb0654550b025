//! A fleet in which every hand-over takes its time: enough of a world to follow plans in.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::command::{NewLink, NewMirror, NodeDescription, Released};
use catalog::placement::{self, Plan, Presence, Situation};
use catalog::*;

/// What one hand-over takes from the plan to the release.
pub const HAND_OVER: Duration = Duration::from_millis(300);

#[derive(Default)]
pub struct World {
    pub catalog: Catalog,
    pub situation: Situation,
    releases: BTreeMap<PartitionKey, Duration>,
    /// Each change of owner: when, which, to whom.
    pub changes: Vec<(Duration, PartitionKey, NodeId)>,
}

pub fn key(topic: &str, partition: u32) -> PartitionKey {
    PartitionKey { mirror: mirror(topic), partition }
}

pub fn mirror(topic: &str) -> MirrorKey {
    MirrorKey { link: LinkId("link-1".into()), topic: topic.into() }
}

fn cluster(name: &str) -> Action {
    let cluster_id = format!("id-{name}").into();
    Action::CreateCluster { name: name.into(), cluster_id, configs: BTreeMap::new() }
}

impl World {
    /// That many nodes, ids from 1, all live for an hour.
    pub fn of(nodes: u64) -> Self {
        let mut world = Self::default();
        let link = Action::CreateLink(NewLink {
            id: LinkId("link-1".into()),
            name: "east-west".into(),
            destination: "west".into(),
            source: Some("east".into()),
            source_cluster_id: "id-east".into(),
            configs: BTreeMap::new(),
        });
        for action in [cluster("east"), cluster("west"), link] {
            world.done(action);
        }
        for node in 1..=nodes {
            world.join(node);
        }
        world.situation.now = Duration::from_secs(3_600);
        world
    }

    pub fn done(&mut self, action: Action) {
        let outcome = self.catalog.apply(Command { at_ms: 1, action });
        outcome.expect("applied");
    }

    pub fn join(&mut self, node: u64) {
        let description = NodeDescription {
            name: format!("n{node}").into(),
            address: None,
            level: fleet::LEVEL,
            version: "".into(),
        };
        let node = NodeId(node);
        self.done(match self.catalog.nodes.is_empty() {
            true => Action::RecordStart { node, description },
            false => Action::AdmitNode { node, description, token: None },
        });
        self.live(node.0);
    }

    pub fn live(&mut self, node: u64) {
        let since = self.situation.now;
        self.situation.nodes.insert(NodeId(node), Presence::Live { since });
    }

    pub fn lost(&mut self, node: u64) {
        let since = self.situation.now;
        self.situation.nodes.insert(NodeId(node), Presence::Lost { since });
    }

    pub fn unknown(&mut self, node: u64) {
        self.situation.nodes.remove(&NodeId(node));
    }

    pub fn duty(&mut self, node: u64, duty: Duty) {
        self.done(Action::SetDuty { node: NodeId(node), duty });
    }

    pub fn topic(&mut self, topic: &str, partitions: u32) {
        self.done(Action::CreateMirror(NewMirror {
            mirror: mirror(topic),
            source_topic: topic.into(),
            source_topic_id: TopicId([1; 16]),
            partitions,
            replication_factor: None,
            configs: BTreeMap::new(),
        }));
    }

    pub fn rate(&mut self, topic: &str, partition: u32, rate: u64) {
        self.situation.rates.insert(key(topic, partition), rate);
    }

    /// Gives a partition to a node whatever the planner would say.
    pub fn put(&mut self, topic: &str, partition: u32, node: u64) {
        let expected_epoch = self.epoch(&key(topic, partition));
        let step = command::Move { mirror: mirror(topic), partition, node: NodeId(node), expected_epoch };
        self.done(Action::Assign { moves: vec![step] });
    }

    fn epoch(&self, key: &PartitionKey) -> Option<u64> {
        let mirror = self.catalog.mirror(&key.mirror).expect("mirror");
        mirror.partitions[key.partition as usize].assignment.as_ref().map(|a| a.epoch)
    }

    pub fn plan(&self) -> Plan {
        placement::plan(&self.catalog, &self.situation)
    }

    pub fn propose(&mut self, plan: Plan) {
        let assigned: Vec<_> = plan.assign.iter().map(|p| (of(&p.step), p.step.node)).collect();
        for action in plan.into_actions() {
            self.done(action);
        }
        for (key, node) in assigned {
            self.changed(key, node);
        }
    }

    fn changed(&mut self, key: PartitionKey, node: NodeId) {
        self.situation.changed.insert(key.clone(), self.situation.now);
        self.changes.push((self.situation.now, key, node));
    }

    /// Time passes; owners release what they were told to hand over long enough ago.
    pub fn pass(&mut self, time: Duration) {
        for key in self.catalog.fleet.hand_overs.keys() {
            if !self.releases.contains_key(key) {
                self.releases.insert(key.clone(), self.situation.now + HAND_OVER);
            }
        }
        self.situation.now += time;
        let now = self.situation.now;
        let due: Vec<_> = self.releases.extract_if(.., |_, due| *due <= now).map(|(key, _)| key).collect();
        let mut released: BTreeMap<NodeId, Vec<Released>> = BTreeMap::new();
        for key in due {
            let (Some(owner), Some(assignment_epoch)) = (self.catalog.owner(&key), self.epoch(&key)) else {
                continue;
            };
            if self.situation.is_live(owner) && self.catalog.fleet.hand_overs.contains_key(&key) {
                let release = Released { key, assignment_epoch, in_doubt: false };
                released.entry(owner).or_default().push(release);
            }
        }
        for (node, released) in released {
            let keys: Vec<_> = released.iter().map(|r| (r.key.clone(), r.assignment_epoch)).collect();
            self.done(Action::Release { node, released });
            for (key, epoch) in keys {
                if self.epoch(&key) != Some(epoch) {
                    let owner = self.catalog.owner(&key).expect("owner");
                    self.changed(key, owner);
                }
            }
        }
    }

    /// Follows plans until there has been nothing to do for so long that every partition may move; how
    /// many there were.
    pub fn settle(&mut self) -> usize {
        const PLANS_MAX: usize = 20_000;
        let mut quiet = Duration::ZERO;
        for plans in 0..PLANS_MAX {
            if quiet > placement::REST {
                return plans;
            }
            let plan = self.plan();
            if plan.is_empty() && self.catalog.fleet.hand_overs.is_empty() {
                let Some(again) = plan.look_again else { return plans };
                quiet += again;
                self.pass(again);
            } else {
                quiet = Duration::ZERO;
                self.propose(plan);
                self.pass(HAND_OVER);
            }
        }
        panic!("{PLANS_MAX} plans and no end; the next: {}", self.plan());
    }

    pub fn owners(&self) -> BTreeMap<PartitionKey, NodeId> {
        let mirrors = self.catalog.links.values().flat_map(|l| l.mirrors.values());
        let keys = mirrors.flat_map(|m| (0..m.partitions.len()).map(|p| key(&m.name, p as u32)));
        keys.filter_map(|key| Some((key.clone(), self.catalog.owner(&key)?))).collect()
    }

    pub fn counts(&self) -> Vec<usize> {
        self.catalog.nodes.keys().map(|id| self.catalog.owned_by(*id)).collect()
    }

    pub fn node_rates(&self) -> Vec<u64> {
        let mut rates: BTreeMap<NodeId, u64> = self.catalog.nodes.keys().map(|id| (*id, 0)).collect();
        for (key, owner) in self.owners() {
            *rates.entry(owner).or_default() += self.situation.rates.get(&key).copied().unwrap_or(0);
        }
        rates.into_values().collect()
    }
}

pub fn of(step: &command::Move) -> PartitionKey {
    PartitionKey { mirror: step.mirror.clone(), partition: step.partition }
}

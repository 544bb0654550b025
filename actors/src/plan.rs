//! What one link's supervisor should start and stop on this node, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use catalog::{Catalog, Link, MirrorKey, MirrorStatus, NodeId};

/// A mirror partition of the link.
pub type PartitionKey = (Arc<str>, u32);

/// Stops come before starts; a partition that is to run under another epoch is stopped first and
/// started when it has stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub stops: Vec<PartitionKey>,
    pub starts: Vec<Start>,
    /// Partitions that other nodes are to get and that don't run (any more).
    pub releases: Vec<Start>,
    /// What is to be done for mirror topics as a whole.
    pub jobs: BTreeSet<(Arc<str>, Job)>,
}

/// Done by the owner of a mirror topic's partition 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Make it ready.
    SetUp,
    /// Watch a promotion catch up.
    CatchUp,
    /// Fence it, and say where it ended.
    Fence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub key: PartitionKey,
    pub assignment_epoch: u64,
    pub unclean: bool,
}

/// What runs: by partition, under which assignment epoch. Stopping ones count as running.
pub type Running = BTreeMap<PartitionKey, u64>;

/// Partitions of a link that a node owns and is to hand over.
pub type Leaving = BTreeSet<PartitionKey>;

/// What of a link the catalog wants `node` to hand over.
pub fn leaving(catalog: &Catalog, link: &Link, node: NodeId) -> Leaving {
    let keys = hand_overs(catalog, link).map(|(key, _)| key);
    let ours = keys.filter(|key| catalog.owner(key) == Some(node));
    ours.map(|key| (key.mirror.topic.clone(), key.partition)).collect()
}

/// Whether a partition of the link is to come to `node`: its supervisor is there already then.
pub fn receives(catalog: &Catalog, link: &Link, node: NodeId) -> bool {
    hand_overs(catalog, link).any(|(_, to)| *to == node)
}

fn hand_overs<'a>(
    catalog: &'a Catalog,
    link: &'a Link,
) -> impl Iterator<Item = (&'a catalog::PartitionKey, &'a NodeId)> {
    let mirror = MirrorKey { link: link.id.clone(), topic: "".into() };
    let first = catalog::PartitionKey { mirror, partition: 0 };
    catalog.fleet.hand_overs.range(first..).take_while(|(key, _)| key.mirror.link == link.id)
}

/// Compares what the catalog wants of `node` with what runs.
pub fn plan(link: &Link, node: NodeId, running: &Running, leaving: &Leaving) -> Plan {
    let mut desired = desired(link, node);
    desired.retain(|key, _| !leaving.contains(key));
    let differs =
        |key: &PartitionKey, epoch: u64| desired.get(key).is_none_or(|(wanted, _)| *wanted != epoch);
    let stops =
        running.iter().filter(|(key, epoch)| differs(key, **epoch)).map(|(key, _)| key.clone()).collect();
    let starts = desired
        .iter()
        .filter(|(key, _)| !running.contains_key(*key))
        .map(|(key, (assignment_epoch, unclean))| Start {
            key: key.clone(),
            assignment_epoch: *assignment_epoch,
            unclean: *unclean,
        })
        .collect();
    let releases = leaving.iter().filter(|key| !running.contains_key(*key));
    let releases = releases.filter_map(|key| owned(link, node, key)).collect();
    let mut jobs = jobs(link, node);
    jobs.retain(|(topic, _)| !leaving.contains(&(topic.clone(), 0)));
    Plan { stops, starts, releases, jobs }
}

/// How the partition is assigned to the node, if it is.
fn owned(link: &Link, node: NodeId, key: &PartitionKey) -> Option<Start> {
    let partition = link.mirrors.get(&key.0)?.partitions.get(key.1 as usize)?;
    let assignment = partition.assignment.as_ref().filter(|a| a.node == node)?;
    Some(Start { key: key.clone(), assignment_epoch: assignment.epoch, unclean: assignment.unclean })
}

fn desired(link: &Link, node: NodeId) -> BTreeMap<PartitionKey, (u64, bool)> {
    let mirrors = link.mirrors.values().filter(|m| link.mirrors_now(m));
    let partitions = mirrors.flat_map(|m| (0u32..).zip(&m.partitions).map(move |(index, p)| (m, index, p)));
    partitions
        .filter(|(_, _, p)| p.failure.is_none())
        .filter_map(|(m, index, p)| {
            let assignment = p.assignment.as_ref().filter(|a| a.node == node)?;
            Some(((m.name.clone(), index), (assignment.epoch, assignment.unclean)))
        })
        .collect()
}

/// The owner of partition 0 sees to the topic.
fn jobs(link: &Link, node: NodeId) -> BTreeSet<(Arc<str>, Job)> {
    let job = |m: &catalog::MirrorTopic| match m.status {
        MirrorStatus::PendingMirror if m.producer.is_none() && !link.is_paused() => Some(Job::SetUp),
        MirrorStatus::PendingStopped if m.is_fenced() => Some(Job::Fence),
        MirrorStatus::PendingStopped => Some(Job::CatchUp),
        _ => None,
    };
    let ours = link.mirrors.values().filter(|m| m.is_seen_to_by(node));
    ours.filter_map(|m| Some((m.name.clone(), job(m)?))).collect()
}

impl Plan {
    /// Nothing to start or stop.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.starts.is_empty()
    }
}

/// At most this many partitions are named in a log line.
const NAMED_MAX: usize = 16;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |keys: &mut dyn Iterator<Item = String>, count: usize| {
            let mut text = keys.take(NAMED_MAX).collect::<Vec<_>>().join(" ");
            if count > NAMED_MAX {
                text.push_str(&format!(" and {} more", count - NAMED_MAX));
            }
            text
        };
        if !self.stops.is_empty() {
            let mut keys = self.stops.iter().map(|(t, p)| format!("{t}[{p}]"));
            write!(f, "stop {}", names(&mut keys, self.stops.len()))?;
        }
        if !self.starts.is_empty() {
            let separator = if self.stops.is_empty() { "" } else { "; " };
            let start = |s: &Start| {
                let unclean = if s.unclean { " unclean" } else { "" };
                format!("{}[{}] (epoch {}{unclean})", s.key.0, s.key.1, s.assignment_epoch)
            };
            let mut keys = self.starts.iter().map(start);
            write!(f, "{separator}start {}", names(&mut keys, self.starts.len()))?;
        }
        if !self.releases.is_empty() {
            let separator = if self.stops.is_empty() && self.starts.is_empty() { "" } else { "; " };
            let mut keys = self.releases.iter().map(|s| format!("{}[{}]", s.key.0, s.key.1));
            write!(f, "{separator}release {}", names(&mut keys, self.releases.len()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::stop::{Stop, StopKind};
    use catalog::{Assignment, Failure, LinkId, MirrorError, MirrorTopic, ProducerIdentity, TopicId};

    const HERE: NodeId = NodeId(1);

    fn link(partitions: Vec<catalog::model::MirrorPartition>, status: MirrorStatus, ready: bool) -> Link {
        let mirror = MirrorTopic {
            name: "orders".into(),
            source_topic: "orders".into(),
            source_topic_id: TopicId::NONE,
            destination_topic_id: TopicId::NONE,
            replication_factor: None,
            configs: Default::default(),
            status,
            status_since_ms: 0,
            producer: ready.then_some(ProducerIdentity { producer_id: 1, producer_epoch: 0 }),
            stop: None,
            partitions,
            history: Default::default(),
        };
        Link {
            id: LinkId("l".into()),
            name: "l".into(),
            destination: "west".into(),
            source: None,
            source_cluster_id: "a".into(),
            destination_cluster_id: "b".into(),
            configs: Default::default(),
            mirrors: BTreeMap::from([("orders".into(), Arc::new(mirror))]),
        }
    }

    fn on(node: NodeId, epoch: u64, unclean: bool) -> catalog::model::MirrorPartition {
        catalog::model::MirrorPartition {
            assignment: Some(Assignment { node, epoch, unclean }),
            failure: None,
            prefix: None,
        }
    }

    #[test]
    fn what_is_assigned_here_starts_and_what_is_not_stops() {
        let link = link(
            vec![on(HERE, 1, false), on(NodeId(2), 1, false), on(HERE, 4, true)],
            MirrorStatus::Active,
            true,
        );
        let running = Running::from([(("orders".into(), 1), 1), (("orders".into(), 2), 3)]);
        let plan = plan(&link, HERE, &running, &Leaving::new());
        assert_eq!(plan.to_string(), "stop orders[1] orders[2]; start orders[0] (epoch 1)");
        let running = Running::from([(("orders".into(), 0), 1)]);
        assert_eq!(
            super::plan(&link, HERE, &running, &Leaving::new()).to_string(),
            "start orders[2] (epoch 4 unclean)"
        );
    }

    #[test]
    fn a_failed_partition_stays_down_and_its_neighbours_run() {
        let mut failed = on(HERE, 1, false);
        let (error, message) = (MirrorError::ForeignWrite, String::new());
        failed.failure = Some(Failure { error, offset: 3, message, at_ms: 0 });
        let link = link(vec![failed, on(HERE, 1, false)], MirrorStatus::Failed, true);
        assert_eq!(
            plan(&link, HERE, &Running::new(), &Leaving::new()).to_string(),
            "start orders[1] (epoch 1)"
        );
    }

    #[test]
    fn a_pending_mirror_is_set_up_by_the_owner_of_its_first_partition() {
        let link = link(vec![on(HERE, 1, false)], MirrorStatus::PendingMirror, false);
        let plan_here = plan(&link, HERE, &Running::new(), &Leaving::new());
        assert!(plan_here.is_empty());
        assert_eq!(plan_here.jobs, BTreeSet::from([("orders".into(), Job::SetUp)]));
        assert_eq!(plan(&link, NodeId(2), &Running::new(), &Leaving::new()).jobs, BTreeSet::new());
    }

    fn promotion(fenced_at_ms: Option<i64>) -> Stop {
        Stop {
            kind: StopKind::Promote,
            asked_at_ms: 0,
            before: MirrorStatus::Active,
            fenced_at_ms,
            ends: Vec::new(),
            remarks: Vec::new(),
        }
    }

    #[test]
    fn a_promotion_mirrors_on_until_it_is_fenced_and_a_stopped_mirror_does_nothing() {
        let stopping = |fenced_at_ms, status| {
            let mut link = link(vec![on(HERE, 1, false)], status, true);
            let mirror = link.mirrors.get_mut("orders").map(Arc::make_mut).expect("orders");
            mirror.stop = Some(promotion(fenced_at_ms));
            let running = Running::from([(("orders".into(), 0), 1)]);
            let plan = plan(&link, HERE, &running, &Leaving::new());
            let jobs: Vec<Job> = plan.jobs.iter().map(|(_, job)| *job).collect();
            (plan.to_string(), jobs)
        };
        let stop = String::from("stop orders[0]");
        assert_eq!(stopping(None, MirrorStatus::PendingStopped), (String::new(), vec![Job::CatchUp]));
        assert_eq!(stopping(Some(5), MirrorStatus::PendingStopped), (stop.clone(), vec![Job::Fence]));
        assert_eq!(stopping(Some(5), MirrorStatus::Stopped), (stop, vec![]));
    }

    #[test]
    fn a_paused_mirror_stops() {
        let link = link(vec![on(HERE, 1, false)], MirrorStatus::Paused, true);
        assert_eq!(
            plan(&link, HERE, &Running::from([(("orders".into(), 0), 1)]), &Leaving::new()).to_string(),
            "stop orders[0]"
        );
    }

    #[test]
    fn with_a_paused_link_everything_stops_but_a_failover() {
        let running = Running::from([(("orders".into(), 0), 1)]);
        let paused = |status, ready, fenced_at_ms| {
            let mut link = link(vec![on(HERE, 1, false)], status, ready);
            link.configs.insert(Link::PAUSED_KEY.into(), "true".into());
            let mirror = link.mirrors.get_mut("orders").map(Arc::make_mut).expect("orders");
            mirror.stop = (status == MirrorStatus::PendingStopped).then(|| promotion(fenced_at_ms));
            let plan = plan(&link, HERE, &running, &Leaving::new());
            (plan.to_string(), plan.jobs.into_iter().map(|(_, job)| job).collect::<Vec<_>>())
        };
        let stops = "stop orders[0]".to_owned();
        assert_eq!(paused(MirrorStatus::Active, true, None), (stops.clone(), vec![]));
        assert_eq!(paused(MirrorStatus::PendingMirror, false, None), (stops.clone(), vec![]));
        assert_eq!(paused(MirrorStatus::PendingStopped, true, Some(5)), (stops, vec![Job::Fence]));
    }

    fn released(plan: &Plan) -> Vec<(u32, u64)> {
        plan.releases.iter().map(|start| (start.key.1, start.assignment_epoch)).collect()
    }

    #[test]
    fn what_is_handed_over_is_stopped_first_and_released_then() {
        let mut failed = on(HERE, 7, false);
        let (error, message) = (MirrorError::ForeignWrite, String::new());
        failed.failure = Some(Failure { error, offset: 3, message, at_ms: 0 });
        let link = link(
            vec![on(HERE, 1, false), on(HERE, 2, false), failed, on(NodeId(2), 1, false)],
            MirrorStatus::Active,
            true,
        );
        let leaving = Leaving::from([0, 2, 3].map(|partition| ("orders".into(), partition)));
        let running = Running::from([(("orders".into(), 0), 1), (("orders".into(), 1), 2)]);
        let first = plan(&link, HERE, &running, &leaving);
        assert_eq!(first.to_string(), "stop orders[0]; release orders[2]");
        let running = Running::from([(("orders".into(), 1), 2)]);
        let then = plan(&link, HERE, &running, &leaving);
        assert_eq!(
            (then.to_string(), released(&then)),
            ("release orders[0] orders[2]".into(), vec![(0, 1), (2, 7)])
        );
        // The hand-over is cancelled.
        let back = plan(&link, HERE, &running, &Leaving::new());
        assert_eq!(back.to_string(), "start orders[0] (epoch 1)");
    }

    #[test]
    fn a_pending_mirror_that_is_handed_over_is_not_set_up_here() {
        let link = link(vec![on(HERE, 1, false)], MirrorStatus::PendingMirror, false);
        let leaving = Leaving::from([("orders".into(), 0)]);
        let plan = plan(&link, HERE, &Running::new(), &leaving);
        assert_eq!((plan.jobs.len(), released(&plan)), (0, vec![(0, 1)]));
    }
}

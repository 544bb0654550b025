//! What the operator wants next, by the catalog that it finds and by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::fleet::Duty;
use catalog::{Catalog, Link, MirrorStatus, MirrorTopic, NodeId};

use crate::chance::Chance;
use crate::clusters::{self, DESTINATION, Registered, SOURCE, UNREACHABLE};
use crate::options::Options;
use crate::requests::{self, Request};
use crate::time::Time;

/// Between two commands, at most, until there is a mirror.
const FOUNDING_PAUSE_MS: u64 = 500;
/// Between two looks whether a mirror was left paused, once the busy time is over.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Of a hundred answers, after so many it also looks at something.
const LOOK_PERCENT: u64 = 25;
/// At once, at most.
const SEVERAL_MAX: u64 = 3;

pub struct Wishes {
    chance: Chance,
    looks: Chance,
    stops: Chance,
    /// Of a hundred wishes, about mirrors that are to stop.
    stops_percent: u64,
    time: Time,
    /// Until then it has wishes.
    until: Duration,
    /// Between two commands, on average.
    pause: Duration,
    request_timeout_ms: u64,
    /// Of the link to the cluster that answers.
    link_configs: BTreeMap<String, String>,
    topics: Vec<String>,
    /// Mirrors asked for so far: no name is given twice.
    mirrors: u64,
    /// Nodes that are to be members no longer, and whether they are lost.
    to_remove: Vec<(NodeId, bool)>,
}

impl Wishes {
    pub fn new(options: &Options, time: Time) -> Self {
        Self {
            chance: Chance::of(options.seed, "operator"),
            looks: Chance::of(options.seed, "operator's looks"),
            stops: Chance::of(options.seed, "operator's stops"),
            stops_percent: options.stops.wishes_percent,
            time,
            until: options.busy,
            pause: options.busy / u32::try_from(options.commands).unwrap_or(u32::MAX),
            request_timeout_ms: options.request_timeout_ms,
            link_configs: options.link_configs.clone(),
            topics: options.topics.iter().map(|topic| topic.name.clone()).collect(),
            mirrors: 0,
            to_remove: Vec::new(),
        }
    }

    pub fn is_to_remove(&mut self, node: NodeId, lost: bool) {
        self.to_remove.push((node, lost));
    }

    pub fn waits_for_removal(&self) -> bool {
        !self.to_remove.is_empty()
    }

    /// Before the next wish.
    pub fn pause_now(&mut self, catalog: &Catalog) -> Duration {
        // There is much to do before anything is mirrored.
        if catalog.links.values().all(|link| link.mirrors.is_empty()) {
            return Duration::from_millis(self.chance.between(0..=FOUNDING_PAUSE_MS));
        }
        if self.time.elapsed() >= self.until {
            return TIDY_EVERY;
        }
        let twice_ms = u64::try_from(self.pause.as_millis() * 2).unwrap_or(u64::MAX);
        Duration::from_millis(self.chance.between(0..=twice_ms))
    }

    pub fn next(&mut self, catalog: &Catalog) -> Option<Request> {
        if let Some(cluster) = clusters::ALL.iter().find(|c| !catalog.clusters.contains_key(c.name)) {
            return Some(self.create_cluster(cluster));
        }
        if let Some(to) = [DESTINATION, UNREACHABLE]
            .iter()
            .find(|to| !catalog.links.values().any(|l| *l.destination == *to.name))
        {
            let asks_brokers = self.chance.percent(50);
            return Some(Request::create_link(&SOURCE, to, &self.link_configs, asks_brokers));
        }
        if let Some(request) = self.removal(catalog) {
            return Some(request);
        }
        if self.time.elapsed() >= self.until {
            return self.tidy(catalog);
        }
        if self.stops.percent(self.stops_percent)
            && let Some(request) = self.stop(catalog)
        {
            return Some(request);
        }
        // Mirrors run to a cluster that answers, and are asked for to the other one as well.
        let to = if self.chance.percent(90) { DESTINATION } else { UNREACHABLE };
        let link = catalog.links.values().find(|link| *link.destination == *to.name)?.clone();
        let mirrors: Vec<Arc<MirrorTopic>> = link.mirrors.values().cloned().collect();
        if mirrors.is_empty() {
            return Some(self.mirror(&link));
        }
        let mirror = self.chance.pick(&mirrors).name.clone();
        Some(match self.chance.between(0..=99) {
            0..40 => self.mirror(&link),
            40..55 => Request::pause(&link, &mirror),
            55..75 => Request::resume(&link, &mirror),
            75..83 => Request::delete_mirror(&link, &mirror, self.chance.percent(50)),
            90..95 if catalog.nodes.len() > 1 => self.alter_duty(catalog)?,
            83..95 => self.alter_link(&link),
            // What must be refused.
            _ => {
                let cluster = *self.chance.pick(&clusters::ALL);
                match self.chance.percent(50) {
                    true => self.create_cluster(&cluster),
                    false => Request::delete_cluster(&cluster),
                }
            }
        })
    }

    /// Promotes some mirrors, cancels that, or fails them over; now and then what makes no sense, or again.
    fn stop(&mut self, catalog: &Catalog) -> Option<Request> {
        let link = catalog.links.values().find(|link| *link.destination == *DESTINATION.name)?;
        let chance = &mut self.stops;
        let is_to_stop = |mirror: &&Arc<MirrorTopic>| mirror.stop.is_some();
        let (stopping, mut running): (Vec<_>, Vec<_>) = link.mirrors.values().partition(is_to_stop);
        // What isn't set up can't be stopped, and is asked for seldom.
        if chance.percent(90) {
            running.retain(|mirror| mirror.producer.is_some());
        }
        let what = chance.between(0..=99);
        // To cancel one there must be one; to do it twice, too.
        let again_percent = if (50..65).contains(&what) { 80 } else { 20 };
        let from = if chance.percent(again_percent) { &stopping } else { &running };
        let from = if from.is_empty() { if running.is_empty() { &stopping } else { &running } } else { from };
        let count = if chance.percent(25) { chance.between(2..=SEVERAL_MAX) } else { 1 };
        let mut chosen = BTreeSet::new();
        for _ in 0..count.min(from.len() as u64) {
            chosen.insert(&*chance.pick(from).name);
        }
        let names: Vec<&str> = chosen.into_iter().collect();
        if names.is_empty() {
            return None;
        }
        Some(match what {
            0..50 => Request::promote(link, &names),
            50..65 => Request::cancel_promotion(link, &names),
            _ => Request::fail_over(link, &names),
        })
    }

    /// Something that changes nothing.
    pub fn look(&mut self, catalog: &Catalog) -> Option<Request> {
        if !self.looks.percent(LOOK_PERCENT) {
            return None;
        }
        let links: Vec<&Arc<Link>> = catalog.links.values().collect();
        if links.is_empty() || self.looks.percent(40) {
            return Some(Request::get(requests::MIRRORS));
        }
        let link = *self.looks.pick(&links);
        let path = requests::path(link);
        let mirrors: Vec<&Arc<str>> = link.mirrors.keys().collect();
        let mirror = if mirrors.is_empty() { None } else { Some(*self.looks.pick(&mirrors)) };
        let mut paths = vec![
            "/lockstep/v1/fleet".to_owned(),
            "/lockstep/v1/nodes".to_owned(),
            "/lockstep/v1/clusters".to_owned(),
            format!("{path}?include_tasks=true"),
            format!("{path}/configs"),
        ];
        paths.extend(mirror.map(|mirror| format!("{path}/mirrors/{mirror}")));
        Some(Request::get(self.looks.pick(&paths).as_str()))
    }

    /// What the next step of a removal is.
    fn removal(&mut self, catalog: &Catalog) -> Option<Request> {
        self.to_remove.retain(|(node, _)| !catalog.fleet.removed.contains_key(node));
        let (node, lost) = *self.to_remove.first()?;
        let found = catalog.nodes.get(&node)?;
        if lost {
            return Some(Request::remove(node, lost));
        }
        if found.duty == Duty::Mirrors {
            return Some(Request::drain(node));
        }
        (catalog.owned_by(node) == 0).then(|| Request::remove(node, lost))
    }

    /// Drains a node, or ends that.
    fn alter_duty(&mut self, catalog: &Catalog) -> Option<Request> {
        let nodes: Vec<NodeId> = catalog.nodes.keys().copied().collect();
        let node = *self.chance.pick(&nodes);
        Some(match catalog.nodes.get(&node)?.duty {
            Duty::Mirrors => Request::drain(node),
            Duty::Drains | Duty::Stops => Request::undrain(node),
        })
    }

    /// In the end every mirror is to run, and there is one that no fault has stopped.
    fn tidy(&mut self, catalog: &Catalog) -> Option<Request> {
        let link = catalog.links.values().find(|link| *link.destination == *DESTINATION.name)?;
        if let Some(paused) = link.mirrors.values().find(|mirror| mirror.status == MirrorStatus::Paused) {
            return Some(Request::resume(link, &paused.name));
        }
        let drains = |(node, found): (&NodeId, &catalog::Node)| {
            (found.duty == Duty::Drains && self.to_remove.iter().all(|(gone, _)| gone != node))
                .then_some(*node)
        };
        if let Some(node) = catalog.nodes.iter().find_map(drains) {
            return Some(Request::undrain(node));
        }
        let runs = |mirror: &Arc<MirrorTopic>| {
            mirror.stop.is_none() && mirror.partitions.iter().any(|p| p.failure.is_none())
        };
        (!link.mirrors.values().any(runs)).then(|| self.mirror(link))
    }

    fn create_cluster(&mut self, cluster: &Registered) -> Request {
        // The one that never answers can only be registered without being asked.
        let asks_brokers = self.chance.percent(50) && cluster.name != UNREACHABLE.name;
        Request::create_cluster(cluster, self.request_timeout_ms, asks_brokers)
    }

    fn mirror(&mut self, link: &Link) -> Request {
        self.mirrors += 1;
        let source_topic = self.chance.pick(&self.topics).clone();
        let mirror_topic = format!("{source_topic}.mirror-{}", self.mirrors);
        let replicas = *self.chance.pick(&[None, Some(1), Some(2), Some(3)]);
        Request::create_mirror(link, &mirror_topic, &source_topic, replicas)
    }

    fn alter_link(&mut self, link: &Link) -> Request {
        let age_ms = self.chance.between(200..=10_000);
        Request::alter_link(link, "metadata.max.age.ms", age_ms.to_string(), self.chance.percent(50))
    }
}

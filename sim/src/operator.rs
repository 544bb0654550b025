//! The person at the nodes' API: registers clusters, makes links and mirrors, pauses, resumes, deletes,
//! drains nodes and removes them. It asks what the API's handlers ask and submits what they submit, one at a
//! time, at one node as long as that is there and answers, then at another.
//!
//! It outlives nodes and draws its next wish from the catalog that it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::preflight::{self, MirrorPlan, MirrorRequest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::command::{NewLink, NewMirror};
use catalog::fleet::Duty;
use catalog::{Action, Catalog, Link, LinkId, MirrorKey, MirrorStatus, MirrorTopic, NodeId};
use consensus::{Consensus, SubmitError};

use crate::chance::Chance;
use crate::clusters::{self, BROKER_PORT, DESTINATION, Registered, SOURCE, UNREACHABLE};
use crate::judge::{Seen, Witness};
use crate::network::SimDial;
use crate::options::Options;
use crate::time::Time;

/// Before a node that couldn't take a command is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Then it goes to another node.
const READS_MAX: usize = 5;
/// How often someone looks whether it sits here now.
const TURN_EVERY: Duration = Duration::from_millis(100);
/// Then a person gives up what a cluster doesn't answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two commands, at most, until there is a mirror.
const FOUNDING_PAUSE_MS: u64 = 500;
/// Between two looks whether a mirror was left paused, once the busy time is over.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub struct Operator(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    time: Time,
    /// Until then it has wishes.
    until: Duration,
    /// Between two commands, on average.
    pause: Duration,
    request_timeout_ms: u64,
    /// Of the link to the cluster that answers.
    link_configs: BTreeMap<String, String>,
    topics: Vec<String>,
    /// Mirrors made so far: no name is given twice.
    mirrors: u64,
    is_done: bool,
    /// Nodes that it can sit at, by place, and where it does.
    present: BTreeSet<usize>,
    sits_at: usize,
    /// Nodes that are to be members no longer, and whether they are lost.
    to_remove: Vec<(NodeId, bool)>,
    /// Wants nothing any more.
    rests: bool,
}

/// What it wants of the node.
enum Wish {
    Submit(Action),
    /// What isn't in the record of what people asked for.
    OfNodes(Action),
    Mirror {
        link: Arc<Link>,
        request: MirrorRequest,
    },
    /// With the topic at the destination, as `--delete-topic` has it, or without.
    Delete {
        link: Arc<Link>,
        mirror: Arc<MirrorTopic>,
        with_topic: bool,
    },
}

impl Operator {
    pub fn new(options: &Options, time: Time) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: Chance::of(options.seed, "operator"),
            time,
            until: options.busy,
            pause: options.busy / u32::try_from(options.commands).unwrap_or(u32::MAX),
            request_timeout_ms: options.request_timeout_ms,
            link_configs: options.link_configs.clone(),
            topics: options.topics.iter().map(|topic| topic.name.clone()).collect(),
            mirrors: 0,
            is_done: false,
            present: BTreeSet::new(),
            sits_at: 0,
            to_remove: Vec::new(),
            rests: false,
        })))
    }

    /// Everything it wanted was answered, and is as it wanted.
    pub fn is_done(&self) -> bool {
        self.state().is_done
    }

    /// What is read now is what is judged.
    pub fn rest(&self) {
        self.state().rests = true;
    }

    /// A node's process has ended.
    pub fn left(&self, place: usize) {
        let mut state = self.state();
        state.present.remove(&place);
        if state.sits_at == place {
            state.go_on();
        }
    }

    /// This member is to be removed.
    pub fn is_to_remove(&self, node: NodeId, lost: bool) {
        self.state().to_remove.push((node, lost));
    }

    fn sits_at(&self, place: usize) -> bool {
        self.state().sits_at == place
    }

    /// At work with one process of the node at this place, whenever it sits there.
    pub async fn work(self, place: usize, consensus: Consensus, dial: Arc<SimDial>, judge: Witness) {
        self.state().arrive(place);
        let mut is_settled = false;
        loop {
            if !self.sits_at(place) {
                is_settled = false;
                tokio::time::sleep(TURN_EVERY).await;
                continue;
            }
            if !is_settled {
                is_settled = settle(&consensus, &judge).await;
                if !is_settled && self.sits_at(place) {
                    self.state().go_on();
                }
                continue;
            }
            let found = consensus.watch().borrow().clone();
            let pause = self.state().pause_now(&found.catalog);
            tokio::time::sleep(pause).await;
            let found = consensus.watch().borrow().clone();
            let wish = {
                let mut state = self.state();
                let wish = if state.rests { None } else { state.next(&found.catalog) };
                state.is_done = wish.is_none() && state.to_remove.is_empty();
                wish
            };
            let Some(wish) = wish else { continue };
            match wish {
                Wish::Submit(action) => is_settled = submit(&consensus, &judge, action).await,
                Wish::OfNodes(action) => match consensus.submit(action.clone()).await {
                    Ok(_) => tracing::info!("operator: {action:?} is done"),
                    Err(error) => tracing::info!("operator: {action:?}: {error}"),
                },
                Wish::Mirror { link, request } => {
                    let plan = plan(&dial, &found.catalog, &link, &request).await;
                    if let Some(plan) = plan {
                        is_settled = submit(&consensus, &judge, create_mirror(&link, plan)).await;
                    }
                }
                Wish::Delete { link, mirror, with_topic } => {
                    let key = link.key(&mirror.name);
                    is_settled =
                        submit(&consensus, &judge, Action::DeleteMirror { mirror: key.clone() }).await;
                    let is_gone = consensus.watch().borrow().catalog.mirror(&key).is_none();
                    if with_topic && is_gone {
                        delete_topic(&dial, &found.catalog, &link, &mirror).await;
                    }
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is known what became of it.
async fn submit(consensus: &Consensus, judge: &Witness, action: Action) -> bool {
    tracing::info!("operator: {action:?}");
    judge.see(Seen::Submitting(&action));
    match consensus.submit(action).await {
        Ok(outcome) => {
            tracing::info!("operator: {outcome:?}");
            judge.see(Seen::Acknowledged(&consensus.watch().borrow().clone()));
        }
        Err(SubmitError::Refused(refusal)) => {
            tracing::info!("operator: refused: {refusal}");
            judge.see(Seen::Refused(&refusal));
        }
        Err(SubmitError::NoLeader { .. }) => {
            tracing::info!("operator: not proposed");
            judge.see(Seen::NotProposed);
        }
        Err(error) => {
            tracing::info!("operator: {error}");
            return false;
        }
    }
    true
}

/// What is read so holds whatever was acknowledged before. False when it can't be read here.
async fn settle(consensus: &Consensus, judge: &Witness) -> bool {
    for _ in 0..READS_MAX {
        match consensus.read().await {
            Ok(applied) => {
                judge.see(Seen::Settled(&applied));
                return true;
            }
            Err(error) => tracing::info!("operator: can't read yet: {error}"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    false
}

async fn plan(
    dial: &Arc<SimDial>,
    catalog: &Catalog,
    link: &Link,
    request: &MirrorRequest,
) -> Option<MirrorPlan> {
    let asked = format!("mirror {} of {} on {}", request.mirror_topic, request.source_topic, link.name);
    match tokio::time::timeout(PATIENCE, preflight::plan_mirror(dial.clone(), catalog, link, request)).await {
        Ok(Ok(plan)) => {
            tracing::info!("operator: {asked}, source offsets {:?}", plan.source_offsets);
            Some(plan)
        }
        Ok(Err(error)) => {
            tracing::info!("operator: {asked}: {error}");
            None
        }
        Err(_) => {
            tracing::info!("operator: {asked}: no answer");
            None
        }
    }
}

async fn delete_topic(dial: &Arc<SimDial>, catalog: &Catalog, link: &Link, mirror: &MirrorTopic) {
    let deleted =
        preflight::delete_topic(dial.clone(), catalog, link, &mirror.name, mirror.destination_topic_id);
    match tokio::time::timeout(PATIENCE, deleted).await {
        Ok(Ok(())) => tracing::info!("operator: topic {} is deleted", mirror.name),
        Ok(Err(error)) => tracing::info!("operator: {error}"),
        Err(_) => tracing::info!("operator: whether topic {} is deleted isn't known", mirror.name),
    }
}

impl State {
    fn arrive(&mut self, place: usize) {
        if !self.present.contains(&self.sits_at) {
            self.sits_at = place;
        }
        self.present.insert(place);
    }

    /// To the next node that is there.
    fn go_on(&mut self) {
        let after = self.present.range(self.sits_at + 1..).next();
        if let Some(next) = after.or(self.present.first()) {
            self.sits_at = *next;
        }
    }

    /// What the next step of a removal is.
    fn removal(&mut self, catalog: &Catalog) -> Option<Action> {
        self.to_remove.retain(|(node, _)| !catalog.fleet.removed.contains_key(node));
        let (node, lost) = *self.to_remove.first()?;
        let found = catalog.nodes.get(&node)?;
        if lost {
            return Some(Action::RemoveNode { node, lost });
        }
        if found.duty == Duty::Mirrors {
            return Some(Action::SetDuty { node, duty: Duty::Drains });
        }
        (catalog.owned_by(node) == 0).then_some(Action::RemoveNode { node, lost })
    }

    /// Drains a node, or ends that.
    fn alter_duty(&mut self, catalog: &Catalog) -> Option<Wish> {
        let nodes: Vec<NodeId> = catalog.nodes.keys().copied().collect();
        let node = *self.chance.pick(&nodes);
        let duty = match catalog.nodes.get(&node)?.duty {
            Duty::Mirrors => Duty::Drains,
            Duty::Drains | Duty::Stops => Duty::Mirrors,
        };
        Some(Wish::OfNodes(Action::SetDuty { node, duty }))
    }

    fn pause_now(&mut self, catalog: &Catalog) -> Duration {
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

    fn next(&mut self, catalog: &Catalog) -> Option<Wish> {
        if let Some(cluster) = clusters::ALL.iter().find(|c| !catalog.clusters.contains_key(c.name)) {
            return Some(Wish::Submit(self.create_cluster(cluster)));
        }
        if let Some(to) = [DESTINATION, UNREACHABLE]
            .iter()
            .find(|to| !catalog.links.values().any(|l| *l.destination == *to.name))
        {
            return Some(Wish::Submit(self.create_link(&SOURCE, to)));
        }
        if let Some(action) = self.removal(catalog) {
            return Some(Wish::OfNodes(action));
        }
        if self.time.elapsed() >= self.until {
            return self.tidy(catalog);
        }
        // Mirrors run to a cluster that answers, and are asked for to the other one as well.
        let to = if self.chance.percent(90) { DESTINATION } else { UNREACHABLE };
        let link = catalog.links.values().find(|link| *link.destination == *to.name)?.clone();
        let mirrors: Vec<Arc<MirrorTopic>> = link.mirrors.values().cloned().collect();
        if mirrors.is_empty() {
            return Some(self.mirror(link));
        }
        let mirror = self.chance.pick(&mirrors).clone();
        let key = link.key(&mirror.name);
        Some(match self.chance.between(0..=99) {
            0..40 => self.mirror(link),
            40..55 => Wish::Submit(Action::PauseMirror { mirror: key }),
            55..75 => Wish::Submit(Action::ResumeMirror { mirror: key }),
            75..83 => Wish::Delete { link, mirror, with_topic: self.chance.percent(50) },
            90..95 if catalog.nodes.len() > 1 => self.alter_duty(catalog)?,
            83..95 => Wish::Submit(self.alter_link(&link)),
            _ => {
                let cluster = *self.chance.pick(&clusters::ALL);
                Wish::Submit(self.create_cluster(&cluster))
            }
        })
    }

    /// In the end every mirror is to run, and there is one that no fault has stopped.
    fn tidy(&mut self, catalog: &Catalog) -> Option<Wish> {
        let link = catalog.links.values().find(|link| *link.destination == *DESTINATION.name)?;
        if let Some(paused) = link.mirrors.values().find(|mirror| mirror.status == MirrorStatus::Paused) {
            return Some(Wish::Submit(Action::ResumeMirror { mirror: link.key(&paused.name) }));
        }
        let drains = |(node, found): (&NodeId, &catalog::Node)| {
            (found.duty == Duty::Drains && self.to_remove.iter().all(|(gone, _)| gone != node))
                .then_some(*node)
        };
        if let Some(node) = catalog.nodes.iter().find_map(drains) {
            return Some(Wish::OfNodes(Action::SetDuty { node, duty: Duty::Mirrors }));
        }
        let runs = |mirror: &Arc<MirrorTopic>| mirror.partitions.iter().any(|p| p.failure.is_none());
        (!link.mirrors.values().any(runs)).then(|| self.mirror(link.clone()))
    }

    fn create_cluster(&self, cluster: &Registered) -> Action {
        let bootstrap: Vec<String> =
            cluster.hosts.iter().map(|host| format!("{host}:{BROKER_PORT}")).collect();
        let configs = BTreeMap::from([
            ("bootstrap.servers".to_owned(), bootstrap.join(",")),
            ("request.timeout.ms".to_owned(), self.request_timeout_ms.to_string()),
        ]);
        Action::CreateCluster { name: cluster.name.into(), cluster_id: cluster.id.into(), configs }
    }

    fn create_link(&mut self, from: &Registered, to: &Registered) -> Action {
        Action::CreateLink(NewLink {
            id: LinkId(URL_SAFE_NO_PAD.encode(self.chance.bytes::<16>()).into()),
            name: format!("{}-{}", from.name, to.name).into(),
            destination: to.name.into(),
            source: Some(from.name.into()),
            source_cluster_id: from.id.into(),
            configs: self.link_configs.clone(),
        })
    }

    fn mirror(&mut self, link: Arc<Link>) -> Wish {
        self.mirrors += 1;
        let source_topic = self.chance.pick(&self.topics).clone();
        let mirror_topic = format!("{source_topic}.mirror-{}", self.mirrors);
        let replication_factor = *self.chance.pick(&[None, Some(1), Some(2), Some(3)]);
        let request =
            MirrorRequest { source_topic, mirror_topic, replication_factor, configs: BTreeMap::new() };
        Wish::Mirror { link, request }
    }

    fn alter_link(&mut self, link: &Link) -> Action {
        let age_ms = self.chance.between(200..=10_000);
        let changed = ("metadata.max.age.ms".to_owned(), age_ms.to_string());
        let configs = link.configs.clone().into_iter().chain([changed]).collect();
        Action::AlterLinkConfigs { link: link.id.clone(), expected: link.configs.clone(), configs }
    }
}

fn create_mirror(link: &Link, plan: MirrorPlan) -> Action {
    let mirror: MirrorKey = link.key(&plan.mirror_topic.as_str().into());
    Action::CreateMirror(NewMirror {
        mirror,
        source_topic: plan.source_topic.as_str().into(),
        source_topic_id: plan.source_topic_id,
        partitions: plan.partitions,
        replication_factor: plan.replication_factor,
        configs: plan.topic_configs,
    })
}

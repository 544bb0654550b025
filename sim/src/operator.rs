//! The person at the node's API: registers clusters, makes links and mirrors, pauses, resumes, deletes.
//! It asks what the API's handlers ask and submits what they submit, one at a time, as long as the node is
//! there.
//!
//! It outlives the node and draws its next wish from the catalog that it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::preflight::{self, MirrorPlan, MirrorRequest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::command::{NewLink, NewMirror};
use catalog::{Action, Catalog, Link, LinkId, MirrorKey, MirrorStatus, MirrorTopic};
use consensus::{Consensus, SubmitError};

use crate::chance::Chance;
use crate::clusters::{self, BROKER_PORT, DESTINATION, Registered, SOURCE, UNREACHABLE};
use crate::judge::{Seen, Witness};
use crate::network::SimDial;
use crate::options::Options;
use crate::time::Time;

/// Before a node that couldn't take a command is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
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
    /// Wants nothing any more.
    rests: bool,
}

/// What it wants of the node.
enum Wish {
    Submit(Action),
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

    /// At work with one process of the node.
    pub async fn work(self, consensus: Consensus, dial: Arc<SimDial>, judge: Witness) {
        settle(&consensus, &judge).await;
        loop {
            let found = consensus.watch().borrow().clone();
            let pause = self.state().pause_now(&found.catalog);
            tokio::time::sleep(pause).await;
            let found = consensus.watch().borrow().clone();
            let wish = {
                let mut state = self.state();
                let wish = if state.rests { None } else { state.next(&found.catalog) };
                state.is_done = wish.is_none();
                wish
            };
            let Some(wish) = wish else { continue };
            match wish {
                Wish::Submit(action) => submit(&consensus, &judge, action).await,
                Wish::Mirror { link, request } => {
                    let plan = plan(&dial, &found.catalog, &link, &request).await;
                    if let Some(plan) = plan {
                        submit(&consensus, &judge, create_mirror(&link, plan)).await;
                    }
                }
                Wish::Delete { link, mirror, with_topic } => {
                    let key = link.key(&mirror.name);
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

async fn submit(consensus: &Consensus, judge: &Witness, action: Action) {
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
            settle(consensus, judge).await;
        }
    }
}

/// What is read so was proposed after whatever is under way.
async fn settle(consensus: &Consensus, judge: &Witness) {
    loop {
        match consensus.read().await {
            Ok(applied) => return judge.see(Seen::Settled(&applied)),
            Err(error) => tracing::info!("operator: can't read yet: {error}"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
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

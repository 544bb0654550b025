//! The person at the node's API: registers clusters, makes links and mirrors, pauses, resumes, deletes.
//! It submits the commands that the API's handlers submit, one at a time, as long as the node is there.
//!
//! It outlives the node and draws its next wish from the catalog that it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::command::{NewLink, NewMirror};
use catalog::{Action, Catalog, Link, LinkId, MirrorKey, ProducerIdentity, TopicId};
use consensus::{Consensus, SubmitError};

use crate::chance::Chance;
use crate::clusters::{BROKER_PORT, CLUSTERS, Cluster};
use crate::judge::{Seen, Witness};
use crate::options::Options;

const PARTITIONS_MAX: u64 = 4;
/// Before a node that couldn't take a command is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Cheap to clone.
#[derive(Clone)]
pub struct Operator(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    /// Between two commands, on average.
    pause: Duration,
    commands_left: u64,
    topics: u64,
    is_done: bool,
}

impl Operator {
    pub fn new(options: &Options) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: Chance::of(options.seed, "operator"),
            pause: options.busy / u32::try_from(options.commands).unwrap_or(u32::MAX),
            commands_left: options.commands,
            topics: 0,
            is_done: false,
        })))
    }

    /// Everything it wanted was answered.
    pub fn is_done(&self) -> bool {
        self.state().is_done
    }

    /// At work with one process of the node.
    pub async fn work(self, consensus: Consensus, judge: Witness) {
        settle(&consensus, &judge).await;
        loop {
            let pause = self.state().pause_now();
            tokio::time::sleep(pause).await;
            let found = consensus.watch().borrow().clone();
            let Some(action) = self.state().next(&found.catalog) else { break };
            tracing::info!("operator: {action:?}");
            // Not a person's command, and with real clusters not the operator's.
            if matches!(action, Action::MirrorReady { .. }) {
                let answer = consensus.submit(action).await;
                tracing::info!("operator: {answer:?}");
            } else {
                submit(&consensus, &judge, action).await;
            }
        }
        self.state().is_done = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn submit(consensus: &Consensus, judge: &Witness, action: Action) {
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

impl State {
    fn pause_now(&mut self) -> Duration {
        let twice_ms = u64::try_from(self.pause.as_millis() * 2).unwrap_or(u64::MAX);
        Duration::from_millis(self.chance.between(0..=twice_ms))
    }

    fn next(&mut self, catalog: &Catalog) -> Option<Action> {
        if let Some(cluster) = CLUSTERS.iter().find(|c| !catalog.clusters.contains_key(c.name)) {
            return Some(create_cluster(cluster));
        }
        let [source, destinations @ ..] = &CLUSTERS;
        if let Some(to) =
            destinations.iter().find(|to| !catalog.links.values().any(|l| *l.destination == *to.name))
        {
            return Some(self.create_link(source, to));
        }
        self.commands_left = self.commands_left.checked_sub(1)?;
        let links: Vec<&Arc<Link>> = catalog.links.values().collect();
        let link = (*self.chance.pick(&links)).clone();
        let mirrors: Vec<MirrorKey> = link.mirrors.keys().map(|topic| link.key(topic)).collect();
        if mirrors.is_empty() {
            return Some(self.create_mirror(&link));
        }
        let mirror = self.chance.pick(&mirrors).clone();
        Some(match self.chance.between(0..=99) {
            0..35 => self.create_mirror(&link),
            35..60 => self.mirror_ready(mirror),
            60..70 => Action::PauseMirror { mirror },
            70..80 => Action::ResumeMirror { mirror },
            80..90 => Action::DeleteMirror { mirror },
            90..95 => self.alter_link(&link),
            _ => create_cluster(self.chance.pick(&CLUSTERS)),
        })
    }

    fn create_link(&mut self, from: &Cluster, to: &Cluster) -> Action {
        Action::CreateLink(NewLink {
            id: LinkId(URL_SAFE_NO_PAD.encode(self.chance.bytes::<16>()).into()),
            name: format!("{}-{}", from.name, to.name).into(),
            destination: to.name.into(),
            source: Some(from.name.into()),
            source_cluster_id: from.id.into(),
            configs: BTreeMap::new(),
        })
    }

    fn create_mirror(&mut self, link: &Link) -> Action {
        self.topics += 1;
        let topic: Arc<str> = format!("topic-{}", self.topics).into();
        Action::CreateMirror(NewMirror {
            mirror: link.key(&topic),
            source_topic: topic,
            source_topic_id: TopicId(self.chance.bytes()),
            partitions: self.chance.between(1..=PARTITIONS_MAX) as u32,
            replication_factor: None,
            configs: BTreeMap::new(),
        })
    }

    /// As the mirror's setup does when its destination answers: clusters that never do would leave every
    /// mirror without a running partition.
    fn mirror_ready(&mut self, mirror: MirrorKey) -> Action {
        let producer_id = self.chance.between(1..=1_000_000) as i64;
        Action::MirrorReady {
            mirror,
            destination_topic_id: TopicId(self.chance.bytes()),
            producer: ProducerIdentity { producer_id, producer_epoch: 0 },
        }
    }

    fn alter_link(&mut self, link: &Link) -> Action {
        let age_ms = self.chance.between(1_000..=60_000);
        let changed = ("metadata.max.age.ms".to_owned(), age_ms.to_string());
        let configs = link.configs.clone().into_iter().chain([changed]).collect();
        Action::AlterLinkConfigs { link: link.id.clone(), expected: link.configs.clone(), configs }
    }
}

fn create_cluster(cluster: &Cluster) -> Action {
    let bootstrap = format!("{}:{BROKER_PORT}", cluster.host);
    let configs = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap)]);
    Action::CreateCluster { name: cluster.name.into(), cluster_id: cluster.id.into(), configs }
}

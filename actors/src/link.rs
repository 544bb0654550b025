//! One link's supervisor: owns the link's plane and one actor a mirror partition, and keeps what
//! runs equal to what the catalog assigns to this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Link, MirrorTopic, NodeId};
use kafka::ClientConfig;
use kafka::client::{Client, Dial};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::appender::LaneMeters;
use crate::catalog_port::CatalogPort;
use crate::clock::WallClock;
use crate::growth::{self, Growth};
use crate::observe::{LinkView, Observatory, PartitionStats};
use crate::partition::{
    PartitionArguments, PartitionMessage, PartitionMirror, Question, Quiet, topic_partition,
};
use crate::plan::{self, PartitionKey, Running, Start};
use crate::plane::{LinkPlane, PlaneMeters, Topics};
use crate::settings::LinkSettings;
use crate::setup;
use crate::watch::{self, Watched};

/// Before a partition whose actor failed is started again.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// Kafka's default of `max.message.bytes`.
const MESSAGE_BYTES_MAX_DEFAULT: usize = 1_048_588;

/// What every link of a node shares.
#[derive(Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
    pub clock: WallClock,
    pub dial: Arc<dyn Dial>,
}

pub struct LinkArguments {
    pub link: Arc<Link>,
    pub source: ClientConfig,
    pub destination: ClientConfig,
    pub surroundings: Surroundings,
    /// Another supervisor of this link ran before in this process.
    pub is_successor: bool,
}

pub enum LinkMessage {
    /// The catalog's link has changed.
    Update(Arc<Link>),
    MetadataChanged,
    PartitionStopped {
        key: PartitionKey,
        assignment_epoch: u64,
        in_doubt: bool,
    },
    SetupEnded {
        topic: Arc<str>,
    },
    GrowthEnded {
        topic: Arc<str>,
    },
    Reconcile,
    /// Stop everything in an orderly way; answered when nothing of ours is under way any more.
    Stop(oneshot::Sender<()>),
}

pub struct LinkSupervisor;

struct RunningPartition {
    actor: ActorRef<PartitionMessage>,
    stats: Arc<PartitionStats>,
    assignment_epoch: u64,
    stopping: bool,
}

pub struct LinkState {
    link: Arc<Link>,
    surroundings: Surroundings,
    plane: Arc<LinkPlane>,
    partitions: BTreeMap<PartitionKey, RunningPartition>,
    setups: BTreeMap<Arc<str>, AbortHandle>,
    /// Topics to which partitions are being added.
    growths: BTreeSet<Arc<str>>,
    /// Partitions whose last owner here left requests in doubt.
    doubtful: BTreeSet<PartitionKey>,
    /// A supervisor of this link ran before in this process, and what it knew of doubts is gone.
    is_successor: bool,
    /// Actors started so far.
    instances: u32,
    /// The round of [`watch`] that was begun last.
    watch: Option<AbortHandle>,
    tasks: Vec<AbortHandle>,
    stop: Option<oneshot::Sender<()>>,
}

impl Actor for LinkSupervisor {
    type Msg = LinkMessage;
    type State = LinkState;
    type Arguments = LinkArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<LinkMessage>,
        arguments: LinkArguments,
    ) -> Result<LinkState, ActorProcessingErr> {
        let LinkArguments { link, source, destination, surroundings, is_successor } = arguments;
        let dial = &surroundings.dial;
        let source = Client::of_cluster(source, dial.clone(), link.source_cluster_id.clone());
        let destination = Client::of_cluster(destination, dial.clone(), link.destination_cluster_id.clone());
        let settings = LinkSettings::from_configs(&link.configs);
        let plane = LinkPlane::new(
            PlaneMeters::of_link(&link.name),
            source,
            destination,
            settings,
            surroundings.clock.clone(),
        );
        let keeper = tokio::spawn(plane.clone().keep_metadata());
        let mut metadata = plane.watch_metadata();
        let watcher_of = myself.clone();
        let watcher = tokio::spawn(async move {
            while metadata.changed().await.is_ok() {
                if watcher_of.cast(LinkMessage::MetadataChanged).is_err() {
                    return;
                }
            }
        });
        let tasks = vec![keeper.abort_handle(), watcher.abort_handle()];
        myself.cast(LinkMessage::Reconcile)?;
        Ok(LinkState {
            link,
            surroundings,
            plane,
            partitions: BTreeMap::new(),
            setups: BTreeMap::new(),
            growths: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            is_successor,
            instances: 0,
            watch: None,
            tasks,
            stop: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<LinkMessage>,
        message: LinkMessage,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LinkMessage::Update(link) => state.link = link,
            LinkMessage::MetadataChanged => {
                state.metadata_changed();
                state.follow_growth(&myself);
                state.watch_idle();
                return Ok(());
            }
            LinkMessage::PartitionStopped { key, assignment_epoch, in_doubt } => {
                if in_doubt {
                    state.doubtful.insert(key.clone());
                }
                if state.partitions.get(&key).is_some_and(|p| p.assignment_epoch == assignment_epoch) {
                    state.partitions.remove(&key);
                    state.leave_unless_wanted(&key);
                }
            }
            LinkMessage::SetupEnded { topic } => {
                state.setups.remove(&topic);
            }
            LinkMessage::GrowthEnded { topic } => {
                state.growths.remove(&topic);
                return Ok(());
            }
            LinkMessage::Reconcile => {}
            LinkMessage::Stop(answer) => state.stop = Some(answer),
        }
        state.reconcile(&myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<LinkMessage>,
        event: SupervisionEvent,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            state.partition_failed(&cell, &error);
            myself.send_after(RESTART_WAIT, || LinkMessage::Reconcile);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<LinkMessage>,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        state.tasks.iter().chain(state.setups.values()).chain(&state.watch).for_each(AbortHandle::abort);
        state.surroundings.observatory.set_link(&state.link.id, None);
        Ok(())
    }
}

impl LinkState {
    async fn reconcile(&mut self, myself: &ActorRef<LinkMessage>) {
        if self.stop.is_some() {
            self.stop_all(myself);
            return;
        }
        self.plane.set_topics(self.topics());
        let running: Running =
            self.partitions.iter().map(|(key, p)| (key.clone(), p.assignment_epoch)).collect();
        let plan = plan::plan(&self.link, self.surroundings.node, &running);
        if !plan.is_empty() {
            tracing::info!(link = %self.link.name, "plan: {plan}");
        }
        for key in &plan.stops {
            self.stop_partition(myself, key);
        }
        for start in plan.starts {
            self.start_partition(myself, start).await;
        }
        self.setups.retain(|topic, task| {
            let wanted = plan.setups.contains(topic);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for topic in plan.setups {
            self.start_setup(myself, topic);
        }
    }

    fn topics(&self) -> Topics {
        let mirrors = || self.link.mirrors.values();
        Topics {
            source: mirrors().map(|m| m.source_topic.clone()).collect(),
            destination: mirrors().filter(|m| m.producer.is_some()).map(|m| m.name.clone()).collect(),
        }
    }

    async fn start_partition(&mut self, myself: &ActorRef<LinkMessage>, start: Start) {
        let Start { key, assignment_epoch, unclean } = start;
        let (topic, partition) = &key;
        let Some(mirror) = self.link.mirrors.get(topic).cloned() else { return };
        let Some(producer) = mirror.producer else { return };
        self.instances += 1;
        let mirror_key = self.link.key(topic);
        let question = Question {
            source: topic_partition(&mirror.source_topic, *partition),
            source_topic_id: mirror.source_topic_id,
            mirror: topic_partition(topic, *partition),
            destination_topic_id: mirror.destination_topic_id,
            producer,
            quiet: Quiet::From(Instant::now()),
            prefix: mirror.partitions.get(*partition as usize).and_then(|p| p.prefix),
            is_compacted: mirror.configs.get("cleanup.policy").is_some_and(|p| p.contains("compact")),
            batch_bytes_max: mirror
                .configs
                .get("max.message.bytes")
                .and_then(|value| value.parse().ok())
                .unwrap_or(MESSAGE_BYTES_MAX_DEFAULT),
        };
        let stats = self.surroundings.observatory.enter(&mirror_key, *partition);
        let arguments = PartitionArguments {
            stats: stats.clone(),
            mirror: mirror_key,
            partition: *partition,
            assignment_epoch,
            instance: self.instances,
            unclean: unclean || self.is_successor || self.doubtful.remove(&key),
            question,
            plane: self.plane.clone(),
            meters: self.meters(&mirror),
            catalog: self.surroundings.catalog.clone(),
        };
        match Actor::spawn_linked(None, PartitionMirror, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                let running = RunningPartition { actor, stats, assignment_epoch, stopping: false };
                self.partitions.insert(key, running);
            }
            Err(error) => {
                tracing::error!(%topic, partition, %error, "can't start the partition's actor");
                myself.send_after(RESTART_WAIT, || LinkMessage::Reconcile);
            }
        }
    }

    fn meters(&self, mirror: &MirrorTopic) -> LaneMeters {
        let labels = [("link", self.link.name.to_string()), ("topic", mirror.name.to_string())];
        let mut with_path = labels.to_vec();
        with_path.push(("path", "raw".into()));
        LaneMeters {
            bytes: metrics::counter!("lockstep_mirror_bytes_total", &labels),
            records: metrics::counter!("lockstep_mirror_records_total", &labels),
            batches: metrics::counter!("lockstep_mirror_batches_total", &with_path),
        }
    }

    fn stop_partition(&mut self, myself: &ActorRef<LinkMessage>, key: &PartitionKey) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        if std::mem::replace(&mut partition.stopping, true) {
            return;
        }
        let (answer, stopped) = oneshot::channel();
        let (actor, key, assignment_epoch) =
            (partition.actor.clone(), key.clone(), partition.assignment_epoch);
        let myself = myself.clone();
        tokio::spawn(async move {
            let told = actor.cast(PartitionMessage::Stop(answer)).is_ok();
            // An actor that is gone without an answer leaves doubt.
            let in_doubt = !told || stopped.await.unwrap_or(true);
            let _ = myself.cast(LinkMessage::PartitionStopped { key, assignment_epoch, in_doubt });
        });
    }

    fn stop_all(&mut self, myself: &ActorRef<LinkMessage>) {
        self.setups.values().for_each(AbortHandle::abort);
        let keys: Vec<PartitionKey> = self.partitions.keys().cloned().collect();
        for key in &keys {
            self.stop_partition(myself, key);
        }
        if keys.is_empty()
            && let Some(answer) = self.stop.take()
        {
            let _ = answer.send(());
            myself.stop(None);
        }
    }

    fn start_setup(&mut self, myself: &ActorRef<LinkMessage>, topic: Arc<str>) {
        let Some(mirror) = self.link.mirrors.get(&topic).cloned() else { return };
        if self.setups.contains_key(&topic) {
            return;
        }
        let Surroundings { catalog, observatory, .. } = self.surroundings.clone();
        let work = setup::run(self.plane.clone(), catalog, observatory, self.link.key(&topic), mirror);
        let (myself, name) = (myself.clone(), topic.clone());
        let task = tokio::spawn(async move {
            work.await;
            let _ = myself.cast(LinkMessage::SetupEnded { topic: name });
        });
        self.setups.insert(topic, task.abort_handle());
    }

    /// One task a topic at a time.
    fn follow_growth(&mut self, myself: &ActorRef<LinkMessage>) {
        if self.stop.is_some() {
            return;
        }
        let source = self.plane.metadata().source;
        for Growth { topic, partitions } in growth::wanted(&self.link, self.surroundings.node, &source) {
            if !self.growths.insert(topic.clone()) {
                continue;
            }
            let catalog = self.surroundings.catalog.clone();
            let work = growth::grow(self.plane.clone(), catalog, self.link.key(&topic), partitions);
            let myself = myself.clone();
            tokio::spawn(async move {
                work.await;
                let _ = myself.cast(LinkMessage::GrowthEnded { topic });
            });
        }
    }

    /// One round at a time: a slow broker delays the next.
    fn watch_idle(&mut self) {
        if self.watch.as_ref().is_some_and(|round| !round.is_finished()) {
            return;
        }
        let watched = |((topic, partition), p): (&PartitionKey, &RunningPartition)| Watched {
            mirror: topic_partition(topic, *partition),
            stats: p.stats.clone(),
            actor: p.actor.clone(),
        };
        let watched = self.partitions.iter().map(watched).collect();
        self.watch = Some(tokio::spawn(watch::run(self.plane.clone(), watched)).abort_handle());
    }

    fn metadata_changed(&mut self) {
        for partition in self.partitions.values() {
            let _ = partition.actor.cast(PartitionMessage::MetadataChanged);
        }
        let metadata = self.plane.metadata();
        let error = metadata.source_error.as_ref().map(|e| ("source", e));
        let error = error.or(metadata.destination_error.as_ref().map(|e| ("destination", e)));
        let view = match error {
            None => LinkView { state: "ACTIVE", error: "NO_ERROR", error_message: None },
            Some((side, error)) => LinkView {
                state: if metadata.is_wrong_cluster() { "FAILED" } else { "UNAVAILABLE" },
                error: link_error(error),
                error_message: Some(format!("{side}: {error}")),
            },
        };
        self.surroundings.observatory.set_link(&self.link.id, Some(view));
    }

    fn partition_failed(&mut self, cell: &ActorCell, error: &ActorProcessingErr) {
        let failed = self.partitions.iter().find(|(_, p)| p.actor.get_id() == cell.get_id());
        let Some(key) = failed.map(|(key, _)| key.clone()) else { return };
        tracing::error!(topic = %key.0, partition = key.1, %error, "a partition's actor failed; starting it again");
        self.partitions.remove(&key);
        self.doubtful.insert(key);
    }

    fn leave_unless_wanted(&self, key: &PartitionKey) {
        // A partition that starts again under another epoch, or has failed, keeps its row.
        let partitions = self.link.mirrors.get(&key.0).map_or(0, |m| m.partitions.len());
        if key.1 as usize >= partitions {
            self.surroundings.observatory.leave(&self.link.key(&key.0), key.1);
        }
    }
}

/// The link error of SPEC section 4 for a client error.
fn link_error(error: &kafka::Error) -> &'static str {
    match error {
        kafka::Error::Resolve { .. } => "UNRESOLVABLE_BOOTSTRAP_ERROR",
        kafka::Error::Connect { .. } | kafka::Error::Closed { .. } => "BOOTSTRAP_TCP_CONNECTION_FAILED_ERROR",
        kafka::Error::Deadline { .. } => "TIMEOUT_ERROR",
        kafka::Error::Authentication { .. } => "AUTHENTICATION_ERROR",
        _ => "UNKNOWN",
    }
}

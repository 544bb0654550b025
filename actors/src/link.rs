//! One link's supervisor: owns the link's plane and one actor a mirror partition, and keeps what
//! runs equal to what the catalog assigns to this node.

mod checks;
mod partitions;
mod rounds;
mod syncs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Link, MirrorStatus, NodeId};
use kafka::ClientConfig;
use kafka::client::{Client, Dial};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::availability::Availability;
use crate::catalog_port::CatalogPort;
use crate::clock::WallClock;
use crate::credit::CreditLimits;
use crate::doubts::Doubts;
use crate::fleet::lease::LeaseKeeper;
use crate::fleet::release::Releases;
use crate::governor::Governors;
use crate::growth::{self, Growth};
use crate::observe::{Observatory, PartitionStats};
use crate::pace::LinkPace;
use crate::partition::PartitionMessage;
use crate::plan::{self, Job, Leaving, PartitionKey, Running, Start};
use crate::plane::{Bounds, LinkPlane, PlaneMeters, Topics};
use crate::settings::LinkSettings;
use crate::setup;
use crate::stop::Stopping;
use crate::watch::Round;

pub use partitions::released;

/// Before a partition whose actor failed is started again.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// While it isn't known whether a partition that may start again was released.
const RELEASE_WAIT: Duration = Duration::from_millis(50);

/// What every link of a node shares.
#[derive(Clone)]
pub struct Surroundings {
    pub node: NodeId,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
    pub clock: WallClock,
    pub dial: Arc<dyn Dial>,
    pub lease: Arc<LeaseKeeper>,
    pub releases: Arc<Releases>,
    pub credit: CreditLimits,
    pub governors: Arc<Governors>,
}

pub struct LinkArguments {
    pub link: Arc<Link>,
    pub source: ClientConfig,
    pub destination: ClientConfig,
    pub surroundings: Surroundings,
    pub leaving: Leaving,
    /// What the supervisor before left, if one ran in this process.
    pub doubts: Doubts,
}

pub enum LinkMessage {
    /// The catalog's link has changed, or what of it is to be handed over.
    Update(Arc<Link>, Leaving),
    MetadataChanged,
    /// The regular check of both clusters; why one didn't answer.
    Checked {
        source: Option<kafka::Error>,
        destination: Option<kafka::Error>,
    },
    PartitionStopped {
        key: PartitionKey,
        assignment_epoch: u64,
        in_doubt: bool,
    },
    JobEnded {
        topic: Arc<str>,
        job: Job,
        task: Option<tokio::task::Id>,
    },
    GrowthEnded {
        topic: Arc<str>,
    },
    Reconcile,
    /// Stop everything in an orderly way; answered when nothing runs any more, with what may still be
    /// under way.
    Stop(oneshot::Sender<Doubts>),
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
    leaving: Leaving,
    jobs: BTreeMap<(Arc<str>, Job), AbortHandle>,
    /// Topics to which partitions are being added.
    growths: BTreeSet<Arc<str>>,
    doubts: Doubts,
    availability: Availability,
    /// Actors started so far.
    instances: u32,
    is_reconcile_due: bool,
    watch: Option<Round>,
    rest: Option<Round>,
    tasks: Vec<AbortHandle>,
    stop: Option<oneshot::Sender<Doubts>>,
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
        let LinkArguments { link, source, destination, surroundings, leaving, doubts } = arguments;
        let client = |config: ClientConfig, cluster_id: &Arc<str>| {
            Client::of_cluster(config, surroundings.dial.clone(), cluster_id.clone())
        };
        let settings = LinkSettings::from_configs(&link.configs);
        let (source_id, destination_id) = (&link.source_cluster_id, &link.destination_cluster_id);
        let every = settings.availability_check;
        let checker = checks::start(
            client(checks::config(&source, every), source_id),
            client(checks::config(&destination, every), destination_id),
            every,
            myself.clone(),
        );
        let (source, destination) = (client(source, source_id), client(destination, destination_id));
        let meters = PlaneMeters::of_link(&link.name);
        let Surroundings { node, catalog, clock, lease, credit, .. } = surroundings.clone();
        let pace = LinkPace::new(Some(surroundings.governors.seat(destination_id, &destination, &catalog)));
        pace.set(&link, node);
        let bounds = Bounds { credit, pace };
        let plane = LinkPlane::new(meters, source, destination, settings, bounds, clock, lease);
        surroundings.observatory.set_plane(&link.id, Some(&plane));
        // Before the first look: its answer is then enough to start with.
        plane.set_topics(topics(&link));
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
        let mut tasks = vec![keeper.abort_handle(), watcher.abort_handle(), checker];
        tasks.extend(syncs::start(&link, &settings, &plane, &surroundings));
        myself.cast(LinkMessage::Reconcile)?;
        Ok(LinkState {
            link,
            surroundings,
            plane,
            partitions: BTreeMap::new(),
            leaving,
            jobs: BTreeMap::new(),
            growths: BTreeSet::new(),
            doubts,
            availability: Availability::new(settings.availability_failures_max),
            instances: 0,
            is_reconcile_due: false,
            watch: None,
            rest: None,
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
            LinkMessage::Update(link, leaving) => {
                state.link = link;
                state.leaving = leaving;
                state.plane.pace().set(&state.link, state.surroundings.node);
            }
            LinkMessage::MetadataChanged => {
                state.metadata_changed();
                state.follow_growth(&myself);
                state.watch_idle();
                state.look_at_rest();
                return Ok(());
            }
            LinkMessage::Checked { source, destination } => {
                state.availability.checked(source, destination);
                state.show();
                state.look_at_rest();
                return Ok(());
            }
            LinkMessage::PartitionStopped { key, assignment_epoch, in_doubt } => {
                if in_doubt {
                    state.doubts.add(key.clone());
                }
                if state.partitions.get(&key).is_some_and(|p| p.assignment_epoch == assignment_epoch) {
                    state.partitions.remove(&key);
                }
            }
            LinkMessage::JobEnded { topic, job, task } => {
                // Told late, it may be followed by another already.
                let ended = state.jobs.get(&(topic.clone(), job)).map(AbortHandle::id);
                if ended == task {
                    state.jobs.remove(&(topic, job));
                }
            }
            LinkMessage::GrowthEnded { topic } => {
                state.growths.remove(&topic);
                return Ok(());
            }
            LinkMessage::Reconcile => {
                state.is_reconcile_due = false;
                state.reconcile(&myself).await;
                return Ok(());
            }
            LinkMessage::Stop(answer) => state.stop = Some(answer),
        }
        // Once for all that has happened by then: thousands of partitions may stop together.
        if !std::mem::replace(&mut state.is_reconcile_due, true) {
            myself.cast(LinkMessage::Reconcile)?;
        }
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
}

/// Also when the supervisor panics: a plane that goes on beside the next supervisor's would append for a
/// second owner.
impl Drop for LinkState {
    fn drop(&mut self) {
        self.tasks.iter().chain(self.jobs.values()).for_each(AbortHandle::abort);
    }
}

impl LinkState {
    async fn reconcile(&mut self, myself: &ActorRef<LinkMessage>) {
        if self.stop.is_some() {
            self.stop_all(myself);
            return;
        }
        self.plane.set_topics(topics(&self.link));
        let running: Running =
            self.partitions.iter().map(|(key, p)| (key.clone(), p.assignment_epoch)).collect();
        let plan = plan::plan(&self.link, self.surroundings.node, &running, &self.leaving);
        if !plan.is_empty() {
            tracing::info!(link = %self.link.name, "plan: {plan}");
        }
        for key in &plan.stops {
            self.stop_partition(myself, key);
        }
        for start in plan.starts {
            let Start { key: (topic, partition), .. } = &start;
            let key = catalog::PartitionKey { mirror: self.link.key(topic), partition: *partition };
            if self.surroundings.releases.take_back(&key) {
                self.start_partition(myself, start).await;
            } else {
                myself.send_after(RELEASE_WAIT, || LinkMessage::Reconcile);
            }
        }
        let released = plan.releases.iter().map(|owned| released(&self.link, owned, &self.doubts));
        self.surroundings.releases.add(released);
        self.forget_what_is_gone();
        self.jobs.retain(|job, task| {
            let wanted = plan.jobs.contains(job);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for (topic, job) in plan.jobs {
            self.start_job(myself, topic, job);
        }
    }

    fn stop_all(&mut self, myself: &ActorRef<LinkMessage>) {
        self.jobs.values().for_each(AbortHandle::abort);
        let keys: Vec<PartitionKey> = self.partitions.keys().cloned().collect();
        for key in &keys {
            self.stop_partition(myself, key);
        }
        if keys.is_empty()
            && let Some(answer) = self.stop.take()
        {
            let _ = answer.send(std::mem::take(&mut self.doubts));
            myself.stop(None);
        }
    }

    fn start_job(&mut self, myself: &ActorRef<LinkMessage>, topic: Arc<str>, job: Job) {
        let Some(mirror) = self.link.mirrors.get(&topic).cloned() else { return };
        if self.jobs.contains_key(&(topic.clone(), job)) {
            return;
        }
        let (plane, key) = (self.plane.clone(), self.link.key(&topic));
        let Surroundings { catalog, observatory, .. } = self.surroundings.clone();
        // What the job before it waited for.
        observatory.set_waiting(&key, None);
        let (myself, name) = (myself.clone(), topic.clone());
        let task = tokio::spawn(async move {
            match job {
                Job::SetUp => setup::run(plane, catalog, observatory, key, mirror).await,
                Job::CatchUp => Stopping { plane, catalog, observatory, key }.catch_up().await,
                Job::Fence => Stopping { plane, catalog, observatory, key }.fence().await,
            }
            let task = tokio::task::try_id();
            let _ = myself.cast(LinkMessage::JobEnded { topic: name, job, task });
        });
        self.jobs.insert((topic, job), task.abort_handle());
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

    fn metadata_changed(&mut self) {
        for partition in self.partitions.values() {
            let _ = partition.actor.cast(PartitionMessage::MetadataChanged);
        }
        let metadata = self.plane.metadata();
        self.availability.heard(metadata.source_error, metadata.destination_error);
        self.show();
    }

    fn show(&self) {
        self.surroundings.observatory.set_link(&self.link.id, Some(self.availability.view()));
    }
}

fn topics(link: &Link) -> Topics {
    let mirrors = || link.mirrors.values().filter(|m| m.status != MirrorStatus::Stopped);
    Topics {
        source: mirrors().map(|m| m.source_topic.clone()).collect(),
        destination: mirrors().filter(|m| m.producer.is_some()).map(|m| m.name.clone()).collect(),
    }
}

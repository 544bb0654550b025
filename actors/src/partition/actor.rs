//! The actor of one mirror partition: performs what the machine decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use catalog::{Action, Failure, MirrorKey};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::appender::{Appender, LaneKey, LaneMeters, LaneOwner, OpenLane, Order};
use crate::catalog_port::CatalogPort;
use crate::fetcher::{Assign, FetchOrder, FetchOwner, FetchStop, Fetcher};
use crate::lane::{Lane, LaneEnd};
use crate::observe::{PartitionState, PartitionStats};
use crate::partition::footing::{self, Footing, Question};
use crate::partition::machine::{Effect, Event, Machine, NotFooted, Shown};
use crate::plane::LinkPlane;
use crate::verdict::{self, Verdict};

/// How lanes and fetches talk to the partition they run for.
#[derive(Clone)]
pub struct Runner(ActorRef<PartitionMessage>);

impl Runner {
    pub fn lane_ended(&self, run: u64, end: LaneEnd) {
        // A partition that is gone needs no telling.
        let _ = self.0.cast(PartitionMessage::Event(Event::LaneEnded { run, end }));
    }

    pub fn fetch_stopped(&self, run: u64, stop: &FetchStop) {
        let verdict = verdict::on_fetch_stop(stop);
        let _ = self.0.cast(PartitionMessage::Event(Event::FetchStopped { run, verdict }));
    }
}

#[derive(Debug)]
pub enum PartitionMessage {
    Event(Event),
    /// The look at both logs is done, both brokers are connected.
    Footed {
        run: u64,
        footed: Box<Footed>,
    },
    /// The supervisor has new metadata.
    MetadataChanged,
    /// Stop in an orderly way; answered when nothing of ours is under way any more.
    Stop(oneshot::Sender<()>),
}

pub struct Footed {
    footing: Footing,
    fetcher: Fetcher,
    appender: Appender,
}

impl std::fmt::Debug for Footed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.footing.fmt(f)
    }
}

pub struct PartitionArguments {
    pub mirror: MirrorKey,
    pub partition: u32,
    pub assignment_epoch: u64,
    /// The owner before may have requests under way.
    pub unclean: bool,
    /// What to look at; `quiet_from` is set for each look.
    pub question: Question,
    pub plane: Arc<LinkPlane>,
    pub stats: Arc<PartitionStats>,
    pub meters: LaneMeters,
    pub catalog: Arc<dyn CatalogPort>,
}

pub struct PartitionMirror;

pub struct PartitionActorState {
    arguments: PartitionArguments,
    machine: Machine,
    /// Of the current run.
    current: Option<(Footing, Fetcher, Appender)>,
    /// Mirror end when the last event was taken: has there been progress?
    last_end: i64,
    waiting_for_stop: Vec<oneshot::Sender<()>>,
    failure: Option<(catalog::MirrorError, String)>,
}

impl Actor for PartitionMirror {
    type Msg = PartitionMessage;
    type State = PartitionActorState;
    type Arguments = PartitionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: PartitionArguments,
    ) -> Result<PartitionActorState, ActorProcessingErr> {
        let (machine, effects) = Machine::start(Instant::now(), arguments.unclean);
        let mut state = PartitionActorState {
            arguments,
            machine,
            current: None,
            last_end: -1,
            waiting_for_stop: Vec::new(),
            failure: None,
        };
        state.perform(&myself, effects).await;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: PartitionMessage,
        state: &mut PartitionActorState,
    ) -> Result<(), ActorProcessingErr> {
        let event = match message {
            PartitionMessage::Event(event) => event,
            PartitionMessage::Footed { run, footed } => {
                let Footed { footing, fetcher, appender } = *footed;
                state.current = Some((footing, fetcher, appender));
                Event::Footed { run }
            }
            PartitionMessage::MetadataChanged if state.leader_moved() => Event::LeaderMoved,
            PartitionMessage::MetadataChanged => return Ok(()),
            PartitionMessage::Stop(answer) => {
                state.waiting_for_stop.push(answer);
                Event::Stop
            }
        };
        state.log(&event);
        let end = state.arguments.stats.mirror_end.load(Ordering::Relaxed);
        let progressed = std::mem::replace(&mut state.last_end, end) < end;
        let effects = state.machine.on(event, Instant::now(), progressed);
        state.perform(&myself, effects).await;
        Ok(())
    }
}

impl PartitionActorState {
    async fn perform(&mut self, myself: &ActorRef<PartitionMessage>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Look { run, quiet_from } => self.look(myself, run, quiet_from),
                Effect::Begin { run } => self.begin(myself, run).await,
                Effect::StopFetch => {
                    if let Some((footing, fetcher, _)) = &self.current {
                        let (source, lane) = (footing.source.clone(), self.lane_key());
                        fetcher.order(FetchOrder::Remove { source, lane, run: self.machine.run() }).await;
                    }
                }
                Effect::FinishLane => self.order_lane(|key, run| Order::Finish { key, run }).await,
                Effect::CloseLane => self.order_lane(|key, run| Order::Close { key, run }).await,
                Effect::Wake { at, token } => {
                    self.current = None;
                    let myself = myself.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep_until(at).await;
                        let _ = myself.cast(PartitionMessage::Event(Event::Woken { token }));
                    });
                }
                Effect::Fail { error, offset, message } => self.fail(error, offset, message),
                Effect::Stopped => {
                    self.current = None;
                    for waiting in self.waiting_for_stop.drain(..) {
                        let _ = waiting.send(());
                    }
                    myself.stop(None);
                }
            }
        }
        self.show();
    }

    fn lane_key(&self) -> LaneKey {
        let mirror = &self.arguments.question.mirror;
        LaneKey { topic: mirror.topic.clone(), partition: mirror.partition }
    }

    async fn order_lane(&self, order: impl FnOnce(LaneKey, u64) -> Order) {
        if let Some((_, _, appender)) = &self.current {
            appender.order(order(self.lane_key(), self.machine.run())).await;
        }
    }

    /// Looks at both logs in a task of its own: the mailbox stays open meanwhile.
    fn look(&self, myself: &ActorRef<PartitionMessage>, run: u64, quiet_from: Instant) {
        let question = Question { quiet_from, ..self.arguments.question.clone() };
        let (plane, myself) = (self.arguments.plane.clone(), myself.clone());
        tokio::spawn(async move {
            let message = match find_footing(&plane, &question).await {
                Ok(footed) => PartitionMessage::Footed { run, footed: Box::new(footed) },
                Err(why) => {
                    plane.request_refresh();
                    PartitionMessage::Event(Event::NotFooted { run, why })
                }
            };
            let _ = myself.cast(message);
        });
    }

    /// Opens the lane first: what is fetched must have where to go.
    async fn begin(&mut self, myself: &ActorRef<PartitionMessage>, run: u64) {
        let Some((footing, fetcher, appender)) = self.current.clone() else { return };
        let PartitionArguments { plane, stats, meters, .. } = &self.arguments;
        let position = footing.lane.position;
        let lane = Lane::new(footing.lane);
        stats.guarded.store(lane.is_guarded(plane.now_ms()), Ordering::Relaxed);
        stats.fetch_offset.store(position, Ordering::Relaxed);
        stats.source_heard(footing.source_high_watermark, footing.source_high_watermark, plane.now_ms());
        stats.appended_to(position, plane.now_ms());
        self.last_end = position;
        let runner = Runner(myself.clone());
        let open = OpenLane {
            key: self.lane_key(),
            lane,
            stats: stats.clone(),
            owner: LaneOwner::new(runner.clone(), run),
            meters: meters.clone(),
        };
        appender.order(Order::Open(Box::new(open))).await;
        let assign = Assign {
            source: footing.source.clone(),
            position: kafka::fetch::Position {
                topic_id: footing.source_topic_id,
                offset: position,
                leader_epoch: footing.source_leader_epoch,
            },
            lane: self.lane_key(),
            appender,
            stats: stats.clone(),
            owner: FetchOwner::new(runner, run),
        };
        fetcher.order(FetchOrder::Assign(Box::new(assign))).await;
    }

    fn leader_moved(&self) -> bool {
        let Some((footing, ..)) = &self.current else { return false };
        let metadata = self.arguments.plane.metadata();
        let moved = |metadata: &kafka::Metadata, topic: &str, partition: i32, leader: i32, epoch: i32| {
            let Some(Ok(topic)) = metadata.topics.get(topic) else { return false };
            let Some(found) = topic.partitions.get(&partition) else { return false };
            // Metadata of another broker may be older than what the run began with.
            found.leader_epoch > epoch
                || (found.leader_epoch == epoch && found.leader.is_some_and(|l| l != leader))
        };
        let (source, mirror) = (&footing.source, &self.arguments.question.mirror);
        let (leader, epoch) = (footing.source_leader, footing.source_leader_epoch);
        moved(&metadata.source, &source.topic, source.partition, leader, epoch)
            || moved(
                &metadata.destination,
                &mirror.topic,
                mirror.partition,
                footing.destination_leader,
                footing.destination_leader_epoch,
            )
    }

    /// Reports to the catalog until it is taken, refused, or this partition is stopped.
    fn fail(&mut self, error: catalog::MirrorError, offset: i64, message: String) {
        let PartitionArguments { mirror, partition, assignment_epoch, plane, catalog, .. } = &self.arguments;
        tracing::error!(topic = %mirror.topic, partition, offset, error = error.name(), "{message}");
        self.current = None;
        self.failure = Some((error, message.clone()));
        let action = Action::FailPartition {
            mirror: mirror.clone(),
            partition: *partition,
            assignment_epoch: *assignment_epoch,
            failure: Failure { error, offset, message, at_ms: plane.now_ms() },
        };
        let catalog = catalog.clone();
        tokio::spawn(async move { catalog.submit_until_taken(action).await });
    }

    fn show(&self) {
        let now_ms = self.arguments.plane.now_ms();
        let at_ms = |at: Instant| now_ms + at.saturating_duration_since(Instant::now()).as_millis() as i64;
        let state = match self.machine.shown() {
            Shown::Checking => PartitionState::Checking,
            Shown::Quieting { until } => PartitionState::Quieting { until_ms: at_ms(until) },
            Shown::Running => PartitionState::Running,
            Shown::Parked { error, message, until } => {
                PartitionState::Parked { error, message, retry_at_ms: at_ms(until) }
            }
            Shown::Failed => match &self.failure {
                Some((error, message)) => PartitionState::Failed { error: *error, message: message.clone() },
                None => PartitionState::Stopped,
            },
            Shown::Stopped => PartitionState::Stopped,
        };
        self.arguments.stats.set_state(state, now_ms);
    }

    /// One line for whatever ended or refused a run.
    fn log(&self, event: &Event) {
        let PartitionArguments { mirror, partition, .. } = &self.arguments;
        let topic = &mirror.topic;
        match event {
            Event::LaneEnded { end, .. } => tracing::info!(%topic, partition, "lane ended: {end}"),
            Event::FetchStopped {
                verdict: Verdict::Retry { message } | Verdict::Park { message, .. },
                ..
            } => {
                tracing::info!(%topic, partition, "fetch stopped: {message}");
            }
            Event::NotFooted { why: NotFooted::Verdict(Verdict::Retry { message }), .. } => {
                tracing::debug!(%topic, partition, "not yet: {message}");
            }
            Event::NotFooted { why, .. } => tracing::info!(%topic, partition, "not yet: {why:?}"),
            Event::LeaderMoved => tracing::info!(%topic, partition, "a partition leader moved"),
            _ => {}
        }
    }
}

async fn find_footing(plane: &LinkPlane, question: &Question) -> Result<Footed, NotFooted> {
    let footing = footing::look(plane, question).await?;
    let retry = |e: kafka::Error| NotFooted::Verdict(Verdict::Retry { message: e.to_string() });
    let appender = plane.appender(footing.destination_leader).await.map_err(retry)?;
    let fetcher = plane.fetcher(footing.source_leader).await.map_err(retry)?;
    Ok(Footed { footing, fetcher, appender })
}

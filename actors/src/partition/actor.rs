//! The actor of one mirror partition: performs what the machine decides. Bytes never pass through
//! its mailbox, and it never decides itself what comes after an error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::{Action, Failure, MirrorKey};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::appender::{Appender, LaneKey, LaneOwner, OpenLane, Order};
use crate::catalog_port::CatalogPort;
use crate::fetcher::{Assign, FetchOrder, FetchOwner, FetchStop};
use crate::filler::{self, Fill};
use crate::fleet::lease::Pass;
use crate::lane::{Lane, LaneEnd, LaneStop};
use crate::meters::MirrorMeters;
use crate::observe::{PartitionState, PartitionStats};
use crate::partition::footing::{Feed, Footing, Question};
use crate::partition::look::{self, Footed, Looking, Source};
use crate::partition::machine::{Effect, Event, Machine, NotFooted, Shown};
use crate::partition::prefix;
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
        quiet_from: Option<Instant>,
    },
    /// The supervisor has new metadata.
    MetadataChanged,
    /// Stop in an orderly way; answered when nothing is awaited any more, with whether a request from
    /// before may still arrive.
    Stop(oneshot::Sender<bool>),
}

pub struct PartitionArguments {
    pub mirror: MirrorKey,
    pub partition: u32,
    pub assignment_epoch: u64,
    /// Of all actors that this link's supervisor has started.
    pub instance: u32,
    /// The owner before may have requests under way.
    pub unclean: bool,
    /// How long requests from before may still arrive once the partition leader has answered.
    pub wait: Duration,
    /// What to look at; `quiet` and `has_lease` are set for each look.
    pub question: Question,
    pub plane: Arc<LinkPlane>,
    pub stats: Arc<PartitionStats>,
    pub meters: MirrorMeters,
    pub catalog: Arc<dyn CatalogPort>,
}

struct Current {
    run: u64,
    footing: Footing,
    source: Source,
    appender: Appender,
    pass: Option<Pass>,
    cut_keeper: Option<AbortHandle>,
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Source::Filler(Some(task)) = &self.source {
            task.abort();
        }
        self.cut_keeper.iter().for_each(AbortHandle::abort);
    }
}

pub struct PartitionMirror;

pub struct PartitionActorState {
    arguments: PartitionArguments,
    machine: Machine,
    look: Looking,
    /// Waits for a lease.
    lease_wait: Option<AbortHandle>,
    /// Of the current run.
    current: Option<Current>,
    /// Mirror end when the last event was taken: has there been progress?
    last_end: i64,
    waiting_for_stop: Vec<oneshot::Sender<bool>>,
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
        let PartitionArguments { unclean, wait, instance, .. } = arguments;
        let waits = (wait, arguments.plane.topic_missing_max());
        let (machine, effects) = Machine::start(Instant::now(), unclean, waits, instance);
        let mut state = PartitionActorState {
            arguments,
            machine,
            look: Looking::default(),
            lease_wait: None,
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
            PartitionMessage::Footed { run, footed, quiet_from } => {
                let Footed { footing, source, appender, pass } = *footed;
                state.arguments.question.prefix = footing.prefix;
                state.current = Some(Current { run, footing, source, appender, pass, cut_keeper: None });
                Event::Footed { run, quiet_from }
            }
            PartitionMessage::MetadataChanged if state.leader_moved() => Event::LeaderMoved,
            PartitionMessage::MetadataChanged => return Ok(()),
            PartitionMessage::Stop(answer) => {
                state.waiting_for_stop.push(answer);
                Event::Stop
            }
        };
        if let Event::Footed { run, .. } | Event::NotFooted { run, .. } = &event {
            state.look.answered(*run);
        }
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
                Effect::Look { run, quiet } => {
                    self.look.begin(run, look::start(&self.arguments, myself, run, quiet));
                }
                Effect::StopLook => self.look.stop(),
                Effect::Begin { run } => self.begin(myself, run).await,
                Effect::StopFetch => self.stop_feed().await,
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
                Effect::AwaitLease { token } => self.await_lease(myself, token),
                Effect::Fail { error, offset, message } => self.fail(error, offset, message),
                Effect::Stopped => {
                    self.current = None;
                    self.lease_wait.iter().for_each(AbortHandle::abort);
                    let in_doubt = self.machine.is_in_doubt(Instant::now());
                    for waiting in self.waiting_for_stop.drain(..) {
                        let _ = waiting.send(in_doubt);
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
        if let Some(Current { run, appender, .. }) = &self.current {
            appender.order(order(self.lane_key(), *run)).await;
        }
    }

    fn await_lease(&mut self, myself: &ActorRef<PartitionMessage>, token: u64) {
        self.current = None;
        let (lease, myself) = (self.arguments.plane.lease().clone(), myself.clone());
        let wait = tokio::spawn(async move {
            lease.held().await;
            let _ = myself.cast(PartitionMessage::Event(Event::Woken { token }));
        });
        self.lease_wait = Some(wait.abort_handle());
    }

    /// Opens the lane first: what is fetched must have where to go.
    async fn begin(&mut self, myself: &ActorRef<PartitionMessage>, run: u64) {
        let lane_key = self.lane_key();
        let Some(Current { footing, source, appender, pass, cut_keeper, .. }) = &mut self.current else {
            return;
        };
        let PartitionArguments { plane, stats, meters, question, mirror, partition, catalog, .. } =
            &self.arguments;
        let position = footing.lane.position;
        let lane = Lane::new(footing.lane);
        stats.guarded.store(lane.is_guarded(plane.now_ms()), Ordering::Relaxed);
        stats.fetch_offset.store(position, Ordering::Relaxed);
        stats.looked(position, footing.source_high_watermark, plane.now_ms());
        self.last_end = position;
        let runner = Runner(myself.clone());
        let open = OpenLane {
            key: lane_key.clone(),
            lane,
            stats: stats.clone(),
            owner: LaneOwner::new(runner.clone(), run),
            meters: match footing.feed {
                Feed::Source => meters.raw.clone(),
                Feed::Filler { .. } => meters.filler.clone(),
            },
            pass: *pass,
        };
        appender.order(Order::Open(Box::new(open))).await;
        let owner = FetchOwner::new(runner, run);
        let (appender, stats, lane) = (appender.clone(), stats.clone(), lane_key);
        let fetcher = match (source, footing.feed) {
            (Source::Fetcher(fetcher), Feed::Source) => fetcher,
            (Source::Filler(task), Feed::Filler { to }) => {
                let credit = plane.broker_credit(footing.destination_leader);
                *task = Some(filler::start(Fill {
                    lane,
                    run,
                    from: position,
                    to,
                    batch_bytes_max: question.batch_bytes_max,
                    appender,
                    credit,
                    stats,
                    owner,
                }));
                return;
            }
            _ => unreachable!("a footing comes with its feed"),
        };
        if let Some(prefix) = footing.prefix.filter(|p| !p.settled) {
            let settle = Action::SettlePrefix {
                mirror: mirror.clone(),
                partition: *partition,
                log_start: prefix.log_start,
            };
            let leader = (footing.destination_leader, footing.destination_leader_epoch);
            let task = prefix::keep_cut(
                plane.clone(),
                question.mirror.clone(),
                leader,
                prefix,
                catalog.clone(),
                settle,
            );
            *cut_keeper = Some(tokio::spawn(task).abort_handle());
        }
        let assign = Assign {
            source: footing.source.clone(),
            position: kafka::fetch::Position {
                topic_id: footing.source_topic_id,
                // Below the log start nothing can be fetched, but the batch that holds it comes whole.
                offset: position.max(footing.source_log_start),
                leader_epoch: footing.source_leader_epoch,
            },
            next_offset: position,
            lane,
            appender,
            stats,
            owner,
        };
        fetcher.order(FetchOrder::Assign(Box::new(assign))).await;
    }

    /// Of the run that has ended: the machine may be at the next one already.
    async fn stop_feed(&self) {
        match &self.current {
            Some(Current { run, footing, source: Source::Fetcher(fetcher), .. }) => {
                let (source, lane) = (footing.source.clone(), self.lane_key());
                fetcher.order(FetchOrder::Remove { source, lane, run: *run }).await;
            }
            Some(Current { source: Source::Filler(Some(task)), .. }) => task.abort(),
            _ => {}
        }
    }

    fn leader_moved(&self) -> bool {
        let Some(Current { footing, .. }) = &self.current else { return false };
        let metadata = self.arguments.plane.metadata();
        if metadata.is_wrong_cluster() {
            return true;
        }
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
        if error == catalog::MirrorError::ForeignWrite {
            self.arguments.meters.foreign_writes.increment(1);
        }
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
            Shown::WaitingForLease => PartitionState::WaitingForLease,
            Shown::Running => match self.current.as_ref().map(|c| c.footing.feed) {
                Some(Feed::Filler { to }) => PartitionState::Filling { to },
                _ => PartitionState::Running,
            },
            Shown::Parked { error, message, until } => {
                PartitionState::Parked { error, message, retry_at_ms: at_ms(until) }
            }
            Shown::Failed | Shown::Stopped => PartitionState::Stopped,
        };
        // A failed partition that is stopped is still a failed one.
        let state = match &self.failure {
            Some((error, message)) => PartitionState::Failed { error: *error, message: message.clone() },
            None => state,
        };
        self.arguments.stats.set_state(state, now_ms);
    }

    /// One line for whatever ended or refused a run.
    fn log(&self, event: &Event) {
        let PartitionArguments { mirror, partition, .. } = &self.arguments;
        let topic = &mirror.topic;
        match event {
            Event::LaneEnded { end: LaneEnd { stop: LaneStop::Closed, .. }, .. } => {
                tracing::debug!(%topic, partition, "lane closed");
            }
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
            Event::NotFooted { why: NotFooted::Verdict(Verdict::Missing { message, .. }), .. } => {
                tracing::info!(%topic, partition, "not yet: {message}");
            }
            Event::NotFooted { why: NotFooted::NotQuiet { until }, .. } => {
                let wait = until.saturating_duration_since(Instant::now());
                tracing::info!(%topic, partition, "not yet: a request from before may arrive within {wait:?}");
            }
            Event::NotFooted { why: NotFooted::NoLease, .. } => {
                tracing::info!(%topic, partition, "not yet: nothing guards what comes next, and this node holds no lease");
            }
            Event::NotFooted { why, .. } => tracing::info!(%topic, partition, "not yet: {why:?}"),
            Event::LeaderMoved => tracing::info!(%topic, partition, "a partition leader moved"),
            Event::LogEndMoved => {
                tracing::warn!(%topic, partition, "the mirror's log end moved without us; looking at it");
            }
            _ => {}
        }
    }
}

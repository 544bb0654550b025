//! The life of a mirror partition as a pure machine: events in, effects out.
//!
//! A *run* is one stretch of mirroring: look at both logs, open a lane, fetch. Whatever ends a
//! run, the next begins with a fresh look: the destination's log end is the only checkpoint.

mod events;

use std::time::Duration;

use catalog::MirrorError;
use tokio::time::Instant;

use crate::fleet::lease::OUTLASTS;
use crate::lane::LaneEnd;
use crate::verdict::{self, Verdict};

pub use events::{Effect, Event, NotFooted, Quiet};

/// How long a request of ours, or of the owner before us, may still arrive at a broker after we
/// stopped waiting for it: twice the time the broker may wait for its followers
/// ([`crate::appender::PRODUCE_TIMEOUT`]), which covers the answer's margin and the way.
pub const AMBIGUITY_WAIT: Duration = Duration::from_secs(20);

// The kernel delivers nothing later.
const _: () = assert!(kafka::dial::UNACKNOWLEDGED_MAX.as_millis() < AMBIGUITY_WAIT.as_millis());

/// The same after an owner on another node that wasn't seen to stop: it may go on sending until its
/// lease has ended.
pub const TAKEOVER_WAIT: Duration = AMBIGUITY_WAIT.saturating_add(OUTLASTS);

const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// What only time or a person cures isn't asked for more often than this.
const PARK_MIN: Duration = Duration::from_secs(5);
/// Until then a retry is not worth an operator's attention.
const QUIET_RETRIES: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Looking,
    Running,
    /// Waiting for the lane's end; the verdict, if there is one already, comes after it.
    Ending {
        verdict: Option<Verdict>,
    },
    Waiting {
        parked: Option<(MirrorError, String)>,
        until: Instant,
    },
    WaitingForLease,
    Failed,
    Stopped,
}

/// What an observer may know of the phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Checking,
    Quieting { until: Instant },
    WaitingForLease,
    Running,
    Parked { error: MirrorError, message: String, until: Instant },
    Failed,
    Stopped,
}

#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    run: u64,
    /// Runs in a row that ended soon and without progress.
    attempts: u32,
    /// Of the current run, or the last one.
    footed_at: Option<Instant>,
    quiet: Quiet,
    /// How long a request from before may still arrive, once the partition leader has answered.
    wait: Duration,
    stopping: bool,
    token: u64,
    /// Since when a cluster has said in each look that it has no such topic.
    missing_since: Option<Instant>,
    /// How long it may go on saying so.
    missing_max: Duration,
}

impl Machine {
    /// A new owner. After an unclean takeover the owner before may have requests under way, and may
    /// still send some as long as its lease lasts: `wait` covers both. `missing_max`: how long a topic may be
    /// gone.
    ///
    /// `instance` tells this owner's runs from those of the actor before it on the same node: what
    /// is still on its way to the former must not reach the latter.
    pub fn start(
        now: Instant,
        unclean: bool,
        (wait, missing_max): (Duration, Duration),
        instance: u32,
    ) -> (Self, Vec<Effect>) {
        let quiet = if unclean { Quiet::OnceAnswered { wait } } else { Quiet::From(now) };
        let mut machine = Self {
            phase: Phase::Looking,
            run: u64::from(instance) << 32,
            attempts: 0,
            footed_at: None,
            quiet,
            wait,
            stopping: false,
            token: 0,
            missing_since: None,
            missing_max,
        };
        let effects = machine.look();
        (machine, effects)
    }

    /// A request of ours, or of an owner before us, may still arrive.
    pub fn is_in_doubt(&self, now: Instant) -> bool {
        match self.quiet {
            Quiet::From(at) => at > now,
            Quiet::OnceAnswered { .. } => true,
        }
    }

    /// The current run, or the last one.
    pub fn run(&self) -> u64 {
        self.run
    }

    pub fn shown(&self) -> Shown {
        match &self.phase {
            Phase::Looking | Phase::Ending { .. } => Shown::Checking,
            Phase::Running => Shown::Running,
            Phase::Waiting { parked: Some((error, message)), until } => {
                Shown::Parked { error: *error, message: message.clone(), until: *until }
            }
            Phase::Waiting { until, .. } if Quiet::From(*until) == self.quiet => {
                Shown::Quieting { until: *until }
            }
            Phase::Waiting { .. } => Shown::Checking,
            Phase::WaitingForLease => Shown::WaitingForLease,
            Phase::Failed => Shown::Failed,
            Phase::Stopped => Shown::Stopped,
        }
    }

    /// `progressed`: something was appended since the last event.
    pub fn on(&mut self, event: Event, now: Instant, progressed: bool) -> Vec<Effect> {
        if progressed {
            self.attempts = 0;
        }
        match event {
            Event::Footed { run, quiet_from } if run == self.run && self.phase == Phase::Looking => {
                self.heard(quiet_from);
                self.missing_since = None;
                self.footed_at = Some(now);
                self.phase = Phase::Running;
                vec![Effect::Begin { run }]
            }
            Event::NotFooted { run, why, quiet_from } if run == self.run && self.phase == Phase::Looking => {
                self.heard(quiet_from);
                self.not_footed(why, now)
            }
            Event::FetchStopped { run, verdict } if run == self.run => self.fetch_stopped(verdict),
            Event::LaneEnded { run, end } if run == self.run => self.lane_ended(&end, now),
            Event::LeaderMoved if self.phase == Phase::Running => self.end_run("a partition leader moved"),
            Event::LogEndMoved if self.phase == Phase::Running => {
                self.end_run("the mirror's log end moved without us")
            }
            Event::Woken { token } if token == self.token && self.waits() => self.look(),
            Event::Stop => self.stop(),
            _ => Vec::new(),
        }
    }

    fn waits(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. } | Phase::WaitingForLease)
    }

    fn look(&mut self) -> Vec<Effect> {
        self.run += 1;
        self.phase = Phase::Looking;
        vec![Effect::Look { run: self.run, quiet: self.quiet }]
    }

    fn heard(&mut self, quiet_from: Option<Instant>) {
        if let Some(at) = quiet_from {
            self.quiet = Quiet::From(at);
        }
    }

    fn end_run(&mut self, why: &str) -> Vec<Effect> {
        self.phase = Phase::Ending { verdict: Some(retry(why)) };
        vec![Effect::StopFetch, Effect::CloseLane]
    }

    fn not_footed(&mut self, why: NotFooted, now: Instant) -> Vec<Effect> {
        if !matches!(why, NotFooted::Verdict(Verdict::Missing { .. })) {
            self.missing_since = None;
        }
        match why {
            NotFooted::NotQuiet { until } => self.wait(None, until),
            NotFooted::NoLease => self.await_lease(),
            NotFooted::Verdict(verdict) => self.after(verdict, now),
        }
    }

    fn fetch_stopped(&mut self, verdict: Verdict) -> Vec<Effect> {
        if self.phase != Phase::Running {
            return Vec::new();
        }
        self.phase = Phase::Ending { verdict: Some(verdict) };
        vec![Effect::FinishLane]
    }

    fn lane_ended(&mut self, end: &LaneEnd, now: Instant) -> Vec<Effect> {
        let earlier = match &mut self.phase {
            Phase::Running => None,
            Phase::Ending { verdict } => verdict.take(),
            _ => return Vec::new(),
        };
        // An idle mirror appends nothing, and yet its connections are closed now and then.
        if self.footed_at.take().is_some_and(|at| now.saturating_duration_since(at) > BACK_OFF_MAX) {
            self.attempts = 0;
        }
        if end.in_doubt {
            self.quiet = Quiet::OnceAnswered { wait: self.wait };
        } else if let (Quiet::From(at), Some(until)) = (self.quiet, end.others_until) {
            self.quiet = Quiet::From(at.max(until));
        }
        let mut effects = vec![Effect::StopFetch];
        // What the destination says outweighs why the source side stopped.
        let verdict = verdict::on_lane_end(end).or(earlier);
        effects.extend(match verdict {
            _ if self.stopping => self.stopped(),
            Some(verdict) => self.after(verdict, now),
            None => self.after(retry("the run ended"), now),
        });
        effects
    }

    /// What comes after a run that ended, or that couldn't begin.
    fn after(&mut self, verdict: Verdict, now: Instant) -> Vec<Effect> {
        match verdict {
            Verdict::Proceed => self.look(),
            Verdict::AwaitLease => self.await_lease(),
            Verdict::Retry { message } => {
                let back_off = self.next_back_off();
                let parked = (self.attempts > QUIET_RETRIES).then_some((MirrorError::Unknown, message));
                self.wait(parked, now + back_off)
            }
            Verdict::Missing { error, message } => self.missing(error, message, now),
            Verdict::Park { error, message } => {
                let back_off = self.next_back_off().max(PARK_MIN);
                self.wait(Some((error, message)), now + back_off)
            }
            Verdict::Fail { error, offset, message } => {
                self.phase = Phase::Failed;
                vec![Effect::Fail { error, offset, message }]
            }
        }
    }

    fn missing(&mut self, error: MirrorError, message: String, now: Instant) -> Vec<Effect> {
        let fails_at = *self.missing_since.get_or_insert(now) + self.missing_max;
        if now >= fails_at {
            let message = format!("{message}, {:?} ago or more", self.missing_max);
            return self.after(Verdict::Fail { error, offset: 0, message }, now);
        }
        let until = (now + self.next_back_off()).min(fails_at);
        self.wait(Some((error, message)), until)
    }

    fn next_back_off(&mut self) -> Duration {
        let back_off = BACK_OFF_FIRST * 2u32.saturating_pow(self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        back_off.min(BACK_OFF_MAX)
    }

    fn wait(&mut self, parked: Option<(MirrorError, String)>, until: Instant) -> Vec<Effect> {
        self.token += 1;
        self.phase = Phase::Waiting { parked, until };
        vec![Effect::Wake { at: until, token: self.token }]
    }

    fn await_lease(&mut self) -> Vec<Effect> {
        self.token += 1;
        self.phase = Phase::WaitingForLease;
        vec![Effect::AwaitLease { token: self.token }]
    }

    fn stop(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.stopping, true) {
            return Vec::new();
        }
        match &self.phase {
            // It may wait for a broker that doesn't answer, and can be repeated.
            Phase::Looking => [vec![Effect::StopLook], self.stopped()].concat(),
            Phase::Running => {
                self.phase = Phase::Ending { verdict: None };
                vec![Effect::StopFetch, Effect::CloseLane]
            }
            Phase::Ending { .. } => vec![Effect::CloseLane],
            Phase::Waiting { .. } | Phase::WaitingForLease | Phase::Failed => self.stopped(),
            Phase::Stopped => Vec::new(),
        }
    }

    fn stopped(&mut self) -> Vec<Effect> {
        self.phase = Phase::Stopped;
        vec![Effect::Stopped]
    }
}

fn retry(message: &str) -> Verdict {
    Verdict::Retry { message: message.to_owned() }
}

#[cfg(test)]
mod tests;

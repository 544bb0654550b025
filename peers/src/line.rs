//! The way to one member on one lane: at most one connection, made when a call needs it.
//!
//! After a failure nothing is tried for a while that grows; calls then fail at once with what failed.
//! As soon as the member itself calls, it is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use catalog::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::call::CallError;
use crate::connection::{self, Connection};
use crate::frame::{Frame, Kind, Turns};
use crate::hello::{Hello, VERSIONS, Welcome};
use crate::lane::Lane;
use crate::meters::{self, Direction};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::tls::{handshake, trouble};

/// From the first packet to the welcome: some round trips around the world, and signatures.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// After the first failure; doubled by each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// A member that is back is reached after this at the latest, well within the 5 s in which a lost node's
/// partitions must run elsewhere.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who refuses doesn't soon change its mind.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// What fails at once doesn't fail sooner: whoever repeats a call at once doesn't spin.
const PACE: Duration = Duration::from_millis(20);

pub(crate) struct Line {
    node: NodeId,
    lane: Lane,
    state: watch::Sender<State>,
    callers: AtomicUsize,
}

enum State {
    Down(Down),
    Connecting,
    Up(Arc<Connection>),
}

#[derive(Default)]
struct Down {
    failures: u32,
    again_at: Option<Instant>,
    last: Option<Trouble>,
}

#[derive(Clone)]
struct Trouble {
    address: String,
    why: Failure,
}

#[derive(Clone)]
enum Failure {
    Broken(String),
    Refused(Refusal),
}

impl Trouble {
    fn error(self, node: NodeId) -> CallError {
        let Self { address, why } = self;
        match why {
            Failure::Broken(why) => CallError::Unreachable { node, address, why },
            Failure::Refused(why) => CallError::Refused { node, address, why },
        }
    }
}

/// One of the callers that a line has at most.
pub(crate) struct Caller<'a>(&'a Line);

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::AcqRel);
    }
}

enum Step {
    Use(Arc<Connection>),
    Wait,
    Start { failures: u32 },
    Fail(CallError),
}

impl Line {
    pub fn new(node: NodeId, lane: Lane) -> Self {
        let state = watch::Sender::new(State::Down(Down::default()));
        Self { node, lane, state, callers: AtomicUsize::new(0) }
    }

    /// # Errors
    /// [`CallError::Busy`].
    pub fn enter(&self) -> Result<Caller<'_>, CallError> {
        let before = self.callers.fetch_add(1, Ordering::AcqRel);
        let caller = Caller(self);
        if before >= self.lane.callers_max() { Err(CallError::Busy(self.node)) } else { Ok(caller) }
    }

    /// A connection, made if need be.
    ///
    /// # Errors
    /// [`CallError`]: nothing was sent.
    pub async fn connection(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Connection>, CallError> {
        let mut changes = self.state.subscribe();
        let mut waited = false;
        loop {
            let step = self.step(&changes.borrow_and_update(), waited);
            match step {
                Step::Use(connection) => return Ok(connection),
                Step::Fail(error) => {
                    tokio::time::sleep_until((Instant::now() + PACE).min(deadline)).await;
                    return Err(error);
                }
                Step::Start { failures } => self.start(shared, failures),
                Step::Wait => {}
            }
            waited = true;
            if timeout_at(deadline, changes.changed()).await.is_err() {
                let address = shared.address(self.node, 0).map(|a| a.to_string()).unwrap_or_default();
                let why = "no connection to it so far".into();
                return Err(CallError::Unreachable { node: self.node, address, why });
            }
        }
    }

    fn step(&self, state: &State, waited: bool) -> Step {
        match state {
            State::Up(connection) if connection.is_closed() => Step::Wait,
            State::Up(connection) => Step::Use(connection.clone()),
            State::Connecting => Step::Wait,
            State::Down(Down { failures, again_at, last }) => match last {
                Some(trouble) if waited || again_at.is_some_and(|at| at > Instant::now()) => {
                    Step::Fail(trouble.clone().error(self.node))
                }
                _ => Step::Start { failures: *failures },
            },
        }
    }

    fn start(self: &Arc<Self>, shared: &Arc<Shared>, failures: u32) {
        let starts = |state: &mut State| {
            let is_down = matches!(state, State::Down(_));
            if is_down {
                *state = State::Connecting;
            }
            is_down
        };
        if self.state.send_if_modified(starts) {
            let (line, shared) = (self.clone(), shared.clone());
            tokio::spawn(async move { line.run(&shared, failures).await });
        }
    }

    /// Connects, and carries calls for as long as the connection lasts.
    async fn run(&self, shared: &Shared, failures: u32) {
        let address = shared.address(self.node, failures);
        let opening = async {
            let Some(address) = &address else {
                return Err(Failure::Broken("its address isn't known".into()));
            };
            match tokio::time::timeout(CONNECT_WITHIN, self.open(shared, address)).await {
                Ok(opened) => opened,
                Err(_) => Err(Failure::Broken(format!("no connection within {CONNECT_WITHIN:?}"))),
            }
        };
        let opened = tokio::select! {
            biased;
            () = shared.stopped() => return,
            opened = opening => opened,
        };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let handshake::Secured { stream, configs, expires, .. } = match opened {
            Ok(secured) => secured,
            Err(why) => return self.failed(shared, failures, Trouble { address, why }),
        };
        shared.welcomed(self.node);
        let (connection, queue) =
            Connection::new(self.node, address.clone(), self.lane, shared.heard.clone());
        self.state.send_replace(State::Up(connection.clone()));
        let why = tokio::select! {
            biased;
            () = shared.stopped() => "this node is stopping".into(),
            () = shared.distrusted(configs) => "an authority isn't trusted any more".into(),
            () = handshake::expired(expires) => "a certificate has expired".into(),
            why = connection::run(&connection, stream, queue) => why,
        };
        connection.close(why.clone());
        tracing::debug!("connection to node {} at {address} ended: {why}", self.node);
        // One that never answered counts as a failure: it may be so again and again.
        match connection.has_answered() {
            true => drop(self.state.send_replace(State::Down(Down::default()))),
            false => self.failed(shared, failures, Trouble { address, why: Failure::Broken(why) }),
        }
    }

    fn failed(&self, shared: &Shared, failures: u32, trouble: Trouble) {
        let pause = match &trouble.why {
            Failure::Broken(_) => pause_after(failures),
            Failure::Refused(refusal) => {
                shared.refused_by(self.node, &trouble.address, refusal);
                REFUSED_PAUSE
            }
        };
        let again_at = Instant::now() + spread(pause, shared.dial.random());
        let down =
            Down { failures: failures.saturating_add(1), again_at: Some(again_at), last: Some(trouble) };
        self.state.send_replace(State::Down(down));
    }

    async fn open(&self, shared: &Shared, address: &Arc<str>) -> Result<handshake::Secured, Failure> {
        let stream = shared.dial.dial(address.clone()).await.map_err(|e| Failure::Broken(e.to_string()))?;
        let mut secured = handshake::call(&shared.security, stream).await.map_err(|e| of_stream(&e))?;
        if let (Some(configs), Some(certificate)) = (&secured.configs, &secured.certificate) {
            configs.is_of(certificate, self.node).map_err(Failure::Refused)?;
        }
        let hello = Hello {
            versions: VERSIONS,
            fleet: shared.fleet.clone(),
            node: shared.node,
            address: shared.own_address.to_string(),
            to: self.node,
            lane: self.lane as u8,
            level: shared.level,
            version: shared.version.to_string(),
        };
        let mut turns = Turns(&mut secured.stream);
        let greeted = async {
            turns.send(&Frame::new(Kind::Hello, hello.encode())).await?;
            turns.receive().await
        };
        match greeted.await {
            Ok(frame) if frame.kind == Kind::Welcome => {
                self.check(shared, &frame).map_err(Failure::Refused)?;
                Ok(secured)
            }
            Ok(frame) if frame.kind == Kind::Refused => {
                let words = String::from_utf8_lossy(&frame.body).into_owned();
                Err(Failure::Refused(Refusal::of(frame.detail, words)))
            }
            Ok(_) => Err(Failure::Refused(crate::hello::garbage())),
            Err(crate::frame::FrameError::Stream(error)) => Err(of_stream(&error)),
            Err(error) if error.is_garbage() => Err(Failure::Refused(crate::hello::garbage())),
            Err(error) => Err(Failure::Broken(error.to_string())),
        }
    }

    /// The member may be another than the one that was called, though it doesn't mind.
    fn check(&self, shared: &Shared, frame: &Frame) -> Result<(), Refusal> {
        let welcome = Welcome::decode(frame.body.clone())?;
        if welcome.fleet != shared.fleet {
            return Err(Refusal::Fleet(format!("it is a node of fleet {}", welcome.fleet)));
        }
        if welcome.node != self.node {
            return Err(Refusal::Node(format!("it is node {}", welcome.node)));
        }
        if !(VERSIONS.min..=VERSIONS.max).contains(&welcome.version) {
            let words = format!("it chose version {} of the protocol, unknown here", welcome.version);
            return Err(Refusal::Version(words));
        }
        Ok(())
    }

    /// The member is there: no reason to wait any longer.
    pub fn retry_now(&self) {
        self.state.send_if_modified(|state| match state {
            State::Down(down) => {
                let waited = down.again_at.take().is_some();
                down.failures = 0;
                waited
            }
            _ => false,
        });
    }

    pub fn close(&self, why: &str) {
        if let State::Up(connection) = &*self.state.borrow() {
            connection.close(why.to_owned());
        }
    }
}

fn of_stream(error: &std::io::Error) -> Failure {
    match trouble::of_certificates(error) {
        Some(words) => Failure::Refused(Refusal::Certificate(words)),
        None => Failure::Broken(trouble::words(error)),
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.min(u32::BITS / 2)).min(PAUSE_MAX)
}

/// Half of it at least, so that members that lost the same node don't all come back at once.
fn spread(pause: Duration, random: u64) -> Duration {
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    pause.mul_f64(0.5 + share / 2.0)
}

impl Shared {
    /// What refuses this node is logged once, until it has welcomed it.
    fn refused_by(&self, node: NodeId, address: &str, refusal: &Refusal) {
        meters::refused(Direction::Out, refusal.name());
        let is_new = self
            .refusals
            .send_if_modified(|refusals| refusals.insert(node, refusal.clone()).as_ref() != Some(refusal));
        if is_new {
            tracing::warn!("node {node} at {address} and this one don't talk: {refusal}");
        }
    }

    fn welcomed(&self, node: NodeId) {
        self.heard.mark(node);
        self.refusals.send_if_modified(|refusals| refusals.remove(&node).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_differ() {
        let pauses: Vec<_> = (0..7).map(|failures| pause_after(failures).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
        let second = Duration::from_secs(1);
        assert_eq!((spread(second, 0), spread(second, u64::MAX)), (second / 2, second));
    }
}

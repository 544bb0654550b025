//! The port: takes connections, finds out who calls, and shows them where to go.
//!
//! Who hasn't said who it is costs little, a bounded number of them at once: when there are too many, the
//! oldest has had its chance.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::call::Serve;
use crate::connection::in_words;
use crate::dial::{Accepted, BoxedStream, Listen};
use crate::frame::{Frame, FrameError, Kind, Turns};
use crate::guest::{Guest, entertain};
use crate::hello::{Hello, Welcome, garbage, judge};
use crate::join::proof::Binding;
use crate::join::serve::{Door, Outcome};
use crate::lane::Lane;
use crate::meters::{self, Direction};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::tls::handshake::{self, Secured};
use crate::tls::trouble;

/// From the first packet to a hello: as long as the caller tries.
const GREET_WITHIN: Duration = Duration::from_secs(3);

/// Connections that haven't said who they are; each may make this node hold 64 KiB.
const GREETED_MAX: usize = 128;

/// Nodes that join at once.
const JOINS_MAX: usize = 8;

/// As long as a joiner waits.
const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// For a caller to read why it was refused, before the connection goes.
const FAREWELL: Duration = Duration::from_millis(500);

/// The system has no room for another connection: until some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Reception {
    shared: Arc<Shared>,
    serve: Arc<dyn Serve>,
    door: Door,
    joins: Semaphore,
}

enum Caller {
    Member(Guest),
    Joiner { stream: BoxedStream, first: Frame, binding: Binding },
}

enum NoCaller {
    /// And who that is, as far as is known.
    TurnedAway { who: Option<String>, refusal: Refusal },
    /// Whoever only looks whether the port is open says nothing either.
    Gone(String),
}

impl NoCaller {
    fn unknown(refusal: Refusal) -> Self {
        Self::TurnedAway { who: None, refusal }
    }
}

impl Reception {
    pub fn new(shared: Arc<Shared>, serve: Arc<dyn Serve>, door: Door) -> Arc<Self> {
        Arc::new(Self { shared, serve, door, joins: Semaphore::new(JOINS_MAX) })
    }

    pub async fn run(self: Arc<Self>, mut listener: Box<dyn Listen>) {
        let mut greeted: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.stopped() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    greeted.retain(|task| !task.is_finished());
                    if greeted.len() >= GREETED_MAX
                        && let Some(oldest) = greeted.pop_front()
                    {
                        oldest.abort();
                    }
                    greeted.push_back(tokio::spawn(self.clone().receive(accepted)).abort_handle());
                }
                Err(error) => {
                    if self.shared.turns_away("accept", &error.to_string()) {
                        tracing::warn!("connections of other nodes can't be taken: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, from } = accepted;
        let greeting = tokio::select! {
            biased;
            () = self.shared.stopped() => return,
            greeting = tokio::time::timeout(GREET_WITHIN, self.greet(stream)) => greeting,
        };
        match greeting {
            Ok(Ok(Caller::Member(guest))) => {
                // On its own: who is known isn't among those that may be sent away.
                tokio::spawn(async move { entertain(self.shared.clone(), self.serve.clone(), guest).await });
            }
            Ok(Ok(Caller::Joiner { stream, first, binding })) => {
                tokio::spawn(async move { self.admit(stream, first, &binding, &from).await });
            }
            Ok(Err(NoCaller::TurnedAway { who, refusal })) => self.log(who, &from, &refusal),
            Ok(Err(NoCaller::Gone(why))) => tracing::debug!("a connection from {from} ended: {why}"),
            Err(_) => tracing::debug!("a connection from {from} didn't say who it is"),
        }
    }

    /// A refused member is logged once, whatever port it calls from.
    fn log(&self, who: Option<String>, from: &str, refusal: &Refusal) {
        meters::refused(Direction::In, refusal.name());
        let who = who.unwrap_or_else(|| from.rsplit_once(':').map_or(from, |(host, _)| host).to_owned());
        if self.shared.turns_away(&who, refusal.words()) {
            tracing::warn!("a connection of {who} (from {from}) is refused: {refusal}");
        }
    }

    async fn greet(&self, stream: BoxedStream) -> Result<Caller, NoCaller> {
        let mut secured = match handshake::accept(&self.shared.security, stream).await {
            Ok(secured) => secured,
            Err((error, stream)) => {
                drain(stream).await;
                return Err(match trouble::of_certificates(&error) {
                    Some(words) => NoCaller::unknown(Refusal::Certificate(words)),
                    None if trouble::is_gone(&error) => NoCaller::Gone(error.to_string()),
                    None => NoCaller::unknown(Refusal::Garbage(trouble::words(&error))),
                });
            }
        };
        let first = match Turns(&mut secured.stream).receive().await {
            Ok(first) => first,
            Err(error) if error.is_garbage() => return Err(turn_away(secured.stream, None, garbage()).await),
            Err(FrameError::Stream(error)) => {
                return Err(match trouble::of_certificates(&error) {
                    Some(words) => NoCaller::unknown(Refusal::Certificate(words)),
                    None => NoCaller::Gone(trouble::words(&error)),
                });
            }
            Err(error) => return Err(NoCaller::Gone(error.to_string())),
        };
        match first.kind {
            Kind::JoinHello => {
                let Secured { stream, binding, .. } = secured;
                Ok(Caller::Joiner { stream, first, binding })
            }
            Kind::Hello => self.meet(secured, first).await,
            _ => Err(turn_away(secured.stream, None, garbage()).await),
        }
    }

    async fn meet(&self, secured: Secured, first: Frame) -> Result<Caller, NoCaller> {
        let Secured { mut stream, certificate, configs, expires, .. } = secured;
        let hello = match Hello::decode(first.body) {
            Ok(hello) => hello,
            Err(refusal) => return Err(turn_away(stream, None, refusal).await),
        };
        let is_proven = || match (&configs, &certificate) {
            (None, _) => Ok(()),
            (Some(configs), Some(certificate)) => configs.is_of(certificate, hello.node),
            (Some(_), None) => Err(Refusal::Certificate("the calling node shows no certificate".into())),
        };
        let (version, lane) = match is_proven().and_then(|()| self.judge(&hello)) {
            Ok(judged) => judged,
            Err(refusal) => return Err(turn_away(stream, Some(hello.node.to_string()), refusal).await),
        };
        let welcome = Welcome { version, fleet: self.shared.fleet.clone(), node: self.shared.node };
        let sent = Turns(&mut stream).send(&Frame::new(Kind::Welcome, welcome.encode())).await;
        sent.map_err(|error| NoCaller::Gone(in_words(&error)))?;
        self.shared.met(hello.node, hello.address.as_str().into());
        Ok(Caller::Member(Guest { node: hello.node, lane, stream, configs, expires }))
    }

    fn judge(&self, hello: &Hello) -> Result<(u16, Lane), Refusal> {
        let shared = &self.shared;
        let version = judge(hello, shared.node, &shared.fleet, &shared.book())?;
        let lane = Lane::of(hello.lane).ok_or_else(garbage)?;
        if shared.guests.are_too_many() {
            return Err(Refusal::Other("it has too many connections".into()));
        }
        Ok((version, lane))
    }

    async fn admit(&self, mut stream: BoxedStream, first: Frame, binding: &Binding, from: &str) {
        let Ok(_place) = self.joins.try_acquire() else {
            let words = "too many nodes join at once; try again in a few seconds";
            return send_away(stream, &Refusal::Other(words.into())).await;
        };
        let answering = async {
            let mut turns = Turns(&mut stream);
            self.door.answer(&mut turns, first, binding, from).await
        };
        let answered = tokio::select! {
            biased;
            () = self.shared.stopped() => return,
            answered = tokio::time::timeout(JOIN_WITHIN, answering) => answered,
        };
        match answered {
            Ok(Ok(Outcome::Admitted(node))) => tracing::info!("node {node} (from {from}) has joined here"),
            // As often as secrets may be tried.
            Ok(Ok(Outcome::Refused(words))) => tracing::warn!("a node (from {from}) may not join: {words}"),
            Ok(Ok(Outcome::Paused)) => tracing::debug!("a node (from {from}) may not join for now"),
            Ok(Err(error)) => tracing::warn!("a node (from {from}) began to join: {}", in_words(&error)),
            Err(_) => tracing::warn!("a node (from {from}) began to join, not done within {JOIN_WITHIN:?}"),
        }
        drain(stream).await;
    }
}

async fn turn_away(stream: BoxedStream, who: Option<String>, refusal: Refusal) -> NoCaller {
    send_away(stream, &refusal).await;
    NoCaller::TurnedAway { who, refusal }
}

/// Tells why, and lets it be read.
async fn send_away(mut stream: BoxedStream, refusal: &Refusal) {
    let frame = Frame::new(Kind::Refused, refusal.words().to_owned()).with_detail(refusal.code());
    let _: Result<(), FrameError> = Turns(&mut stream).send(&frame).await;
    drain(stream).await;
}

/// Bytes that wait to be read when a connection is closed make the system throw away what was sent.
async fn drain(mut stream: BoxedStream) {
    let drained = async {
        let mut rest = [0; 1_024];
        let _ = stream.shutdown().await;
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(FAREWELL, drained).await;
}

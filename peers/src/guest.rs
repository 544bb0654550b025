//! A connection that another member opened: its calls are served, a bounded number at once.
//!
//! Who calls more than it may is told so, and isn't waited for; whose answers aren't read is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::call::{Serve, Service, WITHIN_MAX};
use crate::connection::{Unanswered, in_words};
use crate::dial::BoxedStream;
use crate::frame::{self, CALL_BYTES_MAX, Frame, FrameError, Kind};
use crate::lane::Lane;
use crate::meters::{self, Direction};
use crate::shared::Shared;
use crate::tls::{Configs, handshake};

/// Of all members together: four lanes of 250.
const GUESTS_MAX: usize = 1_000;

/// Callers close what they don't use after a minute: whoever is silent for longer is gone.
const IDLE_MAX: Duration = Duration::from_secs(180);

/// A call is served for as long as its caller waits, and so much longer: the caller's clock began before the call was here, and work that is nearly done is worth
/// finishing.
const SERVED_LONGER: Duration = Duration::from_secs(1);

/// Answers that need no place (to pings, to calls too many) and that may wait behind others.
const SHORT_ANSWERS_MAX: usize = 64;

const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Open connections by caller and lane: a newer one replaces the one before, which its caller has lost.
#[derive(Default)]
pub(crate) struct Guests(Mutex<BTreeMap<(NodeId, Lane), Arc<Notify>>>);

impl Guests {
    fn open(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: there are too many.
    fn enter(&self, node: NodeId, lane: Lane) -> Option<Arc<Notify>> {
        let mut open = self.open();
        if open.len() >= GUESTS_MAX && !open.contains_key(&(node, lane)) {
            return None;
        }
        let replaced = Arc::new(Notify::new());
        if let Some(before) = open.insert((node, lane), replaced.clone()) {
            before.notify_one();
        }
        Some(replaced)
    }

    fn leave(&self, node: NodeId, lane: Lane, entry: &Arc<Notify>) {
        let mut open = self.open();
        if open.get(&(node, lane)).is_some_and(|held| Arc::ptr_eq(held, entry)) {
            open.remove(&(node, lane));
        }
    }

    pub fn are_too_many(&self) -> bool {
        self.open().len() >= GUESTS_MAX
    }
}

/// A member that was welcomed.
pub(crate) struct Guest {
    pub node: NodeId,
    pub lane: Lane,
    pub stream: BoxedStream,
    pub configs: Option<Arc<Configs>>,
    /// See [`handshake::Secured::expires`].
    pub expires: Option<Instant>,
}

/// An answer, and the place of the call that it frees once it is written.
type Outgoing = (Frame, Option<Service>, Option<OwnedSemaphorePermit>);

/// Serves the member's calls until the connection ends.
pub(crate) async fn entertain(shared: Arc<Shared>, serve: Arc<dyn Serve>, guest: Guest) {
    let Guest { node, lane, stream, configs, expires } = guest;
    let Some(replaced) = shared.guests.enter(node, lane) else { return };
    let _open = meters::Open::new(Direction::In);
    let (reader, writer) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel(lane.served_max() + SHORT_ANSWERS_MAX);
    let places = Arc::new(Semaphore::new(lane.served_max()));
    let desk = Desk { shared: shared.clone(), node, lane, serve, places, answers };
    let why = tokio::select! {
        biased;
        () = shared.stopped() => "this node is stopping".into(),
        () = replaced.notified() => "it has a newer one".into(),
        () = removed(&shared, node) => "it was removed from the fleet".into(),
        () = shared.distrusted(configs) => "an authority isn't trusted any more".into(),
        () = handshake::expired(expires) => "a certificate has expired".into(),
        error = desk.read(reader) => in_words(&error),
        error = write(writer, queue) => in_words(&error),
    };
    shared.guests.leave(node, lane, &replaced);
    tracing::debug!("connection from node {node} ended: {why}");
}

/// Ends when the catalog says that the node is no member any more.
async fn removed(shared: &Shared, node: NodeId) {
    let mut book = shared.book.clone();
    if book.wait_for(|book| book.removed.contains(&node)).await.is_err() {
        std::future::pending().await
    }
}

struct Desk {
    shared: Arc<Shared>,
    node: NodeId,
    lane: Lane,
    serve: Arc<dyn Serve>,
    places: Arc<Semaphore>,
    answers: mpsc::Sender<Outgoing>,
}

impl Desk {
    async fn read(&self, reader: impl AsyncRead + Unpin) -> FrameError {
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
        loop {
            let next = frame::read(&mut reader, self.lane.request_bytes_max());
            let taken = match tokio::time::timeout(IDLE_MAX, next).await {
                Ok(Ok(frame)) => self.take(frame),
                Ok(Err(error)) => Err(error),
                Err(_) => return FrameError::Stalled,
            };
            match taken {
                Ok(()) => self.shared.heard.mark(self.node),
                Err(error) => return error,
            }
        }
    }

    /// Never waits: the next frame may be a ping.
    fn take(&self, frame: Frame) -> Result<(), FrameError> {
        match frame.kind {
            Kind::Ping => self.at_once(Frame::of_call(Kind::Pong, frame.call, Bytes::new())),
            Kind::Request => self.request(frame),
            other => Err(FrameError::Kind(other as u8)),
        }
    }

    fn request(&self, frame: Frame) -> Result<(), FrameError> {
        let Some(service) = Service::of(frame.detail) else {
            let words = "it knows no such service: is it of an older version?";
            return self.at_once(unanswered(frame.call, Unanswered::NoSuchService, words.into()));
        };
        meters::bytes(service, Direction::In, frame.bytes());
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.at_once(unanswered(frame.call, Unanswered::Busy, String::new()));
        };
        let (shared, serve, answers) = (self.shared.clone(), self.serve.clone(), self.answers.clone());
        let node = self.node;
        tokio::spawn(async move {
            let answer = tokio::select! {
                biased;
                () = shared.stopped() => return,
                answer = served(&*serve, node, service, frame) => answer,
            };
            // The connection may be gone.
            let _ = answers.send((answer, Some(service), Some(place))).await;
        });
        Ok(())
    }

    fn at_once(&self, frame: Frame) -> Result<(), FrameError> {
        self.answers.try_send((frame, None, None)).map_err(|_| FrameError::Unread)
    }
}

pub(crate) async fn served(serve: &dyn Serve, from: NodeId, service: Service, frame: Frame) -> Frame {
    let within = Duration::from_millis(frame.within_ms.into()).min(WITHIN_MAX) + SERVED_LONGER;
    match tokio::time::timeout(within, serve.serve(from, service, frame.body)).await {
        Ok(answer) if answer.len() <= CALL_BYTES_MAX => Frame::of_call(Kind::Answer, frame.call, answer),
        Ok(answer) => {
            let words = format!("its answer has {} bytes, {CALL_BYTES_MAX} at most", answer.len());
            unanswered(frame.call, Unanswered::TooLarge, words)
        }
        Err(_) => unanswered(frame.call, Unanswered::Late, format!("it wasn't done within {within:?}")),
    }
}

fn unanswered(call: u64, reason: Unanswered, words: String) -> Frame {
    Frame::of_call(Kind::Unanswered, call, words.into()).with_detail(reason as u8)
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Outgoing>) -> FrameError {
    loop {
        let (frame, service, _place) = match queue.try_recv() {
            Ok(next) => next,
            Err(_) => {
                if let Err(error) = frame::flush(&mut writer).await {
                    return error;
                }
                let Some(next) = queue.recv().await else { return FrameError::Closed };
                next
            }
        };
        if let Err(error) = frame::write(&mut writer, &frame).await {
            return error;
        }
        if let Some(service) = service {
            meters::bytes(service, Direction::Out, frame.bytes());
        }
    }
}

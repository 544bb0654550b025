//! A connection to a member: many calls at once, each answered by its number, in any order.
//!
//! A call that is given up frees its place at once; an answer that nobody waits for is dropped. While
//! something is owed the other end is asked whether it is there, so that a connection which only looks
//! open doesn't outlive [`SILENT_MAX`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::call::{CallError, Service};
use crate::dial::BoxedStream;
use crate::frame::{self, CALL_BYTES_MAX, Frame, FrameError, Kind};
use crate::heard::Heard;
use crate::lane::Lane;
use crate::meters::{self, Direction};
use crate::tls::trouble;

/// Owed for so long: the other end is asked whether it is there. Answers take milliseconds.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Owed for so long, and no answer to a ping either: what is under way is lost. A member that is silent
/// for 2 s counts as lost anyway (ADR 6).
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(3);

/// Not used for so long: closed. Those that carry heartbeats never are.
const IDLE_MAX: Duration = Duration::from_secs(60);

const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Small answers arrive with one system call.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Why the other end doesn't answer a call that it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Unanswered {
    Busy = 1,
    TooLarge = 2,
    Late = 3,
    NoSuchService = 4,
}

pub(crate) struct Connection {
    node: NodeId,
    address: String,
    frames: mpsc::Sender<Frame>,
    slots: Semaphore,
    state: Mutex<State>,
    /// Why it was closed.
    closed: watch::Sender<Option<String>>,
    heard: Heard,
}

struct State {
    calls: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Since when something is owed and nothing has come.
    owed_since: Option<Instant>,
    used: Instant,
    answers: u64,
}

struct Waiting {
    service: Service,
    reply: oneshot::Sender<Frame>,
}

/// Gives up a call's number whatever becomes of its caller.
struct Place<'a> {
    connection: &'a Connection,
    call: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.connection.state().waiting.remove(&self.call);
    }
}

impl Connection {
    /// The second half is for [`run`].
    pub fn new(
        node: NodeId,
        address: String,
        lane: Lane,
        heard: Heard,
    ) -> (Arc<Self>, mpsc::Receiver<Frame>) {
        let (frames, queue) = mpsc::channel(lane.calls_max());
        let state =
            State { calls: 0, waiting: BTreeMap::new(), owed_since: None, used: Instant::now(), answers: 0 };
        let connection = Self {
            node,
            address,
            frames,
            slots: Semaphore::new(lane.calls_max()),
            state: Mutex::new(state),
            closed: watch::Sender::new(None),
            heard,
        };
        (Arc::new(connection), queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Whether it was of any use.
    pub fn has_answered(&self) -> bool {
        self.state().answers > 0
    }

    /// Calls that are under way are in doubt.
    pub fn close(&self, why: String) {
        self.closed.send_if_modified(|closed| closed.is_none().then(|| *closed = Some(why)).is_some());
        self.state().waiting.clear();
    }

    fn broken(&self) -> CallError {
        let why = self.closed.borrow().clone().unwrap_or_else(|| "the connection was closed".into());
        CallError::Unreachable { node: self.node, address: self.address.clone(), why }
    }

    /// # Errors
    /// [`CallError`]: `late` at the deadline.
    pub async fn call(
        &self,
        service: Service,
        request: Bytes,
        deadline: Instant,
        late: CallError,
    ) -> Result<Bytes, CallError> {
        let _slot = match timeout_at(deadline, self.slots.acquire()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(self.broken()),
            Err(_) => return Err(late),
        };
        let (reply, answer) = oneshot::channel();
        let place = self.place(service, reply)?;
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let frame = Frame {
            within_ms: u32::try_from(left).unwrap_or(u32::MAX),
            ..Frame::of_call(Kind::Request, place.call, request).with_detail(service as u8)
        };
        match timeout_at(deadline, self.frames.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.broken()),
            Err(_) => return Err(late),
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(frame)) => self.answer(frame),
            Ok(Err(_)) => Err(self.broken()),
            Err(_) => Err(late),
        }
    }

    fn place(&self, service: Service, reply: oneshot::Sender<Frame>) -> Result<Place<'_>, CallError> {
        let mut state = self.state();
        // Under the lock: whatever closes it either sees this call or is seen here.
        if self.is_closed() {
            drop(state);
            return Err(self.broken());
        }
        state.calls += 1;
        state.used = Instant::now();
        let call = state.calls;
        state.waiting.insert(call, Waiting { service, reply });
        Ok(Place { connection: self, call })
    }

    fn answer(&self, frame: Frame) -> Result<Bytes, CallError> {
        if frame.kind == Kind::Answer {
            return Ok(frame.body);
        }
        if frame.detail == Unanswered::Busy as u8 {
            return Err(CallError::Busy(self.node));
        }
        let why = String::from_utf8_lossy(&frame.body).into_owned();
        Err(CallError::Unanswered { node: self.node, why })
    }

    fn received(&self, frame: Frame) -> Result<(), FrameError> {
        self.heard.mark(self.node);
        let mut state = self.state();
        let waiting = match frame.kind {
            Kind::Answer | Kind::Unanswered => state.waiting.remove(&frame.call),
            Kind::Pong => None,
            other => return Err(FrameError::Kind(other as u8)),
        };
        state.owed_since = (!state.waiting.is_empty()).then(Instant::now);
        if let Some(Waiting { service, reply }) = waiting {
            state.answers += 1;
            drop(state);
            meters::bytes(service, Direction::In, frame.bytes());
            // Its caller may have given up this moment.
            let _ = reply.send(frame);
        }
        Ok(())
    }

    /// Whether the frame is still wanted.
    fn is_wanted(&self, frame: &Frame) -> bool {
        frame.kind != Kind::Request || self.state().waiting.contains_key(&frame.call)
    }

    fn sent(&self, frame: &Frame) {
        self.state().owed_since.get_or_insert_with(Instant::now);
        if let (Kind::Request, Some(service)) = (frame.kind, Service::of(frame.detail)) {
            meters::bytes(service, Direction::Out, frame.bytes());
        }
    }

    /// Ends when the other end owes something for too long, or nobody needs the connection.
    async fn watch(&self) -> String {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let (owed, used, waits) = {
                let state = self.state();
                (
                    state.owed_since.map(|since| since.elapsed()),
                    state.used.elapsed(),
                    state.waiting.is_empty(),
                )
            };
            match owed {
                Some(owed) if owed >= SILENT_MAX => {
                    return format!("nothing came from it for {SILENT_MAX:?}");
                }
                Some(owed) if owed >= PING_AFTER => {
                    // A queue that is full says that nothing leaves: that ends by itself.
                    let _ = self.frames.try_send(Frame::new(Kind::Ping, Bytes::new()));
                }
                None if waits && used >= IDLE_MAX => return format!("it wasn't used for {IDLE_MAX:?}"),
                _ => {}
            }
        }
    }
}

/// Carries calls until the connection ends; why it did.
pub(crate) async fn run(
    connection: &Connection,
    stream: BoxedStream,
    queue: mpsc::Receiver<Frame>,
) -> String {
    let _open = meters::Open::new(Direction::Out);
    let (reader, writer) = tokio::io::split(stream);
    let mut closed = connection.closed.subscribe();
    let why = tokio::select! {
        biased;
        _ = closed.wait_for(Option::is_some) => "it was closed".into(),
        error = read(connection, reader) => in_words(&error),
        error = write(connection, writer, queue) => in_words(&error),
        why = connection.watch() => why,
    };
    connection.close(why);
    connection.closed.borrow().clone().unwrap_or_default()
}

async fn read(connection: &Connection, reader: impl AsyncRead + Unpin) -> FrameError {
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    loop {
        let received = match frame::read(&mut reader, CALL_BYTES_MAX).await {
            Ok(frame) => connection.received(frame),
            Err(error) => Err(error),
        };
        if let Err(error) = received {
            return error;
        }
    }
}

async fn write(
    connection: &Connection,
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
) -> FrameError {
    loop {
        let frame = match queue.try_recv() {
            Ok(frame) => frame,
            Err(_) => {
                if let Err(error) = frame::flush(&mut writer).await {
                    return error;
                }
                // The connection holds the other half for as long as this runs.
                let Some(frame) = queue.recv().await else { return FrameError::Closed };
                frame
            }
        };
        if !connection.is_wanted(&frame) {
            continue;
        }
        connection.sent(&frame);
        if let Err(error) = frame::write(&mut writer, &frame).await {
            return error;
        }
    }
}

pub(crate) fn in_words(error: &FrameError) -> String {
    match error {
        FrameError::Stream(error) => trouble::words(error),
        other => other.to_string(),
    }
}

//! One connection to a broker: pipelined requests over any byte stream, a deadline on each.
//!
//! Brokers answer the requests of one connection in order, so answers are matched by position
//! and their correlation id is only checked. A request that misses its deadline, a wrong
//! correlation id or a frame that isn't one ends the connection: after that nothing on it could
//! be trusted. Every request then under way is told, and may or may not have taken effect.
//!
//! Never retries, never reconnects: that is the caller's decision.

mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Decodable, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{Error, ErrorCode};
use crate::frame::FramePool;
use crate::shape::{self, Field};
use crate::tls;

use stream::{Writer, run_reader, run_writer};

/// Requests under way on one connection, at most; further callers wait for a place.
const IN_FLIGHT_MAX: usize = 64;

/// A control response is refused beyond this: log ends of 30,000 partitions fit. Decoded, a response
/// of empty elements takes fourteen times its bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Metadata of 100,000 partitions takes about 6 MiB.
pub(crate) const METADATA_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Any byte stream that a connection can run over: TCP, TLS, a simulated network.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

pub type BoxedStream = Box<dyn ByteStream>;

/// Whether a request may (still) be sent: asked before each write of its bytes. Shut before the first
/// byte is written, the request fails with [`Error::NotSent`]; shut later, the connection ends with
/// the bytes that aren't sent.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone)]
pub struct ConnectionOptions {
    pub client_id: Arc<str>,
    pub request_timeout: Duration,
    pub frames: FramePool,
}

/// A request kind with the versions of it that lockstep speaks, best first.
#[derive(Debug)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// Version, whether its header is flexible (KIP-482), and its response's shape.
    pub versions: &'static [(i16, bool, &'static [Field])],
}

/// Handle to a connection; the last one dropped closes it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

struct Shared {
    address: Arc<str>,
    request_timeout: Duration,
    /// Who holds it writes. A request that finds it free is written at once by its caller, as far
    /// as the stream takes it; the writer task does the rest. Gone with that task: an ended
    /// connection keeps no stream.
    writer: Weak<tokio::sync::Mutex<Writer>>,
    outgoing: mpsc::Sender<Order>,
    /// The quickest answer so far, µs.
    round_trip_us: AtomicU64,
    /// Requests that the writer task was given and hasn't begun: none may overtake them.
    queued: AtomicUsize,
    places: Arc<Semaphore>,
    state: Mutex<State>,
    ended: tokio::sync::watch::Sender<bool>,
    /// Highest and lowest version the broker supports, by API key.
    versions: OnceLock<BTreeMap<i16, (i16, i16)>>,
}

#[derive(Default)]
struct State {
    /// Answers that have come in.
    answers: u64,
    waiting: VecDeque<Waiting>,
    closed: Option<Error>,
    aborts: Vec<AbortHandle>,
}

struct Waiting {
    correlation_id: i32,
    since: Instant,
    frame_bytes_max: usize,
    reply: oneshot::Sender<Result<Bytes, Error>>,
    _place: OwnedSemaphorePermit,
}

/// What the writer task is to do.
enum Order {
    Write(Outgoing),
    /// A request that was begun is to be written to its end.
    Finish,
}

struct Outgoing {
    key: i16,
    version: i16,
    flexible: bool,
    body: Vec<Bytes>,
    frame_bytes_max: usize,
    gate: Option<Gate>,
    reply: oneshot::Sender<Result<Bytes, Error>>,
    place: OwnedSemaphorePermit,
}

struct Tasks(Arc<Shared>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.close(Error::Closed { address: self.0.address.to_string(), reason: "no longer used".into() });
    }
}

/// The answer to a request that was handed over: a response body, or why there is none.
pub struct Reply {
    receiver: oneshot::Receiver<Result<Bytes, Error>>,
    deadline: Instant,
    timeout: Duration,
    what: &'static str,
    shared: Arc<Shared>,
}

impl Reply {
    /// Waits for the answer up to the request's deadline; past it the connection is closed.
    /// Cancel safe.
    pub async fn wait(&mut self) -> Result<Bytes, Error> {
        match tokio::time::timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.shared.cause()),
            Err(_) => {
                let address = self.shared.address.to_string();
                let error = Error::Deadline { address, what: self.what, after: self.timeout };
                self.shared.close(error.clone());
                Err(error)
            }
        }
    }
}

impl Connection {
    /// Takes over a fresh byte stream and asks the broker for the versions it speaks.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Deadline`] or [`Error::Protocol`].
    pub async fn open(
        stream: BoxedStream,
        address: Arc<str>,
        options: &ConnectionOptions,
    ) -> Result<Self, Error> {
        let (read, write) = tokio::io::split(stream);
        let (outgoing, to_write) = mpsc::channel(IN_FLIGHT_MAX);
        let writer = Arc::new(tokio::sync::Mutex::new(Writer::new(write, options.client_id.clone())));
        let shared = Arc::new(Shared {
            address,
            request_timeout: options.request_timeout,
            writer: Arc::downgrade(&writer),
            outgoing,
            round_trip_us: AtomicU64::new(u64::MAX),
            queued: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            state: Mutex::default(),
            ended: tokio::sync::watch::Sender::new(false),
            versions: OnceLock::new(),
        });
        let reader = tokio::spawn(run_reader(shared.clone(), read, options.frames.clone()));
        let writer = tokio::spawn(run_writer(shared.clone(), writer, to_write));
        shared.end_with(reader.abort_handle());
        shared.end_with(writer.abort_handle());
        let connection = Self { _tasks: Arc::new(Tasks(shared.clone())), shared };
        let (response, _) = connection.call(&API_VERSIONS, &ApiVersionsRequest::default()).await?;
        ErrorCode::check(response.error_code, "ApiVersions")?;
        let versions = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        let _ = connection.shared.versions.set(versions.collect());
        Ok(connection)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.shared.request_timeout
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// The way to the broker and back, with what it takes to answer: the quickest answer so far. None
    /// before the first one.
    pub fn round_trip(&self) -> Option<Duration> {
        let us = self.shared.round_trip_us.load(Ordering::Relaxed);
        (us != u64::MAX).then(|| Duration::from_micros(us))
    }

    /// Why the connection ended, if it has.
    pub fn closed(&self) -> Option<Error> {
        self.shared.state().closed.clone()
    }

    /// Waits until the connection has ended, and tells why. An idle connection notices too.
    pub async fn wait_closed(&self) -> Error {
        let mut ended = self.shared.ended.subscribe();
        // An error is impossible while `self` holds the sender.
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.cause()
    }

    /// Ends the connection after `lifetime`, with what is then under way.
    pub(crate) fn end_after(&self, lifetime: Duration) {
        let shared = Arc::downgrade(&self.shared);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(lifetime).await;
            if let Some(shared) = shared.upgrade() {
                shared.close(shared.closed_by("its SASL session is about to end"));
            }
        });
        self.shared.end_with(timer.abort_handle());
    }

    /// The best version both sides speak, with its header kind and response shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn version(&self, api: &'static Api) -> Result<(i16, bool, &'static [Field]), Error> {
        let Some(versions) = self.shared.versions.get() else {
            return Ok(api.versions[0]);
        };
        let offered = versions.get(&api.key).map(|(min, max)| *min..=*max);
        let speaks = |version: &i16| offered.as_ref().is_some_and(|offered| offered.contains(version));
        let usable = api.versions.iter().find(|(version, ..)| speaks(version));
        usable.copied().ok_or_else(|| Error::Unsupported {
            address: self.shared.address.to_string(),
            api: api.name,
            offered: offered.map_or("in no version".to_owned(), |offered| {
                format!("only in versions {} to {}", offered.start(), offered.end())
            }),
            needed: api.versions.iter().map(|v| v.0.to_string()).collect::<Vec<_>>().join(" or "),
        })
    }

    /// Sends a request and decodes its answer; also returns the version that was used.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broker`]: error codes inside the response are the caller's.
    pub async fn call<R: Request>(
        &self,
        api: &'static Api,
        request: &R,
    ) -> Result<(R::Response, i16), Error> {
        let (version, ..) = self.version(api)?;
        Ok((self.call_within(api, request, self.shared.request_timeout).await?, version))
    }

    /// [`call`](Self::call) with a deadline of its own.
    pub async fn call_within<R: Request>(
        &self,
        api: &'static Api,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, Error> {
        self.call_bounded(api, request, timeout, CONTROL_FRAME_BYTES_MAX).await
    }

    /// [`call`](Self::call) of a request that is sent only while its gate is open.
    pub(crate) async fn call_gated<R: Request>(
        &self,
        api: &'static Api,
        request: &R,
        gate: Option<Gate>,
    ) -> Result<R::Response, Error> {
        self.ask(api, request, self.shared.request_timeout, CONTROL_FRAME_BYTES_MAX, gate).await
    }

    /// [`call_within`](Self::call_within) with an answer of another size.
    pub(crate) async fn call_bounded<R: Request>(
        &self,
        api: &'static Api,
        request: &R,
        timeout: Duration,
        frame_bytes_max: usize,
    ) -> Result<R::Response, Error> {
        self.ask(api, request, timeout, frame_bytes_max, None).await
    }

    async fn ask<R: Request>(
        &self,
        api: &'static Api,
        request: &R,
        timeout: Duration,
        frame_bytes_max: usize,
        gate: Option<Gate>,
    ) -> Result<R::Response, Error> {
        let (version, ..) = self.version(api)?;
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .map_err(|e| self.protocol(format!("can't encode {}: {e}", api.name)))?;
        let mut reply = self.start_gated(api, vec![body.freeze()], frame_bytes_max, timeout, gate).await?;
        self.decode::<R::Response>(api, reply.wait().await?)
    }

    /// Hands a request over and returns at once; the answer is awaited through [`Reply`].
    ///
    /// # Errors
    /// When the connection is closed, or no place for the request comes free in time.
    pub async fn start(
        &self,
        api: &'static Api,
        body: Vec<Bytes>,
        frame_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        self.start_gated(api, body, frame_bytes_max, timeout, None).await
    }

    /// [`start`](Self::start) of a request that is sent only while its gate is open.
    ///
    /// # Errors
    /// As [`start`](Self::start). A shut gate is in the [`Reply`].
    pub async fn start_gated(
        &self,
        api: &'static Api,
        body: Vec<Bytes>,
        frame_bytes_max: usize,
        timeout: Duration,
        gate: Option<Gate>,
    ) -> Result<Reply, Error> {
        let (version, flexible, _) = self.version(api)?;
        let deadline = Instant::now() + timeout;
        let hand_over = async {
            let place = self.shared.places.clone().acquire_owned().await.map_err(|_| self.shared.cause())?;
            let (reply, receiver) = oneshot::channel();
            let request =
                Outgoing { key: api.key, version, flexible, body, frame_bytes_max, gate, reply, place };
            self.shared.hand_over(request).await?;
            Ok(receiver)
        };
        match tokio::time::timeout_at(deadline, hand_over).await {
            Ok(Ok(receiver)) => {
                Ok(Reply { receiver, deadline, timeout, what: api.name, shared: self.shared.clone() })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let error = Error::Deadline {
                    address: self.shared.address.to_string(),
                    what: api.name,
                    after: timeout,
                };
                self.shared.close(error.clone());
                Err(error)
            }
        }
    }

    /// Checks a response body against its shape and decodes it. Byte fields share the frame.
    ///
    /// # Errors
    /// [`Error::Protocol`], and the connection is closed: what follows can't be trusted.
    pub fn decode<T: Decodable>(&self, api: &'static Api, mut body: Bytes) -> Result<T, Error> {
        let (version, flexible, shape) = self.version(api)?;
        let decoded = (|| {
            // Response header v1 is v0 and tagged fields; the correlation id is read already.
            let header_bytes = if flexible { shape::tags_bytes(&body)? } else { 0 };
            body.advance(header_bytes);
            shape::check(&body, shape)
        })();
        let decoded = decoded
            .map_err(|e| e.to_string())
            .and_then(|()| T::decode(&mut body, version).map_err(|e| e.to_string()));
        decoded.map_err(|e| {
            let error = self.protocol(format!("{} response: {e}", api.name));
            self.shared.close(error.clone());
            error
        })
    }

    fn protocol(&self, reason: String) -> Error {
        Error::Protocol { address: self.shared.address.to_string(), reason }
    }
}

static API_VERSIONS: Api = Api {
    key: ApiVersionsRequest::KEY,
    name: "ApiVersions",
    versions: &[(0, false, shape::API_VERSIONS_V0)],
};

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes at once what can be written at once: a small request then needs no other task.
    async fn hand_over(&self, request: Outgoing) -> Result<(), Error> {
        let writer = self.writer.upgrade().ok_or_else(|| self.cause())?;
        match writer.try_lock() {
            Ok(mut writer) if writer.is_idle() && self.queued.load(Ordering::Acquire) == 0 => {
                match writer.begin(self, request) {
                    Ok(true) => {}
                    // Where the queue is full, whoever comes next in it finishes this one first.
                    Ok(false) => drop(self.outgoing.try_send(Order::Finish)),
                    Err(error) => {
                        self.close(self.broken_by(error));
                        return Err(self.cause());
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        drop(writer);
        let place = self.outgoing.reserve().await.map_err(|_| self.cause())?;
        self.queued.fetch_add(1, Ordering::AcqRel);
        place.send(Order::Write(request));
        Ok(())
    }

    fn cause(&self) -> Error {
        let closed = self.state().closed.clone();
        closed.unwrap_or_else(|| Error::Closed { address: self.address.to_string(), reason: "closed".into() })
    }

    /// A request was taken back before any of it was written.
    fn not_sent(&self, correlation_id: i32) {
        let mut state = self.state();
        let Some(index) = state.waiting.iter().position(|w| w.correlation_id == correlation_id) else {
            return;
        };
        if let Some(waiting) = state.waiting.remove(index) {
            let _ = waiting.reply.send(Err(Error::NotSent { address: self.address.to_string() }));
        }
    }

    /// Ends the connection once: tells everyone who waits, stops both tasks, which closes the stream.
    fn close(&self, cause: Error) {
        let (waiting, aborts) = {
            let mut state = self.state();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(cause.clone());
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.aborts))
        };
        self.places.close();
        self.ended.send_replace(true);
        for waiting in waiting {
            let _ = waiting.reply.send(Err(cause.clone()));
        }
        aborts.iter().for_each(AbortHandle::abort);
    }

    /// The task ends with the connection, also when that has ended already.
    fn end_with(&self, task: AbortHandle) {
        let mut state = self.state();
        match state.closed {
            Some(_) => task.abort(),
            None => state.aborts.push(task),
        }
    }

    fn closed_by(&self, reason: impl ToString) -> Error {
        Error::Closed { address: self.address.to_string(), reason: reason.to_string() }
    }

    /// What an error of the stream means.
    fn broken_by(&self, error: std::io::Error) -> Error {
        if let Some(reason) = tls::in_stream(&error) {
            return Error::Tls { address: self.address.to_string(), reason };
        }
        if error.kind() != std::io::ErrorKind::UnexpectedEof {
            return self.closed_by(error);
        }
        let state = self.state();
        // Version requests are answered before authentication, nothing else is.
        if state.answers == 1 && !state.waiting.is_empty() {
            return self.closed_by(
                "the broker closed it at the first request; a listener that wants SASL does that to a client \
                 without it (see security.protocol)",
            );
        }
        self.closed_by("the broker closed it")
    }
}

//! One connection to a broker: pipelined requests over any byte stream, a deadline on each.
//!
//! Brokers answer the requests of one connection in order, so answers are matched by position
//! and their correlation id is only checked. A request that misses its deadline, a wrong
//! correlation id or a frame that isn't one ends the connection: after that nothing on it could
//! be trusted. Every request then under way is told, and may or may not have taken effect.
//!
//! Never retries, never reconnects: that is the caller's decision.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Decodable, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{Error, ErrorCode};
use crate::frame::FramePool;
use crate::shape::{self, Field};

/// Requests under way on one connection, at most; further callers wait for a place.
const IN_FLIGHT_MAX: usize = 64;

/// A control response is refused beyond this. Metadata of 100,000 partitions takes about 6 MiB.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Small responses arrive with one system call; large ones bypass the buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Any byte stream that a connection can run over: TCP, TLS, a simulated network.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

pub type BoxedStream = Box<dyn ByteStream>;

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
    outgoing: mpsc::Sender<Outgoing>,
    places: Arc<Semaphore>,
    state: Mutex<State>,
    ended: tokio::sync::watch::Sender<bool>,
    /// Highest and lowest version the broker supports, by API key.
    versions: OnceLock<BTreeMap<i16, (i16, i16)>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: Option<Error>,
    aborts: Vec<AbortHandle>,
}

struct Waiting {
    correlation_id: i32,
    frame_bytes_max: usize,
    reply: oneshot::Sender<Result<Bytes, Error>>,
    _place: OwnedSemaphorePermit,
}

struct Outgoing {
    key: i16,
    version: i16,
    flexible: bool,
    body: Vec<Bytes>,
    frame_bytes_max: usize,
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
        let shared = Arc::new(Shared {
            address,
            request_timeout: options.request_timeout,
            outgoing,
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            state: Mutex::default(),
            ended: tokio::sync::watch::Sender::new(false),
            versions: OnceLock::new(),
        });
        let reader = tokio::spawn(run_reader(shared.clone(), read, options.frames.clone()));
        let writer = tokio::spawn(run_writer(shared.clone(), write, to_write, options.client_id.clone()));
        shared.state().aborts = vec![reader.abort_handle(), writer.abort_handle()];
        let connection = Self { _tasks: Arc::new(Tasks(shared.clone())), shared };
        let (response, _) = connection.call(&API_VERSIONS, &ApiVersionsRequest::default()).await?;
        ErrorCode::check(response.error_code, "ApiVersions")?;
        let versions = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        let _ = connection.shared.versions.set(versions.collect());
        Ok(connection)
    }

    pub fn address(&self) -> &str {
        &self.shared.address
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

    /// The best version both sides speak, with its header kind and response shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn version(&self, api: &'static Api) -> Result<(i16, bool, &'static [Field]), Error> {
        let Some(versions) = self.shared.versions.get() else {
            return Ok(api.versions[0]);
        };
        let (min, max) = versions.get(&api.key).copied().unwrap_or((-1, -1));
        let usable = api.versions.iter().find(|(version, ..)| (min..=max).contains(version));
        usable.copied().ok_or_else(|| Error::Unsupported {
            address: self.shared.address.to_string(),
            api: api.name,
            min,
            max,
            needed: format!("{:?}", api.versions.iter().map(|v| v.0).collect::<Vec<_>>()),
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
        let (version, ..) = self.version(api)?;
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .map_err(|e| self.protocol(format!("can't encode {}: {e}", api.name)))?;
        let mut reply = self.start(api, vec![body.freeze()], CONTROL_FRAME_BYTES_MAX, timeout).await?;
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
        let (version, flexible, _) = self.version(api)?;
        let deadline = Instant::now() + timeout;
        let hand_over = async {
            let place = self.shared.places.clone().acquire_owned().await.map_err(|_| self.shared.cause())?;
            let (reply, receiver) = oneshot::channel();
            let request = Outgoing { key: api.key, version, flexible, body, frame_bytes_max, reply, place };
            self.shared.outgoing.send(request).await.map_err(|_| self.shared.cause())?;
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

    fn cause(&self) -> Error {
        let closed = self.state().closed.clone();
        closed.unwrap_or_else(|| Error::Closed { address: self.address.to_string(), reason: "closed".into() })
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

    fn closed_by(&self, reason: impl ToString) -> Error {
        Error::Closed { address: self.address.to_string(), reason: reason.to_string() }
    }
}

async fn run_writer(
    shared: Arc<Shared>,
    mut stream: WriteHalf<BoxedStream>,
    mut requests: mpsc::Receiver<Outgoing>,
    client_id: Arc<str>,
) {
    let mut correlation_id = 0i32;
    while let Some(request) = requests.recv().await {
        correlation_id = correlation_id.wrapping_add(1);
        let head = request_head(&request, correlation_id, &client_id);
        let Outgoing { body, frame_bytes_max, reply, place, .. } = request;
        {
            let mut state = shared.state();
            if let Some(cause) = &state.closed {
                let _ = reply.send(Err(cause.clone()));
                return;
            }
            state.waiting.push_back(Waiting { correlation_id, frame_bytes_max, reply, _place: place });
        }
        let segments = std::iter::once(head).chain(body).collect();
        if let Err(error) = write_all(&mut stream, segments).await {
            return shared.close(shared.closed_by(error));
        }
    }
}

/// Length, request header (v1, or v2 when flexible); the body follows.
fn request_head(request: &Outgoing, correlation_id: i32, client_id: &str) -> Bytes {
    let client_id = &client_id.as_bytes()[..client_id.len().min(i16::MAX as usize)];
    let header_bytes = 10 + client_id.len() + usize::from(request.flexible);
    let body_bytes: usize = request.body.iter().map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(4 + header_bytes);
    // Larger than a frame can say is larger than any broker takes: bounded by callers' limits.
    head.put_i32(i32::try_from(header_bytes + body_bytes).unwrap_or(i32::MAX));
    head.put_i16(request.key);
    head.put_i16(request.version);
    head.put_i32(correlation_id);
    head.put_i16(client_id.len() as i16);
    head.put_slice(client_id);
    if request.flexible {
        head.put_u8(0);
    }
    head.freeze()
}

/// Slices handed to one vectored write, at most (`IOV_MAX` is 1024 on Linux).
const SLICES_MAX: usize = 256;

async fn write_all<S: AsyncWrite + Unpin>(stream: &mut S, segments: Vec<Bytes>) -> std::io::Result<()> {
    let mut segments: VecDeque<Bytes> = segments.into_iter().filter(|s| !s.is_empty()).collect();
    while !segments.is_empty() {
        let slices: Vec<IoSlice<'_>> = segments.iter().take(SLICES_MAX).map(|s| IoSlice::new(s)).collect();
        let mut written = stream.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = segments.front_mut().filter(|_| written > 0) {
            let step = written.min(front.len());
            front.advance(step);
            written -= step;
            if front.is_empty() {
                segments.pop_front();
            }
        }
    }
    stream.flush().await
}

async fn run_reader(shared: Arc<Shared>, stream: ReadHalf<BoxedStream>, frames: FramePool) {
    let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    loop {
        if let Err(error) = read_answer(&shared, &mut stream, &frames).await {
            return shared.close(error);
        }
    }
}

async fn read_answer<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    frames: &FramePool,
) -> Result<(), Error> {
    let protocol = |reason: String| Error::Protocol { address: shared.address.to_string(), reason };
    let length = stream.read_i32().await.map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => shared.closed_by("the broker closed it"),
        _ => shared.closed_by(e),
    })?;
    let limit = shared.state().waiting.front().map(|w| w.frame_bytes_max);
    let limit = limit.ok_or_else(|| protocol(format!("{length} bytes that nobody asked for")))?;
    let length = usize::try_from(length)
        .ok()
        .filter(|l| (4..=limit).contains(l))
        .ok_or_else(|| protocol(format!("a frame of {length} bytes where 4 to {limit} were expected")))?;
    let mut frame = frames.read(stream, length).await.map_err(|e| shared.closed_by(e))?;
    let correlation_id = frame.get_i32();
    let waiting = shared.state().waiting.pop_front().ok_or_else(|| shared.cause())?;
    if waiting.correlation_id != correlation_id {
        let error = protocol(format!("correlation id {correlation_id}, expected {}", waiting.correlation_id));
        let _ = waiting.reply.send(Err(error.clone()));
        return Err(error);
    }
    let _ = waiting.reply.send(Ok(frame));
    Ok(())
}

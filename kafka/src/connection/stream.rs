//! How requests reach a connection's stream, and answers leave it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{BoxedStream, Gate, Order, Outgoing, Shared, Waiting};
use crate::error::Error;
use crate::frame::FramePool;
use crate::tls;

/// Small responses arrive with one system call; large ones bypass the buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Slices handed to one vectored write, at most (`IOV_MAX` is 1024 on Linux).
const SLICES_MAX: usize = 256;

/// The writing side: requests leave it whole and in the order in which they are awaited.
pub(super) struct Writer {
    stream: WriteHalf<BoxedStream>,
    client_id: Arc<str>,
    correlation_id: i32,
    /// What isn't written yet, of all requests in turn.
    segments: VecDeque<Bytes>,
    /// Requests that aren't on their way as a whole.
    requests: VecDeque<Leaving>,
    /// The stream may hold bytes back.
    unflushed: bool,
}

/// A request on its way out.
struct Leaving {
    correlation_id: i32,
    gate: Option<Gate>,
    /// Of it, not yet written.
    segments: usize,
    begun: bool,
}

impl Leaving {
    fn may_go(&self) -> bool {
        self.gate.as_ref().is_none_or(|is_open| is_open())
    }
}

impl Writer {
    pub(super) fn new(stream: WriteHalf<BoxedStream>, client_id: Arc<str>) -> Self {
        let (segments, requests) = (VecDeque::new(), VecDeque::new());
        Self { stream, client_id, correlation_id: 0, segments, requests, unflushed: false }
    }

    /// Everything that was begun is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.segments.is_empty() && !self.unflushed
    }

    /// Begins a request and writes what the stream takes without waiting; true when that is all of
    /// it. On a connection that is closed the request is told so, and nothing is written.
    pub(super) fn begin(&mut self, shared: &Shared, request: Outgoing) -> std::io::Result<bool> {
        self.enqueue(shared, request);
        match self.poll_write_out(shared, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(written) => written.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn enqueue(&mut self, shared: &Shared, request: Outgoing) {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let head = request_head(&request, self.correlation_id, &self.client_id);
        let Outgoing { body, frame_bytes_max, reply, place, gate, .. } = request;
        {
            let mut state = shared.state();
            if let Some(cause) = &state.closed {
                let _ = reply.send(Err(cause.clone()));
                return;
            }
            let correlation_id = self.correlation_id;
            let since = Instant::now();
            state.waiting.push_back(Waiting { correlation_id, since, frame_bytes_max, reply, _place: place });
        }
        let before = self.segments.len();
        self.segments.extend(std::iter::once(head).chain(body).filter(|segment| !segment.is_empty()));
        let segments = self.segments.len() - before;
        self.requests.push_back(Leaving {
            correlation_id: self.correlation_id,
            gate,
            segments,
            begun: false,
        });
    }

    /// Takes out what may not go any more and wasn't begun.
    ///
    /// # Errors
    /// When part of such a request is written: the rest must not follow.
    fn hold_back(&mut self, shared: &Shared) -> std::io::Result<()> {
        let (mut first, mut index) = (0, 0);
        while let Some(request) = self.requests.get(index) {
            if request.may_go() {
                first += request.segments;
                index += 1;
                continue;
            }
            if request.begun {
                return Err(std::io::Error::other("a request that was being sent may not be sent any more"));
            }
            self.segments.drain(first..first + request.segments);
            shared.not_sent(request.correlation_id);
            self.requests.remove(index);
        }
        Ok(())
    }

    fn poll_write_out(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            self.hold_back(shared)?;
            if self.segments.is_empty() {
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                *slice = IoSlice::new(segment);
            }
            let count = self.segments.len().min(SLICES_MAX);
            let stream = Pin::new(&mut self.stream);
            let written = std::task::ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written(written);
        }
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        self.requests.clear();
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, mut bytes: usize) {
        let mut requests = self.requests.iter_mut().filter(|request| request.segments > 0);
        let mut request = requests.next();
        while let Some(front) = self.segments.front_mut().filter(|_| bytes > 0) {
            let step = bytes.min(front.len());
            front.advance(step);
            bytes -= step;
            let is_written = front.is_empty();
            if let Some(leaving) = &mut request {
                leaving.begun = true;
                leaving.segments -= usize::from(is_written);
                if leaving.segments == 0 {
                    request = requests.next();
                }
            }
            if is_written {
                self.segments.pop_front();
            }
        }
    }
}

/// Writes what couldn't be written at once.
pub(super) async fn run_writer(
    shared: Arc<Shared>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    mut orders: mpsc::Receiver<Order>,
) {
    while let Some(order) = orders.recv().await {
        let mut writer = writer.lock().await;
        // Bytes of a request that was begun come first, whoever began it.
        let mut result = std::future::poll_fn(|cx| writer.poll_write_out(&shared, cx)).await;
        if let Order::Write(request) = order {
            writer.enqueue(&shared, request);
            shared.queued.fetch_sub(1, Ordering::AcqRel);
            if result.is_ok() {
                result = std::future::poll_fn(|cx| writer.poll_write_out(&shared, cx)).await;
            }
        }
        if let Err(error) = result {
            return shared.close(shared.broken_by(error));
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

pub(super) async fn run_reader(shared: Arc<Shared>, stream: ReadHalf<BoxedStream>, frames: FramePool) {
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
    let length = stream.read_i32().await.map_err(|e| shared.broken_by(e))?;
    if let Some(reason) = tls::not_kafka(length.to_be_bytes()) {
        return Err(protocol(reason.into()));
    }
    let limit = shared.state().waiting.front().map(|w| w.frame_bytes_max);
    let limit = limit.ok_or_else(|| protocol(format!("{length} bytes that nobody asked for")))?;
    let length = usize::try_from(length)
        .ok()
        .filter(|l| (4..=limit).contains(l))
        .ok_or_else(|| protocol(format!("a frame of {length} bytes where 4 to {limit} were expected")))?;
    let mut frame = frames.read(stream, length).await.map_err(|e| shared.broken_by(e))?;
    let correlation_id = frame.get_i32();
    let waiting = {
        let mut state = shared.state();
        state.answers += 1;
        state.waiting.pop_front()
    };
    let waiting = waiting.ok_or_else(|| shared.cause())?;
    if waiting.correlation_id != correlation_id {
        let error = protocol(format!("correlation id {correlation_id}, expected {}", waiting.correlation_id));
        let _ = waiting.reply.send(Err(error.clone()));
        return Err(error);
    }
    let us = u64::try_from(waiting.since.elapsed().as_micros()).unwrap_or(u64::MAX);
    shared.round_trip_us.fetch_min(us, Ordering::Relaxed);
    let _ = waiting.reply.send(Ok(frame));
    Ok(())
}

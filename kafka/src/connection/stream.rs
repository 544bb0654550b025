//! The two tasks of a connection: one writes requests, one reads answers.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{BoxedStream, Outgoing, Shared, Waiting};
use crate::error::Error;
use crate::frame::FramePool;
use crate::tls;

/// Small responses arrive with one system call; large ones bypass the buffer.
const READ_BUFFER_BYTES: usize = 16 * 1024;

pub(super) async fn run_writer(
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
    let _ = waiting.reply.send(Ok(frame));
    Ok(())
}

//! Frames: what two nodes send each other, one after the other, over any byte stream.
//!
//! ```text
//! length u32 │ kind u8 │ detail u8 │ call u64 │ within_ms u32 │ body      (big endian; length: of what follows)
//! ```
//!
//! Reading never allocates for bytes that haven't come, and never waits for the rest of a frame for
//! longer than it takes a peer that is alive to send some of it.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::dial::BoxedStream;

/// Of a call, and of its answer: a snapshot's chunk, a command that assigns tens of thousands of
/// partitions.
pub const CALL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Of any frame before both sides know who the other is. An admission holds a few certificates and the
/// addresses of a fleet.
pub(crate) const HANDSHAKE_FRAME_BYTES_MAX: usize = 64 * 1024;

/// The peer sends or takes nothing for so long in the middle of a frame: it hangs, or the network does.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Written at once: what leaves within [`STALLED_AFTER`] on the slowest network that is
/// of use.
const WRITE_BYTES: usize = 64 * 1024;

/// Buffers grow as their bytes arrive, at most doubling: a length costs nothing by itself.
const GROW_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Welcome = 2,
    Refused = 3,
    Request = 4,
    Answer = 5,
    Unanswered = 6,
    Ping = 7,
    Pong = 8,
    JoinHello = 9,
    JoinProof = 10,
    JoinRequest = 11,
    Admitted = 12,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        let kinds = [
            Hello,
            Welcome,
            Refused,
            Request,
            Answer,
            Unanswered,
            Ping,
            Pong,
            JoinHello,
            JoinProof,
            JoinRequest,
            Admitted,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    /// A service, or a reason, as the kind says.
    pub detail: u8,
    /// Which call it belongs to.
    pub call: u64,
    /// For how long the caller waits.
    pub within_ms: u32,
    pub body: Bytes,
}

impl Frame {
    pub fn new(kind: Kind, body: impl Into<Bytes>) -> Self {
        Self { kind, detail: 0, call: 0, within_ms: 0, body: body.into() }
    }

    pub fn of_call(kind: Kind, call: u64, body: Bytes) -> Self {
        Self { call, ..Self::new(kind, body) }
    }

    pub fn with_detail(self, detail: u8) -> Self {
        Self { detail, ..self }
    }

    /// On the wire.
    pub fn bytes(&self) -> usize {
        4 + HEADER_BYTES + self.body.len()
    }

    fn header(&self) -> BytesMut {
        let mut header = BytesMut::with_capacity(4 + HEADER_BYTES);
        // A body is bounded by CALL_BYTES_MAX before it gets here.
        header.put_u32(u32::try_from(HEADER_BYTES + self.body.len()).unwrap_or(u32::MAX));
        header.put_u8(self.kind as u8);
        header.put_u8(self.detail);
        header.put_u64(self.call);
        header.put_u32(self.within_ms);
        header
    }
}

/// Why there is no frame. After any of these a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("it closed the connection")]
    Closed,
    #[error("{bytes} bytes where {min} to {max} were expected: it doesn't speak this protocol")]
    Length { bytes: usize, min: usize, max: usize },
    #[error("a frame of the unknown kind {0}: it doesn't speak this protocol")]
    Kind(u8),
    #[error("nothing more for {STALLED_AFTER:?} in the middle of a frame")]
    Stalled,
    #[error("it doesn't read what it asked for")]
    Unread,
    #[error(transparent)]
    Stream(#[from] io::Error),
}

impl FrameError {
    /// Whether the peer sent what no node sends.
    pub fn is_garbage(&self) -> bool {
        matches!(self, Self::Length { .. } | Self::Kind(_))
    }
}

/// The next frame, with a body of at most `body_bytes_max`. However long it takes to begin; once it has
/// begun, the rest must follow. Not to be dropped and begun anew.
pub(crate) async fn read<S>(stream: &mut S, body_bytes_max: usize) -> Result<Frame, FrameError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Closed),
        Err(error) => return Err(error.into()),
    };
    let mut length = [first, 0, 0, 0];
    in_time(stream.read_exact(&mut length[1..])).await?;
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let max = HEADER_BYTES + body_bytes_max;
    if !(HEADER_BYTES..=max).contains(&bytes) {
        return Err(FrameError::Length { bytes, min: HEADER_BYTES, max });
    }
    let mut header = [0; HEADER_BYTES];
    in_time(stream.read_exact(&mut header)).await?;
    let mut header = &header[..];
    let kind = header.get_u8();
    let kind = Kind::of(kind).ok_or(FrameError::Kind(kind))?;
    let (detail, call, within_ms) = (header.get_u8(), header.get_u64(), header.get_u32());
    let body = read_body(stream, bytes - HEADER_BYTES).await?;
    Ok(Frame { kind, detail, call, within_ms, body })
}

async fn read_body<S>(stream: &mut S, length: usize) -> Result<Bytes, FrameError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut body = BytesMut::new();
    while body.len() < length {
        let missing = length - body.len();
        if body.capacity() == body.len() {
            body.reserve(missing.min(body.len().max(GROW_BYTES)));
        }
        let mut window = (&mut body).limit(missing);
        if in_time(stream.read_buf(&mut window)).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(body.freeze())
}

/// Writes the frame; [`flush`] sees to it that it leaves.
pub(crate) async fn write<S>(stream: &mut S, frame: &Frame) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    let mut head = frame.header();
    // In one piece where it is small: one record of TLS, one packet.
    let (with_head, rest) = frame.body.split_at(frame.body.len().min(WRITE_BYTES));
    head.extend_from_slice(with_head);
    in_time(stream.write_all(&head)).await?;
    for piece in rest.chunks(WRITE_BYTES) {
        in_time(stream.write_all(piece)).await?;
    }
    Ok(())
}

pub(crate) async fn flush<S: AsyncWrite + Unpin + ?Sized>(stream: &mut S) -> Result<(), FrameError> {
    in_time(stream.flush()).await
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, FrameError> {
    match tokio::time::timeout(STALLED_AFTER, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(FrameError::Stalled),
    }
}

/// A stream on which two nodes take turns, until they know each other.
pub(crate) struct Turns<'a>(pub &'a mut BoxedStream);

impl Turns<'_> {
    pub async fn send(&mut self, frame: &Frame) -> Result<(), FrameError> {
        write(self.0, frame).await?;
        flush(self.0).await
    }

    pub async fn receive(&mut self) -> Result<Frame, FrameError> {
        read(self.0, HANDSHAKE_FRAME_BYTES_MAX).await
    }
}

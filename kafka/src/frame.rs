//! Response frames in reused buffers.
//!
//! A fresh 8 MiB buffer costs more in page faults than copying into a warm one, so large buffers
//! go back to a pool when the last [`Bytes`] that shares one is dropped. They come in a few sizes, so
//! that any of them fits again, and what a frame keeps in memory is known from its length
//! ([`kept_bytes`]): whoever bounds memory counts that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Smaller frames aren't pooled: the allocator serves them from warm memory anyway. The smallest size
/// of buffers; each further one is twice the one before.
const POOLED_BYTES_MIN: usize = 64 * 1024;

/// Larger frames, of single large batches, get buffers of their own that aren't kept.
const POOLED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Up to here a buffer is taken whole before its bytes arrive: untouched, it is no memory yet.
pub const TAKEN_WHOLE_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Other buffers grow as their bytes arrive, at most doubling: a hostile length costs nothing.
const GROW_BYTES: usize = 256 * 1024;

/// What a buffer for `records_bytes` of records has room for beside them: the response's own fields.
const fn with_fields(records_bytes: usize) -> usize {
    records_bytes + records_bytes / 32
}

fn sizes() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(POOLED_BYTES_MIN), |size| Some(size * 2))
        .take_while(|size| *size <= POOLED_BYTES_MAX)
}

/// What a frame of `length` bytes keeps in memory for as long as any part of it is used.
pub fn kept_bytes(length: usize) -> usize {
    if length < POOLED_BYTES_MIN {
        return length;
    }
    sizes().map(with_fields).find(|kept| length <= *kept).unwrap_or(length)
}

/// How many bytes of records to ask for so that the response keeps at most `bytes` in memory, and fills
/// its buffer; never less than the smallest buffer holds.
pub fn records_within(bytes: usize) -> usize {
    sizes().take_while(|size| with_fields(*size) <= bytes).last().unwrap_or(POOLED_BYTES_MIN)
}

/// Reused buffers of one process or test. Cheap to clone.
#[derive(Clone)]
pub struct FramePool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    state: Mutex<PoolState>,
    /// Idle buffers are kept as long as they and those in use are no more than this together.
    kept_bytes_max: usize,
}

#[derive(Default)]
struct PoolState {
    /// Those given back last at the end.
    idle: VecDeque<Vec<u8>>,
    idle_bytes: usize,
    used_bytes: usize,
}

impl PoolState {
    /// What nobody has wanted for longest goes first.
    fn shrink_to(&mut self, kept_bytes_max: usize) {
        while self.idle_bytes + self.used_bytes > kept_bytes_max {
            let Some(oldest) = self.idle.pop_front() else { return };
            self.idle_bytes -= oldest.capacity();
        }
    }
}

struct PooledFrame {
    buffer: Vec<u8>,
    /// What it was counted as when it was taken.
    kept_bytes: usize,
    pool: Arc<PoolInner>,
}

impl AsRef<[u8]> for PooledFrame {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for PooledFrame {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut state = self.pool.state();
        state.used_bytes -= self.kept_bytes;
        if buffer.capacity() == self.kept_bytes && self.kept_bytes <= with_fields(POOLED_BYTES_MAX) {
            state.idle_bytes += buffer.capacity();
            state.idle.push_back(buffer);
        }
        state.shrink_to(self.pool.kept_bytes_max);
    }
}

impl PoolInner {
    fn state(&self) -> std::sync::MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FramePool {
    pub fn new(kept_bytes_max: usize) -> Self {
        Self { inner: Arc::new(PoolInner { state: Mutex::default(), kept_bytes_max }) }
    }

    /// An idle buffer of the size for `length`, or a new one.
    fn take(&self, length: usize) -> PooledFrame {
        let kept_bytes = kept_bytes(length);
        let mut state = self.inner.state();
        let found = state.idle.iter().rposition(|buffer| buffer.capacity() == kept_bytes);
        let mut buffer = found.and_then(|at| state.idle.remove(at)).unwrap_or_default();
        state.idle_bytes -= buffer.capacity();
        state.used_bytes += kept_bytes;
        state.shrink_to(self.inner.kept_bytes_max);
        drop(state);
        buffer.clear();
        if buffer.capacity() == 0 && kept_bytes <= TAKEN_WHOLE_BYTES_MAX {
            buffer.reserve_exact(kept_bytes);
        }
        PooledFrame { buffer, kept_bytes, pool: self.inner.clone() }
    }

    /// Reads a frame's `length` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends inside the frame; any error of the stream.
    pub async fn read<S: AsyncRead + Unpin>(&self, stream: &mut S, length: usize) -> std::io::Result<Bytes> {
        if length < POOLED_BYTES_MIN {
            let mut buffer = Vec::with_capacity(length);
            fill(&mut buffer, stream, length, length).await?;
            return Ok(Bytes::from(buffer));
        }
        let mut frame = self.take(length);
        let kept_bytes = frame.kept_bytes;
        fill(&mut frame.buffer, stream, length, kept_bytes).await?;
        Ok(Bytes::from_owner(frame))
    }
}

/// Reads `length` bytes; the buffer grows to `capacity_max` at most.
async fn fill<S: AsyncRead + Unpin>(
    buffer: &mut Vec<u8>,
    stream: &mut S,
    length: usize,
    capacity_max: usize,
) -> std::io::Result<()> {
    while buffer.len() < length {
        let missing = length - buffer.len();
        if buffer.capacity() == buffer.len() {
            buffer.reserve_exact((capacity_max - buffer.len()).min(buffer.len().max(GROW_BYTES)));
        }
        let mut window = bytes::BufMut::limit(&mut *buffer, missing);
        if stream.read_buf(&mut window).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_buffer_is_used_again_once_its_last_slice_is_dropped() {
        let pool = FramePool::new(16 << 20);
        let data = vec![7u8; 300_000];
        let frame = pool.read(&mut &data[..], data.len()).await.expect("read");
        let address = frame.as_ptr();
        let slice = frame.slice(10..20);
        drop(frame);
        assert_eq!(pool.inner.state().idle.len(), 0, "a slice still uses the buffer");
        drop(slice);
        let again = pool.read(&mut &data[..], data.len()).await.expect("read");
        assert_eq!(again.as_ptr(), address);
        assert_eq!(&again[..], &data[..]);
    }

    /// Found by measuring: frames of all lengths in buffers of their own lengths left the allocator
    /// with twice what was counted.
    #[tokio::test]
    async fn buffers_in_use_and_idle_are_bounded_together_and_counted_by_their_size() {
        const MIB: usize = 1 << 20;
        let pool = FramePool::new(with_fields(4 * MIB));
        let read = async |length: usize| {
            let data = vec![1u8; length];
            pool.read(&mut &data[..], length).await.expect("read")
        };
        let kept = || {
            let state = pool.inner.state();
            assert_eq!(state.idle.iter().map(Vec::capacity).sum::<usize>(), state.idle_bytes);
            (state.used_bytes, state.idle_bytes)
        };
        let small = read(100_000).await;
        assert_eq!(kept(), (kept_bytes(100_000), 0));
        drop(read(1_500_000).await);
        assert_eq!(kept(), (with_fields(128 << 10), with_fields(2 * MIB)));
        drop(read(2 * MIB).await);
        assert_eq!(kept().1, with_fields(2 * MIB), "the same buffer again");
        let large = read(4 * MIB).await;
        assert_eq!(kept().1, 0, "an idle buffer makes room");
        drop((small, large));
        assert_eq!(kept(), (0, with_fields(4 * MIB)), "what was given back first went");
        drop(read(40 * MIB).await);
        assert_eq!(kept(), (0, 0), "one of its own is not kept");
    }

    #[test]
    fn what_is_asked_for_fills_what_is_kept() {
        for bytes in [70_000, 1 << 20, 3 << 20, 9 << 20, 40 << 20] {
            let records = records_within(bytes);
            assert!(kept_bytes(records) <= bytes, "{bytes}: {records}");
            assert!(bytes < 2 * with_fields(records) || records == POOLED_BYTES_MAX, "{bytes}: {records}");
        }
        assert_eq!((kept_bytes(1_000), kept_bytes(100 << 20)), (1_000, 100 << 20));
    }

    #[tokio::test]
    async fn a_hostile_length_grows_no_buffer_before_its_bytes_arrive() {
        let pool = FramePool::new(0);
        let (mut near, far) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut near, &[1; 1000]).await.expect("write");
        drop(near);
        let mut far = far;
        let error = pool.read(&mut far, 2_000_000_000).await.expect_err("cut short");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

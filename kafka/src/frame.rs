//! Response frames in reused buffers.
//!
//! A fresh 8 MiB buffer costs more in page faults than copying into a warm one, so large buffers
//! go back to a pool when the last [`Bytes`] that shares one is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Smaller frames aren't pooled: the allocator serves them from warm memory anyway.
const POOLED_BYTES_MIN: usize = 64 * 1024;

/// A buffer isn't used for a frame smaller than this part of it: what is bounded is the bytes of
/// frames, and what they keep in memory must not be many times that.
const FILLED_PART_MIN: usize = 4;

/// A buffer grows as its bytes arrive, at most doubling: a hostile length costs nothing.
const GROW_BYTES: usize = 256 * 1024;

/// Reused buffers of one process or test. Cheap to clone.
#[derive(Clone)]
pub struct FramePool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    /// Those given back last at the end.
    free: Mutex<VecDeque<Vec<u8>>>,
    /// Idle buffers kept, in bytes of capacity.
    idle_bytes_max: usize,
}

struct PooledFrame {
    buffer: Vec<u8>,
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
        if buffer.capacity() > self.pool.idle_bytes_max {
            return;
        }
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push_back(buffer);
        // What nobody has wanted for longest goes first.
        let mut idle: usize = free.iter().map(Vec::capacity).sum();
        while idle > self.pool.idle_bytes_max {
            idle -= free.pop_front().map_or(idle, |oldest| oldest.capacity());
        }
    }
}

impl FramePool {
    pub fn new(idle_bytes_max: usize) -> Self {
        Self { inner: Arc::new(PoolInner { free: Mutex::default(), idle_bytes_max }) }
    }

    /// The idle buffer that fits `length` best, or an empty one.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut free = self.inner.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits =
            |buffer: &Vec<u8>| buffer.capacity() >= length && buffer.capacity() / FILLED_PART_MIN <= length;
        let best = (0..free.len()).filter(|i| fits(&free[*i])).min_by_key(|i| free[*i].capacity());
        let mut buffer = best.and_then(|i| free.remove(i)).unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Reads a frame's `length` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends inside the frame; any error of the stream.
    pub async fn read<S: AsyncRead + Unpin>(&self, stream: &mut S, length: usize) -> std::io::Result<Bytes> {
        let pooled = length >= POOLED_BYTES_MIN;
        let mut buffer = if pooled { self.take(length) } else { Vec::with_capacity(length) };
        while buffer.len() < length {
            let missing = length - buffer.len();
            if buffer.capacity() == buffer.len() {
                buffer.reserve_exact(missing.min(buffer.len().max(GROW_BYTES)));
            }
            let mut window = bytes::BufMut::limit(&mut buffer, missing);
            if stream.read_buf(&mut window).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(match pooled {
            true => Bytes::from_owner(PooledFrame { buffer, pool: self.inner.clone() }),
            false => Bytes::from(buffer),
        })
    }
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
        assert_eq!(pool.inner.free.lock().expect("lock").len(), 0, "a slice still uses the buffer");
        drop(slice);
        let again = pool.read(&mut &data[..], data.len()).await.expect("read");
        assert_eq!(again.as_ptr(), address);
        assert_eq!(&again[..], &data[..]);
    }

    /// Found by reading: small frames in large buffers could keep a hundred times their bytes.
    #[tokio::test]
    async fn a_small_frame_takes_no_large_buffer_and_idle_ones_are_bounded() {
        let pool = FramePool::new(1 << 20);
        let read = async |length: usize| {
            let data = vec![1u8; length];
            pool.read(&mut &data[..], length).await.expect("read")
        };
        drop(read(800_000).await);
        let small = read(100_000).await;
        let idle = || pool.inner.free.lock().expect("lock").iter().map(Vec::capacity).collect::<Vec<_>>();
        assert_eq!(idle(), [800_000], "left for a frame that fills it");
        drop(read(300_000).await);
        assert_eq!(idle(), [800_000], "taken and given back");
        drop((small, read(700_000).await));
        drop(read(790_000).await);
        assert!(idle().iter().sum::<usize>() <= 1 << 20, "{:?}", idle());
        drop(read(2 << 20).await);
        assert!(idle().iter().all(|capacity| *capacity <= 1 << 20), "{:?}", idle());
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

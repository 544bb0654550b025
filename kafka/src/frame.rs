//! Response frames in reused buffers.
//!
//! A fresh 8 MiB buffer costs more in page faults than copying into a warm one, so large buffers
//! go back to a pool when the last [`Bytes`] that shares one is dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Smaller frames aren't pooled: the allocator serves them from warm memory anyway.
const POOLED_BYTES_MIN: usize = 64 * 1024;

/// A buffer grows as its bytes arrive, at most doubling: a hostile length costs nothing.
const GROW_BYTES: usize = 256 * 1024;

/// Reused buffers of one process or test. Cheap to clone.
#[derive(Clone)]
pub struct FramePool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    free: Mutex<Vec<Vec<u8>>>,
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
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let idle: usize = free.iter().map(Vec::capacity).sum();
        if idle + buffer.capacity() <= self.pool.idle_bytes_max {
            free.push(buffer);
        }
    }
}

impl FramePool {
    pub fn new(idle_bytes_max: usize) -> Self {
        Self { inner: Arc::new(PoolInner { free: Mutex::default(), idle_bytes_max }) }
    }

    fn take(&self) -> Vec<u8> {
        let mut buffer =
            self.inner.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Reads a frame's `length` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends inside the frame; any error of the stream.
    pub async fn read<S: AsyncRead + Unpin>(&self, stream: &mut S, length: usize) -> std::io::Result<Bytes> {
        let pooled = length >= POOLED_BYTES_MIN;
        let mut buffer = if pooled { self.take() } else { Vec::with_capacity(length) };
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

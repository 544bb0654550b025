//! Buffers that are used again: fresh pages from the kernel cost more than copying into old ones.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// More than are ever in use at once within the window; the rest would be a leak.
const KEPT_MAX: usize = 16;

/// Where buffers go when they are dropped. Each pool serves one purpose, so that its buffers soon
/// have the size that is needed.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// Bytes that go back to their pool. A buffer from the pool holds what it held last.
pub struct Buffer {
    pub bytes: Vec<u8>,
    pool: Pool,
}

impl Pool {
    pub fn take(&self) -> Buffer {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Buffer { bytes, pool: self.clone() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = Pool::default();
        let mut first = pool.take();
        first.bytes.resize(100, 7);
        drop(first);
        assert_eq!(pool.take().bytes, [7; 100]);
    }
}

//! Credit: what bounds the bytes between a fetch and its acknowledgement (DP-5).
//!
//! A fetch reserves room for its whole response before it is sent; the response's frame stays
//! reserved until its last batch is acknowledged or dropped. A partition that has its fill is
//! left out of fetches until the destination has taken some of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

/// Bytes of one partition between fetch and acknowledgement, at most: it is left out of the next
/// fetch beyond that.
pub const PARTITION_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The bytes one link may hold on this node.
#[derive(Clone, Debug)]
pub struct LinkCredit {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

/// Room for one response's frame; given back when the last share of it is done.
#[derive(Debug)]
pub struct FrameCredit {
    permit: OwnedSemaphorePermit,
}

/// One partition's share of a frame.
#[derive(Debug)]
pub struct ShareCredit {
    _frame: Arc<FrameCredit>,
    outstanding_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl LinkCredit {
    pub fn new(bytes_max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes_max / UNIT_BYTES)), bytes_max }
    }

    /// Room for a response, for one of `fetchers` that ask side by side: none of them ever takes
    /// so much that another can't go on.
    pub fn response_bytes_max(&self, fetchers: usize, wanted: usize) -> usize {
        wanted.min(self.bytes_max / (2 * fetchers.max(1))).max(UNIT_BYTES)
    }

    /// Waits for room of `bytes`.
    pub async fn reserve(&self, bytes: usize) -> FrameCredit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let permit =
            self.free.clone().acquire_many_owned(units).await.expect("the semaphore is never closed");
        FrameCredit { permit }
    }

    pub fn in_use_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.free.available_permits() * UNIT_BYTES)
    }
}

impl FrameCredit {
    /// Gives back what the response didn't need. A response may also be larger than reserved
    /// (its first batch always comes whole): that excess is not counted.
    pub fn shrink_to(mut self, bytes: usize) -> Arc<Self> {
        let keep = bytes.div_ceil(UNIT_BYTES);
        if let Some(surplus) = self.permit.num_permits().checked_sub(keep) {
            drop(self.permit.split(surplus));
        }
        Arc::new(self)
    }
}

impl ShareCredit {
    pub fn new(frame: &Arc<FrameCredit>, outstanding_bytes: &Arc<AtomicUsize>, bytes: usize) -> Arc<Self> {
        outstanding_bytes.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Self { _frame: frame.clone(), outstanding_bytes: outstanding_bytes.clone(), bytes })
    }
}

impl Drop for ShareCredit {
    fn drop(&mut self) {
        self.outstanding_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_stays_reserved_until_its_last_share_is_done() {
        let link = LinkCredit::new(64 * UNIT_BYTES);
        let frame = link.reserve(10 * UNIT_BYTES).await.shrink_to(4 * UNIT_BYTES);
        assert_eq!(link.in_use_bytes(), 4 * UNIT_BYTES);
        let outstanding = Arc::new(AtomicUsize::new(0));
        let (a, b) =
            (ShareCredit::new(&frame, &outstanding, 1000), ShareCredit::new(&frame, &outstanding, 500));
        drop((frame, a));
        assert_eq!((outstanding.load(Ordering::Relaxed), link.in_use_bytes()), (500, 4 * UNIT_BYTES));
        drop(b);
        assert_eq!((outstanding.load(Ordering::Relaxed), link.in_use_bytes()), (0, 0));
    }

    #[tokio::test]
    async fn a_response_larger_than_its_reservation_is_taken() {
        let link = LinkCredit::new(64 * UNIT_BYTES);
        drop(link.reserve(UNIT_BYTES).await.shrink_to(100 * UNIT_BYTES));
        assert_eq!(link.in_use_bytes(), 0);
    }
}

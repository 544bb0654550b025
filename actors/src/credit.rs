//! Credit: what bounds the bytes between a fetch and its acknowledgement (DP-5).
//!
//! A fetch reserves room for its whole response before it is sent; the response's frame stays
//! reserved until its last batch is acknowledged or dropped. A frame only carries what one
//! destination broker takes, and one broker never holds more than half of a link's credit where
//! there are several: whatever a slow broker pins, the others go on. A partition that has its fill
//! is left out of fetches until the destination has taken some of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kafka::frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

const MIB: usize = 1024 * 1024;

/// What bounds the bytes between fetch and acknowledgement on this node. Part of the memory bound, so no
/// key of a link's: only a simulation has others than the [default](Self::default) ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditLimits {
    /// Of one link.
    pub link_bytes_max: usize,
    /// Of one partition: it is left out of the next fetch beyond that.
    pub partition_bytes_max: usize,
}

impl Default for CreditLimits {
    /// With 80 MiB a node stays below 100 MiB while it catches up, and sixteen responses of 4 MiB can be
    /// on their way from a distant source (`xtask bench`). Of a partition two full responses, so that one
    /// is fetched while the other is appended.
    fn default() -> Self {
        Self { link_bytes_max: 80 * MIB, partition_bytes_max: 16 * MIB }
    }
}

/// The bytes one link may hold on this node.
#[derive(Clone, Debug)]
pub struct LinkCredit {
    pool: Pool,
    partition_bytes_max: usize,
    fetchers: Arc<AtomicUsize>,
}

/// What one destination broker may hold of a link's credit. Clones share it.
#[derive(Clone, Debug)]
pub struct BrokerCredit {
    link: Pool,
    own: Pool,
    fetchers: Arc<AtomicUsize>,
    /// Of all brokers of the link.
    link_fetchers: Arc<AtomicUsize>,
    partition_bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Pool {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

/// One of the fetchers that share a destination broker's credit, counted while it lives.
#[derive(Debug)]
pub struct Enlisted([Arc<AtomicUsize>; 2]);

/// Room for one response's frame; given back when the last share of it is done.
#[derive(Debug)]
pub struct FrameCredit {
    own: OwnedSemaphorePermit,
    link: OwnedSemaphorePermit,
}

/// One partition's share of a frame.
#[derive(Debug)]
pub struct ShareCredit {
    _frame: Arc<FrameCredit>,
    outstanding_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Pool {
    fn new(bytes_max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes_max / UNIT_BYTES)), bytes_max }
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        // More than there is would wait for ever.
        let units = bytes.min(self.bytes_max).div_ceil(UNIT_BYTES).min(self.bytes_max / UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.free.clone().acquire_many_owned(units).await.expect("the semaphore is never closed")
    }

    fn in_use_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.free.available_permits() * UNIT_BYTES)
    }

    /// Makes `permit` one of `bytes`: gives back the surplus, takes what is free of the rest.
    fn fit(&self, permit: &mut OwnedSemaphorePermit, bytes: usize) {
        let (has, wants) = (permit.num_permits(), bytes.div_ceil(UNIT_BYTES));
        if has > wants {
            drop(permit.split(has - wants));
            return;
        }
        let more = (wants - has).min(self.free.available_permits());
        let more = self.free.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
        // Another took it first: then the pool is empty, and nobody fetches anyway.
        if let Ok(more) = more {
            permit.merge(more);
        }
    }
}

impl LinkCredit {
    pub fn new(limits: CreditLimits) -> Self {
        let CreditLimits { link_bytes_max, partition_bytes_max } = limits;
        Self { pool: Pool::new(link_bytes_max), partition_bytes_max, fetchers: Arc::default() }
    }

    /// The part of one destination broker, which `is_alone` or one of several.
    pub fn of_broker(&self, is_alone: bool) -> BrokerCredit {
        let bytes_max = self.pool.bytes_max / if is_alone { 1 } else { 2 };
        BrokerCredit {
            link: self.pool.clone(),
            own: Pool::new(bytes_max),
            fetchers: Arc::default(),
            link_fetchers: self.fetchers.clone(),
            partition_bytes_max: self.partition_bytes_max,
        }
    }

    pub fn in_use_bytes(&self) -> usize {
        self.pool.in_use_bytes()
    }
}

impl BrokerCredit {
    pub fn enlist(&self) -> Enlisted {
        let counts = [self.fetchers.clone(), self.link_fetchers.clone()];
        for count in &counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Enlisted(counts)
    }

    /// Bytes of records to ask for, for one of the enlisted fetchers: together they take five sixths of
    /// the broker's part and of the link's at most, so that the rest can be on its way to the destination
    /// meanwhile, and none waits for room behind another that waits for data. Nodes stand beside the
    /// destination: the longer way is the one from the source.
    pub fn response_bytes_max(&self, wanted: usize) -> usize {
        let part = |bytes_max: usize, fetchers: &AtomicUsize| {
            bytes_max / 6 * 5 / fetchers.load(Ordering::Relaxed).max(1)
        };
        let own = part(self.own.bytes_max, &self.fetchers);
        wanted.min(frame::records_within(own.min(part(self.link.bytes_max, &self.link_fetchers))))
    }

    /// Whether a partition with so many bytes outstanding may be fetched.
    pub fn has_room(&self, outstanding_bytes: usize) -> bool {
        outstanding_bytes < self.partition_bytes_max
    }

    /// Waits for room of a response with `bytes` of records, or for all there is where that is less.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        // Its own part first: who waits for that must not hold what others could use.
        let kept_bytes = frame::kept_bytes(bytes);
        let own = self.own.take(kept_bytes).await;
        let link = self.link.take(kept_bytes).await;
        Reserved { credit: self.clone(), frame: FrameCredit { own, link } }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Room for a response that hasn't come yet.
#[derive(Debug)]
pub struct Reserved {
    credit: BrokerCredit,
    frame: FrameCredit,
}

impl Reserved {
    /// Gives back what the response didn't need. A response may also be larger than reserved (its
    /// first batch always comes whole, KIP-74): that excess takes what is free, and no other fetch
    /// begins until there is room again.
    pub fn fit(mut self, bytes: usize) -> Arc<FrameCredit> {
        let bytes = frame::kept_bytes(bytes);
        self.credit.own.fit(&mut self.frame.own, bytes);
        self.credit.link.fit(&mut self.frame.link, bytes);
        Arc::new(self.frame)
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

    const KIB: usize = UNIT_BYTES;

    fn of_link(link_bytes_max: usize) -> CreditLimits {
        CreditLimits { link_bytes_max, ..CreditLimits::default() }
    }

    #[tokio::test]
    async fn a_frame_stays_reserved_until_its_last_share_is_done() {
        let link = LinkCredit::new(of_link(64 * KIB));
        let frame = link.of_broker(true).reserve(10 * KIB).await.fit(4 * KIB);
        assert_eq!(link.in_use_bytes(), 4 * KIB);
        let outstanding = Arc::new(AtomicUsize::new(0));
        let (a, b) =
            (ShareCredit::new(&frame, &outstanding, 1000), ShareCredit::new(&frame, &outstanding, 500));
        drop((frame, a));
        assert_eq!((outstanding.load(Ordering::Relaxed), link.in_use_bytes()), (500, 4 * KIB));
        drop(b);
        assert_eq!((outstanding.load(Ordering::Relaxed), link.in_use_bytes()), (0, 0));
    }

    #[tokio::test]
    async fn a_response_larger_than_its_reservation_takes_what_is_free() {
        let link = LinkCredit::new(of_link(64 * KIB));
        let broker = link.of_broker(true);
        let large = broker.reserve(KIB).await.fit(50 * KIB);
        assert_eq!(link.in_use_bytes(), 50 * KIB);
        let larger = broker.reserve(KIB).await.fit(100 * KIB);
        assert_eq!(link.in_use_bytes(), 64 * KIB);
        drop((large, larger));
        assert_eq!(link.in_use_bytes(), 0);
    }

    /// Found by reading: a destination broker that hung for 15 s held up all of its link.
    #[tokio::test]
    async fn a_broker_that_takes_nothing_leaves_half_of_the_link_to_the_others() {
        let link = LinkCredit::new(of_link(64 * KIB));
        let (hung, healthy) = (link.of_broker(false), link.of_broker(false));
        let mut pinned = Vec::new();
        let mut next = Box::pin(hung.reserve(8 * KIB));
        while let std::task::Poll::Ready(reserved) = futures_poll(&mut next).await {
            pinned.push(reserved.fit(8 * KIB));
            next = Box::pin(hung.reserve(8 * KIB));
        }
        assert_eq!((pinned.len(), link.in_use_bytes()), (4, 32 * KIB));
        for _ in 0..10 {
            drop(healthy.reserve(16 * KIB).await.fit(16 * KIB));
        }
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }

    #[test]
    fn fetchers_that_share_a_broker_leave_a_sixth_of_its_credit() {
        let broker = LinkCredit::new(of_link(80 * MIB)).of_broker(true);
        let mut fetchers: Vec<Enlisted> = (0..8).map(|_| broker.enlist()).collect();
        assert_eq!(broker.response_bytes_max(100 * MIB), 8 * MIB, "eight fill a way of 80 ms");
        fetchers.push(broker.enlist());
        assert_eq!(broker.response_bytes_max(100 * MIB), 4 * MIB);
        fetchers.truncate(1);
        assert_eq!(broker.response_bytes_max(100 * MIB), 16 * MIB);
        assert_eq!(broker.response_bytes_max(8 * KIB), 8 * KIB);
    }

    /// Found by reading: with many destination brokers idle fetches held all of the link's credit.
    #[tokio::test]
    async fn fetchers_of_many_brokers_never_wait_behind_each_other() {
        let link = LinkCredit::new(of_link(64 * MIB));
        let brokers: Vec<BrokerCredit> = (0..40).map(|_| link.of_broker(false)).collect();
        let _fetchers: Vec<Enlisted> = brokers.iter().map(BrokerCredit::enlist).collect();
        let mut idle = Vec::new();
        for broker in &brokers {
            idle.push(broker.reserve(broker.response_bytes_max(8 * MIB)).await);
        }
        assert!(link.in_use_bytes() <= 64 * MIB / 6 * 5, "{}", link.in_use_bytes());
    }
}

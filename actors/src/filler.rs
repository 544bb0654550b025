//! The filler: feeds a lane with filler batches up to where the source's log starts.
//!
//! Stands where a fetcher stands otherwise: bounded by the same per-partition credit, told of by
//! the same words. Knows nothing of why the fill is needed, and cuts nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka::filler::{filler_batch, records_max};
use tokio::task::AbortHandle;

use crate::appender::{Appender, LaneKey, Order};
use crate::credit::{BrokerCredit, ShareCredit};
use crate::fetcher::{FetchOwner, FetchStop};
use crate::observe::PartitionStats;

/// While the lane has its fill of batches.
const CREDIT_WAIT: Duration = Duration::from_millis(5);

/// What to fill, and for whom.
pub struct Fill {
    pub lane: LaneKey,
    pub run: u64,
    pub from: i64,
    /// Exclusive.
    pub to: i64,
    /// The mirror topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
    pub appender: Appender,
    pub credit: BrokerCredit,
    pub stats: Arc<PartitionStats>,
    pub owner: FetchOwner,
}

/// Fills in a task of its own; aborting it stops the feed.
pub fn start(fill: Fill) -> AbortHandle {
    tokio::spawn(run(fill)).abort_handle()
}

async fn run(mut fill: Fill) {
    let mut next = fill.from;
    while next < fill.to {
        if !fill.credit.has_room(fill.stats.outstanding_bytes.load(Ordering::Relaxed)) {
            tokio::time::sleep(CREDIT_WAIT).await;
            continue;
        }
        let count = (fill.to - next).min(i64::from(records_max(fill.batch_bytes_max))) as i32;
        let batch = filler_batch(next, count);
        let bytes = batch.size_bytes();
        let frame = fill.credit.reserve(bytes).await.fit(bytes);
        let credit = ShareCredit::new(&frame, &fill.stats.outstanding_bytes, bytes);
        next = batch.header.next_offset();
        let order = Order::Share { key: fill.lane.clone(), run: fill.run, batches: vec![batch], credit };
        if !fill.appender.order(order).await {
            // The lane's end tells why.
            return;
        }
    }
    fill.owner.tell(&FetchStop::Filled);
}

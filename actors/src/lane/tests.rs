use super::*;
use crate::credit::{CreditLimits, LinkCredit};
use kafka::batch::cut;
use std::sync::atomic::AtomicUsize;

const NOW_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A batch of `count` records at `base_offset` with this newest record timestamp.
fn batch(base_offset: i64, count: i32, timestamp_ms: i64) -> RawBatch {
    let mut b = vec![0u8; 61];
    b[0..8].copy_from_slice(&base_offset.to_be_bytes());
    b.extend_from_slice(b"records");
    let length = (b.len() - 12) as i32;
    b[8..12].copy_from_slice(&length.to_be_bytes());
    b[16] = 2;
    b[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    b[27..35].copy_from_slice(&timestamp_ms.to_be_bytes());
    b[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    b[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&b[21..]);
    b[17..21].copy_from_slice(&crc.to_be_bytes());
    cut(&b.into(), base_offset).batches.remove(0)
}

struct World {
    lane: Lane,
    now: Instant,
    outstanding: Arc<AtomicUsize>,
    next_offset: i64,
    permit: Permit,
}

impl World {
    async fn new(position: i64, remembered_ms: Option<i64>, quiet_in: Duration) -> Self {
        let now = Instant::now();
        let lane = Lane::new(LaneStart {
            producer: ProducerIdentity { producer_id: 7, producer_epoch: 0 },
            position,
            next_sequence: sequence_at(position),
            remembered_ms,
            expiration_ms: DAY_MS,
            request_bytes_max: 100 << 20,
            quiet_from: now + quiet_in,
            proven_at: Duration::ZERO,
        });
        let permit = Permit { has_lease: true, uptime: Duration::ZERO };
        Self { lane, now, outstanding: Arc::default(), next_offset: position, permit }
    }

    /// Queues batches of ten records, one for each timestamp.
    async fn queue(&mut self, timestamps_ms: &[i64]) {
        let frame = LinkCredit::new(CreditLimits::default()).of_broker(true).reserve(1024).await.fit(1024);
        let credit = ShareCredit::new(&frame, &self.outstanding, 100);
        for timestamp_ms in timestamps_ms {
            self.lane.push(vec![batch(self.next_offset, 10, *timestamp_ms)], &credit);
            self.next_offset += 10;
        }
    }

    /// Sends all that may go; the base sequences of it.
    fn send(&mut self) -> Vec<i32> {
        std::iter::from_fn(|| {
            self.lane.next(self.now, NOW_MS, self.permit).map(|next| next.batch.base_sequence)
        })
        .collect()
    }
}

#[tokio::test]
async fn the_first_batch_of_a_run_goes_alone_and_then_five_are_under_way() {
    let mut w = World::new(100, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 8]).await;
    assert_eq!(w.send(), [100]);
    let appended = w.lane.answered(Ok(100), Duration::ZERO).expect("appended");
    assert_eq!((appended.end_offset, appended.records), (110, 10));
    assert_eq!(w.send(), [110, 120, 130, 140, 150]);
    w.lane.answered(Ok(110), Duration::ZERO);
    assert_eq!(w.send(), [160]);
}

#[tokio::test]
async fn old_data_goes_one_batch_at_a_time() {
    let mut w = World::new(0, None, Duration::ZERO).await;
    w.queue(&[NOW_MS - 3 * DAY_MS; 3]).await;
    for base in [0, 10, 20] {
        assert_eq!(w.send(), [base]);
        assert!(w.lane.answered(Ok(i64::from(base)), Duration::ZERO).is_some());
        assert!(!w.lane.is_guarded(NOW_MS));
    }
}

#[tokio::test]
async fn old_data_behind_fresh_data_waits_until_nothing_from_before_can_arrive() {
    let mut w = World::new(0, Some(NOW_MS), Duration::from_secs(20)).await;
    w.queue(&[NOW_MS, NOW_MS - 3 * DAY_MS]).await;
    assert_eq!(w.send(), [0]);
    w.lane.answered(Ok(0), Duration::ZERO);
    assert_eq!(w.send(), [0; 0], "the broker would forget us while an older request may arrive");
    assert_eq!(w.lane.quiet_from(), Some(w.now + Duration::from_secs(20)));
    w.now += Duration::from_secs(20);
    assert_eq!(w.send(), [0; 0], "what arrived meanwhile isn't known");
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop: LaneStop::Quieted, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn a_batch_that_does_not_follow_is_never_sent() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.next_offset = 50;
    w.queue(&[NOW_MS]).await;
    assert_eq!(w.send(), [0; 0]);
    let stop = LaneStop::OutOfOrder { expected: 0, given: 50 };
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn a_new_mirror_begins_at_once_with_fresh_data_and_waits_with_old() {
    let wait = Duration::from_secs(20);
    let mut w = World::new(0, None, wait).await;
    w.queue(&[NOW_MS]).await;
    assert_eq!(w.send(), [0]);
    let mut w = World::new(0, None, wait).await;
    w.queue(&[NOW_MS - 3 * DAY_MS]).await;
    assert_eq!(w.send(), [0; 0]);
    let mut w = World::new(10, None, wait).await;
    w.queue(&[NOW_MS]).await;
    assert_eq!(w.send(), [0; 0], "below offset 10 somebody wrote, and the broker forgot whom");
}

#[tokio::test]
async fn nothing_follows_old_data_that_is_under_way() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS, NOW_MS, NOW_MS - 3 * DAY_MS, NOW_MS]).await;
    w.send();
    w.lane.answered(Ok(0), Duration::ZERO);
    assert_eq!(w.send(), [10, 20], "the old batch may follow fresh ones; nothing may follow it");
    w.lane.answered(Ok(10), Duration::ZERO);
    assert_eq!(w.send(), [0; 0]);
    w.lane.answered(Ok(20), Duration::ZERO);
    assert_eq!(w.send(), [30]);
}

#[tokio::test]
async fn an_answer_at_another_offset_stops_the_lane_and_says_where() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 4]).await;
    w.send();
    w.lane.answered(Ok(0), Duration::ZERO);
    assert_eq!(w.send(), [10, 20, 30]);
    assert!(w.lane.answered(Ok(13), Duration::ZERO).is_none());
    assert_eq!(w.lane.end(), None, "two are still under way");
    w.lane.answered(Ok(23), Duration::ZERO);
    w.lane.answered(Ok(33), Duration::ZERO);
    let stop = LaneStop::Displaced { expected: 10, given: 13 };
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn an_error_that_may_have_appended_leaves_doubt() {
    for (code, in_doubt) in [(ErrorCode::REQUEST_TIMED_OUT, true), (ErrorCode::MESSAGE_TOO_LARGE, false)] {
        let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
        w.queue(&[NOW_MS; 2]).await;
        w.send();
        w.lane.answered(Err((code, String::new())), Duration::ZERO);
        let end = w.lane.end().expect("nothing under way");
        assert_eq!(end.in_doubt, in_doubt, "{code}");
        assert_eq!(end.stop, LaneStop::Refused { offset: 0, code, message: String::new() });
    }
}

#[tokio::test]
async fn a_lost_connection_leaves_doubt_only_with_requests_under_way() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 2]).await;
    w.lane.lost("gone".into());
    assert_eq!(w.lane.end().map(|e| e.in_doubt), Some(false));
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 2]).await;
    w.send();
    w.lane.lost("gone".into());
    assert_eq!(w.lane.end().map(|e| e.in_doubt), Some(true));
    assert_eq!(w.outstanding.load(std::sync::atomic::Ordering::Relaxed), 0, "its credit is given back");
}

/// Found with 8 MiB records and a destination that takes requests of 5 MB: its broker closed the
/// connection, for its neighbours as well, and nothing said why.
#[tokio::test]
async fn a_batch_that_no_request_can_carry_stops_its_lane_unsent() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS]).await;
    let bytes = w.lane.front_bytes();
    w.lane.start.request_bytes_max = bytes + REQUEST_OVERHEAD_BYTES;
    assert_eq!(w.send(), [0]);
    w.queue(&[NOW_MS]).await;
    w.lane.answered(Ok(0), Duration::ZERO);
    let request_bytes_max = bytes + REQUEST_OVERHEAD_BYTES - 1;
    w.lane.start.request_bytes_max = request_bytes_max;
    assert_eq!(w.send(), [0; 0]);
    let stop = LaneStop::TooLarge { offset: 10, bytes, request_bytes_max };
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn a_finishing_lane_sends_what_is_queued_and_ends() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 2]).await;
    w.send();
    w.lane.finish();
    w.lane.answered(Ok(0), Duration::ZERO);
    assert_eq!(w.lane.end(), None);
    assert_eq!(w.send(), [10]);
    w.lane.answered(Ok(10), Duration::ZERO);
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop: LaneStop::Closed, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn a_closed_lane_sends_nothing_more_and_ends_with_its_last_answer() {
    let mut w = World::new(0, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS; 2]).await;
    w.send();
    w.lane.close();
    assert_eq!(w.send(), [0; 0]);
    assert_eq!(w.lane.end(), None);
    w.lane.answered(Ok(0), Duration::ZERO);
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop: LaneStop::Closed, in_doubt: false, others_until: None }));
}

#[test]
fn sequences_wrap_as_brokers_count_them() {
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    assert_eq!(sequence_at((1 << 31) + 5), 5);
}

#[tokio::test]
async fn without_a_lease_only_what_is_guarded_goes() {
    let mut w = World::new(100, Some(NOW_MS - 1_000), Duration::ZERO).await;
    w.permit.has_lease = false;
    w.queue(&[NOW_MS]).await;
    assert_eq!(w.send(), [100]);
    w.lane.answered(Ok(100), Duration::ZERO);
    w.queue(&[NOW_MS - 2 * DAY_MS]).await;
    assert!(w.send().is_empty());
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop: LaneStop::NoLease, in_doubt: false, others_until: None }));
}

#[tokio::test]
async fn what_needs_a_lease_says_so() {
    let needs = async |remembered_ms, timestamp_ms| {
        let mut w = World::new(100, remembered_ms, Duration::ZERO).await;
        w.queue(&[timestamp_ms]).await;
        w.lane.next(w.now, NOW_MS, w.permit).map(|next| next.needs_lease)
    };
    assert_eq!(needs(Some(NOW_MS), NOW_MS).await, Some(false));
    assert_eq!(needs(None, NOW_MS).await, Some(true), "the destination has forgotten us");
    assert_eq!(needs(Some(NOW_MS), NOW_MS - 2 * DAY_MS).await, Some(true), "old data makes it forget");
}

#[tokio::test]
async fn a_batch_that_was_held_back_ends_the_lane_without_doubt() {
    let mut w = World::new(100, None, Duration::ZERO).await;
    w.queue(&[NOW_MS, NOW_MS]).await;
    assert_eq!(w.send(), [100]);
    w.lane.held_back();
    assert!(w.send().is_empty());
    assert_eq!(
        w.lane.end(),
        Some(&LaneEnd { stop: LaneStop::HeldBack, in_doubt: false, others_until: None })
    );
}

/// A process that was frozen, or cut off and idle: another owner may have sent old data meanwhile, which
/// makes the broker forget us.
#[tokio::test]
async fn without_a_lease_it_must_have_been_seen_lately_that_a_lane_is_guarded() {
    let mut w = World::new(100, Some(NOW_MS), Duration::ZERO).await;
    w.permit = Permit { has_lease: false, uptime: GUARD_PROOF - Duration::from_millis(1) };
    w.queue(&[NOW_MS]).await;
    assert_eq!(w.send(), [100]);
    w.lane.answered(Ok(100), Duration::from_secs(15));
    w.permit.uptime = Duration::from_secs(15) + GUARD_PROOF;
    w.queue(&[NOW_MS]).await;
    w.permit.has_lease = true;
    assert_eq!(w.send(), [110], "under a lease nobody else sends");
    w.lane.answered(Ok(110), Duration::from_secs(15));
    w.permit.has_lease = false;
    w.queue(&[NOW_MS]).await;
    assert!(w.send().is_empty());
    assert_eq!(
        w.lane.end(),
        Some(&LaneEnd { stop: LaneStop::Unproven, in_doubt: false, others_until: None })
    );
}

#[tokio::test]
async fn without_a_lease_a_batch_that_another_owner_brought_stops_the_lane() {
    let mut w = World::new(100, Some(NOW_MS), Duration::from_secs(20)).await;
    w.permit.has_lease = false;
    w.queue(&[NOW_MS; 3]).await;
    assert_eq!(w.send(), [100]);
    w.lane.met_another(w.now, false);
    assert!(w.lane.answered(Ok(100), Duration::ZERO).is_some(), "a request of ours from before brought it");
    w.now += Duration::from_secs(20);
    assert_eq!(w.send(), [110, 120]);
    w.lane.met_another(w.now, false);
    assert_eq!(w.lane.answered(Ok(110), Duration::ZERO), None);
    w.lane.answered(Ok(120), Duration::ZERO);
    let stop = LaneStop::AnotherOwner;
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop, in_doubt: false, others_until: None }));
}

/// The other one trusts the broker's memory for as long as [`GUARD_PROOF`] after its last batch.
#[tokio::test]
async fn under_a_lease_old_data_waits_for_an_owner_that_was_met_to_lose_its_proof() {
    let mut w = World::new(100, Some(NOW_MS), Duration::ZERO).await;
    w.queue(&[NOW_MS, NOW_MS, NOW_MS - 3 * DAY_MS]).await;
    assert_eq!(w.send(), [100]);
    w.lane.met_another(w.now, true);
    assert!(w.lane.answered(Ok(100), Duration::ZERO).is_some());
    assert_eq!(w.send(), [110], "what is guarded goes on");
    w.lane.answered(Ok(110), Duration::ZERO);
    let others_until = w.now + TAKEOVER_WAIT;
    w.now = others_until - Duration::from_millis(1);
    assert_eq!(w.send(), [0; 0]);
    w.now = others_until;
    assert_eq!(w.send(), [0; 0]);
    let stop = LaneStop::Quieted;
    assert_eq!(w.lane.end(), Some(&LaneEnd { stop, in_doubt: false, others_until: Some(others_until) }));
}

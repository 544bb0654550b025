//! The look at both logs before a run: where the mirror stands, whether it is still an image of
//! the source, and what the destination remembers of us.
//!
//! The destination's log end is the only checkpoint (DESIGN 2.1); no position is stored anywhere.

use std::sync::Arc;
use std::time::Duration;

use catalog::{MirrorError, Prefix, ProducerIdentity, TopicId};
use kafka::fetch::TopicPartition;
use kafka::{Error, ErrorCode, offsets, producers};
use tokio::time::Instant;
use uuid::Uuid;

use crate::lane::{self, Lane, LaneStart};
use crate::partition::leader::{Leader, Side, leader};
use crate::partition::machine::{NotFooted, Quiet};
use crate::partition::{prefix, seam};
use crate::plane::{BrokerLimits, LinkPlane};
use crate::verdict::Verdict;

/// Where a run's batches come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Source,
    /// Fillers up to this offset, exclusive.
    Filler {
        to: i64,
    },
}

/// Everything a run needs to begin.
#[derive(Clone, Debug)]
pub struct Footing {
    pub feed: Feed,
    /// As the catalog should have it before the run begins.
    pub prefix: Option<Prefix>,
    pub source_log_start: i64,
    pub lane: LaneStart,
    pub source: TopicPartition,
    pub source_topic_id: Uuid,
    pub source_leader: i32,
    pub source_leader_epoch: i32,
    pub destination_leader: i32,
    pub destination_leader_epoch: i32,
    pub source_high_watermark: i64,
}

/// Who is asking, and for what.
#[derive(Clone, Debug)]
pub struct Question {
    pub source: TopicPartition,
    pub source_topic_id: TopicId,
    pub mirror: TopicPartition,
    pub destination_topic_id: TopicId,
    pub producer: ProducerIdentity,
    pub quiet: Quiet,
    /// This node held a lease when the look began.
    pub has_lease: bool,
    /// When that was, by the uptime clock.
    pub looked_at: Duration,
    /// Where the mirror's log is to start, when the source's began above zero.
    pub prefix: Option<Prefix>,
    /// The mirror topic is compacted: its log start can't be cut.
    pub is_compacted: bool,
    /// The mirror topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
}

/// Why there is no footing.
pub type FootingError = NotFooted;

pub(super) fn fail(error: MirrorError, offset: i64, message: String) -> FootingError {
    NotFooted::Verdict(Verdict::Fail { error, offset, message })
}

pub(super) fn retry(message: impl Into<String>) -> FootingError {
    NotFooted::Verdict(Verdict::Retry { message: message.into() })
}

/// A cluster that doesn't answer is asked again; a missing grant is named.
pub(super) fn on_error(error: &Error, side: &str) -> FootingError {
    match error.code() {
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
            let message = format!("{side}: {error}; grant READ and DESCRIBE on the topic there");
            NotFooted::Verdict(Verdict::Park { error: MirrorError::AuthorizationError, message })
        }
        _ => retry(format!("{side}: {error}")),
    }
}

/// What a look finds on its way, whatever becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// Set with the partition leader's first answer: from then on nothing from before can arrive.
    pub quiet_from: Option<Instant>,
    /// The mirror's log end and the source's high watermark.
    pub ends: Option<(i64, i64)>,
    /// Whether the destination remembers us well enough.
    pub guarded: bool,
}

/// Looks at both logs; `record` puts a prefix into the catalog before anything is written for it.
///
/// # Errors
/// [`FootingError`]: what to do instead of mirroring.
pub async fn look(
    plane: &LinkPlane,
    question: &Question,
    heard: &mut Heard,
    record: impl AsyncFnOnce(Prefix) -> Result<catalog::Outcome, String>,
) -> Result<Footing, FootingError> {
    let known = plane.metadata();
    let side = Side {
        name: "destination",
        changed: MirrorError::DestinationTopicChanged,
        missing: known.destination_error.is_none().then_some(MirrorError::DestinationTopicChanged),
    };
    let ours = (&question.mirror, question.destination_topic_id);
    let destination = leader(plane.destination(), &known.destination, ours, side).await?;
    let side = Side {
        name: "source",
        changed: MirrorError::SourceTopicIdChanged,
        missing: known.source_error.is_none().then_some(MirrorError::SourceTopicMayBeDeleted),
    };
    let theirs = (&question.source, question.source_topic_id);
    let source = leader(plane.source(), &known.source, theirs, side).await?;
    let TopicPartition { topic, partition } = &question.mirror;
    let mirror_ends = offsets::log_ends(&destination.connection, topic, *partition, destination.epoch);
    let memory = producers::describe_producers(&destination.connection, topic, *partition);
    let (mirror_ends, memory) = tokio::join!(mirror_ends, memory);
    let mirror_ends = mirror_ends.map_err(|e| on_error(&e, "destination"))?;
    let memory = memory.map_err(|e| on_error(&e, "destination"))?;
    let quiet_from = question.quiet.answered(Instant::now());
    heard.quiet_from = Some(quiet_from);
    // Read after the mirror's: whatever another owner has mirrored by then is at the source too.
    let TopicPartition { topic: source_topic, partition: source_partition } = &question.source;
    let source_ends =
        offsets::log_ends(&source.connection, source_topic, *source_partition, source.epoch).await;
    let source_ends = source_ends.map_err(|e| on_error(&e, "source"))?;
    let position = mirror_ends.known_end().ok_or_else(|| {
        let (end, seen) = (mirror_ends.end_offset, mirror_ends.high_watermark);
        retry(format!("the mirror's log end {end} isn't replicated yet (high watermark {seen})"))
    })?;
    heard.ends = Some((position, source_ends.high_watermark));

    // Who wrote last comes first: a foreign write also sets log end and memory at odds.
    let tail =
        seam::read_tail(&destination.connection, &question.mirror, destination.topic_id, mirror_ends).await;
    let tail = tail.map_err(|e| on_error(&e, "destination"))?;
    if let Err(what) = seam::check_author(tail.as_ref(), question.producer) {
        let known = tail.as_ref().map_or(position, |tail| tail.header.base_offset);
        let between = (mirror_ends.start_offset, known);
        let first =
            seam::first_foreign(&destination.connection, question, destination.topic_id, between).await;
        return Err(seam::foreign_write(&what, first, mirror_ends, our_state(question, &memory)));
    }
    let lane = lane_start(question, position, &memory, plane.limits(), quiet_from)?;
    heard.guarded = Lane::new(lane).is_guarded(plane.now_ms());
    // A new mirror's lane sees for itself whether its first batch may go.
    let needs_quiet = !lane.is_new() && !heard.guarded;
    if needs_quiet && !question.has_lease {
        return Err(NotFooted::NoLease);
    }
    if needs_quiet && Instant::now() < quiet_from {
        return Err(NotFooted::NotQuiet { until: quiet_from });
    }
    let first_batch = first_batch(&source, &question.source, source_ends, position, question.prefix).await?;
    let feed = prefix::feed(position, source_ends, first_batch, question.prefix, question.is_compacted)?;
    seam::check(&source.connection, &question.source, source.topic_id, source_ends, tail.as_ref()).await?;
    let prefix = prefix::to_record(position, source_ends, question.prefix);
    if let Some(prefix) = prefix.filter(|p| Some(*p) != question.prefix) {
        record(prefix).await.map_err(retry)?;
    }
    if let Some(log_start) = prefix::cut(feed, mirror_ends, prefix) {
        tracing::info!(%topic, partition, log_start, "cutting off the filler below the mirror's log start");
        let cut = offsets::delete_records(&destination.connection, topic, *partition, log_start).await;
        cut.map_err(|e| prefix::on_cut_error(&e, log_start))?;
    }

    Ok(Footing {
        feed,
        prefix,
        source_log_start: source_ends.start_offset,
        lane,
        source: question.source.clone(),
        source_topic_id: source.topic_id,
        source_leader: source.broker,
        source_leader_epoch: source.epoch,
        destination_leader: destination.broker,
        destination_leader_epoch: destination.epoch,
        source_high_watermark: source_ends.high_watermark,
    })
}

/// Base offset of the source's first batch, where it matters.
async fn first_batch(
    source: &Leader,
    partition: &TopicPartition,
    ends: offsets::LogEnds,
    position: i64,
    prefix: Option<Prefix>,
) -> Result<i64, FootingError> {
    let start = ends.start_offset;
    if !prefix::is_bare(position, prefix) || start <= position || start >= ends.high_watermark {
        return Ok(start);
    }
    let batch = seam::read_at(&source.connection, partition, source.topic_id, start).await;
    let batch = batch.map_err(|e| on_error(&e, "source"))?;
    Ok(batch.map_or(start, |b| b.header.base_offset))
}

fn our_state<'a>(
    question: &Question,
    memory: &'a [producers::ProducerState],
) -> Option<&'a producers::ProducerState> {
    memory.iter().find(|p| p.producer_id == question.producer.producer_id)
}

/// What the destination remembers of our producer id.
fn lane_start(
    question: &Question,
    position: i64,
    memory: &[producers::ProducerState],
    limits: BrokerLimits,
    quiet_from: Instant,
) -> Result<LaneStart, FootingError> {
    let ours = our_state(question, memory);
    let our_epoch = i32::from(question.producer.producer_epoch);
    if let Some(other) = ours.filter(|p| p.producer_epoch > our_epoch) {
        let message = format!(
            "this mirror was fenced: the destination knows its producer id under epoch {}, ours is {our_epoch}",
            other.producer_epoch
        );
        return Err(fail(MirrorError::IllegalState, position, message));
    }
    let ours = ours.filter(|p| p.producer_epoch == our_epoch);
    let next_sequence = lane::sequence_at(position);
    // Everything we append takes its sequence from its offset. Another one means that the log end
    // and the memory are of different moments: a request from before arrived between them. A
    // batch with the sequence of one and the offset of the other would be taken twice.
    if let Some(p) = ours.filter(|p| p.last_sequence >= 0)
        && lane::sequence_after(p.last_sequence, 1) != next_sequence
    {
        return Err(retry(format!(
            "the destination remembers sequence {} of us, which isn't that of the mirror's log end {position}: \
             requests from before are still arriving",
            p.last_sequence
        )));
    }
    Ok(LaneStart {
        producer: question.producer,
        position,
        next_sequence,
        remembered_ms: ours.map(|p| p.last_timestamp_ms),
        expiration_ms: limits.producer_expiration_ms,
        request_bytes_max: limits.request_bytes_max,
        quiet_from,
        proven_at: question.looked_at,
    })
}

/// A topic and partition by name.
pub fn topic_partition(topic: &Arc<str>, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: partition as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ProducerIdentity = ProducerIdentity { producer_id: 7, producer_epoch: 1 };

    fn start(position: i64, memory: &[(i64, i32, i32)]) -> Result<LaneStart, FootingError> {
        let partition = topic_partition(&"orders".into(), 0);
        let question = Question {
            source: partition.clone(),
            source_topic_id: TopicId::NONE,
            mirror: partition,
            destination_topic_id: TopicId::NONE,
            producer: OURS,
            quiet: Quiet::From(Instant::now()),
            has_lease: true,
            looked_at: Duration::ZERO,
            prefix: None,
            is_compacted: false,
            batch_bytes_max: 1_048_588,
        };
        let state =
            |(producer_id, producer_epoch, last_sequence): &(i64, i32, i32)| producers::ProducerState {
                producer_id: *producer_id,
                producer_epoch: *producer_epoch,
                last_sequence: *last_sequence,
                last_timestamp_ms: 1,
                is_in_transaction: false,
            };
        let memory: Vec<_> = memory.iter().map(state).collect();
        lane_start(&question, position, &memory, BrokerLimits::default(), Instant::now())
    }

    /// ListOffsets, DescribeProducers, Metadata and the fetches of a look: none of them may end a
    /// partition.
    #[test]
    fn every_error_code_of_a_look_is_asked_again_or_parks() {
        for code in ErrorCode::every() {
            let error = Error::Broker { what: "ListOffsets of orders[0]".into(), code };
            let NotFooted::Verdict(verdict) = on_error(&error, "source") else { panic!("{code}") };
            let message = match verdict {
                Verdict::Park { error: MirrorError::AuthorizationError, message } => {
                    assert!([29, 31].contains(&code.0), "{code} parks");
                    assert!(message.contains("grant READ and DESCRIBE"), "{message}");
                    message
                }
                Verdict::Retry { message } => {
                    assert!(![29, 31].contains(&code.0), "{code} is retried");
                    message
                }
                other => panic!("{code}: {other:?}"),
            };
            assert!(message.starts_with("source: ListOffsets of orders[0]: "), "{message}");
            assert!(message.contains(&code.to_string()), "{code} isn't named: {message}");
        }
    }

    /// Found with a follower held and the node killed: the log end was read, then five requests of
    /// the killed process arrived, then the memory was read. The next batch was taken 77 offsets
    /// too high.
    #[test]
    fn a_log_end_and_a_memory_of_different_moments_are_no_footing() {
        let Err(NotFooted::Verdict(Verdict::Retry { message })) = start(2328, &[(7, 1, 2404)]) else {
            panic!("must look again")
        };
        assert!(message.contains("requests from before are still arriving"), "{message}");
    }

    #[test]
    fn sequences_go_on_where_the_log_ends() {
        assert_eq!(
            start(2405, &[(7, 1, 2404)]).map(|s| (s.next_sequence, s.remembered_ms)),
            Ok((2405, Some(1)))
        );
        assert_eq!(start(2405, &[(8, 0, 3)]).map(|s| (s.next_sequence, s.remembered_ms)), Ok((2405, None)));
        let wrapped = (1i64 << 31) + 5;
        assert_eq!(start(wrapped, &[(7, 1, 4)]).map(|s| s.next_sequence), Ok(5));
    }

    #[test]
    fn a_higher_producer_epoch_means_that_we_were_fenced() {
        let Err(NotFooted::Verdict(Verdict::Fail { error, .. })) = start(10, &[(7, 2, 9)]) else {
            panic!("fenced")
        };
        assert_eq!(error, MirrorError::IllegalState);
    }
}

//! Offsets that the source has lost to retention before the mirror began: what to fill, what to
//! cut. Pure, but for the words of errors.
//!
//! A mirror that holds no source record yet is filled with filler records up to the batch that
//! holds the source's log start, and cut at that log start; where it is to start is in the catalog
//! before the first filler is written, so that whoever looks next goes on, and a cut that a broker
//! lost is made again. What a mirror holds at or above its source's log start is never cut.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, MirrorError, Prefix};
use kafka::fetch::TopicPartition;
use kafka::offsets::{self, LogEnds};
use kafka::{Error, ErrorCode};
use tokio::time::Instant;

use crate::catalog_port::CatalogPort;
use crate::partition::FootingError;
use crate::partition::footing::{Feed, fail};
use crate::partition::machine::NotFooted;
use crate::plane::LinkPlane;
use crate::verdict::Verdict;

/// No record of the source above its log start stands in the mirror yet.
pub fn is_bare(position: i64, prefix: Option<Prefix>) -> bool {
    position <= prefix.map_or(0, |p| p.log_start)
}

/// What comes after `position`: the source's records, or fillers before them. `first_batch` is the
/// base offset of the batch that holds the source's log start: DeleteRecords may have set that
/// inside it, and a batch is mirrored whole.
pub fn feed(
    position: i64,
    source: LogEnds,
    first_batch: i64,
    prefix: Option<Prefix>,
    is_compacted: bool,
) -> Result<Feed, FootingError> {
    let promised = prefix.map_or(0, |p| p.log_start);
    let start = source.start_offset;
    if is_bare(position, prefix) && start.max(promised) > position {
        if start < promised {
            let message = format!(
                "the source's log starts at offset {start} now and started at {promised} when the mirror's prefix was \
                 filled: it isn't the same log any more"
            );
            return Err(fail(MirrorError::UnexpectedTruncation, start, message));
        }
        if is_compacted {
            let message = format!(
                "the source's log starts at offset {start} and the topic is compacted: this version of lockstep can't \
                 fill the {start} offsets before it"
            );
            return Err(fail(MirrorError::GapFillRefused, position, message));
        }
        return Ok(if first_batch > position { Feed::Filler { to: first_batch } } else { Feed::Source });
    }
    if start > position {
        let message = format!(
            "retention at the source passed the mirror: offsets {position} to {} are gone there ({} offsets)",
            start - 1,
            start - position
        );
        return Err(fail(MirrorError::RetentionGap, position, message));
    }
    // The true log end: a new leader's high watermark may lag behind what it has.
    if source.end_offset < position {
        let message = format!(
            "the source's log ends at offset {}, the mirror's at {position}: {} offsets of the mirror are not at the \
             source (an unclean leader election or a truncation there does this)",
            source.end_offset,
            position - source.end_offset
        );
        return Err(fail(MirrorError::UnexpectedTruncation, source.end_offset, message));
    }
    Ok(Feed::Source)
}

/// The prefix that must be in the catalog before anything is written or cut: where the source's
/// log starts, while the mirror holds nothing of it.
pub fn to_record(position: i64, source: LogEnds, prefix: Option<Prefix>) -> Option<Prefix> {
    let start = source.start_offset;
    let is_known = prefix.is_some_and(|p| p.log_start == start);
    if is_bare(position, prefix) && start > position && !is_known {
        return Some(Prefix { log_start: start, settled: false });
    }
    prefix
}

/// Where to cut now: fillers still show, or show again. Never before the fill is done, and never
/// above the log end.
pub fn cut(feed: Feed, mirror: LogEnds, prefix: Option<Prefix>) -> Option<i64> {
    let cut_at = prefix?.log_start.min(mirror.high_watermark);
    (feed == Feed::Source && mirror.start_offset < cut_at).then_some(cut_at)
}

/// How often a fresh cut is looked at until it is settled.
const CUT_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Brokers checkpoint log starts every minute (`log.flush.start.offset.checkpoint.interval.ms`);
/// a cut that has stood for longer can't be lost by a kill.
const CUT_SETTLES_AFTER: Duration = Duration::from_secs(70);

/// Keeps the mirror cut at its intended log start while a run goes on, until the cut has stood long
/// enough; then `settle` is submitted. An error is tried again: the run's end ends this too.
pub async fn keep_cut(
    plane: Arc<LinkPlane>,
    mirror: TopicPartition,
    (leader, leader_epoch): (i32, i32),
    prefix: Prefix,
    catalog: Arc<dyn CatalogPort>,
    settle: Action,
) {
    let TopicPartition { topic, partition } = &mirror;
    let mut standing_since = None;
    loop {
        tokio::time::sleep(CUT_CHECK_EVERY).await;
        let Ok(connection) = plane.destination().control(leader).await else { continue };
        let Ok(ends) = offsets::log_ends(&connection, topic, *partition, leader_epoch).await else {
            continue;
        };
        if let Some(log_start) = cut(Feed::Source, ends, Some(prefix)) {
            standing_since = None;
            tracing::info!(%topic, partition, log_start, "cutting off the filler below the mirror's log start");
            if let Err(error) = offsets::delete_records(&connection, topic, *partition, log_start).await {
                tracing::warn!(%topic, partition, %error, "the cut will be tried again");
            }
            continue;
        }
        if ends.start_offset >= prefix.log_start {
            let since = *standing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= CUT_SETTLES_AFTER {
                let _ = catalog.submit_until_taken(settle).await;
                return;
            }
        }
    }
}

pub fn on_cut_error(error: &Error, log_start: i64) -> FootingError {
    let message = format!("destination: {error}");
    NotFooted::Verdict(match error.code() {
        Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => Verdict::Park {
            error: MirrorError::AuthorizationError,
            message: format!("{message}; grant DELETE on the mirror topic at the destination"),
        },
        Some(POLICY_VIOLATION) => {
            let message = format!("{message}; the mirror topic's cleanup.policy must contain delete");
            Verdict::Fail { error: MirrorError::GapFillRefused, offset: log_start, message }
        }
        _ => Verdict::Retry { message },
    })
}

const POLICY_VIOLATION: ErrorCode = ErrorCode(44);

#[cfg(test)]
mod tests {
    use super::*;

    fn source(start_offset: i64, end_offset: i64) -> LogEnds {
        LogEnds { start_offset, high_watermark: end_offset, end_offset }
    }

    fn prefix(log_start: i64) -> Option<Prefix> {
        Some(Prefix { log_start, settled: false })
    }

    fn error_of(result: Result<Feed, FootingError>) -> MirrorError {
        match result {
            Err(NotFooted::Verdict(Verdict::Fail { error, .. })) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_error_code_of_a_cut_has_a_verdict() {
        for code in ErrorCode::every() {
            let error = Error::Broker { what: "DeleteRecords".into(), code };
            let NotFooted::Verdict(verdict) = on_cut_error(&error, 500) else { panic!("{code}") };
            match (code.0, verdict) {
                (29, Verdict::Park { error: MirrorError::AuthorizationError, message }) => {
                    assert!(message.contains("grant DELETE"), "{message}");
                }
                (44, Verdict::Fail { error: MirrorError::GapFillRefused, offset: 500, message }) => {
                    assert!(message.contains("cleanup.policy must contain delete"), "{message}");
                }
                (29 | 44, other) => panic!("{code}: {other:?}"),
                (_, Verdict::Retry { message }) => assert!(message.contains(&code.to_string()), "{message}"),
                (_, other) => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_new_mirror_of_an_old_topic_is_filled_to_its_log_start() {
        assert_eq!(feed(0, source(500, 900), 500, None, false), Ok(Feed::Filler { to: 500 }));
        assert_eq!(feed(0, source(0, 900), 0, None, false), Ok(Feed::Source));
        assert_eq!(
            feed(0, source(500, 500), 500, None, false),
            Ok(Feed::Filler { to: 500 }),
            "an emptied source"
        );
    }

    #[test]
    fn a_log_start_inside_a_batch_has_the_whole_batch_mirrored_and_is_cut_after_it() {
        assert_eq!(feed(0, source(500, 900), 470, None, false), Ok(Feed::Filler { to: 470 }));
        assert_eq!(feed(470, source(500, 900), 470, prefix(500), false), Ok(Feed::Source));
        assert_eq!(cut(Feed::Source, source(0, 470), prefix(500)), Some(470));
        assert_eq!(cut(Feed::Source, source(470, 540), prefix(500)), Some(500));
        assert_eq!(cut(Feed::Source, source(500, 540), prefix(500)), None);
        assert_eq!(feed(540, source(500, 900), 470, prefix(500), false), Ok(Feed::Source));
    }

    #[test]
    fn a_log_start_at_the_first_batch_s_middle_needs_no_filler() {
        assert_eq!(feed(0, source(30, 900), 0, None, false), Ok(Feed::Source));
    }

    #[test]
    fn a_fill_goes_on_where_it_was_left() {
        assert_eq!(feed(200, source(500, 900), 500, prefix(500), false), Ok(Feed::Filler { to: 500 }));
        assert_eq!(feed(500, source(500, 900), 500, prefix(500), false), Ok(Feed::Source));
    }

    #[test]
    fn a_fill_follows_the_source_s_log_start_until_a_source_record_is_held() {
        assert_eq!(feed(200, source(700, 900), 700, prefix(500), false), Ok(Feed::Filler { to: 700 }));
        assert_eq!(feed(500, source(700, 900), 700, prefix(500), false), Ok(Feed::Filler { to: 700 }));
        assert_eq!(error_of(feed(501, source(700, 900), 700, prefix(500), false)), MirrorError::RetentionGap);
        assert_eq!(error_of(feed(1, source(700, 900), 700, None, false)), MirrorError::RetentionGap);
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(
            error_of(feed(200, source(100, 900), 100, prefix(500), false)),
            MirrorError::UnexpectedTruncation
        );
        assert_eq!(
            error_of(feed(950, source(100, 900), 100, None, false)),
            MirrorError::UnexpectedTruncation
        );
        assert_eq!(error_of(feed(0, source(500, 900), 500, None, true)), MirrorError::GapFillRefused);
    }

    #[test]
    fn what_is_promised_is_recorded_first_and_follows_the_source_only_while_bare() {
        assert_eq!(to_record(0, source(0, 900), None), None);
        assert_eq!(to_record(0, source(500, 900), None), prefix(500));
        assert_eq!(to_record(200, source(700, 900), prefix(500)), prefix(700));
        let settled = Some(Prefix { log_start: 500, settled: true });
        assert_eq!(to_record(500, source(500, 900), settled), settled);
        assert_eq!(to_record(800, source(700, 900), settled), settled);
    }

    #[test]
    fn a_cut_is_made_once_full_and_again_whenever_it_was_lost() {
        let mirror = |start_offset| source(start_offset, 900);
        assert_eq!(cut(Feed::Filler { to: 500 }, mirror(0), prefix(500)), None, "not full yet");
        assert_eq!(cut(Feed::Source, mirror(0), prefix(500)), Some(500));
        assert_eq!(cut(Feed::Source, mirror(500), prefix(500)), None);
        assert_eq!(cut(Feed::Source, mirror(0), None), None);
    }
}

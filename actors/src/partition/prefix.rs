//! Offsets that the source has lost to retention before the mirror began: what to fill, what to
//! cut. Pure, but for the words of errors.
//!
//! A mirror that holds no source record yet is filled with filler records up to the source's log
//! start and then cut there; where it is to start is in the catalog before the first filler is
//! written, so that whoever looks next goes on, and a cut that a broker lost is made again. What
//! a mirror holds of its source is never cut.

use catalog::{MirrorError, Prefix};
use kafka::offsets::LogEnds;
use kafka::{Error, ErrorCode};

use crate::partition::FootingError;
use crate::partition::footing::{Feed, fail};
use crate::partition::machine::NotFooted;
use crate::verdict::Verdict;

/// What comes after `position`: the source's records, or fillers before them.
pub fn feed(
    position: i64,
    source: LogEnds,
    prefix: Option<Prefix>,
    is_compacted: bool,
) -> Result<Feed, FootingError> {
    let filled_to = prefix.map_or(0, |p| p.log_start);
    let is_bare = position <= filled_to;
    let start = source.start_offset;
    if is_bare && (start > position || filled_to > position) {
        if start < filled_to {
            let message = format!(
                "the source's log starts at offset {start} now and started at {filled_to} when the mirror's prefix was \
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
        return Ok(Feed::Filler { to: start });
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

/// Where to cut before the run begins: the prefix is full and still shows, or shows again.
pub fn cut(feed: Feed, mirror: LogEnds, prefix: Option<Prefix>) -> Option<i64> {
    let log_start = prefix?.log_start;
    (feed == Feed::Source && mirror.start_offset < log_start).then_some(log_start)
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
    fn a_new_mirror_of_an_old_topic_is_filled_to_its_log_start() {
        assert_eq!(feed(0, source(500, 900), None, false), Ok(Feed::Filler { to: 500 }));
        assert_eq!(feed(0, source(0, 900), None, false), Ok(Feed::Source));
        assert_eq!(feed(0, source(500, 500), None, false), Ok(Feed::Filler { to: 500 }), "an emptied source");
    }

    #[test]
    fn a_fill_goes_on_where_it_was_left() {
        assert_eq!(feed(200, source(500, 900), prefix(500), false), Ok(Feed::Filler { to: 500 }));
        assert_eq!(feed(500, source(500, 900), prefix(500), false), Ok(Feed::Source));
    }

    #[test]
    fn a_fill_follows_the_source_s_log_start_until_a_source_record_is_held() {
        assert_eq!(feed(200, source(700, 900), prefix(500), false), Ok(Feed::Filler { to: 700 }));
        assert_eq!(feed(500, source(700, 900), prefix(500), false), Ok(Feed::Filler { to: 700 }));
        assert_eq!(error_of(feed(501, source(700, 900), prefix(500), false)), MirrorError::RetentionGap);
        assert_eq!(error_of(feed(1, source(700, 900), None, false)), MirrorError::RetentionGap);
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(
            error_of(feed(200, source(100, 900), prefix(500), false)),
            MirrorError::UnexpectedTruncation
        );
        assert_eq!(error_of(feed(950, source(100, 900), None, false)), MirrorError::UnexpectedTruncation);
        assert_eq!(error_of(feed(0, source(500, 900), None, true)), MirrorError::GapFillRefused);
    }

    #[test]
    fn a_cut_is_made_once_full_and_again_whenever_it_was_lost() {
        let mirror = |start_offset| source(start_offset, 500);
        assert_eq!(cut(Feed::Filler { to: 500 }, mirror(0), prefix(500)), None, "not full yet");
        assert_eq!(cut(Feed::Source, mirror(0), prefix(500)), Some(500));
        assert_eq!(cut(Feed::Source, mirror(500), prefix(500)), None);
        assert_eq!(cut(Feed::Source, mirror(0), None), None);
    }
}

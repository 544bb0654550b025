//! Which offsets of a partition are compared, and why others aren't.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::Side;
use super::report::{Difference, Kind};

/// What one end of a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    pub start_offset: i64,
    /// The last stable offset, which is the high watermark where there are no transactions.
    pub end_offset: i64,
}

/// How much of each partition is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    All,
    /// The last so many offsets.
    Last(u64),
}

/// A partition's part in the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub range: Range<i64>,
    pub notes: Vec<Note>,
    /// What is wrong even if the whole range is equal.
    pub beyond: Option<Difference>,
}

/// Something to know about a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This end's log starts above the other's.
    StartsAbove { side: Side, start: i64, other: i64 },
    /// Left out by the limit.
    Earlier(Range<i64>),
    /// No offset is at both ends.
    NothingInCommon { source: Log, mirror: Log },
    /// The source goes on above the mirror's end.
    Behind(i64),
    /// Retention was faster than we.
    DeletedMeanwhile(Range<i64>),
}

/// The end of the mirror must have been read before the source's: then a mirror that is further is
/// further indeed.
pub fn extent(source: Log, mirror: Log, limit: Limit) -> Extent {
    let start = source.start_offset.max(mirror.start_offset);
    let end = source.end_offset.min(mirror.end_offset);
    let mut notes = Vec::new();
    let mut from = start;
    if start > end {
        notes.push(Note::NothingInCommon { source, mirror });
    } else if let Limit::Last(count) = limit
        && let Some(first) = end.checked_sub_unsigned(count)
        && first > start
    {
        notes.push(Note::Earlier(start..first));
        from = first;
    } else if source.start_offset != mirror.start_offset {
        let (side, other) = match source.start_offset > mirror.start_offset {
            true => (Side::Source, mirror.start_offset),
            false => (Side::Mirror, source.start_offset),
        };
        notes.push(Note::StartsAbove { side, start, other });
    }
    if source.end_offset > mirror.end_offset {
        notes.push(Note::Behind(source.end_offset - mirror.end_offset));
    }
    let beyond = (mirror.end_offset > source.end_offset).then(|| Difference {
        kind: Kind::BeyondSource,
        offset: Some(source.end_offset),
        fields: Vec::new(),
    });
    Extent { range: from..end.max(from), notes, beyond }
}

/// Where to go on when a log no longer holds `position`; none when both logs still do.
pub fn deleted_to(position: i64, source: Log, mirror: Log) -> Option<i64> {
    let start = source.start_offset.max(mirror.start_offset);
    (start > position).then_some(start)
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartsAbove { side, start, other } => write!(
                f,
                "the {side}'s log starts at {start}, the other's at {other}: what is below {start} isn't at both"
            ),
            Self::Earlier(range) => {
                write!(f, "offsets {} to {} were left out (see --last)", range.start, range.end - 1)
            }
            Self::NothingInCommon { source, mirror } => write!(
                f,
                "nothing in common: the source's log is {} to {}, the mirror's {} to {}",
                source.start_offset, source.end_offset, mirror.start_offset, mirror.end_offset
            ),
            Self::Behind(offsets) => {
                write!(f, "the mirror was {offsets} offsets behind; compared up to its log end")
            }
            Self::DeletedMeanwhile(range) => write!(
                f,
                "offsets {} to {} were deleted before they could be read",
                range.start,
                range.end - 1
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(start_offset: i64, end_offset: i64) -> Log {
        Log { start_offset, end_offset }
    }

    fn check(source: Log, mirror: Log, limit: Limit, range: Range<i64>, notes: &[&str]) {
        let found = extent(source, mirror, limit);
        assert_eq!(found.range, range, "{source:?}, {mirror:?}");
        let shown: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, notes, "{source:?}, {mirror:?}");
        assert_eq!(found.beyond.is_some(), mirror.end_offset > source.end_offset);
    }

    #[test]
    fn the_whole_of_equal_logs_is_compared() {
        check(log(0, 10), log(0, 10), Limit::All, 0..10, &[]);
        check(log(4, 10), log(4, 10), Limit::All, 4..10, &[]);
        check(log(0, 0), log(0, 0), Limit::All, 0..0, &[]);
        check(log(7, 7), log(7, 7), Limit::Last(1), 7..7, &[]);
    }

    #[test]
    fn a_live_mirror_is_compared_up_to_its_end() {
        let note = "the mirror was 5 offsets behind; compared up to its log end";
        check(log(0, 15), log(0, 10), Limit::All, 0..10, &[note]);
        check(log(0, 5), log(0, 0), Limit::All, 0..0, &[note]);
    }

    #[test]
    fn the_common_range_is_compared_where_log_starts_differ() {
        let note = "the source's log starts at 4, the other's at 0: what is below 4 isn't at both";
        check(log(4, 10), log(0, 10), Limit::All, 4..10, &[note]);
        let note = "the mirror's log starts at 6, the other's at 0: what is below 6 isn't at both";
        check(log(0, 10), log(6, 10), Limit::All, 6..10, &[note]);
        // Deleted to its end at one side.
        let note = "the source's log starts at 10, the other's at 0: what is below 10 isn't at both";
        check(log(10, 10), log(0, 10), Limit::All, 10..10, &[note]);
    }

    #[test]
    fn a_prefix_that_is_still_being_filled_has_nothing_to_compare() {
        let notes = [
            "nothing in common: the source's log is 100 to 120, the mirror's 0 to 50",
            "the mirror was 70 offsets behind; compared up to its log end",
        ];
        check(log(100, 120), log(0, 50), Limit::All, 100..100, &notes);
    }

    #[test]
    fn a_limit_leaves_out_the_earlier_offsets() {
        check(log(2, 10), log(2, 10), Limit::Last(3), 7..10, &["offsets 2 to 6 were left out (see --last)"]);
        check(log(0, 10), log(4, 10), Limit::Last(3), 7..10, &["offsets 4 to 6 were left out (see --last)"]);
        check(log(0, 10), log(0, 10), Limit::Last(10), 0..10, &[]);
        check(log(0, 10), log(0, 10), Limit::Last(u64::MAX), 0..10, &[]);
    }

    #[test]
    fn a_mirror_that_goes_on_beyond_its_source_differs_there() {
        let found = extent(log(0, 10), log(0, 12), Limit::All);
        assert_eq!(found.range, 0..10);
        let beyond = found.beyond.expect("a difference");
        assert_eq!(beyond.to_string(), "offset 10: the source's log ends there, the mirror's goes on");
        // A source that was created anew.
        assert!(extent(log(0, 3), log(50, 60), Limit::All).beyond.is_some());
    }

    #[test]
    fn deleted_offsets_are_passed_and_never_gone_back_for() {
        assert_eq!(deleted_to(5, log(9, 20), log(0, 20)), Some(9));
        assert_eq!(deleted_to(5, log(0, 20), log(7, 20)), Some(7));
        assert_eq!(deleted_to(5, log(5, 20), log(0, 20)), None);
    }
}

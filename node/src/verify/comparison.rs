//! Two streams of records over one range of offsets, judged pair by pair. Ends at the first
//! difference: behind it nothing follows from the one before.

use std::ops::Range;

use super::Side;
use super::record::{Record, differences};
use super::report::{Difference, Kind};

/// How far both ends were found equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    position: i64,
    to: i64,
    pub records: u64,
    /// Of keys, values and headers, at one end.
    pub bytes: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the next record at both ends.
    Next,
    /// Equal to the end of the range.
    Equal,
    Differs(Difference),
}

impl Comparison {
    pub fn new(range: Range<i64>) -> Self {
        Self { position: range.start, to: range.end.max(range.start), records: 0, bytes: 0 }
    }

    /// The first offset of which nothing is known yet.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The end of the range.
    pub fn to(&self) -> i64 {
        self.to
    }

    pub fn is_done(&self) -> bool {
        self.position == self.to
    }

    /// Leaves out what isn't there any more, at most to the end of the range.
    pub fn skip_to(&mut self, offset: i64) {
        self.position = offset.clamp(self.position, self.to);
    }

    /// Judges the next record at each end; none where the rest of the range holds no record.
    /// Offsets that have no record at either end are equal in that.
    ///
    /// # Panics
    /// For a record outside of what is left of the range: that would be compared twice or for
    /// nothing.
    pub fn judge(&mut self, source: Option<&Record<'_>>, mirror: Option<&Record<'_>>) -> Step {
        for record in [source, mirror].into_iter().flatten() {
            let left = self.position..self.to;
            assert!(left.contains(&record.offset), "offset {} is not in {left:?}", record.offset);
        }
        let (source, mirror) = match (source, mirror) {
            (None, None) => {
                self.position = self.to;
                return Step::Equal;
            }
            (Some(record), None) => return self.only_at(Side::Source, record.offset),
            (None, Some(record)) => return self.only_at(Side::Mirror, record.offset),
            (Some(source), Some(mirror)) => (source, mirror),
        };
        if source.offset < mirror.offset {
            return self.only_at(Side::Source, source.offset);
        }
        if mirror.offset < source.offset {
            return self.only_at(Side::Mirror, mirror.offset);
        }
        if source != mirror {
            self.position = source.offset;
            let fields = differences(source, mirror);
            return Step::Differs(Difference { kind: Kind::Record, offset: Some(source.offset), fields });
        }
        self.records += 1;
        self.bytes += source.bytes();
        self.position = source.offset + 1;
        if self.is_done() { Step::Equal } else { Step::Next }
    }

    fn only_at(&mut self, side: Side, offset: i64) -> Step {
        self.position = offset;
        let kind = match side {
            Side::Source => Kind::OnlyAtSource,
            Side::Mirror => Kind::OnlyAtMirror,
        };
        Step::Differs(Difference { kind, offset: Some(offset), fields: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records at these offsets, all of the same content.
    fn at(offsets: &[i64]) -> Vec<Record<'static>> {
        let record = |offset: &i64| Record {
            offset: *offset,
            timestamp_ms: Some(1),
            key: None,
            value: Some(b"value"),
            headers: vec![],
        };
        offsets.iter().map(record).collect()
    }

    /// Runs to the end as the reader does: one record an end at a time.
    fn run(range: Range<i64>, source: &[Record<'_>], mirror: &[Record<'_>]) -> (Comparison, String) {
        let mut comparison = Comparison::new(range);
        let (mut source, mut mirror) = (source.iter(), mirror.iter());
        while !comparison.is_done() {
            match comparison.judge(source.next(), mirror.next()) {
                Step::Next => {}
                Step::Equal => break,
                Step::Differs(difference) => return (comparison, difference.to_string()),
            }
        }
        let end = format!("equal to {}", comparison.position());
        (comparison, end)
    }

    #[test]
    fn equal_ends_are_counted() {
        let records = at(&[5, 6, 7]);
        let (comparison, end) = run(5..8, &records, &records);
        assert_eq!((comparison.records, comparison.bytes, &*end), (3, 15, "equal to 8"));
    }

    #[test]
    fn an_empty_range_is_equal_without_a_record() {
        let (comparison, end) = run(5..5, &[], &[]);
        assert_eq!((comparison.records, &*end), (0, "equal to 5"));
        assert_eq!(Comparison::new(Range { start: 9, end: 5 }).to(), 9);
    }

    #[test]
    fn the_same_holes_at_both_ends_are_equal() {
        for offsets in [&[5, 9][..], &[6, 7], &[], &[9]] {
            let records = at(offsets);
            let (comparison, end) = run(5..10, &records, &records);
            assert_eq!((comparison.records, &*end), (offsets.len() as u64, "equal to 10"), "{offsets:?}");
        }
    }

    #[test]
    fn a_hole_at_one_end_is_a_difference_at_its_offset() {
        for (source, mirror, expected, position) in [
            (&[5, 6, 7][..], &[5, 7][..], "offset 6: only the source has a record", 6),
            (&[5, 7], &[5, 6, 7], "offset 6: only the mirror has a record", 6),
            (&[5, 6, 7], &[5, 6], "offset 7: only the source has a record", 7),
            (&[], &[7], "offset 7: only the mirror has a record", 7),
        ] {
            let (comparison, end) = run(5..8, &at(source), &at(mirror));
            assert_eq!((&*end, comparison.position()), (expected, position));
        }
    }

    #[test]
    fn the_first_of_several_differences_ends_it() {
        let (source, mut mirror) = (at(&[5, 6, 7]), at(&[5, 6, 7]));
        mirror[1].value = Some(b"valve");
        mirror[2].value = None;
        let (comparison, end) = run(5..8, &source, &mirror);
        assert!(end.starts_with("offset 6: value: 5 bytes"), "{end}");
        assert_eq!((comparison.records, comparison.position()), (1, 6));
    }

    #[test]
    fn what_was_deleted_meanwhile_is_left_out() {
        let mut comparison = Comparison::new(0..10);
        comparison.skip_to(4);
        comparison.skip_to(2);
        assert_eq!(comparison.position(), 4, "never back");
        comparison.skip_to(99);
        assert!(comparison.is_done());
    }

    #[test]
    #[should_panic(expected = "offset 8 is not in 5..8")]
    fn a_record_outside_the_range_is_not_judged() {
        Comparison::new(5..8).judge(at(&[8]).first(), None);
    }
}

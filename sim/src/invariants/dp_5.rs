//! DP-5: bytes in flight never exceed the credit. The product's own count must stay within a link's
//! credit, and cover what the logs say is in flight: what was fetched, and isn't acknowledged. What several
//! mirrors of one source partition have in flight may be one fetched frame, and counts once.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Invariant;
use crate::judge::{Row, Seen, Shown};

/// `CREDIT_BYTES_MAX` of a link, as the design has it.
const CREDIT_BYTES_MAX: usize = 80 << 20;

#[derive(Default)]
pub struct WithinCredit;

impl Invariant for WithinCredit {
    fn id(&self) -> &'static str {
        "DP-5"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let Seen::Shown(shown) = seen else { return Ok(()) };
        let mut ranges: BTreeMap<(&str, &str, i32), Vec<Range<i64>>> = BTreeMap::new();
        for row in shown.rows {
            let Some(mirror) = shown.mirrors.get(&row.key.0) else { continue };
            let source = (&*row.link, &*mirror.source_topic, row.key.1);
            ranges.entry(source).or_default().extend(in_flight_of(row));
        }
        let mut in_flight: BTreeMap<&str, usize> = BTreeMap::new();
        for ((link, topic, partition), ranges) in ranges {
            let Some(past) = shown.history.of(topic, partition) else { continue };
            let bytes: usize = merged(ranges).into_iter().map(|range| past.bytes_within(range)).sum();
            *in_flight.entry(link).or_default() += bytes;
        }
        for (link, counted) in shown.credit_in_use {
            let found = in_flight.get(link.as_str()).copied().unwrap_or_default();
            if *counted > CREDIT_BYTES_MAX || found > *counted {
                return Err(format!(
                    "link {link} counts {counted} bytes of {CREDIT_BYTES_MAX} in use, and {found} are in flight"
                ));
            }
        }
        Ok(())
    }
}

/// Offsets of the source that were fetched for this mirror partition and aren't acknowledged.
fn in_flight_of(row: &Row) -> Option<Range<i64>> {
    let view = &row.view;
    // In any other state nothing is in flight, and the last offsets are those of the run before.
    let (true, Some(fetched), Some(end)) =
        (view.state == "RUNNING", view.last_source_fetch_offset, view.mirror_end_offset)
    else {
        return None;
    };
    Some(end..fetched + 1).filter(|range| !range.is_empty())
}

/// The same offsets, each once.
fn merged(mut ranges: Vec<Range<i64>>) -> Vec<Range<i64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<i64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

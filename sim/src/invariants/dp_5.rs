//! DP-5: bytes in flight never exceed the credit. What is in flight is told by the logs: what the node
//! fetched, and isn't acknowledged; but no more of a partition than that says it holds, since one that ends
//! has let go of it before it shows that. It must be within what a link and what a partition may hold, and
//! within the link's count, which covers fetches that are only asked for as well.

use std::collections::BTreeMap;

use super::Invariant;
use crate::judge::{Row, Seen, Shown};

/// The smallest response that the product asks for, whatever the credit.
const RESPONSE_BYTES_MIN: usize = 64 << 10;

#[derive(Default)]
pub struct WithinCredit;

impl Invariant for WithinCredit {
    fn id(&self) -> &'static str {
        "DP-5"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let Seen::Shown(shown) = seen else { return Ok(()) };
        for row in shown.rows {
            partition_is_within(row, shown)?;
        }
        let in_flight = in_flight_by_link(shown);
        for (link, counted) in shown.credit_in_use {
            let found = in_flight.get(link.as_str()).copied().unwrap_or_default();
            let limit = shown.memory.credit.link_bytes_max;
            if found > limit || found > *counted {
                return Err(format!(
                    "link {link} counts {counted} bytes of {limit} in use, and {found} are in flight"
                ));
            }
        }
        Ok(())
    }
}

/// A partition that has its fill isn't asked for: it holds less than that, and one response.
fn partition_is_within(row: &Row, shown: &Shown<'_>) -> Result<(), String> {
    let found = in_flight(row, shown);
    let response_bytes_max =
        shown.memory.response_bytes_max.min(shown.memory.credit.link_bytes_max).max(RESPONSE_BYTES_MIN);
    let limit = shown.memory.credit.partition_bytes_max + response_bytes_max;
    if found <= limit {
        return Ok(());
    }
    let (topic, partition) = &row.key;
    Err(format!("{topic}[{partition}] has {found} bytes in flight, where {limit} are the most it may have"))
}

/// At least so much: mirrors of one source partition may share what was fetched.
pub fn in_flight_by_link<'a>(shown: &Shown<'a>) -> BTreeMap<&'a str, usize> {
    let mut by_source: BTreeMap<(&str, &str, i32), usize> = BTreeMap::new();
    for row in shown.rows {
        let Some(mirror) = shown.mirrors.get(&row.key.0) else { continue };
        let most = by_source.entry((&row.link, &mirror.source_topic, row.key.1)).or_default();
        *most = (*most).max(in_flight(row, shown));
    }
    let mut by_link = BTreeMap::new();
    for ((link, ..), bytes) in by_source {
        *by_link.entry(link).or_default() += bytes;
    }
    by_link
}

/// Bytes that a partition has fetched and the destination hasn't acknowledged.
pub fn in_flight(row: &Row, shown: &Shown<'_>) -> usize {
    let view = &row.view;
    // In any other state nothing is in flight, and the last offsets are those of the run before.
    let (true, Some(fetched), Some(end)) =
        (view.state == "RUNNING", view.last_source_fetch_offset, view.mirror_end_offset)
    else {
        return 0;
    };
    let source = shown.mirrors.get(&row.key.0).and_then(|m| shown.history.of(&m.source_topic, row.key.1));
    source.map_or(0, |past| past.bytes_within(end..fetched + 1)).min(view.outstanding_bytes)
}

//! DP-5: bytes in flight never exceed the credit. The product's own count must stay within a link's
//! credit, and cover what the logs say is in flight: what was fetched, and isn't acknowledged.

use std::collections::BTreeMap;

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
        let mut in_flight: BTreeMap<&str, usize> = BTreeMap::new();
        for row in shown.rows {
            *in_flight.entry(&row.link).or_default() += in_flight_of(row, shown);
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

fn in_flight_of(row: &Row, shown: &Shown<'_>) -> usize {
    let view = &row.view;
    // In any other state nothing is in flight, and the last offsets are those of the run before.
    let (true, Some(fetched), Some(end)) =
        (view.state == "RUNNING", view.last_source_fetch_offset, view.mirror_end_offset)
    else {
        return 0;
    };
    let source = shown.mirrors.get(&row.key.0).and_then(|m| shown.history.of(&m.source_topic, row.key.1));
    source.map_or(0, |past| past.bytes_within(end..fetched + 1))
}

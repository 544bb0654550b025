//! Counters of one mirror topic (SPEC section 7). Made anew for each owner: the registry knows
//! them by name and labels, and they go on where they stood.

use catalog::{Link, MirrorTopic};
use metrics::{Counter, counter};

use crate::appender::LaneMeters;

#[derive(Clone)]
pub struct MirrorMeters {
    /// Of lanes that carry the source's batches.
    pub raw: LaneMeters,
    /// Of lanes that fill a missing prefix: nothing of that is a record of the source's.
    pub filler: LaneMeters,
    pub foreign_writes: Counter,
}

impl MirrorMeters {
    pub fn new(link: &Link, mirror: &MirrorTopic) -> Self {
        let labels = [
            ("link", link.name.to_string()),
            ("cluster", link.destination.to_string()),
            ("topic", mirror.name.to_string()),
        ];
        let with = |label: &'static str, value: &str| {
            let mut labels = labels.to_vec();
            labels.push((label, value.to_owned()));
            labels
        };
        let batches = |path| counter!("lockstep_mirror_batches_total", &with("path", path));
        Self {
            raw: LaneMeters {
                bytes: counter!("lockstep_mirror_bytes_total", &labels),
                records: counter!("lockstep_mirror_records_total", &labels),
                batches: batches("raw"),
            },
            filler: LaneMeters {
                bytes: Counter::noop(),
                // One filler record an offset.
                records: counter!("lockstep_gap_offsets_filled_total", &with("strategy", "prefix")),
                batches: batches("filler"),
            },
            foreign_writes: counter!("lockstep_foreign_write_total", &labels),
        }
    }
}

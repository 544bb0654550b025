//! Tells what nothing else in the trace tells of the paths that a run takes, so that
//! [`coverage`](crate::coverage) can count them.

use std::collections::{BTreeMap, BTreeSet};

use catalog::{MirrorStatus, NodeId};
use consensus::Applied;

use crate::history::Key;
use crate::invariants::{in_flight, in_flight_by_link};
use crate::judge::{Logs, Shown};

/// Room for the smallest response that the product asks for.
const SMALLEST_RESPONSE_BYTES: usize = 66 << 10;

#[derive(Default)]
pub struct Walked {
    /// What was told: each thing once.
    told: BTreeSet<String>,
    /// Whether a partition runs, and has bytes in flight, as of the last look.
    runs: bool,
    carries: bool,
    /// It sees to the stop of a mirror.
    stops: bool,
    /// Where mirrors start.
    starts: BTreeMap<Key, i64>,
}

impl Walked {
    pub fn look(&mut self, shown: &Shown<'_>) {
        let credit = shown.memory.credit;
        let carried: Vec<usize> = shown.rows.iter().map(|row| in_flight(row, shown)).collect();
        self.runs = shown.rows.iter().any(|row| row.view.state == "RUNNING");
        self.carries = carried.iter().any(|bytes| *bytes > 0);
        for (row, _) in shown.rows.iter().zip(carried).filter(|(_, b)| *b >= credit.partition_bytes_max) {
            self.tell(format!("{}[{}] has its fill", row.key.0, row.key.1));
        }
        for (link, in_use) in shown.credit_in_use {
            if in_use + SMALLEST_RESPONSE_BYTES > credit.link_bytes_max {
                self.tell(format!("link {link} has no room for another fetch"));
            }
        }
        for (link, bytes) in in_flight_by_link(shown) {
            if bytes >= credit.link_bytes_max / 2 {
                self.tell(format!("half of what link {link} may hold is in flight"));
            }
        }
    }

    pub fn sees_to_stops(&mut self, applied: &Applied, node: NodeId) {
        let mirrors = applied.catalog.links.values().flat_map(|link| link.mirrors.values());
        self.stops = mirrors.into_iter().any(|mirror| {
            mirror.status == MirrorStatus::PendingStopped && mirror.is_fenced() && mirror.is_seen_to_by(node)
        });
    }

    /// The node ends, in whatever it was at.
    pub fn node_ends(&mut self) {
        if self.runs {
            tracing::info!("walked: the node ends while a partition runs");
        }
        if self.carries {
            tracing::info!("walked: the node ends with bytes in flight");
        }
        if std::mem::take(&mut self.stops) {
            tracing::info!("walked: the node ends while it stops a mirror");
        }
    }

    pub fn look_at_logs(&mut self, logs: &Logs<'_>) {
        for image in logs.images() {
            let start = image.partition.log.start();
            match self.starts.get_mut(&image.key) {
                Some(before) if start < *before => {
                    let (topic, partition) = &image.key;
                    tracing::info!("walked: {topic}[{partition}] shows again what was cut");
                    *before = start;
                }
                Some(before) => *before = start,
                None => drop(self.starts.insert(image.key.clone(), start)),
            }
        }
    }

    fn tell(&mut self, what: String) {
        if !self.told.contains(&what) {
            tracing::info!("walked: {what}");
            self.told.insert(what);
        }
    }
}

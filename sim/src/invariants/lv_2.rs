//! LV-2: faults over, each transition that was taken finishes: in the end no mirror is about to stop. Its source can
//! be reached then; a failover never needs it.

use catalog::MirrorStatus;
use consensus::Applied;

use super::Invariant;
use crate::judge::Seen;

#[derive(Default)]
pub struct Finishes;

impl Invariant for Finishes {
    fn id(&self) -> &'static str {
        "LV-2"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::End(_, shown) => is_through(shown.applied),
            _ => Ok(()),
        }
    }
}

fn is_through(applied: &Applied) -> Result<(), String> {
    for link in applied.catalog.links.values() {
        for mirror in link.mirrors.values().filter(|mirror| mirror.status == MirrorStatus::PendingStopped) {
            let stop = mirror.stop.as_ref().map(|stop| (stop.kind, stop.fenced_at_ms));
            return Err(format!("{} of link {} is still to stop: {stop:?}", mirror.name, link.name));
        }
    }
    Ok(())
}

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
    let links = applied.catalog.links.values();
    let mut mirrors = links.flat_map(|link| link.mirrors.values().map(move |mirror| (link, mirror)));
    let Some((link, mirror)) = mirrors.find(|(_, mirror)| mirror.status == MirrorStatus::PendingStopped)
    else {
        return Ok(());
    };
    let stop = mirror.stop.as_ref().map(|stop| (stop.kind, stop.fenced_at_ms));
    Err(format!("{} of link {} is still to stop: {stop:?}", mirror.name, link.name))
}

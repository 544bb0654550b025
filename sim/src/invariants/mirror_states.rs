//! A person's command at a mirror is refused or taken as `docs/mirror-states.md` has it, whose table is read here.
//! What the product does by itself meanwhile is seen in catalogs; where a status was passed through, either
//! will do.

use std::collections::BTreeSet;

use catalog::{Catalog, MirrorStatus, MirrorTopic};
use consensus::Applied;

use super::Invariant;
use crate::asked::Asked;
use crate::judge::Seen;

const STATES: &str = include_str!("../../../docs/mirror-states.md");
const REFUSED: &str = "refused";
/// That there is no such mirror is the model's to know (CT-6).
const NOT_FOUND: u64 = 404;

#[derive(Default)]
pub struct AsWritten {
    index: u64,
    /// The furthest catalogs since the operator began to ask.
    seen: Vec<Catalog>,
    asked: Option<Asked>,
}

impl Invariant for AsWritten {
    fn id(&self) -> &'static str {
        "docs/mirror-states.md"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Applied(applied) | Seen::Settled(applied) => self.learn(applied),
            Seen::Asking => drop(self.seen.drain(..self.seen.len().saturating_sub(1))),
            Seen::Submitting(asked) => self.asked = Some(asked.clone()),
            Seen::Refused(code, why) if code != NOT_FOUND => {
                if let Some(asked) = self.asked.take()
                    && self.verdicts(&asked).is_some_and(|verdicts| !verdicts.contains(&true))
                {
                    return Err(format!("{asked:?} was refused, and could be taken: {why}"));
                }
            }
            Seen::Acknowledged(_) => {
                let all = match self.asked.take() {
                    Some(Asked::Several(all)) => all,
                    one => one.into_iter().collect(),
                };
                let wrong = |asked: &&Asked| self.verdicts(asked) == Some(BTreeSet::from([true]));
                if let Some(asked) = all.iter().find(wrong) {
                    return Err(format!("{asked:?} was taken, and must be refused"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl AsWritten {
    fn learn(&mut self, applied: &Applied) {
        if applied.index > self.index {
            self.index = applied.index;
            self.seen.push(applied.catalog.clone());
        }
    }

    /// Whether it must be refused, by every status that the mirror was seen in; none when it wasn't always
    /// there.
    fn verdicts(&self, asked: &Asked) -> Option<BTreeSet<bool>> {
        let name = asked.mirror()?;
        self.seen.iter().map(|catalog| Some(is_refused(asked, name.find(catalog)?))).collect()
    }
}

fn is_refused(asked: &Asked, mirror: &MirrorTopic) -> bool {
    let event = match asked {
        Asked::PauseMirror(_) => "pause",
        Asked::ResumeMirror(_) => "resume",
        Asked::PromoteMirror(_) => "promote",
        Asked::CancelPromotion(_) => "cancel",
        Asked::FailOverMirror(_) => "fail over",
        _ => "delete",
    };
    let status = match mirror.status {
        MirrorStatus::PendingStopped if mirror.is_fenced() => "PENDING_STOPPED, fenced",
        status => status.name(),
    };
    let is_to_stop = matches!(asked, Asked::PromoteMirror(_) | Asked::FailOverMirror(_));
    let is_paused_with_a_failure = status == "PAUSED" && mirror.first_failure().is_some();
    (is_to_stop && mirror.producer.is_none())
        || (is_paused_with_a_failure && event == "promote")
        || written(status, event) == Some(REFUSED)
}

/// What the table says.
fn written(status: &str, event: &str) -> Option<&'static str> {
    let mut rows = STATES.lines().filter(|line| line.starts_with('|')).map(cells);
    let column = rows.next()?.iter().position(|cell| *cell == event)?;
    rows.find(|row| row.first() == Some(&status))?.get(column).copied()
}

fn cells(row: &'static str) -> Vec<&'static str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::tests::{after, fence, name};

    #[test]
    fn the_table_is_read() {
        assert_eq!(written("ACTIVE", "cancel"), Some(REFUSED));
        assert_eq!(written("PENDING_STOPPED", "cancel"), Some("ACTIVE"));
        assert_eq!(written("PENDING_STOPPED, fenced", "cancel"), Some(REFUSED));
        assert_eq!(written("STOPPED", "fail over"), Some("–"));
    }

    /// Of a mirror that was in these states while it was asked for that.
    fn answered(states: &[Catalog], asked: &Asked, is_refused: bool) -> Result<(), String> {
        let mut invariant = AsWritten::default();
        for (index, catalog) in (1..).zip(states) {
            invariant.see(Seen::Applied(&Applied { index, catalog: catalog.clone() }))?;
            if index == 1 {
                invariant.see(Seen::Asking)?;
            }
        }
        invariant.see(Seen::Submitting(asked))?;
        invariant.see(if is_refused { Seen::Refused(409, "why") } else { Seen::Acknowledged(None) })
    }

    #[test]
    fn an_answer_that_no_state_allows_is_seen() {
        let (promote, cancel) = (Asked::PromoteMirror(name()), Asked::CancelPromotion(name()));
        let (runs, mut promoted) = (after(&[]), after(std::slice::from_ref(&promote)));
        let answers = |states: &[&Catalog], asked| {
            let states: Vec<_> = states.iter().map(|state| (*state).clone()).collect();
            [true, false].map(|is_refused| answered(&states, asked, is_refused).is_ok())
        };
        assert_eq!(answers(&[&runs], &promote), [false, true]);
        assert_eq!(answers(&[&runs], &cancel), [true, false]);
        assert_eq!(answers(&[&promoted], &cancel), [false, true]);
        let catches_up = promoted.clone();
        fence(&mut promoted);
        assert_eq!(answers(&[&promoted], &cancel), [true, false]);
        assert_eq!(answers(&[&catches_up, &promoted], &cancel), [true, true]);
    }
}

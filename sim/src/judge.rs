//! Hears what happens in a simulation and holds it against the invariants.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::{Action, Refusal};
use consensus::Applied;

use crate::disk::Life;
use crate::invariants::{self, Invariant};

/// What the simulation sees. Invariants take what concerns them.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Nothing is under way any more; the catalog holds all that was taken.
    Settled(&'a Applied),
    /// The applied catalog as it is now.
    Applied(&'a Applied),
    /// A command is about to be submitted; one at a time.
    Submitting(&'a Action),
    /// It was taken; the catalog as applied since.
    Acknowledged(&'a Applied),
    Refused(&'a Refusal),
    /// It wasn't proposed at all.
    NotProposed,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Judge(Arc<Mutex<State>>);

/// Speaks for one process: what that says after its end isn't heard.
pub struct Witness {
    pub judge: Judge,
    pub life: Life,
}

impl Witness {
    pub fn see(&self, seen: Seen<'_>) {
        if !self.life.is_over() {
            self.judge.see(seen);
        }
    }
}

struct State {
    invariants: Vec<Box<dyn Invariant>>,
    /// The first violation; nothing is judged after it.
    violation: Option<String>,
}

impl Judge {
    pub fn of_all() -> Self {
        Self(Arc::new(Mutex::new(State { invariants: invariants::all(), violation: None })))
    }

    pub fn see(&self, seen: Seen<'_>) {
        let mut state = self.state();
        let State { invariants, violation } = &mut *state;
        for invariant in invariants {
            if violation.is_some() {
                return;
            }
            if let Err(why) = invariant.see(seen) {
                let id = invariant.id();
                tracing::error!("{id} is violated: {why}");
                *violation = Some(format!("{id} is violated: {why}"));
            }
        }
    }

    pub fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! How often secrets may be tried: a few at once, then a pause for everyone.
//!
//! One count for all callers: their addresses cost an attacker nothing. Price: whoever reaches the port
//! can delay a join. A secret of 32 random bytes needs no such bound; one that people made does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A person who mistypes doesn't get there; a guesser gets no further.
const TRIES_MAX: u32 = 10;

/// Tries are forgotten after it, and a pause lasts as long.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Tries(Mutex<Option<Window>>);

struct Window {
    begun: Instant,
    wrong: u32,
}

impl Tries {
    /// How long to wait before the next try; none: try now.
    pub fn pause(&self) -> Option<Duration> {
        let window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.as_ref().filter(|window| window.wrong >= TRIES_MAX)?;
        PAUSE.checked_sub(window.begun.elapsed()).filter(|left| !left.is_zero())
    }

    pub fn wrong(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let window = held.get_or_insert(Window { begun: now, wrong: 0 });
        if window.begun.elapsed() >= PAUSE {
            *window = Window { begun: now, wrong: 0 };
        }
        window.wrong += 1;
        if window.wrong == TRIES_MAX {
            window.begun = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_some_wrong_tries_everyone_waits_and_then_may_try_again() {
        let tries = Tries::default();
        for _ in 0..TRIES_MAX {
            assert_eq!(tries.pause(), None);
            tries.wrong();
            tokio::time::advance(PAUSE / 20).await;
        }
        assert_eq!(tries.pause(), Some(PAUSE - PAUSE / 20));
        tokio::time::advance(PAUSE).await;
        assert_eq!(tries.pause(), None);
        tries.wrong();
        assert_eq!(tries.pause(), None, "the count begins anew");
    }
}

//! What happens when: a pure value that is told the time and how the mirror looks.

use std::fmt;
use std::time::Duration;

use super::operator::Mirror;

/// How long the killed node stays away.
const AWAY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Kill,
    Restart,
    /// All partitions run again, so long after the kill.
    Recovered {
        after: Duration,
    },
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Running,
    Killed { at: Duration },
    Restarted { killed: Duration },
    Recovered,
}

#[derive(Debug)]
pub struct Story {
    lasts: Duration,
    act: Act,
}

impl Story {
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, act: Act::Running }
    }

    pub fn next(&mut self, elapsed: Duration, mirror: &Mirror) -> Vec<Event> {
        let mut events = Vec::new();
        match self.act {
            Act::Running if elapsed >= self.lasts / 3 => {
                self.act = Act::Killed { at: elapsed };
                events.push(Event::Kill);
            }
            Act::Killed { at } if elapsed >= at + AWAY => {
                self.act = Act::Restarted { killed: at };
                events.push(Event::Restart);
            }
            Act::Restarted { killed } if runs(mirror) => {
                self.act = Act::Recovered;
                events.push(Event::Recovered { after: elapsed.saturating_sub(killed) });
            }
            _ => {}
        }
        if elapsed >= self.lasts && self.act == Act::Recovered || elapsed >= self.lasts * 2 {
            events.push(Event::End);
        }
        events
    }
}

/// Whether every partition runs and its lag is known.
fn runs(mirror: &Mirror) -> bool {
    let Some(mirror) = mirror else { return false };
    let running = |row: &crate::api::types::LagRow| row.state == "RUNNING" && row.lag.is_some();
    !mirror.mirror_lags.is_empty() && mirror.mirror_lags.iter().all(running)
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Kill => write!(f, "the node is killed (SIGKILL)"),
            Event::Restart => write!(f, "the node is started again"),
            Event::Recovered { after } => {
                write!(f, "all partitions run again, {:.1} s after the kill", after.as_secs_f64())
            }
            Event::End => write!(f, "the load ends; what is left is mirrored and compared"),
        }
    }
}

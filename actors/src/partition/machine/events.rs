//! What the machine hears, and what is to be done about it.

use std::time::Duration;

use catalog::MirrorError;
use tokio::time::Instant;

use crate::lane::LaneEnd;
use crate::verdict::Verdict;

/// What the machine hears.
#[derive(Debug)]
pub enum Event {
    /// Both logs were looked at, both brokers are connected: the run may begin.
    Footed {
        run: u64,
        quiet_from: Option<Instant>,
    },
    /// There is no footing for a run.
    NotFooted {
        run: u64,
        why: NotFooted,
        quiet_from: Option<Instant>,
    },
    /// Fetching ended; what was fetched is still being appended.
    FetchStopped {
        run: u64,
        verdict: Verdict,
    },
    LaneEnded {
        run: u64,
        end: LaneEnd,
    },
    /// A partition leader is another, or the same under another epoch.
    LeaderMoved,
    /// An idle mirror's log end isn't where we left it.
    LogEndMoved,
    Woken {
        token: u64,
    },
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFooted {
    /// Not guarded, and a request from before may still arrive: look again then.
    NotQuiet {
        until: Instant,
    },
    /// Not guarded, and this node holds no lease.
    NoLease,
    Verdict(Verdict),
}

/// Whether a request of an earlier run or owner may still arrive at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Not from then on.
    From(Instant),
    /// It may, and the partition leader hasn't answered since: a frozen broker takes what was sent
    /// to it when it wakes, however late. The wait begins with its answer.
    OnceAnswered { wait: Duration },
}

impl Quiet {
    /// The partition leader has answered at `now`.
    pub fn answered(self, now: Instant) -> Instant {
        match self {
            Self::From(at) => at,
            Self::OnceAnswered { wait } => now + wait,
        }
    }
}

/// What the actor does about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Look at both logs and connect to both brokers.
    Look {
        run: u64,
        quiet: Quiet,
    },
    /// Give up the look under way.
    StopLook,
    /// Open the lane and begin to fetch.
    Begin {
        run: u64,
    },
    /// Take the partition out of its fetcher.
    StopFetch,
    /// Let the lane send what is queued, then end.
    FinishLane,
    /// Let the lane end as soon as nothing is under way.
    CloseLane,
    Wake {
        at: Instant,
        token: u64,
    },
    /// Tell ([`Event::Woken`]) when this node holds a lease.
    AwaitLease {
        token: u64,
    },
    /// Report to the catalog; nothing runs any more.
    Fail {
        error: MirrorError,
        offset: i64,
        message: String,
    },
    /// Nothing runs any more, and nothing of ours is under way.
    Stopped,
}

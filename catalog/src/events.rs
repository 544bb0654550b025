//! What has happened, when, why, and who asked: the fleet's newest events, and of each mirror topic its own.
//!
//! Two places, because one list can't do both: what one link's thousand topics do in an hour would push out why
//! another's one topic stopped last week. Numbers tell that an entry of both is one event.
//!
//! Causes are kept as kinds and numbers, never as words of ours: builds that word them differently must hold equal
//! catalogs (CT-1). Everything is bounded, in number and in bytes, and one event costs the same however many there
//! were.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{MirrorError, MirrorStatus};
use crate::stop::StopKind;

/// Builds below keep no history, and don't know [`crate::Action::Asked`].
pub(crate) const KEPT_FROM_LEVEL: u32 = 6;

/// Of the fleet, at most.
pub const EVENTS_MAX: usize = 1_000;
/// Of one mirror topic, at most.
pub const TRANSITIONS_MAX: usize = 20;
/// However many mirror topics there are, each keeps so many.
pub const TRANSITIONS_MIN: usize = 4;
/// What mirror topics share beyond that: with more than a thousand each keeps fewer than
/// [`TRANSITIONS_MAX`], so that 20,000 of them add megabytes to a snapshot, not a hundred.
const TRANSITIONS_SHARED: usize = 20_000;
/// Of a message that came with a failure; the failed partition has it whole.
pub const MESSAGE_BYTES_MAX: usize = 300;

/// Of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many there ever were: the number of the newest.
    pub count: u64,
    /// Oldest first.
    pub newest: VecDeque<Arc<Event>>,
}

/// Of one mirror topic, oldest first.
pub type History = VecDeque<Transition>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// They rise by one from 1.
    pub number: u64,
    /// Of the command that did it, milliseconds since 1970.
    pub at_ms: i64,
    pub asked_by: AskedBy,
    pub what: What,
}

/// One event of a mirror topic, in its own history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub number: u64,
    pub at_ms: i64,
    pub asked_by: AskedBy,
    pub step: Step,
}

/// Names as they were: what they mean may be gone since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Link { link: LinkName, change: LinkChange },
    Mirror { link: LinkName, topic: Arc<str>, step: Step },
    Node { node: Arc<str>, change: NodeChange },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkName {
    pub name: Arc<str>,
    /// Registered name of the destination cluster.
    pub destination: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkChange {
    Created,
    Paused,
    Resumed,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeChange {
    /// Admitted to the fleet.
    Joined,
    Started {
        version: Arc<str>,
    },
    Drains,
    /// Takes part again.
    Undrained,
    Stops,
    /// It didn't answer, and so many of its partitions got another owner.
    Lost {
        partitions: u32,
    },
    Removed {
        lost: bool,
    },
}

/// What one command did to a mirror topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// None before it was created.
    pub from: Option<MirrorStatus>,
    /// None when it is deleted.
    pub to: Option<MirrorStatus>,
    pub cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    CreateAsked,
    /// Its topic stands, its producer identity was obtained.
    SetUp,
    PauseAsked,
    ResumeAsked,
    PromoteAsked,
    CancelAsked,
    FailOverAsked,
    /// A promotion has; its end is being fenced.
    CaughtUp,
    /// The fence stands.
    Stopped {
        kind: StopKind,
        /// Source offsets that were not mirrored; none: not known.
        lost: Option<i64>,
    },
    Failed {
        error: MirrorError,
        /// None: the whole mirror, which couldn't be set up.
        partition: Option<u32>,
        offset: i64,
        /// Its first [`MESSAGE_BYTES_MAX`].
        message: Arc<str>,
    },
    DeleteAsked,
}

impl Cause {
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateAsked => "CREATE_ASKED",
            Self::SetUp => "SET_UP",
            Self::PauseAsked => "PAUSE_ASKED",
            Self::ResumeAsked => "RESUME_ASKED",
            Self::PromoteAsked => "PROMOTE_ASKED",
            Self::CancelAsked => "CANCEL_ASKED",
            Self::FailOverAsked => "FAILOVER_ASKED",
            Self::CaughtUp => "CAUGHT_UP",
            Self::Stopped { kind: StopKind::Promote, .. } => "PROMOTED",
            Self::Stopped { kind: StopKind::FailOver, .. } => "FAILED_OVER",
            Self::Failed { error, .. } => error.name(),
            Self::DeleteAsked => "DELETE_ASKED",
        }
    }
}

/// By name, as it was then. Who a person is isn't known yet: the API asks nobody for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskedBy {
    /// A person, through the API of that node; none: on a node that had been stopped.
    Operator { through: Option<Arc<str>> },
    /// A node by itself; none: one that is no member any more.
    Node(Option<Arc<str>>),
    /// Whoever gives partitions to nodes.
    Coordinator,
    /// A link that makes its mirrors by itself.
    Link,
}

impl Events {
    /// Its number.
    pub(crate) fn record(&mut self, at_ms: i64, asked_by: AskedBy, what: What) -> u64 {
        self.count += 1;
        if self.newest.len() >= EVENTS_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(Arc::new(Event { number: self.count, at_ms, asked_by, what }));
        self.count
    }
}

/// Adds to a mirror topic's history, as one of so many mirror topics.
pub(crate) fn remember(history: &mut History, transition: Transition, mirrors: usize) {
    history.push_back(transition);
    let share = TRANSITIONS_SHARED / mirrors.max(1);
    while history.len() > share.clamp(TRANSITIONS_MIN, TRANSITIONS_MAX) {
        history.pop_front();
    }
}

/// The beginning of a message, cut between characters.
pub(crate) fn beginning(message: &str) -> Arc<str> {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].into()
}

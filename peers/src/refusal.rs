//! Why a node doesn't want another: said once when they meet, and typed, because some reasons call for
//! more than a line in the log.

use std::fmt;

/// The words are those of whoever refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// This node was removed from the fleet: it is to stop.
    Removed(String),
    /// They have no version of the protocol in common.
    Version(String),
    /// It is of another fleet.
    Fleet(String),
    /// Another node than the one that was looked for, or than the certificate says.
    Node(String),
    /// A certificate that isn't trusted, has expired, or isn't that node's.
    Certificate(String),
    /// What it sent isn't this protocol.
    Garbage(String),
    /// A reason that only a newer build knows.
    Other(String),
}

impl Refusal {
    pub fn words(&self) -> &str {
        match self {
            Self::Removed(words)
            | Self::Version(words)
            | Self::Fleet(words)
            | Self::Node(words)
            | Self::Certificate(words)
            | Self::Garbage(words)
            | Self::Other(words) => words,
        }
    }

    /// For metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Removed(_) => "removed",
            Self::Version(_) => "version",
            Self::Fleet(_) => "fleet",
            Self::Node(_) => "node",
            Self::Certificate(_) => "certificate",
            Self::Garbage(_) => "garbage",
            Self::Other(_) => "other",
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 0,
            Self::Removed(_) => 1,
            Self::Version(_) => 2,
            Self::Fleet(_) => 3,
            Self::Node(_) => 4,
            Self::Certificate(_) => 5,
            Self::Garbage(_) => 6,
        }
    }

    pub(crate) fn of(code: u8, words: String) -> Self {
        match code {
            1 => Self::Removed(words),
            2 => Self::Version(words),
            3 => Self::Fleet(words),
            4 => Self::Node(words),
            5 => Self::Certificate(words),
            6 => Self::Garbage(words),
            _ => Self::Other(words),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

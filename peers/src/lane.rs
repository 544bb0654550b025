//! Connections to one node: each service has its own, and what is large has another, so that no heartbeat
//! waits behind a snapshot's chunk or a long list.

use crate::call::Service;
use crate::frame::CALL_BYTES_MAX;

/// Larger requests go by the bulk lane: written in one piece, in a fraction of a millisecond.
const SMALL_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Lane {
    Raft = 1,
    Fleet = 2,
    Status = 3,
    Bulk = 4,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Raft, Self::Fleet, Self::Status, Self::Bulk];

    pub fn for_call(service: Service, request_bytes: usize) -> Self {
        match service {
            _ if request_bytes > SMALL_BYTES_MAX => Self::Bulk,
            Service::Raft => Self::Raft,
            Service::Fleet => Self::Fleet,
            Service::Status => Self::Status,
        }
    }

    pub fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| *lane as u8 == byte)
    }

    pub fn request_bytes_max(self) -> usize {
        match self {
            Self::Raft | Self::Fleet | Self::Status => SMALL_BYTES_MAX,
            Self::Bulk => CALL_BYTES_MAX,
        }
    }

    /// Sent and not answered, at once. Few where requests (bulk) or answers (status) may be large: this
    /// times [`CALL_BYTES_MAX`] is what one node can make another hold.
    pub fn calls_max(self) -> usize {
        match self {
            Self::Raft | Self::Fleet => 32,
            Self::Status => 8,
            Self::Bulk => 2,
        }
    }

    /// Served at once for one caller: those that it has given up may still be among them.
    pub fn served_max(self) -> usize {
        2 * self.calls_max()
    }

    /// Callers that send or wait for their turn; each holds its request.
    pub fn callers_max(self) -> usize {
        8 * self.calls_max()
    }
}

//! What can go wrong on the way to a broker and back. Operating errors are values; what to do
//! next is decided by the caller from the kind.

use std::fmt;
use std::time::Duration;

use kafka_protocol::error::ResponseError;

use crate::config::ConfigError;

/// An error code of a Kafka response (protocol guide, "Error Codes"). 0 is not an error and is
/// never wrapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    pub const CORRUPT_MESSAGE: Self = Self(2);
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    pub const NOT_LEADER_OR_FOLLOWER: Self = Self(6);
    pub const REQUEST_TIMED_OUT: Self = Self(7);
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    pub const COORDINATOR_LOAD_IN_PROGRESS: Self = Self(14);
    pub const COORDINATOR_NOT_AVAILABLE: Self = Self(15);
    pub const NOT_COORDINATOR: Self = Self(16);
    pub const NOT_ENOUGH_REPLICAS: Self = Self(19);
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: Self = Self(20);
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    pub const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    pub const CLUSTER_AUTHORIZATION_FAILED: Self = Self(31);
    pub const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);
    pub const ILLEGAL_SASL_STATE: Self = Self(34);
    pub const INVALID_TIMESTAMP: Self = Self(32);
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: Self = Self(45);
    pub const DUPLICATE_SEQUENCE_NUMBER: Self = Self(46);
    pub const INVALID_PRODUCER_EPOCH: Self = Self(47);
    pub const CONCURRENT_TRANSACTIONS: Self = Self(51);
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Self = Self(53);
    pub const SECURITY_DISABLED: Self = Self(54);
    pub const KAFKA_STORAGE_ERROR: Self = Self(56);
    pub const UNKNOWN_PRODUCER_ID: Self = Self(59);
    pub const FETCH_SESSION_ID_NOT_FOUND: Self = Self(70);
    pub const INVALID_FETCH_SESSION_EPOCH: Self = Self(71);
    pub const FENCED_LEADER_EPOCH: Self = Self(74);
    pub const UNKNOWN_LEADER_EPOCH: Self = Self(75);
    pub const OFFSET_NOT_AVAILABLE: Self = Self(78);
    pub const INVALID_RECORD: Self = Self(87);
    pub const PRODUCER_FENCED: Self = Self(90);
    pub const UNKNOWN_TOPIC_ID: Self = Self(100);
    pub const INCONSISTENT_TOPIC_ID: Self = Self(103);
    pub const FETCH_SESSION_TOPIC_ID_ERROR: Self = Self(106);

    /// The last one of the protocol guide, as of Kafka 4.4.
    pub const NEWEST: Self = Self(136);

    /// Every code that says that something went wrong.
    pub fn every() -> impl Iterator<Item = Self> {
        (-1..=Self::NEWEST.0).filter_map(Self::of)
    }

    /// `None` for 0, which is success.
    pub fn of(code: i16) -> Option<Self> {
        (code != 0).then_some(Self(code))
    }

    /// `Ok` for 0.
    pub fn check(code: i16, what: impl Into<String>) -> Result<(), Error> {
        match Self::of(code) {
            None => Ok(()),
            Some(code) => Err(Error::Broker { what: what.into(), code }),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ResponseError::try_from_code(self.0) {
            Some(ResponseError::Unknown(_)) | None => write!(f, "error {}", self.0),
            Some(known) => write!(f, "{known:?} ({})", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No address of the bootstrap list could be resolved.
    #[error("can't resolve {address}: {reason}")]
    Resolve { address: String, reason: String },
    #[error("can't connect to {address}: {reason}")]
    Connect { address: String, reason: String },
    /// A reference of the configuration led to nothing usable at this dial.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no TLS with {address}: {reason}")]
    Tls { address: String, reason: String },
    /// The broker was reached and refused who we are, or couldn't prove who it is.
    #[error("authentication with {address} failed: {reason}")]
    Authentication { address: String, reason: String },
    /// The connection ended with requests under way or before one could be sent. Whether the
    /// broker acted on them is not known.
    #[error("connection to {address} closed: {reason}")]
    Closed { address: String, reason: String },
    /// No answer in time; the connection was closed for it. Whether the broker acted is not known.
    #[error("{address} didn't answer {what} within {after:?}")]
    Deadline { address: String, what: &'static str, after: Duration },
    /// Its gate was shut before any of the request was written: the broker can't act on it.
    #[error("the request to {address} was not sent")]
    NotSent { address: String },
    /// The peer doesn't speak the protocol as published.
    #[error("{address} sent what isn't valid Kafka protocol: {reason}")]
    Protocol { address: String, reason: String },
    #[error("{address} supports {api} {offered}; lockstep needs version {needed}")]
    Unsupported { address: String, api: &'static str, offered: String, needed: String },
    /// The broker answered with an error code.
    #[error("{what}: {code}")]
    Broker { what: String, code: ErrorCode },
    #[error("broker {0} isn't in the cluster's metadata")]
    UnknownBroker(i32),
    /// The cluster behind the bootstrap is another one than expected.
    #[error("expected cluster id {expected}, the brokers answer {found}")]
    WrongCluster { expected: String, found: String },
}

impl Error {
    /// The broker's error code, if it answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

//! How a lane ends, for whoever decides what comes next.

use kafka::ErrorCode;
use tokio::time::Instant;

/// Why a lane stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneStop {
    /// The broker gave another offset than the source's: something else wrote.
    Displaced { expected: i64, given: i64 },
    /// The broker refused a batch. It may have been appended all the same.
    Refused { offset: i64, code: ErrorCode, message: String },
    /// No request can carry the batch: it was not sent.
    TooLarge { offset: i64, bytes: usize, request_bytes_max: usize },
    /// The connection ended.
    Lost { reason: String },
    /// It waited until nothing from before could arrive: where the log ends must be read again.
    Quieted,
    /// What comes next isn't guarded, and this node's lease has ended: it was not sent.
    NoLease,
    /// It is too long ago that the broker was seen to remember us, and this node's lease has ended:
    /// nothing was sent.
    Unproven,
    /// Another owner writes the same batches, and this node's lease has ended.
    AnotherOwner,
    /// What let a request go ended before any of it was written: it was not sent.
    HeldBack,
    /// What reached it isn't what follows: a defect of ours, and nothing is sent.
    OutOfOrder { expected: i64, given: i64 },
    /// Its owner closed it, or had it finish.
    Closed,
}

/// A stopped lane's last words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneEnd {
    pub stop: LaneStop,
    /// Batches were under way whose effect isn't known.
    pub in_doubt: bool,
    /// Another owner wrote the same batches: until then it may send more of them, and counts on the broker
    /// to remember us.
    pub others_until: Option<Instant>,
}

/// A lane's end in words, for logs.
impl std::fmt::Display for LaneEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.stop {
            LaneStop::Displaced { expected, given } => {
                write!(f, "offset {expected} was given place {given}")?;
            }
            LaneStop::Refused { offset, code, message } if message.is_empty() => {
                write!(f, "the batch at offset {offset} was refused: {code}")?;
            }
            LaneStop::Refused { offset, code, message } => {
                write!(f, "the batch at offset {offset} was refused: {code}: {message}")?;
            }
            LaneStop::TooLarge { offset, bytes, request_bytes_max } => write!(
                f,
                "the batch at offset {offset} has {bytes} bytes, and the destination's brokers take requests of \
                 {request_bytes_max} bytes at most"
            )?,
            LaneStop::Lost { reason } => f.write_str(reason)?,
            LaneStop::Quieted => f.write_str("quiet: nothing from before can arrive any more")?,
            LaneStop::OutOfOrder { expected, given } => {
                write!(f, "a batch at offset {given} came where offset {expected} should follow")?;
            }
            LaneStop::NoLease => {
                f.write_str("this node's lease has ended, and the next batch isn't guarded")?
            }
            LaneStop::Unproven => {
                f.write_str("it is too long ago that the destination was seen to remember us")?
            }
            LaneStop::AnotherOwner => {
                f.write_str("another node writes this mirror, and this node's lease has ended")?
            }
            LaneStop::HeldBack => f.write_str("what let the batch go ended before it was sent")?,
            LaneStop::Closed => f.write_str("closed")?,
        }
        if self.in_doubt { f.write_str(" (requests in doubt)") } else { Ok(()) }
    }
}

//! What to do next about whatever stopped a partition's run. Pure: every broker error code and
//! every obstacle has its answer here, and nowhere else.

use catalog::MirrorError;
use kafka::ErrorCode;
use kafka::batch::Obstacle;

use crate::fetcher::FetchStop;
use crate::lane::{LaneEnd, LaneStop};

/// What comes after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A step is done: look again at once, the next one follows.
    Proceed,
    /// Look at both logs again: they tell where to go on.
    Retry { message: String },
    /// What comes next isn't guarded: look again when this node holds a lease.
    AwaitLease,
    /// A cluster says that it has no such topic: retry for a limited time, and say so meanwhile.
    Missing { error: MirrorError, message: String },
    /// Time, a setting or a grant can cure it: retry at leisure, and say so meanwhile.
    Park { error: MirrorError, message: String },
    /// A person must decide.
    Fail { error: MirrorError, offset: i64, message: String },
}

/// On how a lane ended. `None`: it was closed on purpose.
pub fn on_lane_end(end: &LaneEnd) -> Option<Verdict> {
    Some(match &end.stop {
        LaneStop::Closed => return None,
        LaneStop::Quieted | LaneStop::HeldBack | LaneStop::Unproven => Verdict::Proceed,
        LaneStop::NoLease | LaneStop::AnotherOwner => Verdict::AwaitLease,
        LaneStop::OutOfOrder { .. } => Verdict::Retry { message: end.to_string() },
        LaneStop::Lost { .. } => Verdict::Retry { message: end.to_string() },
        LaneStop::TooLarge { .. } => Verdict::Park {
            error: MirrorError::RecordTooLarge,
            message: format!(
                "{end}; raise socket.request.max.bytes of the destination's brokers and restart them"
            ),
        },
        // Something else wrote. Nothing more of ours is under way: the look that comes next tells
        // what is whose, and fails the partition.
        LaneStop::Displaced { expected, given } if given > expected => {
            Verdict::Retry { message: format!("{end}: another producer wrote to the mirror") }
        }
        LaneStop::Displaced { expected, given } => Verdict::Fail {
            error: MirrorError::DestinationLogDiverged,
            offset: *given,
            message: format!(
                "the mirror lost what it had acknowledged: our batch for offset {expected} was given offset {given} \
                 (an unclean leader election at the destination does this)"
            ),
        },
        LaneStop::Refused { offset, code, .. } => on_produce_error(*code, *offset, end.to_string()),
    })
}

/// On an error code in a Produce response.
fn on_produce_error(code: ErrorCode, offset: i64, message: String) -> Verdict {
    match code {
        // Leadership, replication, memory of our producer id: the log end tells where to go on.
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
        | ErrorCode::DUPLICATE_SEQUENCE_NUMBER
        | ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::CORRUPT_MESSAGE => Verdict::Retry { message },
        ErrorCode::MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE => Verdict::Park {
            error: MirrorError::RecordTooLarge,
            message: format!(
                "{message}; raise max.message.bytes of the mirror topic or message.max.bytes of its brokers"
            ),
        },
        ErrorCode::TOPIC_AUTHORIZATION_FAILED
        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
        | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Verdict::Park {
            error: MirrorError::AuthorizationError,
            message: format!("{message}; grant WRITE on the mirror topic at the destination"),
        },
        ErrorCode::INVALID_TIMESTAMP => Verdict::Park {
            error: MirrorError::IllegalState,
            message: format!(
                "{message}; widen message.timestamp.before.max.ms and .after.max.ms at the destination"
            ),
        },
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => Verdict::Fail {
            error: MirrorError::IllegalState,
            offset,
            message: format!("{message}; this mirror was fenced: another owner or a promotion took over"),
        },
        ErrorCode::INVALID_RECORD | UNSUPPORTED_FOR_MESSAGE_FORMAT | UNSUPPORTED_COMPRESSION_TYPE => {
            Verdict::Fail { error: MirrorError::UnsupportedMessageFormat, offset, message }
        }
        _ => Verdict::Park { error: MirrorError::Unknown, message },
    }
}

const RECORD_LIST_TOO_LARGE: ErrorCode = ErrorCode(18);
const UNSUPPORTED_FOR_MESSAGE_FORMAT: ErrorCode = ErrorCode(43);
const UNSUPPORTED_COMPRESSION_TYPE: ErrorCode = ErrorCode(76);

/// On how fetching stopped.
pub fn on_fetch_stop(stop: &FetchStop) -> Verdict {
    match stop {
        FetchStop::Filled => Verdict::Proceed,
        FetchStop::Refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => Verdict::Park {
            error: MirrorError::AuthorizationError,
            message: format!("{stop}; grant READ on the source topic at the source"),
        },
        // Out of range, recreated, moved: the next look at both logs tells which, with numbers.
        FetchStop::Refused(_) | FetchStop::Lost { .. } => Verdict::Retry { message: stop.to_string() },
        FetchStop::Obstacle(obstacle) => on_obstacle(obstacle),
    }
}

/// On what the source log holds that can't be mirrored as it is. Nothing is ever guessed.
fn on_obstacle(obstacle: &Obstacle) -> Verdict {
    let unsupported = |offset: i64, what: String| Verdict::Fail {
        error: MirrorError::UnsupportedMessageFormat,
        offset,
        message: format!("{what}; this version of lockstep can't mirror that exactly"),
    };
    match obstacle {
        Obstacle::Corrupt { offset, reason } => Verdict::Retry {
            message: format!("the source sent a corrupt batch at offset {offset}: {reason}"),
        },
        Obstacle::Hole { from, to } => Verdict::Fail {
            error: MirrorError::GapFillRefused,
            offset: *from,
            message: format!(
                "the source has no record at offsets {from} to {} (compaction or transactions); this version of \
                 lockstep can't keep such offsets",
                to - 1
            ),
        },
        Obstacle::OldFormat { offset, magic } => unsupported(
            *offset,
            format!("the batch at offset {offset} has message format {magic}, before 0.11"),
        ),
        Obstacle::Inside { offset, base_offset } => unsupported(
            *offset,
            format!("offset {offset} lies inside the source's batch that begins at {base_offset}"),
        ),
        Obstacle::Control { offset } => {
            unsupported(*offset, format!("a transaction marker stands at offset {offset}"))
        }
        Obstacle::Transactional { offset } => {
            unsupported(*offset, format!("the batch at offset {offset} belongs to a transaction"))
        }
        Obstacle::Thinned { offset, last_offset, record_count } => unsupported(
            *offset,
            format!(
                "compaction left {record_count} records at offsets {offset} to {last_offset} in one batch"
            ),
        ),
        Obstacle::LogAppendTime { offset } => unsupported(
            *offset,
            format!("the batch at offset {offset} carries the broker's time (LogAppendTime)"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that isn't in a table has the table's last answer, and so has one that comes to be.
    #[test]
    fn every_produce_error_code_has_a_verdict() {
        let retried = [2, 3, 5, 6, 7, 19, 20, 45, 46, 56, 59, 74];
        let failed = [43, 47, 76, 87, 90];
        let authorization = [29, 31, 53];
        for code in ErrorCode::every() {
            let stop = LaneStop::Refused { offset: 42, code, message: String::new() };
            let end = LaneEnd { stop, in_doubt: false, others_until: None };
            match on_lane_end(&end).expect("a refusal has a verdict") {
                Verdict::Proceed | Verdict::AwaitLease | Verdict::Missing { .. } => {
                    panic!("{code} is an error")
                }
                Verdict::Retry { .. } => assert!(retried.contains(&code.0), "{code} is retried"),
                Verdict::Fail { offset, .. } => {
                    assert_eq!(offset, 42);
                    assert!(failed.contains(&code.0), "{code} fails");
                }
                Verdict::Park { error, message } => {
                    let wanted = match code.0 {
                        10 | 18 => MirrorError::RecordTooLarge,
                        32 => MirrorError::IllegalState,
                        code if authorization.contains(&code) => MirrorError::AuthorizationError,
                        code if retried.contains(&code) || failed.contains(&code) => panic!("{code} parks"),
                        _ => MirrorError::Unknown,
                    };
                    assert_eq!(error, wanted, "{code}");
                    assert!(message.contains(&code.to_string()), "{code} isn't named: {message}");
                }
            }
        }
    }

    /// The source is asked again, by a look at both logs; only a missing grant is a person's.
    #[test]
    fn every_fetch_error_code_has_a_verdict() {
        for code in ErrorCode::every() {
            match on_fetch_stop(&FetchStop::Refused(code)) {
                Verdict::Park { error: MirrorError::AuthorizationError, message } => {
                    assert_eq!(code, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
                    assert!(message.contains("grant READ"), "{message}");
                }
                Verdict::Retry { message } => {
                    assert_ne!(code, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
                    assert!(message.contains(&code.to_string()), "{code} isn't named: {message}");
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_foreign_write_is_told_from_a_lost_log_end() {
        let on = |expected, given| {
            let stop = LaneStop::Displaced { expected, given };
            on_lane_end(&LaneEnd { stop, in_doubt: true, others_until: None }).expect("verdict")
        };
        let Verdict::Retry { message } = on(100, 103) else { panic!("looked at") };
        assert!(message.contains("offset 100 was given place 103"), "{message}");
        let Verdict::Fail { error: MirrorError::DestinationLogDiverged, offset: 90, .. } = on(100, 90) else {
            panic!("diverged")
        };
    }

    #[test]
    fn what_is_not_plain_data_fails_with_its_offset_and_corruption_is_read_again() {
        let fails = |obstacle| match on_fetch_stop(&FetchStop::Obstacle(obstacle)) {
            Verdict::Fail { error, offset, .. } => (error, offset),
            other => panic!("{other:?}"),
        };
        assert_eq!(fails(Obstacle::Hole { from: 5, to: 9 }), (MirrorError::GapFillRefused, 5));
        let unsupported = MirrorError::UnsupportedMessageFormat;
        assert_eq!(fails(Obstacle::Control { offset: 7 }), (unsupported, 7));
        assert_eq!(fails(Obstacle::LogAppendTime { offset: 7 }), (unsupported, 7));
        let corrupt = FetchStop::Obstacle(Obstacle::Corrupt { offset: 1, reason: "CRC".into() });
        assert!(matches!(on_fetch_stop(&corrupt), Verdict::Retry { .. }));
    }
}

//! How a mirror topic stops being one: promoted when it has caught up, or failed over at once. Both are
//! final once the fence is asked for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::MirrorStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopKind {
    Promote,
    FailOver,
}

/// What a mirror that is to stop, or has stopped, knows of its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub kind: StopKind,
    pub asked_at_ms: i64,
    /// What it was when it was asked, and is again if the promotion is cancelled.
    pub before: MirrorStatus,
    /// Since when its owners are told to stop and its producer identity is to be fenced. None while a
    /// promotion still catches up: only then can it be cancelled.
    pub fenced_at_ms: Option<i64>,
    /// Index is the partition; empty until it has STOPPED.
    pub ends: Vec<StoppedPartition>,
    /// What couldn't be put right on the way, in words.
    pub remarks: Vec<Arc<str>>,
}

/// Where a partition ended as a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedPartition {
    /// Behind the last mirrored record.
    pub records_end: i64,
    /// Behind the fence, which takes one offset or more: where its first own record goes.
    pub log_end: i64,
    /// The source's log end as it was seen last; none when the source didn't answer.
    pub source_end: Option<i64>,
}

impl StoppedPartition {
    /// Source offsets that were not mirrored; none when the source didn't answer.
    pub fn lost(&self) -> Option<i64> {
        self.source_end.map(|end| end.saturating_sub(self.records_end).max(0))
    }
}

/// Over all partitions; none as soon as one isn't known.
pub fn lost_of_all(ends: &[StoppedPartition]) -> Option<i64> {
    ends.iter().try_fold(0, |lost: i64, end| Some(lost.saturating_add(end.lost()?)))
}

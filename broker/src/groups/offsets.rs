//! The offsets a group has committed, and those that wait for a transaction's end.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use super::group::{Group, Phase};

/// A partition, by topic and number.
pub type Partition = (String, i32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// -1: not given.
    pub leader_epoch: i32,
    pub metadata: StrBytes,
    pub committed_ms: i64,
    /// Set by old clients that ask for a retention of their own.
    pub expires_ms: Option<i64>,
}

/// Who commits, by what its request says; a client that isn't a member gives generation -1 and no id.
#[derive(Debug, Clone, Copy)]
pub struct Committer<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a StrBytes>,
    pub generation: i32,
}

#[derive(Debug, Default)]
pub struct GroupOffsets {
    /// With the number of the commit.
    committed: BTreeMap<Partition, (u64, Committed)>,
    /// By producer id, until its transaction ends.
    pending: BTreeMap<i64, BTreeMap<Partition, (u64, Committed)>>,
    commits: u64,
}

impl GroupOffsets {
    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(&(topic.to_owned(), partition)).map(|(_, committed)| committed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Partition, &Committed)> {
        self.committed.iter().map(|(partition, (_, committed))| (partition, committed))
    }

    pub fn commit(&mut self, partition: Partition, committed: Committed) {
        self.commits += 1;
        self.committed.insert(partition, (self.commits, committed));
    }

    /// Not seen until [`GroupOffsets::end_transaction`].
    pub fn commit_pending(&mut self, producer_id: i64, partition: Partition, committed: Committed) {
        self.commits += 1;
        self.pending.entry(producer_id).or_default().insert(partition, (self.commits, committed));
    }

    /// Offsets that a producer's transaction held become the group's, unless others were committed since,
    /// or are forgotten.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) -> bool {
        let Some(pending) = self.pending.remove(&producer_id) else { return false };
        for (partition, (number, committed)) in pending.into_iter().filter(|_| commit) {
            if self.committed.get(&partition).is_none_or(|(current, _)| *current < number) {
                self.committed.insert(partition, (number, committed));
            }
        }
        true
    }

    pub fn is_pending(&self, topic: &str, partition: i32) -> bool {
        let partition = (topic.to_owned(), partition);
        self.pending.values().any(|offsets| offsets.contains_key(&partition))
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn forget(&mut self, topic: &str, partition: i32) {
        self.forget_where(|(other, number)| other == topic && *number == partition);
    }

    pub fn forget_topic(&mut self, topic: &str) {
        self.forget_where(|(other, _)| other == topic);
    }

    fn forget_where(&mut self, which: impl Fn(&Partition) -> bool) {
        self.committed.retain(|partition, _| !which(partition));
        for offsets in self.pending.values_mut() {
            offsets.retain(|partition, _| !which(partition));
        }
    }
}

impl Group {
    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS`.
    pub(super) fn check_commit(&self, committer: Committer<'_>, transactional: bool) -> Result<(), Code> {
        let Committer { member_id, instance_id, generation } = committer;
        if generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.check_member(member_id, instance_id)?;
            if generation != self.generation {
                return Err(Code::IllegalGeneration);
            }
        } else if !transactional {
            return Err(Code::UnknownMemberId);
        }
        if !transactional && self.phase == Phase::CompletingRebalance {
            return Err(Code::RebalanceInProgress);
        }
        Ok(())
    }

    /// Forgets offsets that have outlived their retention: since they were committed, or in a group that
    /// had members since it has none. Returns whether none is left.
    pub(super) fn expire_offsets(&mut self, retention_ms: i64, now_ms: i64) -> bool {
        let empty_since_ms = match (self.protocol_type.is_some(), self.phase) {
            (false, _) => None,
            (true, Phase::Empty) => self.since_ms(),
            (true, Phase::Stable) if self.is_consumer() && self.knows_subscription() => None,
            (true, _) => return false,
        };
        let is_over = |committed: &Committed| match committed.expires_ms {
            Some(expires_ms) => now_ms >= expires_ms,
            None => now_ms - empty_since_ms.unwrap_or(committed.committed_ms) >= retention_ms,
        };
        let offsets = self.offsets.iter();
        let over: BTreeSet<Partition> = offsets
            .filter(|((topic, number), committed)| {
                is_over(committed) && !self.is_subscribed(topic) && !self.offsets.is_pending(topic, *number)
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        self.offsets.committed.retain(|partition, _| !over.contains(partition));
        self.offsets.committed.is_empty() && !self.offsets.has_pending()
    }
}

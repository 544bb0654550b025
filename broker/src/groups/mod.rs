//! The group coordinator: consumer groups by the classic protocol, and their offsets. A pure value of
//! (request, time); a member that has to wait leaves a [`Reply`] behind. Knows nothing of brokers: which
//! of them coordinates a group is decided in `coordinator.rs`.

mod group;
mod join;
mod member;
mod membership;
mod offsets;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

pub(crate) use group::refused_join;
pub use group::{Group, Phase};
pub use join::Joiner;
pub use member::{Member, Reply};
pub use offsets::{Committed, Committer, GroupOffsets};

/// Kafka's defaults.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_ms: i64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            members_max: i32::MAX as usize,
            metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 86_400_000,
            retention_check_ms: 600_000,
        }
    }
}

#[derive(Debug)]
pub struct Groups {
    pub settings: GroupSettings,
    by_id: BTreeMap<String, Group>,
    retention_due_ms: i64,
}

impl Groups {
    pub fn new(settings: GroupSettings, now_ms: i64) -> Self {
        let retention_due_ms = now_ms + settings.retention_check_ms;
        Self { settings, by_id: BTreeMap::new(), retention_due_ms }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.by_id.iter().map(|(id, group)| (id.as_str(), group))
    }

    pub fn get(&self, id: &str) -> Option<&Group> {
        self.by_id.get(id)
    }

    /// When something falls due next.
    pub fn next_due_ms(&self) -> i64 {
        let due = self.by_id.values().filter_map(Group::next_due_ms);
        due.fold(self.retention_due_ms, i64::min)
    }

    /// What falls due by `now_ms` happens. Returns whether anything did.
    pub fn advance(&mut self, now_ms: i64) -> bool {
        let mut fired = false;
        for group in self.by_id.values_mut() {
            fired |= group.advance(now_ms);
        }
        if now_ms >= self.retention_due_ms {
            self.retention_due_ms = now_ms + self.settings.retention_check_ms;
            let retention_ms = self.settings.offsets_retention_ms;
            self.by_id.retain(|_, group| {
                let forgotten = group.expire_offsets(retention_ms, now_ms);
                !(forgotten && group.phase() == Phase::Empty)
            });
            fired = true;
        }
        fired
    }

    fn get_or_create(&mut self, id: &str) -> &mut Group {
        let delay_ms = self.settings.initial_rebalance_delay_ms;
        self.by_id.entry(id.to_owned()).or_insert_with(|| Group::new(delay_ms))
    }

    /// The answer goes to `reply`, at once or when the group has come together.
    pub fn join(
        &mut self,
        request: &JoinGroupRequest,
        joiner: &Joiner,
        now_ms: i64,
        reply: Reply<JoinGroupResponse>,
    ) {
        let members_max = self.settings.members_max;
        if !request.member_id.is_empty() && !self.by_id.contains_key(request.group_id.as_str()) {
            let _ = reply.send(refused_join(request.member_id.clone(), Code::UnknownMemberId));
            return;
        }
        self.get_or_create(&request.group_id).join(request, joiner, members_max, now_ms, reply);
    }

    /// The answer goes to `reply`, at once or when the leader has assigned.
    pub fn sync(&mut self, request: &SyncGroupRequest, now_ms: i64, reply: Reply<SyncGroupResponse>) {
        match self.by_id.get_mut(request.group_id.as_str()) {
            Some(group) => group.sync(request, now_ms, reply),
            None => {
                let _ = reply.send(refused_sync(Code::UnknownMemberId));
            }
        }
    }

    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS`.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now_ms: i64) -> Result<(), Code> {
        let group = self.by_id.get_mut(request.group_id.as_str()).ok_or(Code::UnknownMemberId)?;
        group.heartbeat(request, now_ms)
    }

    pub fn leave(&mut self, id: &str, leaving: &[MemberIdentity], now_ms: i64) -> Vec<MemberResponse> {
        match self.by_id.get_mut(id) {
            Some(group) => group.leave(leaving, now_ms),
            None => leaving.iter().map(|one| left(one, Some(Code::UnknownMemberId))).collect(),
        }
    }

    /// Where `committer` may commit offsets of group `id`; a client that is no member creates the group.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, and as [`Groups::heartbeat`].
    pub fn committing(
        &mut self,
        id: &str,
        committer: Committer<'_>,
        now_ms: i64,
    ) -> Result<&mut GroupOffsets, Code> {
        if committer.generation >= 0 && !self.by_id.contains_key(id) {
            return Err(Code::GroupIdNotFound);
        }
        let group = self.get_or_create(id);
        group.check_commit(committer, false)?;
        if matches!(group.phase(), Phase::Stable | Phase::PreparingRebalance) {
            group.heard_of(committer.member_id, now_ms);
        }
        Ok(&mut group.offsets)
    }

    /// As [`Groups::committing`], within a transaction (TxnOffsetCommit): for
    /// [`GroupOffsets::commit_pending`].
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`.
    pub fn committing_pending(
        &mut self,
        id: &str,
        committer: Committer<'_>,
    ) -> Result<&mut GroupOffsets, Code> {
        if committer.generation >= 0 && !self.by_id.contains_key(id) {
            return Err(Code::IllegalGeneration);
        }
        let group = self.get_or_create(id);
        group.check_commit(committer, true)?;
        Ok(&mut group.offsets)
    }

    /// A producer's transaction has ended: in every group its pending offsets count, or never did.
    /// Returns whether it had any.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) -> bool {
        let groups = self.by_id.values_mut();
        groups.fold(false, |any, group| group.offsets.end_transaction(producer_id, commit) | any)
    }

    /// Where offsets of group `id` may be deleted, topic by topic.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP` when it isn't known what its members consume.
    pub fn deleting_offsets(&mut self, id: &str) -> Result<&mut Group, Code> {
        let group = self.by_id.get_mut(id).ok_or(Code::GroupIdNotFound)?;
        if group.phase() == Phase::Empty || group.is_consumer() {
            Ok(group)
        } else {
            Err(Code::NonEmptyGroup)
        }
    }

    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`.
    pub fn delete(&mut self, id: &str) -> Result<(), Code> {
        let group = self.by_id.get(id).ok_or(Code::GroupIdNotFound)?;
        if group.phase() != Phase::Empty {
            return Err(Code::NonEmptyGroup);
        }
        self.by_id.remove(id);
        Ok(())
    }

    /// A topic was deleted, and offsets in it with it.
    pub fn forget_topic(&mut self, topic: &str) {
        self.by_id.values_mut().for_each(|group| group.offsets.forget_topic(topic));
    }

    /// Another broker coordinates the group from now on.
    pub fn reload(&mut self, id: &str, now_ms: i64) {
        if let Some(group) = self.by_id.get_mut(id) {
            group.reload(now_ms);
        }
    }
}

pub(crate) fn refused_sync(code: Code) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code.code())
}

pub(crate) fn left(leaving: &MemberIdentity, code: Option<Code>) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(leaving.member_id.clone())
        .with_group_instance_id(leaving.group_instance_id.clone())
        .with_error_code(code.map_or(0, |code| code.code()))
}

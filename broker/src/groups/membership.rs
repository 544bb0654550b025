//! Life in a group after joining: fetching the assignment, heartbeats, leaving, and what time does.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    HeartbeatRequest, SyncGroupRequest, SyncGroupResponse, leave_group_response::MemberResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::group::{Group, JoinTimer, Phase, refused_join};
use super::member::{Present, Reply};
use super::refused_sync;

/// What falls due in a group.
enum Due {
    Join(JoinTimer),
    Sync,
    Session(StrBytes),
    Pending(StrBytes),
}

impl Group {
    pub(super) fn sync(&mut self, request: &SyncGroupRequest, now_ms: i64, reply: Reply<SyncGroupResponse>) {
        let id = &request.member_id;
        if let Err(code) = self.check_sync(request) {
            let _ = reply.send(refused_sync(code));
            return;
        }
        match self.phase {
            Phase::Empty => {
                let _ = reply.send(refused_sync(Code::UnknownMemberId));
            }
            Phase::PreparingRebalance => {
                let _ = reply.send(refused_sync(Code::RebalanceInProgress));
            }
            Phase::CompletingRebalance => {
                if let Some(present) = self.find_mut(id) {
                    present.sync(reply);
                }
                self.has_synced(id);
                if self.is_led_by(id) {
                    self.assign(request, now_ms);
                }
            }
            Phase::Stable => {
                self.has_synced(id);
                let _ = reply.send(self.synced(id));
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), Code> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(Code::IllegalGeneration);
        }
        let differs = |asked: &Option<StrBytes>, own: &Option<StrBytes>| {
            asked.is_some() && own.is_some() && asked != own
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(Code::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn has_synced(&mut self, id: &str) {
        self.unsynced.remove(id.as_bytes());
        if self.unsynced.is_empty() {
            self.sync_until_ms = None;
        }
    }

    /// The leader's assignment is stored, and whoever waits for it gets it.
    fn assign(&mut self, request: &SyncGroupRequest, now_ms: i64) {
        for present in &mut self.members {
            let own = request.assignments.iter().rev().find(|given| given.member_id == present.member.id);
            present.member.assignment = own.map(|given| given.assignment.clone()).unwrap_or_default();
        }
        self.enter(Phase::Stable, now_ms);
        self.store();
        let ids: Vec<StrBytes> = self.members().map(|member| member.id.clone()).collect();
        for id in ids {
            let response = self.synced(&id);
            if let Some(present) = self.find_mut(&id)
                && present.answer_sync(response)
            {
                present.restart_session(now_ms);
            }
        }
    }

    fn synced(&self, id: &str) -> SyncGroupResponse {
        let assignment = self.find(id).map(|present| present.member.assignment.clone());
        SyncGroupResponse::default()
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_assignment(assignment.unwrap_or_default())
    }

    pub(super) fn fail_syncs(&mut self, code: Code) {
        for present in &mut self.members {
            present.member.assignment.clear();
            present.answer_sync(refused_sync(code));
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest, now_ms: i64) -> Result<(), Code> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(Code::IllegalGeneration);
        }
        self.heard_of(&request.member_id, now_ms);
        match self.phase {
            Phase::PreparingRebalance => Err(Code::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable | Phase::Empty => Ok(()),
        }
    }

    pub(super) fn heard_of(&mut self, id: &str, now_ms: i64) {
        if let Some(present) = self.find_mut(id) {
            present.restart_session(now_ms);
        }
    }

    pub(super) fn leave(&mut self, leaving: &[MemberIdentity], now_ms: i64) -> Vec<MemberResponse> {
        let mut responses = Vec::new();
        for one in leaving {
            let left = self.leave_one(one);
            responses.push(super::left(one, left.err()));
        }
        if responses.iter().any(|response| response.error_code == 0) && self.phase != Phase::Empty {
            self.rebalance_or_go_on(now_ms);
        }
        responses
    }

    fn leave_one(&mut self, leaving: &MemberIdentity) -> Result<(), Code> {
        let instance = leaving.group_instance_id.as_ref();
        let id = if leaving.member_id.is_empty() {
            let member = instance.and_then(|instance| self.static_member(instance));
            member.ok_or(Code::UnknownMemberId)?.id.clone()
        } else {
            if !self.pending.contains_key(&leaving.member_id) {
                self.check_member(&leaving.member_id, instance)?;
            }
            leaving.member_id.clone()
        };
        self.answer_join(&id, refused_join(StrBytes::default(), Code::UnknownMemberId));
        self.remove(&id);
        Ok(())
    }

    /// When something falls due in this group next.
    pub(super) fn next_due_ms(&self) -> Option<i64> {
        self.next_due().map(|(due_ms, _)| due_ms)
    }

    /// Each timer fires at its own time, however late it is looked at. Returns whether any did.
    pub(super) fn advance(&mut self, now_ms: i64) -> bool {
        let mut fired = false;
        while let Some((due_ms, due)) = self.next_due().filter(|(due_ms, _)| *due_ms <= now_ms) {
            fired = true;
            match due {
                Due::Join(timer) => {
                    self.join_timer = None;
                    self.join_timer_is_due(timer, due_ms);
                }
                Due::Sync => self.expel_unsynced(due_ms),
                Due::Session(id) => self.session_is_over(&id, due_ms),
                Due::Pending(id) => {
                    self.remove(&id);
                    self.go_on_without(due_ms);
                }
            }
        }
        fired
    }

    fn next_due(&self) -> Option<(i64, Due)> {
        let join = self.join_timer.map(|timer| (timer.due_ms, Due::Join(timer)));
        let sync = self.sync_until_ms.map(|due_ms| (due_ms, Due::Sync));
        let session = |present: &Present| {
            present.session_until_ms.map(|due_ms| (due_ms, Due::Session(present.member.id.clone())))
        };
        let sessions = self.members.iter().filter_map(session);
        let pending = self.pending.iter().map(|(id, due_ms)| (*due_ms, Due::Pending(id.clone())));
        join.into_iter().chain(sync).chain(sessions).chain(pending).min_by_key(|(due_ms, _)| *due_ms)
    }

    fn expel_unsynced(&mut self, now_ms: i64) {
        self.sync_until_ms = None;
        if self.unsynced.is_empty() || !matches!(self.phase, Phase::CompletingRebalance | Phase::Stable) {
            return;
        }
        for id in std::mem::take(&mut self.unsynced) {
            self.remove(&id);
        }
        self.prepare_rebalance(now_ms);
    }

    fn session_is_over(&mut self, id: &StrBytes, now_ms: i64) {
        let Some(present) = self.find_mut(id) else { return };
        present.session_until_ms = None;
        if present.is_excused() {
            return;
        }
        present.answer_join(refused_join(StrBytes::default(), Code::UnknownMemberId));
        self.remove(id);
        match self.phase {
            Phase::Stable | Phase::CompletingRebalance => self.prepare_rebalance(now_ms),
            Phase::PreparingRebalance | Phase::Empty => self.go_on_without(now_ms),
        }
    }

    fn go_on_without(&mut self, now_ms: i64) {
        if self.phase == Phase::PreparingRebalance && self.all_joined() {
            self.complete_join(now_ms);
        }
    }
}

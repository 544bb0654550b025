//! Joining: who may, and when the group moves on (Kafka's `classicGroupJoin` and what follows from it).

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::group::{Group, InitialDelay, JoinTimer, Phase, refused_join};
use super::member::{Member, Present, Reply};

/// A new member waits so long for its first join at most: its session begins when that is answered.
const NEW_MEMBER_JOIN_MS: i64 = 300_000;

/// Who joins, apart from what its request says.
#[derive(Debug, Clone)]
pub struct Joiner {
    pub client_id: String,
    pub client_host: String,
    /// The id of a member that has none: this behind its client or instance id.
    pub id_suffix: String,
    /// A new member is given an id and has to join again with it (KIP-394).
    pub must_know_id: bool,
    /// A static leader that comes back is told that the assignment stands (KIP-814).
    pub can_skip_assignment: bool,
}

impl Group {
    pub(super) fn join(
        &mut self,
        request: &JoinGroupRequest,
        joiner: &Joiner,
        size_max: usize,
        now_ms: i64,
        reply: Reply<JoinGroupResponse>,
    ) {
        let id = &request.member_id;
        if !self.has_room_for(id, size_max) {
            self.remove(id);
            return refuse(reply, StrBytes::default(), Code::GroupMaxSizeReached);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(reply, id.clone(), Code::InconsistentGroupProtocol);
        }
        if id.is_empty() {
            self.join_as_new(request, joiner, now_ms, reply);
        } else if self.pending.contains_key(id) {
            self.add_member(request, joiner, id.clone(), now_ms, reply);
        } else {
            self.join_again(request, now_ms, reply);
        }
    }

    fn has_room_for(&self, id: &str, size_max: usize) -> bool {
        let known = self.find(id);
        match self.phase {
            Phase::Empty => true,
            Phase::PreparingRebalance => {
                known.is_some_and(Present::is_joining)
                    || self.members.iter().filter(|present| present.is_joining()).count() < size_max
            }
            Phase::CompletingRebalance | Phase::Stable => known.is_some() || self.members.len() < size_max,
        }
    }

    fn join_as_new(
        &mut self,
        request: &JoinGroupRequest,
        joiner: &Joiner,
        now_ms: i64,
        reply: Reply<JoinGroupResponse>,
    ) {
        let named_after = request.group_instance_id.as_deref().unwrap_or(&joiner.client_id);
        let id = StrBytes::from_string(format!("{named_after}-{}", joiner.id_suffix));
        let current = request.group_instance_id.as_deref().and_then(|instance| self.static_member(instance));
        if let Some(current) = current.map(|member| member.id.clone()) {
            return self.replace_static(request, joiner, &current, id, now_ms, reply);
        }
        if request.group_instance_id.is_none() && joiner.must_know_id {
            self.pending.insert(id.clone(), now_ms + i64::from(request.session_timeout_ms));
            return refuse(reply, id, Code::MemberIdRequired);
        }
        self.add_member(request, joiner, id, now_ms, reply);
    }

    fn add_member(
        &mut self,
        request: &JoinGroupRequest,
        joiner: &Joiner,
        id: StrBytes,
        now_ms: i64,
        reply: Reply<JoinGroupResponse>,
    ) {
        let mut present = Present::new(Member {
            id,
            instance_id: request.group_instance_id.clone(),
            client_id: StrBytes::from_string(joiner.client_id.clone()),
            client_host: StrBytes::from_string(joiner.client_host.clone()),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: Vec::new(),
            assignment: bytes::Bytes::new(),
        });
        present.rejoin(request, reply);
        present.is_new = true;
        present.session_until_ms = Some(now_ms + NEW_MEMBER_JOIN_MS);
        if self.phase == Phase::PreparingRebalance && self.previous == Phase::Empty {
            self.newly_joined = true;
        }
        self.add(present, &request.protocol_type);
        self.rebalance_or_go_on(now_ms);
    }

    fn join_again(&mut self, request: &JoinGroupRequest, now_ms: i64, reply: Reply<JoinGroupResponse>) {
        let id = &request.member_id;
        if let Err(code) = self.check_member(id, request.group_instance_id.as_ref()) {
            let response = refused_join(id.clone(), code).with_protocol_name(None);
            let _ = reply.send(response);
            return;
        }
        let as_before = self.find(id).is_some_and(|present| present.member.protocols == request.protocols);
        let answered = match self.phase {
            Phase::CompletingRebalance => as_before,
            Phase::Stable => as_before && !self.is_led_by(id),
            Phase::PreparingRebalance | Phase::Empty => false,
        };
        if answered {
            let _ = reply.send(self.joined(id));
        } else {
            if let Some(present) = self.find_mut(id) {
                present.rejoin(request, reply);
            }
            self.rebalance_or_go_on(now_ms);
        }
    }

    /// A static member came back under a new id: the old one is fenced, and nothing moves as long as the
    /// group goes on with the same protocol.
    fn replace_static(
        &mut self,
        request: &JoinGroupRequest,
        joiner: &Joiner,
        old: &StrBytes,
        id: StrBytes,
        now_ms: i64,
        reply: Reply<JoinGroupResponse>,
    ) {
        let leader_before = self.leader.clone();
        if self.is_led_by(old) {
            self.leader = Some(id.clone());
        }
        let Some(present) = self.find_mut(old) else {
            return refuse(reply, StrBytes::default(), Code::UnknownMemberId);
        };
        let fenced = Code::FencedInstanceId;
        present.answer_join(refused_join(old.clone(), fenced).with_protocol_name(None));
        present.answer_sync(super::refused_sync(fenced));
        present.member.id = id.clone();
        present.is_new = false;
        present.restart_session(now_ms);
        present.rejoin(request, reply);
        match self.phase {
            Phase::Stable if self.elected_protocol() == self.protocol => {
                self.store();
                let mut response = self.joined(&id);
                if joiner.can_skip_assignment {
                    response.skip_assignment = self.is_led_by(&id);
                } else {
                    // It believes to be a follower, and so assigns nothing.
                    response.leader = leader_before.unwrap_or_default();
                    response.members.clear();
                }
                self.answer_join(&id, response);
            }
            Phase::Stable => self.rebalance_or_go_on(now_ms),
            Phase::CompletingRebalance => self.prepare_rebalance(now_ms),
            Phase::PreparingRebalance | Phase::Empty => self.complete_join_if_all_are_in(now_ms),
        }
    }

    pub(super) fn answer_join(&mut self, id: &str, response: JoinGroupResponse) {
        if let Some(present) = self.find_mut(id) {
            present.answer_join(response);
        }
    }

    pub(super) fn rebalance_or_go_on(&mut self, now_ms: i64) {
        if self.phase == Phase::PreparingRebalance {
            self.complete_join_if_all_are_in(now_ms);
        } else {
            self.prepare_rebalance(now_ms);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now_ms: i64) {
        if self.phase == Phase::CompletingRebalance {
            self.fail_syncs(Code::RebalanceInProgress);
        }
        self.unsynced.clear();
        self.sync_until_ms = None;
        let initial = self.phase == Phase::Empty;
        self.enter(Phase::PreparingRebalance, now_ms);
        if initial {
            let delay_ms = self.initial_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            let initial = Some(InitialDelay { delay_ms, remaining_ms });
            self.join_timer = Some(JoinTimer { due_ms: now_ms + delay_ms, initial });
        } else if self.all_joined() {
            self.complete_join(now_ms);
        } else {
            self.wait_for_joins(now_ms);
        }
    }

    fn wait_for_joins(&mut self, now_ms: i64) {
        let due_ms = now_ms + self.rebalance_timeout_ms().max(1);
        self.join_timer = Some(JoinTimer { due_ms, initial: None });
    }

    /// Not in the first rebalance, which always lasts its delay.
    pub(super) fn complete_join_if_all_are_in(&mut self, now_ms: i64) {
        let rebalances = self.phase == Phase::PreparingRebalance && self.previous != Phase::Empty;
        if rebalances && self.all_joined() {
            self.complete_join(now_ms);
        }
    }

    pub(super) fn join_timer_is_due(&mut self, timer: JoinTimer, now_ms: i64) {
        match timer.initial {
            Some(InitialDelay { delay_ms, remaining_ms }) if self.newly_joined && remaining_ms > 0 => {
                self.newly_joined = false;
                let next_ms = self.initial_delay_ms.min(remaining_ms);
                let remaining_ms = (remaining_ms - delay_ms).max(0);
                let initial = Some(InitialDelay { delay_ms: next_ms, remaining_ms });
                self.join_timer = Some(JoinTimer { due_ms: now_ms + next_ms, initial });
            }
            _ => self.complete_join(now_ms),
        }
    }

    /// Whoever has joined is in; dynamic members that haven't are out, static ones stay.
    pub(super) fn complete_join(&mut self, now_ms: i64) {
        self.join_timer = None;
        let late = |present: &&Present| !present.is_joining() && present.member.instance_id.is_none();
        let late: Vec<StrBytes> =
            self.members.iter().filter(late).map(|present| present.member.id.clone()).collect();
        late.iter().for_each(|id| self.remove(id));
        if !self.members.is_empty() && !self.elect_joined_leader() {
            return self.wait_for_joins(now_ms);
        }
        self.begin_generation(now_ms);
        let ids: Vec<StrBytes> = self.members().map(|member| member.id.clone()).collect();
        for id in ids {
            let response = self.joined(&id);
            let Some(present) = self.find_mut(&id) else { continue };
            present.answer_join(response);
            present.restart_session(now_ms);
            present.is_new = false;
            self.unsynced.insert(id);
        }
        if !self.members.is_empty() {
            self.sync_until_ms = Some(now_ms + self.rebalance_timeout_ms().max(1));
        }
    }

    fn elect_joined_leader(&mut self) -> bool {
        let joining = |id: &StrBytes| self.find(id).is_some_and(Present::is_joining);
        if self.leader.as_ref().is_some_and(joining) {
            return true;
        }
        let heir = self.members.iter().find(|present| present.is_joining());
        let Some(heir) = heir.map(|present| present.member.id.clone()) else { return false };
        self.leader = Some(heir);
        true
    }
}

fn refuse(reply: Reply<JoinGroupResponse>, member_id: StrBytes, code: Code) {
    let _ = reply.send(refused_join(member_id, code));
}

//! What a sequence knows of a group's members: enough to draw what they send, and never a join or a sync
//! that waits for another one which isn't drawn with it.

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol as Protocol;
use kafka_protocol::messages::{
    DeleteGroupsResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Empty,
    Preparing,
    Completing,
    Stable,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub protocols: Vec<Protocol>,
}

/// Two members at most: with more of them, who follows a leader that leaves is up to a hash map.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    pub members: Vec<Member>,
    /// Was given an id and hasn't joined with it yet.
    pub pending: Option<String>,
    pub phase: Phase,
    pub generation: i32,
    pub leader: String,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
}

impl Membership {
    /// The leader first.
    pub fn in_rank(&self) -> Vec<&Member> {
        let (mut ranked, followers): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().partition(|member| member.id == self.leader);
        ranked.extend(followers);
        ranked
    }

    pub fn learn_join(&mut self, request: &JoinGroupRequest, response: &JoinGroupResponse) {
        if response.error_code == Code::MemberIdRequired.code() {
            self.pending = Some(response.member_id.to_string());
        }
        if response.error_code != 0 {
            return;
        }
        let id = response.member_id.to_string();
        let instance = request.group_instance_id.as_ref().map(ToString::to_string);
        let same = |member: &Member| member.id == id || (instance.is_some() && member.instance == instance);
        let led = self.members.iter().any(|member| same(member) && member.id == self.leader);
        let joined =
            Member { id: id.clone(), instance: instance.clone(), protocols: request.protocols.clone() };
        match self.members.iter_mut().find(|member| same(member)) {
            // Old versions don't name an instance, which changes nothing.
            Some(member) => {
                *member = Member { instance: joined.instance.or(member.instance.take()), ..joined }
            }
            None => self.members.push(joined),
        }
        self.pending.take_if(|pending| *pending == id);
        if response.generation_id != self.generation {
            self.phase = Phase::Completing;
            self.generation = response.generation_id;
            self.leader = response.leader.to_string();
        } else if led {
            // An old version is told that the leader is who it was itself before.
            self.leader = id;
        }
        self.protocol_type = Some(request.protocol_type.to_string());
        self.protocol = response.protocol_name.as_ref().map(ToString::to_string);
        if !response.members.is_empty() {
            let there =
                |member: &Member| response.members.iter().any(|row| row.member_id.as_str() == member.id);
            self.members.retain(there);
        }
    }

    pub fn learn_sync(&mut self, request: &SyncGroupRequest, response: &SyncGroupResponse) {
        if response.error_code == 0 && request.member_id.as_str() == self.leader {
            self.phase = Phase::Stable;
        }
    }

    pub fn learn_leave(&mut self, request: &LeaveGroupRequest, response: &LeaveGroupResponse) {
        if response.error_code != 0 {
            return;
        }
        let before = self.members.len();
        let mut leave = |id: &str, instance: Option<&str>| {
            self.pending.take_if(|pending| pending == id);
            let named = |member: &Member| !id.is_empty() && member.id == id;
            let placed = |member: &Member| instance.is_some() && member.instance.as_deref() == instance;
            self.members.retain(|member| !named(member) && !placed(member));
        };
        leave(&request.member_id, None);
        for left in response.members.iter().filter(|left| left.error_code == 0) {
            leave(&left.member_id, left.group_instance_id.as_deref());
        }
        if self.members.is_empty() {
            self.phase = Phase::Empty;
        } else if self.members.len() < before {
            self.phase = Phase::Preparing;
            self.leader = self.members[0].id.clone();
        }
    }

    /// Nothing is left of a deleted group.
    pub fn learn_deletion(&mut self, group: &str, response: &DeleteGroupsResponse) {
        let mut gone = response.results.iter().filter(|row| row.error_code == 0);
        if gone.any(|row| row.group_id.as_str() == group) {
            *self = Membership::default();
        }
    }
}

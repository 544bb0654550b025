//! A group: its members, its state, and what of it outlives its coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol as Protocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::member::{Member, Present};
use super::offsets::GroupOffsets;
use super::subscription;

/// The protocol type of consumers; others (Connect) share their work by the same protocol.
const CONSUMER: &str = "consumer";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl Phase {
    /// Kafka's name for a group that doesn't exist.
    pub const DEAD: &str = "Dead";
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// When a join phase ends, whoever has joined by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct JoinTimer {
    pub due_ms: i64,
    /// In the first rebalance of an empty group.
    pub initial: Option<InitialDelay>,
}

/// Each new member prolongs the first rebalance by another delay, up to the rebalance timeout.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    pub delay_ms: i64,
    pub remaining_ms: i64,
}

/// What a coordinator that takes over finds.
#[derive(Debug, Clone, Default)]
struct Stored {
    generation: i32,
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<StrBytes>,
    members: Vec<Member>,
    since_ms: Option<i64>,
}

#[derive(Debug)]
pub struct Group {
    pub(super) phase: Phase,
    pub(super) previous: Phase,
    /// When it entered its phase.
    since_ms: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<StrBytes>,
    pub(super) protocol: Option<StrBytes>,
    pub(super) leader: Option<StrBytes>,
    /// In the order they came.
    pub(super) members: Vec<Present>,
    /// Given an id, not joined yet; with the time until which they may.
    pub(super) pending: BTreeMap<StrBytes, i64>,
    /// Joined, their assignment not fetched yet.
    pub(super) unsynced: BTreeSet<StrBytes>,
    pub(super) newly_joined: bool,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_until_ms: Option<i64>,
    /// `group.initial.rebalance.delay.ms`.
    pub(super) initial_delay_ms: i64,
    /// What its members consume, where that is known.
    subscribed: Option<BTreeSet<String>>,
    stored: Stored,
    pub offsets: GroupOffsets,
}

impl Group {
    pub fn new(initial_delay_ms: i64) -> Self {
        Self {
            phase: Phase::Empty,
            previous: Phase::Empty,
            since_ms: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Vec::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            newly_joined: false,
            join_timer: None,
            sync_until_ms: None,
            initial_delay_ms,
            subscribed: None,
            stored: Stored::default(),
            offsets: GroupOffsets::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn since_ms(&self) -> Option<i64> {
        self.since_ms
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&StrBytes> {
        self.protocol_type.as_ref()
    }

    pub fn protocol(&self) -> Option<&StrBytes> {
        self.protocol.as_ref()
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|present| &present.member)
    }

    pub fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// When it isn't known what a consumer group consumes, it may be anything.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or(self.is_consumer(), |topics| topics.contains(topic))
    }

    pub fn knows_subscription(&self) -> bool {
        self.subscribed.is_some()
    }

    pub(super) fn find(&self, id: &str) -> Option<&Present> {
        self.members.iter().find(|present| present.member.id.as_str() == id)
    }

    pub(super) fn find_mut(&mut self, id: &str) -> Option<&mut Present> {
        self.members.iter_mut().find(|present| present.member.id.as_str() == id)
    }

    pub(super) fn static_member(&self, instance: &str) -> Option<&Member> {
        self.members().find(|member| member.instance_id.as_deref() == Some(instance))
    }

    /// The leader computes the assignment.
    pub(super) fn is_led_by(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`.
    pub(super) fn check_member(&self, id: &str, instance: Option<&StrBytes>) -> Result<(), Code> {
        if let Some(instance) = instance {
            let current = self.static_member(instance).ok_or(Code::UnknownMemberId)?;
            if current.id.as_str() != id {
                return Err(Code::FencedInstanceId);
            }
        }
        self.find(id).map(|_| ()).ok_or(Code::UnknownMemberId)
    }

    pub(super) fn add(&mut self, present: Present, protocol_type: &StrBytes) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        self.leader.get_or_insert(present.member.id.clone());
        self.pending.remove(&present.member.id);
        self.members.push(present);
    }

    /// Without an answer to what it waits for.
    pub(super) fn remove(&mut self, id: &str) {
        self.members.retain(|present| present.member.id.as_str() != id);
        if self.is_led_by(id) {
            self.leader = self.members.first().map(|present| present.member.id.clone());
        }
        self.pending.remove(id.as_bytes());
        self.unsynced.remove(id.as_bytes());
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.iter().all(Present::is_joining)
    }

    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    /// Whether a member with these protocols could join those that are there.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.phase == Phase::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = |protocol: &Protocol| self.members().all(|member| member.supports(&protocol.name));
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(common)
    }

    /// Each member votes for the first of its protocols that all support; of equals the one that was
    /// voted for first.
    pub(super) fn elected_protocol(&self) -> Option<StrBytes> {
        let mut votes: Vec<(&StrBytes, usize)> = Vec::new();
        for member in self.members() {
            let candidate = |name: &&StrBytes| self.members().all(|other| other.supports(name));
            let Some(vote) = member.protocols.iter().map(|own| &own.name).find(candidate) else { continue };
            match votes.iter_mut().find(|(name, _)| *name == vote) {
                Some((_, count)) => *count += 1,
                None => votes.push((vote, 1)),
            }
        }
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    pub(super) fn enter(&mut self, phase: Phase, now_ms: i64) {
        self.previous = self.phase;
        self.phase = phase;
        self.since_ms = Some(now_ms);
    }

    /// The members that are there become those of a new generation, or none does.
    pub(super) fn begin_generation(&mut self, now_ms: i64) {
        self.generation += 1;
        self.protocol = self.elected_protocol();
        self.subscribed = self.subscriptions();
        self.unsynced.clear();
        let phase = if self.members.is_empty() { Phase::Empty } else { Phase::CompletingRebalance };
        self.enter(phase, now_ms);
        if phase == Phase::Empty {
            self.store();
        }
    }

    fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer() {
            return None;
        }
        let mut all = BTreeSet::new();
        for member in self.members() {
            all.extend(subscription::topics(member.metadata(self.protocol.as_ref()?))?);
        }
        Some(all)
    }

    /// What the leader gets to assign partitions by; the others get none.
    pub(super) fn joined(&self, id: &StrBytes) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let described = self.members().map(|member| {
            JoinGroupResponseMember::default()
                .with_member_id(member.id.clone())
                .with_group_instance_id(member.instance_id.clone())
                .with_metadata(member.metadata(protocol))
        });
        let members = if self.is_led_by(id) { described.collect() } else { Vec::new() };
        JoinGroupResponse::default()
            .with_member_id(id.clone())
            .with_members(members)
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_leader(self.leader.clone().unwrap_or_default())
    }

    /// This generation is what a coordinator that takes over will find.
    pub(super) fn store(&mut self) {
        self.stored = Stored {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members().cloned().collect(),
            since_ms: self.since_ms,
        };
    }

    /// Another broker has become the coordinator: whoever waits has to find it, a rebalance that wasn't
    /// over never was, and sessions begin anew.
    pub(super) fn reload(&mut self, now_ms: i64) {
        for present in &mut self.members {
            present.answer_join(refused_join(present.member.id.clone(), Code::NotCoordinator));
            let code = Code::NotCoordinator.code();
            present.answer_sync(SyncGroupResponse::default().with_error_code(code));
        }
        let offsets = std::mem::take(&mut self.offsets);
        let stored = std::mem::take(&mut self.stored);
        let mut group = Self::new(self.initial_delay_ms);
        for member in stored.members {
            let mut present = Present::new(member);
            present.restart_session(now_ms);
            group.members.push(present);
        }
        group.phase = if group.members.is_empty() { Phase::Empty } else { Phase::Stable };
        (group.generation, group.since_ms) = (stored.generation, stored.since_ms);
        (group.protocol_type, group.protocol) = (stored.protocol_type, stored.protocol);
        group.leader = stored.leader;
        group.subscribed = group.subscriptions();
        group.offsets = offsets;
        group.store();
        *self = group;
    }
}

pub(crate) fn refused_join(member_id: StrBytes, code: Code) -> JoinGroupResponse {
    JoinGroupResponse::default().with_member_id(member_id).with_error_code(code.code())
}

//! The group coordinator's promises, one a test; time is what a test says.

use bytes::Bytes;
use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol as Protocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot::{self, Receiver};

use super::*;

const GROUP: &str = "readers";
const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 60_000;
const DELAY_MS: i64 = 3_000;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A group with a clock, and members that know only what they were answered.
struct World {
    groups: Groups,
    now_ms: i64,
    joins: u32,
}

/// A member, as it sees itself.
#[derive(Debug, Clone)]
struct Client {
    id: StrBytes,
    instance: Option<StrBytes>,
    generation: i32,
}

impl World {
    fn new() -> Self {
        Self { groups: Groups::new(GroupSettings::default(), 0), now_ms: 0, joins: 0 }
    }

    fn wait(&mut self, milliseconds: i64) {
        self.now_ms += milliseconds;
        self.groups.advance(self.now_ms);
    }

    fn group(&self) -> &Group {
        self.groups.get(GROUP).unwrap()
    }

    fn phase(&self) -> Phase {
        self.group().phase()
    }

    fn try_join(
        &mut self,
        id: &str,
        instance: Option<&str>,
        protocols: &[&str],
    ) -> Receiver<JoinGroupResponse> {
        let protocols = protocols
            .iter()
            .map(|name| Protocol::default().with_name(text(name)).with_metadata(subscription()));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_session_timeout_ms(SESSION_MS as i32)
            .with_rebalance_timeout_ms(REBALANCE_MS as i32)
            .with_protocol_type(text("consumer"))
            .with_protocols(protocols.collect());
        self.joins += 1;
        let joiner = Joiner {
            client_id: "client".to_owned(),
            client_host: String::new(),
            id_suffix: self.joins.to_string(),
            must_know_id: true,
            can_skip_assignment: true,
        };
        let (reply, answer) = oneshot::channel();
        self.groups.join(&request, &joiner, self.now_ms, reply);
        answer
    }

    /// A dynamic member that was told its id.
    fn introduce(&mut self) -> StrBytes {
        let told = self.try_join("", None, &["range"]).try_recv().unwrap();
        assert_eq!(told.error_code, Code::MemberIdRequired.code());
        told.member_id
    }

    fn try_sync(
        &mut self,
        client: &Client,
        assignments: &[(&Client, &'static str)],
    ) -> Receiver<SyncGroupResponse> {
        let assignments = assignments.iter().map(|(member, bytes)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.id.clone())
                .with_assignment(Bytes::from_static(bytes.as_bytes()))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(client.id.clone())
            .with_group_instance_id(client.instance.clone())
            .with_generation_id(client.generation)
            .with_assignments(assignments.collect());
        let (reply, answer) = oneshot::channel();
        self.groups.sync(&request, self.now_ms, reply);
        answer
    }

    fn heartbeat(&mut self, client: &Client) -> Result<(), Code> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(client.id.clone())
            .with_group_instance_id(client.instance.clone())
            .with_generation_id(client.generation);
        self.groups.heartbeat(&request, self.now_ms)
    }

    fn leave(&mut self, client: &Client) -> i16 {
        let one = MemberIdentity::default().with_member_id(client.id.clone());
        self.groups.leave(GROUP, &[one], self.now_ms)[0].error_code
    }

    /// A stable group of so many members, the first of which leads.
    fn stable(&mut self, instances: &[Option<&str>]) -> Vec<Client> {
        let answers: Vec<_> = instances
            .iter()
            .map(|instance| {
                let id = if instance.is_none() { self.introduce() } else { StrBytes::default() };
                self.try_join(&id, *instance, &["range"])
            })
            .collect();
        self.wait(2 * DELAY_MS);
        let clients: Vec<Client> = answers
            .into_iter()
            .zip(instances)
            .map(|(mut answer, instance)| client(&answer.try_recv().unwrap(), *instance))
            .collect();
        self.assign(&clients);
        clients
    }

    fn assign(&mut self, clients: &[Client]) {
        let all: Vec<(&Client, &str)> = clients.iter().map(|client| (client, "work")).collect();
        let mut answers: Vec<_> = clients[1..].iter().map(|client| self.try_sync(client, &[])).collect();
        answers.push(self.try_sync(&clients[0], &all));
        for mut answer in answers {
            assert_eq!(answer.try_recv().unwrap().assignment, Bytes::from_static(b"work"));
        }
        assert_eq!(self.phase(), Phase::Stable);
    }

    fn commit(&mut self, committer: Committer<'_>, offset: i64) -> Result<(), Code> {
        let committed = committed(offset, self.now_ms);
        let offsets = self.groups.committing(GROUP, committer, self.now_ms)?;
        offsets.commit(("orders".to_owned(), 0), committed);
        Ok(())
    }

    fn committed(&self) -> Option<i64> {
        let group = self.groups.get(GROUP)?;
        group.offsets.get("orders", 0).map(|committed| committed.offset)
    }
}

const NO_MEMBER: Committer<'static> = Committer { member_id: "", instance_id: None, generation: -1 };

fn client(joined: &JoinGroupResponse, instance: Option<&str>) -> Client {
    assert_eq!(joined.error_code, 0);
    Client { id: joined.member_id.clone(), instance: instance.map(text), generation: joined.generation_id }
}

fn committed(offset: i64, committed_ms: i64) -> Committed {
    Committed { offset, leader_epoch: -1, metadata: StrBytes::default(), committed_ms, expires_ms: None }
}

/// To the topic `orders`, as consumers write it: version, topics, user data.
fn subscription() -> Bytes {
    Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x06orders\xff\xff\xff\xff")
}

#[test]
fn a_first_rebalance_waits_for_others_and_its_first_member_leads() {
    let mut world = World::new();
    let (first, second) = (world.introduce(), world.introduce());
    let mut first = world.try_join(&first, None, &["range"]);
    world.wait(DELAY_MS - 1);
    let mut second = world.try_join(&second, None, &["range"]);
    world.wait(1);
    assert!(first.try_recv().is_err(), "the newcomer prolongs it");
    world.wait(DELAY_MS);
    let (first, second) = (first.try_recv().unwrap(), second.try_recv().unwrap());
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!((first.leader.clone(), second.leader.clone()), (first.member_id.clone(), first.member_id));
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
    assert_eq!(world.phase(), Phase::CompletingRebalance);
}

#[test]
fn members_agree_on_the_protocol_that_most_prefer_of_those_that_all_support() {
    let mut world = World::new();
    let ids = [world.introduce(), world.introduce(), world.introduce()];
    let offers = [&["sticky", "range", "mine"][..], &["range", "sticky"], &["range", "sticky"]];
    let mut answers: Vec<_> =
        ids.iter().zip(offers).map(|(id, offer)| world.try_join(id, None, offer)).collect();
    let mut stranger = world.try_join("", None, &["mine"]);
    assert_eq!(stranger.try_recv().unwrap().error_code, Code::InconsistentGroupProtocol.code());
    world.wait(2 * DELAY_MS);
    for answer in &mut answers {
        assert_eq!(answer.try_recv().unwrap().protocol_name.as_deref(), Some("range"));
    }
}

#[test]
fn a_member_that_leaves_makes_the_others_rejoin() {
    let mut world = World::new();
    let clients = world.stable(&[None, None]);
    assert_eq!(world.leave(&clients[1]), 0);
    assert_eq!(world.leave(&clients[1]), Code::UnknownMemberId.code());
    assert_eq!(world.heartbeat(&clients[0]), Err(Code::RebalanceInProgress));
    let rejoined = world.try_join(&clients[0].id, None, &["range"]).try_recv().unwrap();
    assert_eq!((rejoined.generation_id, rejoined.members.len()), (2, 1));
    assert_eq!(world.heartbeat(&clients[0]), Err(Code::IllegalGeneration));
    world.assign(&[client(&rejoined, None)]);
}

#[test]
fn a_silent_member_is_expelled_when_its_session_is_over_and_not_before() {
    let mut world = World::new();
    let clients = world.stable(&[None, None]);
    world.wait(SESSION_MS - 1);
    world.heartbeat(&clients[0]).unwrap();
    assert_eq!(world.group().members().count(), 2);
    world.wait(1);
    assert_eq!(world.group().members().count(), 1);
    assert_eq!(world.heartbeat(&clients[1]), Err(Code::UnknownMemberId));
    assert_eq!(world.heartbeat(&clients[0]), Err(Code::RebalanceInProgress));
}

#[test]
fn timers_fire_at_their_own_times_however_late_they_are_looked_at() {
    let mut often = World::new();
    let mut once = World::new();
    for world in [&mut often, &mut once] {
        let clients = world.stable(&[None, None]);
        world.leave(&clients[1]);
    }
    (0..REBALANCE_MS).step_by(100).for_each(|_| often.wait(100));
    once.wait(REBALANCE_MS);
    let seen = |world: &World| (world.phase(), world.group().since_ms(), world.group().generation());
    assert_eq!(seen(&often), seen(&once));
    assert_eq!(seen(&once).0, Phase::Empty);
}

#[test]
fn who_has_not_rejoined_when_the_rebalance_times_out_is_out_and_another_leads() {
    let mut world = World::new();
    let clients = world.stable(&[None, None]);
    let newcomer = world.introduce();
    let mut newcomer = world.try_join(&newcomer, None, &["range"]);
    let mut second = world.try_join(&clients[1].id, None, &["range"]);
    for _ in 0..REBALANCE_MS / 1_000 {
        let _ = world.heartbeat(&clients[0]);
        world.wait(1_000);
    }
    let (second, newcomer) = (second.try_recv().unwrap(), newcomer.try_recv().unwrap());
    assert_eq!(second.leader, second.member_id);
    assert_eq!((second.members.len(), newcomer.generation_id), (2, 2));
    assert_eq!(world.heartbeat(&clients[0]), Err(Code::UnknownMemberId));
}

#[test]
fn who_does_not_fetch_its_assignment_in_time_is_out() {
    let mut world = World::new();
    let clients = world.stable(&[None, None]);
    let mut first = world.try_join(&clients[0].id, None, &["range"]);
    let mut second = world.try_join(&clients[1].id, None, &["range"]);
    let (first, second) =
        (client(&first.try_recv().unwrap(), None), client(&second.try_recv().unwrap(), None));
    let assigned = world.try_sync(&first, &[(&first, "all")]).try_recv().unwrap();
    assert_eq!(assigned.assignment, Bytes::from_static(b"all"));
    for _ in 0..REBALANCE_MS / 1_000 {
        let _ = (world.heartbeat(&first), world.heartbeat(&second));
        world.wait(1_000);
    }
    assert_eq!(world.heartbeat(&second), Err(Code::UnknownMemberId));
    assert_eq!(world.heartbeat(&first), Err(Code::RebalanceInProgress));
}

#[test]
fn a_static_member_comes_back_to_its_assignment_and_its_old_self_is_fenced() {
    let mut world = World::new();
    let clients = world.stable(&[Some("one"), Some("two")]);
    let back = world.try_join("", Some("two"), &["range"]).try_recv().unwrap();
    assert_eq!((back.generation_id, world.phase()), (1, Phase::Stable));
    assert_ne!(back.member_id, clients[1].id);
    assert_eq!(world.heartbeat(&clients[1]), Err(Code::FencedInstanceId));
    let back = client(&back, Some("two"));
    assert_eq!(world.try_sync(&back, &[]).try_recv().unwrap().assignment, Bytes::from_static(b"work"));
    let leader = world.try_join("", Some("one"), &["range"]).try_recv().unwrap();
    assert!(leader.skip_assignment);
    assert_eq!(leader.leader, leader.member_id);
    assert_eq!(leader.members.len(), 2);
}

#[test]
fn a_new_coordinator_knows_the_last_generation_that_was_complete() {
    let mut world = World::new();
    let clients = world.stable(&[None]);
    let newcomer = world.introduce();
    let mut newcomer = world.try_join(&newcomer, None, &["range"]);
    assert_eq!(world.phase(), Phase::PreparingRebalance);
    world.groups.reload(GROUP, world.now_ms);
    assert_eq!(newcomer.try_recv().unwrap().error_code, Code::NotCoordinator.code());
    assert_eq!(world.phase(), Phase::Stable);
    assert_eq!(world.heartbeat(&clients[0]), Ok(()));
    world.wait(SESSION_MS);
    assert_eq!(world.group().members().count(), 0);
}

#[test]
fn offsets_are_committed_by_members_of_this_generation_or_while_there_are_none() {
    let mut world = World::new();
    assert_eq!(world.commit(NO_MEMBER, 1), Ok(()));
    let member = &world.stable(&[None])[0];
    let of = |generation| Committer { member_id: &member.id, instance_id: None, generation };
    assert_eq!(world.commit(NO_MEMBER, 2), Err(Code::UnknownMemberId));
    assert_eq!(world.commit(of(member.generation + 1), 3), Err(Code::IllegalGeneration));
    assert_eq!(world.committed(), Some(1));
    assert_eq!(world.commit(of(member.generation), 4), Ok(()));
    assert_eq!(world.committed(), Some(4));
    let rejoined = world.try_join(&member.id, None, &["range"]).try_recv().unwrap();
    assert_eq!(world.commit(of(rejoined.generation_id), 5), Err(Code::RebalanceInProgress));
    let gone = Committer { generation: 1, ..NO_MEMBER };
    assert_eq!(world.groups.committing("other", gone, 0).unwrap_err(), Code::GroupIdNotFound);
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits_unless_newer_ones_came() {
    const PRODUCER: i64 = 7;
    let mut world = World::new();
    let pend = |world: &mut World, offset| {
        let offsets = world.groups.committing_pending(GROUP, NO_MEMBER).unwrap();
        offsets.commit_pending(PRODUCER, ("orders".to_owned(), 0), committed(offset, 0));
    };
    pend(&mut world, 5);
    assert_eq!((world.committed(), world.group().offsets.is_pending("orders", 0)), (None, true));
    assert!(world.groups.end_transaction(PRODUCER, true));
    assert_eq!((world.committed(), world.group().offsets.is_pending("orders", 0)), (Some(5), false));
    pend(&mut world, 6);
    world.groups.end_transaction(PRODUCER, false);
    assert_eq!(world.committed(), Some(5));
    pend(&mut world, 7);
    world.commit(NO_MEMBER, 8).unwrap();
    world.groups.end_transaction(PRODUCER, true);
    assert_eq!(world.committed(), Some(8));
    assert!(!world.groups.end_transaction(PRODUCER, true));
}

#[test]
fn offsets_outlive_their_group_by_the_retention() {
    let mut world = World::new();
    let retention_ms = world.groups.settings.offsets_retention_ms;
    let check_ms = world.groups.settings.retention_check_ms;
    let member = world.stable(&[None])[0].clone();
    let committer = Committer { member_id: &member.id, instance_id: None, generation: member.generation };
    world.commit(committer, 1).unwrap();
    for _ in 0..2 * retention_ms / SESSION_MS {
        world.wait(SESSION_MS - 1);
        world.heartbeat(&member).unwrap();
    }
    assert_eq!(world.committed(), Some(1), "its members consume it");
    world.leave(&member);
    world.wait(retention_ms - check_ms);
    assert_eq!(world.committed(), Some(1));
    world.wait(3 * check_ms);
    assert!(world.groups.get(GROUP).is_none());
}

#[test]
fn only_a_group_without_members_is_deleted_and_only_what_nobody_consumes_is_forgotten() {
    let mut world = World::new();
    let member = world.stable(&[None])[0].clone();
    assert_eq!(world.groups.delete(GROUP), Err(Code::NonEmptyGroup));
    assert!(world.groups.deleting_offsets(GROUP).unwrap().is_subscribed("orders"));
    assert!(!world.groups.deleting_offsets(GROUP).unwrap().is_subscribed("others"));
    world.leave(&member);
    assert!(!world.group().is_subscribed("orders"));
    assert_eq!(world.groups.delete(GROUP), Ok(()));
    assert_eq!(world.groups.delete(GROUP), Err(Code::GroupIdNotFound));
}

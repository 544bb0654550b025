//! Members of groups: joining, fetching assignments, heartbeats, leaving. What would wait for another
//! member comes together with what that one sends; the first of them is sent first.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol as Protocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    RequestKind, SyncGroupRequest,
};
use kafka_protocol::protocol::Encodable;
use rand::Rng;
use rand::rngs::StdRng;

use super::groups::group;
use super::{one_of, text, weighted};
use crate::differential::members::{Member, Membership, Phase};
use crate::differential::world::World;

/// Longer than a sequence lasts: what time does to a group is not compared here.
const TIMEOUTS_MS: &[i32] = &[60_000, 300_000];
/// Out of `group.min.session.timeout.ms` to `group.max.session.timeout.ms`.
const WRONG_SESSIONS_MS: &[i32] = &[-1, 0, 5_999, 1_800_001];
const INSTANCES: &[&str] = &["static-0", "static-1"];
const MEMBER_ID_REQUIRED_FROM_VERSION: i16 = 4;
const STATIC_JOINS_FROM_VERSION: i16 = 5;
const JOIN_REASON_FROM_VERSION: i16 = 8;
/// Of SyncGroup, Heartbeat and LeaveGroup alike.
pub const STATIC_FROM_VERSION: i16 = 3;
const NAMED_PROTOCOL_FROM_VERSION: i16 = 5;
const LEAVE_REASON_FROM_VERSION: i16 = 5;
const CONSUMER: &str = "consumer";
const STRANGER: &str = "nobody";

/// Mostly a group that has members, and what is known of them.
fn peopled_group(world: &World, rng: &mut StdRng) -> (GroupId, Membership) {
    let has_members =
        |group: &GroupId| world.membership(group).is_some_and(|known| !known.members.is_empty());
    let group = match world.groups().into_iter().find(has_members) {
        Some(group) if rng.random_bool(0.7) => group,
        _ => group(world, rng),
    };
    let membership = world.membership(&group).cloned().unwrap_or_default();
    (group, membership)
}

/// What a consumer joins with. All have `range` in common but the last.
fn protocols(world: &World, choice: usize) -> Vec<Protocol> {
    let topics = |count: usize| world.topics.iter().take(count).map(|topic| text(&*topic.name)).collect();
    let subscribed = |count| {
        let mut metadata = BytesMut::new();
        metadata.put_i16(0);
        let subscription = ConsumerProtocolSubscription::default().with_topics(topics(count));
        subscription.encode(&mut metadata, 0).expect("a subscription");
        metadata.freeze()
    };
    let protocol =
        |name: &'static str, metadata| Protocol::default().with_name(text(name)).with_metadata(metadata);
    match choice {
        0 => vec![protocol("range", subscribed(1))],
        1 => vec![protocol("roundrobin", subscribed(1)), protocol("range", subscribed(1))],
        2 => vec![protocol("range", subscribed(2)), protocol("cooperative-sticky", subscribed(2))],
        // Longer ones that are no subscription either keep Kafka 3.9 from ever answering.
        3 => vec![protocol("range", Bytes::from_static(b"?"))],
        _ => vec![protocol("sticky", subscribed(1))],
    }
}

fn any_protocols(world: &World, rng: &mut StdRng) -> Vec<Protocol> {
    let choice = weighted(rng, &[(6, 0), (6, 1), (4, 2), (1, 3)]);
    protocols(world, choice)
}

/// What whoever has these can share with.
fn compatible_protocols(world: &World, rng: &mut StdRng, with: &[Protocol]) -> Vec<Protocol> {
    let shares = with.iter().any(|protocol| protocol.name.as_str() == "range");
    if shares && rng.random_bool(0.4) { any_protocols(world, rng) } else { with.to_vec() }
}

pub fn join_group(world: &mut World, rng: &mut StdRng, version: i16) -> Vec<RequestKind> {
    let (group, membership) = peopled_group(world, rng);
    let base = JoinGroupRequest::default()
        .with_group_id(group)
        .with_session_timeout_ms(one_of(rng, TIMEOUTS_MS))
        .with_rebalance_timeout_ms(one_of(rng, TIMEOUTS_MS))
        .with_protocol_type(text(CONSUMER));
    let base = match version >= JOIN_REASON_FROM_VERSION && rng.random_bool(0.3) {
        true => base.with_reason(Some(text("drawn"))),
        false => base,
    };
    let requests = if base.group_id.is_empty() || rng.random_bool(0.2) {
        let joined = wrong_join(world, rng, version, &membership, base);
        vec![joined]
    } else {
        joins(world, rng, version, &membership, base)
    };
    requests.into_iter().map(RequestKind::JoinGroup).collect()
}

fn joins(
    world: &World,
    rng: &mut StdRng,
    version: i16,
    membership: &Membership,
    base: JoinGroupRequest,
) -> Vec<JoinGroupRequest> {
    let knows_static = version >= STATIC_JOINS_FROM_VERSION;
    let again = |member: &Member, protocols: Vec<Protocol>| {
        let instance = member.instance.as_ref().filter(|_| knows_static);
        let joined = base.clone().with_member_id(text(member.id.clone())).with_protocols(protocols);
        joined.with_group_instance_id(instance.map(|instance| text(instance.clone())))
    };
    // A static member comes back without its member id.
    let back = |member: &Member| again(member, member.protocols.clone()).with_member_id(text(""));
    let is_static = |member: &&Member| knows_static && member.instance.is_some();
    match (&membership.in_rank()[..], &membership.pending) {
        ([], None) => vec![newcomer(world, rng, version, membership, base)],
        ([], Some(id)) => {
            let protocols = any_protocols(world, rng);
            vec![base.with_member_id(text(id.clone())).with_protocols(protocols)]
        }
        ([only], None) if is_static(only) && rng.random_bool(0.3) => vec![back(only)],
        ([only], None) if rng.random_bool(0.3) => {
            vec![again(only, compatible_protocols(world, rng, &only.protocols))]
        }
        ([only], None) => {
            let rejoin = again(only, only.protocols.clone());
            let new = newcomer(world, rng, version, membership, base);
            let answered = version >= MEMBER_ID_REQUIRED_FROM_VERSION && new.group_instance_id.is_none();
            if answered { vec![new] } else { vec![new, rejoin] }
        }
        ([only], Some(id)) => {
            let protocols = compatible_protocols(world, rng, &only.protocols);
            let rejoin = again(only, only.protocols.clone());
            vec![base.with_member_id(text(id.clone())).with_protocols(protocols), rejoin]
        }
        ([leader, follower, ..], _) => {
            let settled = membership.phase == Phase::Stable;
            if settled && rng.random_bool(0.3) {
                return vec![again(follower, follower.protocols.clone())];
            }
            let fixed = [leader, follower].into_iter().find(|member| is_static(member));
            if let Some(fixed) = fixed.filter(|_| settled && rng.random_bool(0.4)) {
                return vec![back(fixed)];
            }
            let changed = compatible_protocols(world, rng, &leader.protocols);
            vec![again(leader, changed), again(follower, follower.protocols.clone())]
        }
    }
}

fn newcomer(
    world: &World,
    rng: &mut StdRng,
    version: i16,
    membership: &Membership,
    base: JoinGroupRequest,
) -> JoinGroupRequest {
    let taken = |name: &str| membership.members.iter().any(|member| member.instance.as_deref() == Some(name));
    let free = INSTANCES.iter().find(|name| !taken(name));
    let instance = free.filter(|_| version >= STATIC_JOINS_FROM_VERSION && rng.random_bool(0.4));
    let protocols = match membership.members.first() {
        Some(other) => compatible_protocols(world, rng, &other.protocols),
        None if rng.random_bool(0.1) => protocols(world, 4),
        None => any_protocols(world, rng),
    };
    base.with_group_instance_id(instance.map(|name| text(*name))).with_protocols(protocols)
}

/// Refused whatever state the group is in, so that nobody waits.
fn wrong_join(
    world: &World,
    rng: &mut StdRng,
    version: i16,
    membership: &Membership,
    base: JoinGroupRequest,
) -> JoinGroupRequest {
    let right = base.with_protocols(any_protocols(world, rng));
    let stranger = right.clone().with_member_id(text(STRANGER));
    let Some(member) = membership.members.first() else {
        return match rng.random_range(0..4) {
            0 => right.with_session_timeout_ms(one_of(rng, WRONG_SESSIONS_MS)),
            1 => right.with_protocols(Vec::new()),
            2 => right.with_protocol_type(text("")),
            _ => stranger,
        };
    };
    let own = right.clone().with_member_id(text(member.id.clone()));
    let statics = version >= STATIC_JOINS_FROM_VERSION;
    match rng.random_range(0..8) {
        0 => own.with_session_timeout_ms(one_of(rng, WRONG_SESSIONS_MS)),
        1 => own.with_protocols(Vec::new()),
        2 => own.with_protocol_type(text(one_of(rng, &["", "connect"]))),
        3 => right.with_protocol_type(text("connect")),
        4 if member.protocols.iter().any(|protocol| protocol.name.as_str() == "range") => {
            right.with_protocols(protocols(world, 4))
        }
        5 if statics => match &member.instance {
            Some(instance) => stranger.with_group_instance_id(Some(text(instance.clone()))),
            None => own.with_group_instance_id(Some(text(INSTANCES[0]))),
        },
        _ => stranger,
    }
}

pub fn sync_group(world: &mut World, rng: &mut StdRng, version: i16) -> Vec<RequestKind> {
    let (group, membership) = peopled_group(world, rng);
    let named = version >= NAMED_PROTOCOL_FROM_VERSION;
    let name = |name: &Option<String>| name.clone().filter(|_| named).map(text);
    let given = |member: &Member| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member.id.clone()))
            .with_assignment(Bytes::from(format!("given to {}", membership.members.len())))
    };
    let base = SyncGroupRequest::default()
        .with_group_id(group)
        .with_generation_id(membership.generation)
        .with_protocol_type(name(&membership.protocol_type))
        .with_protocol_name(name(&membership.protocol));
    let of = |member: &Member| {
        let instance = member.instance.clone().filter(|_| version >= STATIC_FROM_VERSION);
        base.clone().with_member_id(text(member.id.clone())).with_group_instance_id(instance.map(text))
    };
    let ranked = membership.in_rank();
    let Some(leader) = ranked.first().filter(|_| rng.random_bool(0.8)) else {
        let own = ranked.first().map_or(base.clone().with_member_id(text(STRANGER)), |leader| of(leader));
        return vec![RequestKind::SyncGroup(wrong_sync(rng, version, own))];
    };
    let skipped = usize::from(rng.random_bool(0.1));
    let assigned = membership.members.iter().skip(skipped).map(given).collect();
    let assigns = of(leader).with_assignments(assigned);
    let requests = match (membership.phase, ranked.get(1)) {
        (Phase::Completing, Some(follower)) if rng.random_bool(0.5) => vec![of(follower), assigns],
        (Phase::Completing, _) => vec![assigns],
        _ => vec![of(ranked[rng.random_range(0..ranked.len())])],
    };
    requests.into_iter().map(RequestKind::SyncGroup).collect()
}

fn wrong_sync(rng: &mut StdRng, version: i16, right: SyncGroupRequest) -> SyncGroupRequest {
    let off = one_of(rng, &[-1, 1]);
    let generation = right.generation_id + off;
    let named = version >= NAMED_PROTOCOL_FROM_VERSION;
    match rng.random_range(0..6) {
        0 => right.with_generation_id(generation),
        1 if named => right.with_protocol_name(Some(text("other"))),
        2 if named => right.with_protocol_type(Some(text("connect"))),
        3 if named => right.with_protocol_name(None),
        4 => right.with_group_id(GroupId::default()),
        _ => right.with_member_id(text(STRANGER)),
    }
}

/// A member with its generation; now and then one of both is wrong. Nobody's, where there are none.
pub fn identity(
    membership: &Membership,
    rng: &mut StdRng,
    knows_static: bool,
) -> (i32, String, Option<String>) {
    let strange = one_of(rng, &["", STRANGER]).to_owned();
    let generation = membership.generation;
    if membership.members.is_empty() {
        return (one_of(rng, &[-1, 0, generation]), strange, None);
    }
    let member = &membership.members[rng.random_range(0..membership.members.len())];
    let instance = member.instance.clone().filter(|_| knows_static);
    match rng.random_range(0..20) {
        0 => (generation + 1, member.id.clone(), instance),
        1 => (generation - 1, member.id.clone(), instance),
        2 => (generation, strange, None),
        3 => (generation, STRANGER.to_owned(), instance),
        4 if knows_static => (generation, member.id.clone(), Some(INSTANCES[1].to_owned())),
        5 => (-1, member.id.clone(), instance),
        _ => (generation, member.id.clone(), instance),
    }
}

pub fn heartbeat(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let (group, membership) = peopled_group(world, rng);
    let (generation, member, instance) = identity(&membership, rng, version >= STATIC_FROM_VERSION);
    RequestKind::Heartbeat(
        HeartbeatRequest::default()
            .with_group_id(group)
            .with_generation_id(generation)
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text)),
    )
}

pub fn leave_group(world: &mut World, rng: &mut StdRng, version: i16) -> RequestKind {
    let (group, membership) = peopled_group(world, rng);
    let request = LeaveGroupRequest::default().with_group_id(group);
    let several = version >= STATIC_FROM_VERSION;
    let mut leaving = vec![leaver(world, &membership, rng, version)];
    if !several {
        return RequestKind::LeaveGroup(request.with_member_id(leaving[0].member_id.clone()));
    }
    if rng.random_bool(0.3) {
        leaving.push(leaver(world, &membership, rng, version));
    }
    RequestKind::LeaveGroup(request.with_members(leaving))
}

fn leaver(world: &World, membership: &Membership, rng: &mut StdRng, version: i16) -> MemberIdentity {
    let (_, id, instance) = identity(membership, rng, version >= STATIC_FROM_VERSION);
    let reason = (version >= LEAVE_REASON_FROM_VERSION).then(|| text("drawn"));
    let leaver = MemberIdentity::default().with_reason(reason);
    let by_instance = rng.random_bool(0.3);
    // The group rebalances over it in Kafka 4, and goes on as it was in Kafka 3.9.
    let pending = membership.pending.as_ref().filter(|_| !world.kafka_3 || membership.members.is_empty());
    match (pending, instance) {
        (Some(pending), _) if rng.random_bool(0.3) => leaver.with_member_id(text(pending.clone())),
        (_, Some(instance)) if by_instance => leaver.with_group_instance_id(Some(text(instance))),
        (_, instance) => leaver.with_member_id(text(id)).with_group_instance_id(instance.map(text)),
    }
}

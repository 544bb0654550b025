//! Consumer groups, each of one member at a time, by the classic protocol: at the source, where they move on
//! and are reset, and at the destination, where some go on by themselves. What is read isn't looked at: it is
//! the logs that are judged, and where groups stand.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolSubscription, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::chance::Chance;
use crate::clusters::{Embedded, Side};
use crate::options::Options;
use crate::time::Time;
use crate::wire::{Wire, topic_name};

pub const HOST: &str = "consumers";

/// The least that Kafka takes.
const SESSION_TIMEOUT_MS: i32 = 6_000;
const REBALANCE_TIMEOUT_MS: i32 = 3_000;
/// Between two commits of a member; well within its session.
const COMMIT_EVERY_MS: std::ops::RangeInclusive<u64> = 50..=1_500;
const COMMITS_MAX: u64 = 20;
/// Between two sessions of a group.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=4_000;
/// Of a hundred sessions so many are at the destination, and so many begin with a reset.
const ELSEWHERE_PERCENT: u64 = 25;
const RESET_PERCENT: u64 = 20;
/// Who isn't a member commits so.
const NOBODY: i32 = -1;

#[derive(Clone)]
pub struct Consumers {
    pub options: Arc<Options>,
    pub time: Time,
    pub source: Embedded,
    pub destination: Embedded,
}

struct Group {
    name: String,
    /// Of the source.
    topic: String,
    chance: Chance,
    all: Consumers,
}

/// A member as its group knows it, at the broker that coordinates that.
struct Member {
    wire: Wire,
    id: StrBytes,
    generation: i32,
}

impl Consumers {
    /// Their host, as long as the busy time lasts.
    pub async fn run(self) -> turmoil::Result {
        for (number, topic) in (1..).zip(&self.options.groups) {
            let name = format!("app-{number}");
            let chance = Chance::of(self.options.seed, &name);
            tokio::task::spawn_local(Group { name, topic: topic.clone(), chance, all: self.clone() }.live());
        }
        std::future::pending().await
    }

    fn is_busy(&self) -> bool {
        self.time.elapsed() < self.options.busy
    }

    fn side(&self, side: Side) -> &Embedded {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

impl Group {
    async fn live(mut self) {
        while self.all.is_busy() {
            let pause = self.chance.between(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let elsewhere = self.chance.percent(ELSEWHERE_PERCENT);
            let side = if elsewhere { Side::Destination } else { Side::Source };
            let Some(topic) = self.topic_at(side) else { continue };
            if self.chance.percent(RESET_PERCENT) && side == Side::Source {
                self.reset(&topic).await;
            }
            let Some(mut member) = self.join(side, &topic).await else { continue };
            tracing::info!("{} has a member at {side}, on {topic}", self.name);
            let commits = self.chance.between(0..=COMMITS_MAX);
            for _ in 0..commits {
                let pause = self.chance.between(COMMIT_EVERY_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if !self.all.is_busy() || self.go_on(side, &topic, &mut member).await.is_none() {
                    break;
                }
            }
            // Otherwise it is missed when its session is over.
            if self.chance.percent(70) {
                self.leave(&mut member).await;
            }
        }
    }

    /// Its own, or one of that one's mirrors.
    fn topic_at(&mut self, side: Side) -> Option<String> {
        if side == Side::Source {
            return Some(self.topic.clone());
        }
        let prefix = format!("{}.mirror-", self.topic);
        let found: Vec<String> = self.all.destination.cluster.with(|state| {
            let names = state.topics().map(|(name, _)| name.to_owned());
            names.filter(|name| name.starts_with(&prefix)).collect()
        });
        (!found.is_empty()).then(|| self.chance.pick(&found).clone())
    }

    /// Somewhere between where it stands, or the log start, and the end of what may be read.
    fn position(&mut self, side: Side, topic: &str, partition: i32, may_go_back: bool) -> Option<i64> {
        let (from, to) = self.all.side(side).cluster.with(|state| {
            let found = state.partition(topic, partition)?;
            let group = state.groups.get(&self.name);
            let stands = group.and_then(|group| group.offsets.get(topic, partition)).map(|at| at.offset);
            let start = found.log.start();
            let from = if may_go_back { start } else { stands.unwrap_or(start).max(start) };
            Some((from, found.high_watermark()))
        })?;
        (from <= to).then(|| self.chance.between(from as u64..=to as u64) as i64)
    }

    async fn coordinator(&self, side: Side) -> Option<Wire> {
        let request = FindCoordinatorRequest::default().with_key(text(&self.name));
        for host in side.registered().hosts {
            let Ok(mut wire) = Wire::connect(host, HOST).await else { continue };
            let Ok(found) = wire.call(1, &request).await else { continue };
            if found.error_code == 0 {
                return Wire::connect(found.host.as_str(), HOST).await.ok();
            }
        }
        None
    }

    async fn join(&self, side: Side, topic: &str) -> Option<Member> {
        let mut wire = self.coordinator(side).await?;
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text(topic)]);
        let mut metadata = BytesMut::new();
        metadata.put_i16(0);
        subscription.encode(&mut metadata, 0).ok()?;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(metadata.freeze());
        let request = JoinGroupRequest::default()
            .with_group_id(self.id())
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = wire.call(3, &request).await.ok().filter(|joined| joined.error_code == 0)?;
        let (id, generation) = (joined.member_id, joined.generation_id);
        let assignment = SyncGroupRequestAssignment::default().with_member_id(id.clone());
        let request = SyncGroupRequest::default()
            .with_group_id(self.id())
            .with_generation_id(generation)
            .with_member_id(id.clone())
            .with_assignments(vec![assignment]);
        wire.call(1, &request).await.ok().filter(|synced| synced.error_code == 0)?;
        Some(Member { wire, id, generation })
    }

    /// Commits where it stands now, and shows that it lives. None when it isn't a member any more.
    async fn go_on(&mut self, side: Side, topic: &str, member: &mut Member) -> Option<()> {
        let may_go_back = side == Side::Destination && self.chance.percent(10);
        let request = self.commit(side, topic, member.generation, member.id.clone(), may_go_back)?;
        let committed = member.wire.call(5, &request).await.ok()?;
        let rows = committed.topics.iter().flat_map(|topic| &topic.partitions);
        let is_refused = rows.into_iter().any(|row| row.error_code != 0);
        let request = HeartbeatRequest::default()
            .with_group_id(self.id())
            .with_generation_id(member.generation)
            .with_member_id(member.id.clone());
        let lives = member.wire.call(2, &request).await.ok()?.error_code == 0;
        (lives && !is_refused).then_some(())
    }

    /// By hand, while nobody is a member.
    async fn reset(&mut self, topic: &str) {
        let Some(mut wire) = self.coordinator(Side::Source).await else { return };
        let Some(request) = self.commit(Side::Source, topic, NOBODY, StrBytes::default(), true) else {
            return;
        };
        let done = wire.call(5, &request).await.is_ok();
        tracing::info!("{} is reset on {topic}{}", self.name, if done { "" } else { ", or not" });
    }

    fn commit(
        &mut self,
        side: Side,
        topic: &str,
        generation: i32,
        member: StrBytes,
        may_go_back: bool,
    ) -> Option<OffsetCommitRequest> {
        let count =
            self.all.side(side).cluster.with(|state| state.topic(topic).map(|t| t.partitions.len()))?;
        let mut rows = Vec::new();
        for partition in 0..count as i32 {
            let Some(offset) = self.position(side, topic, partition, may_go_back) else { continue };
            rows.push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
                    .with_committed_metadata(Some(StrBytes::default())),
            );
        }
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(rows);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.id())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(member)
            .with_topics(vec![topic]);
        Some(request)
    }

    async fn leave(&self, member: &mut Member) {
        let identity = MemberIdentity::default().with_member_id(member.id.clone());
        let request = LeaveGroupRequest::default()
            .with_group_id(self.id())
            .with_member_id(member.id.clone())
            .with_members(vec![identity]);
        // Version 2 names one member.
        let _ = member.wire.call(2, &request.with_members(Vec::new())).await;
    }

    fn id(&self) -> GroupId {
        GroupId(text(&self.name))
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

//! One member of a group.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol as Protocol;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

/// Takes the answer of a request that waits; it goes nowhere when its connection has ended.
pub type Reply<R> = oneshot::Sender<R>;

/// What is kept of a member with its group (`__consumer_offsets` in Kafka).
#[derive(Debug, Clone)]
pub struct Member {
    pub id: StrBytes,
    /// Of a static member: `group.instance.id`.
    pub instance_id: Option<StrBytes>,
    pub client_id: StrBytes,
    pub client_host: StrBytes,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// Assignors with the member's subscription for each, the preferred one first.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
}

impl Member {
    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|own| own.name.as_str() == protocol)
    }

    pub fn metadata(&self, protocol: &str) -> Bytes {
        let own = self.protocols.iter().find(|own| own.name.as_str() == protocol);
        own.map(|own| own.metadata.clone()).unwrap_or_default()
    }
}

/// A member, and what it is doing now.
#[derive(Debug)]
pub struct Present {
    pub member: Member,
    /// Its first join isn't answered yet: it may wait for that longer than a session lasts, not for ever.
    pub is_new: bool,
    /// When it is expelled unless it is heard of; None while nothing is due.
    pub session_until_ms: Option<i64>,
    joining: Option<Reply<JoinGroupResponse>>,
    syncing: Option<Reply<SyncGroupResponse>>,
}

impl Present {
    pub fn new(member: Member) -> Self {
        Self { member, is_new: false, session_until_ms: None, joining: None, syncing: None }
    }

    pub fn restart_session(&mut self, now_ms: i64) {
        self.session_until_ms = Some(now_ms + i64::from(self.member.session_timeout_ms.max(1)));
    }

    /// Its timeouts and protocols are those of its latest join.
    pub fn rejoin(&mut self, request: &JoinGroupRequest, reply: Reply<JoinGroupResponse>) {
        self.member.session_timeout_ms = request.session_timeout_ms;
        self.member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.member.protocols = request.protocols.clone();
        self.joining = Some(reply);
    }

    pub fn sync(&mut self, reply: Reply<SyncGroupResponse>) {
        self.syncing = Some(reply);
    }

    pub fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// A member that waits for the group can't send heartbeats: it counts as alive.
    pub fn is_excused(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    pub fn answer_join(&mut self, response: JoinGroupResponse) {
        if let Some(reply) = self.joining.take() {
            let _ = reply.send(response);
        }
    }

    /// Whether anybody waited for it.
    pub fn answer_sync(&mut self, response: SyncGroupResponse) -> bool {
        let Some(reply) = self.syncing.take() else { return false };
        let _ = reply.send(response);
        true
    }
}

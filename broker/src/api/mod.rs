//! The requests that are modelled, one file a key. A handler is a function of the state; what must wait
//! says for how long and is asked again whenever the state changes.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
pub(crate) mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
pub(crate) mod describe_configs;
mod describe_groups;
mod describe_producers;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
pub(crate) mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;
mod txn_offset_commit;
mod write_txn_markers;

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::cluster::Cluster;
use crate::connection::Refused;
use crate::decode::decode;
use crate::fault::{Caller, Change, Fault};
use crate::state::State;

/// The answer to one kind of request.
pub(crate) trait Handler: 'static {
    type Request: Request + Send + 'static;

    const VERSIONS: RangeInclusive<i16>;

    fn handle(state: &mut State, caller: &Caller, request: Self::Request) -> Step<Response<Self>>;
}

pub(crate) type Response<H> = <<H as Handler>::Request as Request>::Response;

/// How far a request has come.
pub(crate) enum Step<R> {
    Done(R),
    /// It gets no answer (`acks=0`).
    Silence,
    /// It ends the connection.
    Close,
    Wait(Wait<R>),
}

/// A request that waits.
pub(crate) struct Wait<R> {
    pub until_ms: i64,
    /// Called when the state has changed, and with `true` when the time is over; then it has to answer.
    pub poll: Poll<R>,
}

pub(crate) type Poll<R> = Box<dyn FnMut(&mut State, bool) -> Option<R> + Send>;

impl<R: 'static> Step<R> {
    /// The same, its answer made into another.
    fn map(self, mut change: impl FnMut(R) -> R + Send + 'static) -> Self {
        match self {
            Self::Done(response) => Self::Done(change(response)),
            Self::Wait(Wait { until_ms, mut poll }) => {
                let poll = move |state: &mut State, expired: bool| poll(state, expired).map(&mut change);
                Self::Wait(Wait { until_ms, poll: Box::new(poll) })
            }
            Self::Silence | Self::Close => self,
        }
    }
}

/// Waits as long as it takes for the answer that `ask` leaves the way open for: the state bounds it by
/// timers of its own. `forgotten`: when the answer went to a later request of the same member.
fn answered<R: Clone + Send + 'static>(
    state: &mut State,
    forgotten: R,
    ask: impl FnOnce(&mut State, oneshot::Sender<R>),
) -> Step<R> {
    let (reply, mut answer) = oneshot::channel();
    ask(state, reply);
    state.changed();
    let poll = move |_: &mut State, _: bool| match answer.try_recv() {
        Err(TryRecvError::Empty) => None,
        Ok(response) => Some(response),
        Err(TryRecvError::Closed) => Some(forgotten.clone()),
    };
    Step::Wait(Wait { until_ms: i64::MAX, poll: Box::new(poll) })
}

/// What goes back on the connection.
pub(crate) enum Reply {
    Answer(Bytes),
    /// And then nothing is read for so long.
    AnswerThenMute(Bytes, Duration),
    Silence,
    Close,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Reply, Refused>> + Send + 'a>>;

/// One kind of request.
pub(crate) struct Api {
    pub key: ApiKey,
    pub versions: RangeInclusive<i16>,
    run: for<'a> fn(&'a Cluster, Caller, i32, Bytes) -> Running<'a>,
}

impl Api {
    pub fn run<'a>(
        &self,
        cluster: &'a Cluster,
        caller: Caller,
        correlation_id: i32,
        body: Bytes,
    ) -> Running<'a> {
        (self.run)(cluster, caller, correlation_id, body)
    }
}

const fn api<H: Handler>(key: ApiKey) -> Api
where
    Response<H>: Send,
{
    Api {
        key,
        versions: H::VERSIONS,
        run: |cluster, caller, id, body| Box::pin(run::<H>(cluster, caller, id, body)),
    }
}

pub(crate) const APIS: &[Api] = &[
    api::<produce::Produce>(ApiKey::Produce),
    api::<fetch::Fetch>(ApiKey::Fetch),
    api::<list_offsets::ListOffsets>(ApiKey::ListOffsets),
    api::<metadata::Metadata>(ApiKey::Metadata),
    api::<find_coordinator::FindCoordinator>(ApiKey::FindCoordinator),
    api::<api_versions::ApiVersions>(ApiKey::ApiVersions),
    api::<create_topics::CreateTopics>(ApiKey::CreateTopics),
    api::<delete_topics::DeleteTopics>(ApiKey::DeleteTopics),
    api::<delete_records::DeleteRecords>(ApiKey::DeleteRecords),
    api::<init_producer_id::InitProducerId>(ApiKey::InitProducerId),
    api::<offset_for_leader_epoch::OffsetForLeaderEpoch>(ApiKey::OffsetForLeaderEpoch),
    api::<add_partitions_to_txn::AddPartitionsToTxn>(ApiKey::AddPartitionsToTxn),
    api::<add_offsets_to_txn::AddOffsetsToTxn>(ApiKey::AddOffsetsToTxn),
    api::<end_txn::EndTxn>(ApiKey::EndTxn),
    api::<write_txn_markers::WriteTxnMarkers>(ApiKey::WriteTxnMarkers),
    api::<txn_offset_commit::TxnOffsetCommit>(ApiKey::TxnOffsetCommit),
    api::<describe_configs::DescribeConfigs>(ApiKey::DescribeConfigs),
    api::<alter_configs::AlterConfigs>(ApiKey::AlterConfigs),
    api::<create_partitions::CreatePartitions>(ApiKey::CreatePartitions),
    api::<incremental_alter_configs::IncrementalAlterConfigs>(ApiKey::IncrementalAlterConfigs),
    api::<describe_cluster::DescribeCluster>(ApiKey::DescribeCluster),
    api::<describe_producers::DescribeProducers>(ApiKey::DescribeProducers),
    api::<describe_transactions::DescribeTransactions>(ApiKey::DescribeTransactions),
    api::<list_transactions::ListTransactions>(ApiKey::ListTransactions),
    api::<offset_commit::OffsetCommit>(ApiKey::OffsetCommit),
    api::<offset_fetch::OffsetFetch>(ApiKey::OffsetFetch),
    api::<join_group::JoinGroup>(ApiKey::JoinGroup),
    api::<heartbeat::Heartbeat>(ApiKey::Heartbeat),
    api::<leave_group::LeaveGroup>(ApiKey::LeaveGroup),
    api::<sync_group::SyncGroup>(ApiKey::SyncGroup),
    api::<describe_groups::DescribeGroups>(ApiKey::DescribeGroups),
    api::<list_groups::ListGroups>(ApiKey::ListGroups),
    api::<delete_groups::DeleteGroups>(ApiKey::DeleteGroups),
    api::<offset_delete::OffsetDelete>(ApiKey::OffsetDelete),
];

pub(crate) fn find(key: ApiKey, version: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key == key && api.versions.contains(&version))
}

async fn run<H: Handler>(
    cluster: &Cluster,
    caller: Caller,
    correlation_id: i32,
    mut body: Bytes,
) -> Result<Reply, Refused>
where
    Response<H>: Send,
{
    let version = caller.version;
    let refused = |what: &str, error: &dyn std::fmt::Display| {
        Refused(format!("{:?} version {version}: {what}: {error}", caller.api))
    };
    let request: H::Request = decode(&mut body, version).map_err(|error| refused("unreadable", &error))?;
    if !body.is_empty() {
        // Kafka doesn't look behind the end of a request either, and librdkafka (2.16) sends some there.
        tracing::warn!(?caller, bytes = body.len(), "there is more behind the end of a request");
    }
    let mut change: Option<Change<Response<H>>> = None;
    let (mut answered, mut mute) = (true, None);
    match cluster.interceptors().fault_for(&caller, &request) {
        Fault::Pass => {}
        Fault::Answer(response) => {
            let frame = encode(&response, correlation_id, version).map_err(|e| refused("answer", &e))?;
            return Ok(Reply::Answer(frame));
        }
        Fault::Delay(duration) => tokio::time::sleep(duration).await,
        Fault::Drop => return Ok(Reply::Close),
        Fault::ApplyThenDrop => answered = false,
        Fault::DropThenApply(by) => {
            let (cluster, stops) = (cluster.clone(), cluster.stops());
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                // What lies in a queue of a broker's is gone with it.
                if cluster.stops() == stops {
                    cluster.with(|state| drop(H::handle(state, &caller, request)));
                }
            });
            return Ok(Reply::Close);
        }
        Fault::ApplyThenAnswer(with) => change = Some(with),
        Fault::Throttle(by, with) => (change, mute) = (Some(with), Some(by)),
    }
    let step = cluster.with(|state| H::handle(state, &caller, request));
    let response = match step {
        Step::Done(response) => response,
        Step::Silence => return Ok(Reply::Silence),
        Step::Close => return Ok(Reply::Close),
        Step::Wait(wait) => wait_for(cluster, wait).await,
    };
    if !answered {
        return Ok(Reply::Close);
    }
    let response = match change {
        Some(change) => change(response),
        None => response,
    };
    let frame = encode(&response, correlation_id, version).map_err(|error| refused("answer", &error))?;
    Ok(match mute {
        Some(by) => Reply::AnswerThenMute(frame, by),
        None => Reply::Answer(frame),
    })
}

async fn wait_for<R>(cluster: &Cluster, mut wait: Wait<R>) -> R {
    let mut changes = cluster.changes();
    loop {
        changes.mark_unchanged();
        let (now_ms, wake_ms) =
            cluster.with(|state| (state.now_ms, state.next_timer_ms().min(wait.until_ms)));
        let expired = now_ms >= wait.until_ms;
        if let Some(response) = cluster.with(|state| (wait.poll)(state, expired)) {
            return response;
        }
        let pause = Duration::from_millis(u64::try_from(wake_ms - now_ms).unwrap_or(0).max(1));
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Why a part of a request is refused: the code, and words where Kafka has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub code: Code,
    pub message: Option<String>,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self { code, message: None }
    }
}

/// Error code and message of an answer's part: none when it went well.
pub(crate) fn outcome<T>(result: Result<T, ApiError>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(ApiError { code, message }) => (code.code(), message.map(StrBytes::from_string)),
    }
}

/// Size, correlation id, response header, body.
pub(crate) fn encode<R: Encodable + HeaderVersion>(
    response: &R,
    correlation_id: i32,
    version: i16,
) -> Result<Bytes, String> {
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let mut frame = BytesMut::from(&[0; 4][..]);
    let encoded = header.encode(&mut frame, R::header_version(version));
    encoded.and_then(|()| response.encode(&mut frame, version)).map_err(|error| format!("{error:#}"))?;
    let length = i32::try_from(frame.len() - 4).map_err(|_| "longer than a frame can be".to_owned())?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

//! One connection to one broker: frames in, frames out, one request at a time as Kafka does it. What the
//! protocol forbids ends the connection, with a warning that says what it was.

use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::api::{self, Reply};
use crate::cluster::Cluster;
use crate::fault::Caller;

/// Key, version, correlation id: what must be there before a request can be named.
const HEADER_BYTES_MIN: usize = 8;
/// `connections.max.idle.ms`: so long nothing comes and nothing goes.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Why a connection ends, other than by its client's wish.
#[derive(Debug)]
pub(crate) struct Refused(pub String);

pub(crate) async fn serve(
    cluster: &Cluster,
    broker: i32,
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) {
    let bytes_max = cluster.with(|state| state.settings.socket_request_max_bytes);
    loop {
        let frame = match patiently(read_frame(&mut stream, bytes_max)).await.flatten() {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(Refused(why)) => {
                tracing::warn!(broker, why, "connection ended");
                return;
            }
        };
        let (frame, mute) = match patiently(answer(cluster, broker, frame)).await.flatten() {
            Ok(Reply::Answer(frame)) => (frame, Duration::ZERO),
            Ok(Reply::AnswerThenMute(frame, mute)) => (frame, mute),
            Ok(Reply::Silence) => continue,
            Ok(Reply::Close) => return,
            Err(Refused(why)) => {
                tracing::warn!(broker, why, "request refused, connection ended");
                return;
            }
        };
        let written = async { stream.write_all(&frame).await.and(stream.flush().await) };
        if !matches!(patiently(written).await, Ok(Ok(()))) {
            return;
        }
        if !mute.is_zero() {
            tokio::time::sleep(mute).await;
        }
    }
}

/// What takes longer than Kafka keeps a connection for is over.
async fn patiently<T>(step: impl Future<Output = T>) -> Result<T, Refused> {
    let waited = tokio::time::timeout(IDLE_MAX, step).await;
    waited.map_err(|_| Refused(format!("idle for {IDLE_MAX:?}")))
}

/// None when the client has gone.
async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Option<Bytes>, Refused> {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).await.is_err() {
        return Ok(None);
    }
    let claimed = i32::from_be_bytes(length);
    let length =
        usize::try_from(claimed).ok().filter(|length| (HEADER_BYTES_MIN..=bytes_max).contains(length));
    let Some(length) = length else {
        return Err(Refused(format!(
            "a frame claims {claimed} bytes, allowed are {HEADER_BYTES_MIN} to {bytes_max}"
        )));
    };
    // Grown as bytes come, not by what the frame claims.
    let mut frame = Vec::new();
    match stream.take(length as u64).read_to_end(&mut frame).await {
        Ok(read) if read == length => Ok(Some(frame.into())),
        _ => Ok(None),
    }
}

async fn answer(cluster: &Cluster, broker: i32, mut frame: Bytes) -> Result<Reply, Refused> {
    let (key, version) = (i16::from_be_bytes([frame[0], frame[1]]), i16::from_be_bytes([frame[2], frame[3]]));
    let api = ApiKey::try_from(key).map_err(|()| Refused(format!("api key {key} doesn't exist")))?;
    let correlation_id = (&frame[4..8]).get_i32();
    let Some(known) = api::find(api, version) else {
        if api == ApiKey::ApiVersions {
            return api::api_versions::unsupported_version(correlation_id);
        }
        return Err(Refused(format!("{api:?} version {version} isn't modelled (broker/README.md)")));
    };
    let malformed = |error: &dyn std::fmt::Display| Refused(format!("{api:?} version {version}: {error}"));
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version));
    let header = header.map_err(|error| malformed(&error))?;
    let client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
    let caller = Caller { broker, client_id, api, version };
    known.run(cluster, caller, correlation_id, frame).await
}

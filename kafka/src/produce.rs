//! Produce requests that carry batches by reference: the payload of each is a slice of the frame
//! it was fetched in, written vectored.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ProduceResponse};

use crate::batch::OutgoingBatch;
use crate::connection::{Api, CONTROL_FRAME_BYTES_MAX, Connection, Gate, Reply};
use crate::error::{Error, ErrorCode};
use crate::shape;
use std::time::Duration;

/// Version 8 (Kafka 2.4 and later) says which record a broker refused, and why.
static PRODUCE: Api =
    Api { key: ApiKey::Produce as i16, name: "Produce", versions: &[(8, false, shape::PRODUCE_V8)] };

const ACKS_ALL: i16 = -1;

const NO_TIMESTAMP: i64 = -1;

/// One batch for one partition. A broker takes exactly one a partition in a request.
#[derive(Clone, Debug)]
pub struct Part {
    pub topic: std::sync::Arc<str>,
    pub partition: i32,
    pub batch: OutgoingBatch,
}

/// What the broker did with one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartAnswer {
    pub topic: String,
    pub partition: i32,
    /// The offset the batch was given, or why it was refused. An error doesn't mean that
    /// nothing was appended.
    pub base_offset: Result<i64, (ErrorCode, String)>,
    /// The broker had the batch already. Kafka's then tell the first copy's time instead of none
    /// (`UnifiedLog.append`), on a topic that keeps its producers' times.
    pub is_repeat: bool,
}

/// Beyond the time a broker may wait for its followers: its own overhead and the way.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Sends the parts with acks=all; the broker may wait for its followers up to `timeout`, and its
/// answer is awaited a little longer. `parts` of one topic must be neighbours. Sent only while `gate`,
/// if there is one, is open: the answer is [`Error::NotSent`] otherwise.
///
/// # Errors
/// When the connection is closed or no place comes free in time. Part of the request, or all of it, may
/// have been sent then.
pub async fn start(
    connection: &Connection,
    parts: &[Part],
    timeout: Duration,
    gate: Option<Gate>,
) -> Result<Reply, Error> {
    let (body, within) = (encode(parts, timeout), timeout + ANSWER_MARGIN);
    connection.start_gated(&PRODUCE, body, CONTROL_FRAME_BYTES_MAX, within, gate).await
}

/// Decodes the answer to [`start`], with how long the broker doesn't hear this connection now, for the sake of a
/// quota (KIP-219).
///
/// # Errors
/// [`Error::Protocol`].
pub fn answers(connection: &Connection, body: Bytes) -> Result<(Vec<PartAnswer>, Duration), Error> {
    let response: ProduceResponse = connection.decode(&PRODUCE, body)?;
    let throttle = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or_default());
    let mut answers = Vec::new();
    for topic in response.responses {
        for p in topic.partition_responses {
            let base_offset = match ErrorCode::of(p.error_code) {
                None => Ok(p.base_offset),
                Some(code) => Err((code, p.error_message.map(|m| m.to_string()).unwrap_or_default())),
            };
            let is_repeat = base_offset.is_ok() && p.log_append_time_ms != NO_TIMESTAMP;
            let topic = topic.name.to_string();
            answers.push(PartAnswer { topic, partition: p.index, base_offset, is_repeat });
        }
    }
    Ok((answers, throttle))
}

/// Request body in pieces: what is ours is copied, payloads are shared.
fn encode(parts: &[Part], timeout: Duration) -> Vec<Bytes> {
    let topics = parts.chunk_by(|a, b| a.topic == b.topic);
    let mut segments = Vec::with_capacity(parts.len() * 2 + 1);
    let mut buffer = BytesMut::with_capacity(64 + parts.len() * 80);
    buffer.put_i16(-1); // no transactional id
    buffer.put_i16(ACKS_ALL);
    buffer.put_i32(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    buffer.put_i32(topics.clone().count() as i32);
    for topic in topics {
        let name = topic[0].topic.as_bytes();
        buffer.put_i16(name.len() as i16);
        buffer.put_slice(name);
        buffer.put_i32(topic.len() as i32);
        for part in topic {
            buffer.put_i32(part.partition);
            buffer.put_i32(part.batch.size_bytes() as i32);
            buffer.put_slice(&part.batch.head);
            segments.push(buffer.split().freeze());
            segments.push(part.batch.payload.clone());
        }
    }
    segments
}

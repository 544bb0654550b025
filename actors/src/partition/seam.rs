//! The seam: the last batch of the mirror must be ours, and equal to what the source has at the
//! same offsets. Checked before each run, so that a divergence is named and never built upon.

use catalog::{MirrorError, ProducerIdentity};
use kafka::batch::{self, RawBatch};
use kafka::fetch::{self, Position, TopicPartition};
use kafka::offsets::LogEnds;
use kafka::{Connection, Error};
use uuid::Uuid;

use crate::partition::FootingError;
use crate::partition::machine::NotFooted;
use crate::verdict::Verdict;

/// Read around one offset, at most; a larger batch comes whole all the same.
const READ_BYTES: i32 = 1024 * 1024;

/// The last batch before the log end, if the log holds one.
///
/// # Errors
/// Any [`Error`] of the fetch.
pub async fn read_tail(
    connection: &Connection,
    partition: &TopicPartition,
    topic_id: Uuid,
    ends: LogEnds,
) -> Result<Option<RawBatch>, Error> {
    if ends.end_offset <= ends.start_offset {
        return Ok(None);
    }
    let last = ends.end_offset - 1;
    let tail = read_at(connection, partition, topic_id, last).await?;
    // A log that has offsets has a batch there: not seeing it is no reason to trust it.
    tail.map(Some).ok_or_else(|| Error::Protocol {
        address: connection.address().to_owned(),
        reason: format!(
            "no intact batch at the last offset {last} of {}[{}]",
            partition.topic, partition.partition
        ),
    })
}

/// The batch that holds an offset, control batches and all.
pub async fn read_at(
    connection: &Connection,
    partition: &TopicPartition,
    topic_id: Uuid,
    offset: i64,
) -> Result<Option<RawBatch>, Error> {
    let position = Position { topic_id, offset, leader_epoch: -1 };
    let share = fetch::fetch_once(connection, partition, position, READ_BYTES).await?;
    if let Some(code) = share.error {
        let what = format!("Fetch of {}[{}] at offset {offset}", partition.topic, partition.partition);
        return Err(Error::Broker { what, code });
    }
    Ok(batch::containing(&share.records, offset))
}

/// Whoever wrote the last batch must be us.
pub fn check_author(
    tail: Option<&RawBatch>,
    producer: ProducerIdentity,
    position: i64,
) -> Result<(), FootingError> {
    let Some(tail) = tail.filter(|t| t.header.producer_id != producer.producer_id) else { return Ok(()) };
    let message = format!(
        "another producer wrote to the mirror: the batch at offsets {} to {} isn't ours (producer id {}, ours is {}); \
         the mirror ends at {position}",
        tail.header.base_offset,
        tail.header.last_offset(),
        tail.header.producer_id,
        producer.producer_id
    );
    let offset = tail.header.base_offset;
    Err(NotFooted::Verdict(Verdict::Fail { error: MirrorError::ForeignWrite, offset, message }))
}

/// The mirror's last batch equals the source's, where the source still has it.
pub async fn check(
    connection: &Connection,
    partition: &TopicPartition,
    topic_id: Uuid,
    source_ends: LogEnds,
    tail: Option<&RawBatch>,
) -> Result<(), FootingError> {
    let Some(mirror) = tail else { return Ok(()) };
    let last = mirror.header.last_offset();
    let retry = |message: String| NotFooted::Verdict(Verdict::Retry { message });
    // Below the log start it is gone there.
    if last < source_ends.start_offset {
        return Ok(());
    }
    // Not to be read yet, so not to be trusted either: after an unclean election at the source,
    // other records may come to stand there.
    if last >= source_ends.high_watermark {
        let seen = source_ends.high_watermark;
        return Err(retry(format!(
            "source: the high watermark {seen} hasn't reached the mirror's last offset {last}"
        )));
    }
    let source =
        read_at(connection, partition, topic_id, last).await.map_err(|e| retry(format!("source: {e}")))?;
    let Some(source) = source else {
        return Err(retry(format!("source: no batch at offset {last}, where its log has one")));
    };
    let ends = |b: &RawBatch| (b.header.base_offset, b.header.last_offset(), b.header.record_count);
    if ends(&source) == ends(mirror) && source.payload() == mirror.payload() {
        return Ok(());
    }
    let message = format!(
        "the mirror isn't an image of the source: at offset {last} the source has a batch of offsets {} to {}, the \
         mirror one of {} to {}, and their records differ",
        source.header.base_offset,
        source.header.last_offset(),
        mirror.header.base_offset,
        mirror.header.last_offset()
    );
    let offset = mirror.header.base_offset.max(source.header.base_offset);
    Err(NotFooted::Verdict(Verdict::Fail { error: MirrorError::DestinationLogDiverged, offset, message }))
}

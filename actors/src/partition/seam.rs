//! The seam: the last batch of the mirror must be ours, and equal to what the source has at the
//! same offsets. Checked before each run, so that a divergence is named and never built upon.

use catalog::{MirrorError, ProducerIdentity};
use kafka::batch::{self, RawBatch};
use kafka::fetch::{self, Position, TopicPartition};
use kafka::offsets::LogEnds;
use kafka::{Connection, Error};
use uuid::Uuid;

use crate::lane;
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
    let Some(tail) = tail else { return Ok(()) };
    if tail.header.producer_id == producer.producer_id {
        return check_place(tail, position);
    }
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

/// What we append takes its sequence from its offset: a batch of ours with another one stands where
/// it wasn't meant to, because somebody wrote before it.
fn check_place(tail: &RawBatch, position: i64) -> Result<(), FootingError> {
    let header = &tail.header;
    if header.is_control() || header.base_sequence == lane::sequence_at(header.base_offset) {
        return Ok(());
    }
    let displaced_by = i64::from(lane::sequence_at(header.base_offset)) - i64::from(header.base_sequence);
    let offset = header.base_offset - displaced_by;
    let message = format!(
        "another producer wrote to the mirror: our batch for offset {offset} stands at offset {}, {displaced_by} offsets \
         too high; the mirror ends at {position}",
        header.base_offset
    );
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
    let ends = |b: &RawBatch| {
        let h = &b.header;
        (h.base_offset, h.last_offset(), h.record_count, h.base_timestamp, h.max_timestamp)
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ProducerIdentity = ProducerIdentity { producer_id: 7, producer_epoch: 0 };

    /// A batch of ten records meant for one offset and standing at another.
    fn stands_at(offset: i64, meant_for: i64, producer_id: i64) -> RawBatch {
        let out = kafka::filler::filler_batch(meant_for, 10).readdress(
            producer_id,
            0,
            lane::sequence_at(meant_for),
        );
        let mut bytes = [out.head, out.payload].concat();
        bytes[0..8].copy_from_slice(&offset.to_be_bytes());
        batch::containing(&bytes.into(), offset).expect("a whole batch")
    }

    fn foreign_from(tail: &RawBatch) -> i64 {
        match check_author(Some(tail), OURS, tail.header.next_offset()) {
            Err(NotFooted::Verdict(Verdict::Fail { error: MirrorError::ForeignWrite, offset, .. })) => offset,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_of_ours_at_its_offset_is_a_tail_to_build_upon() {
        assert_eq!(check_author(Some(&stands_at(20, 20, 7)), OURS, 30), Ok(()));
        let wrapped = (1 << 31) + 20;
        assert_eq!(check_author(Some(&stands_at(wrapped, wrapped, 7)), OURS, wrapped + 10), Ok(()));
        assert_eq!(check_author(None, OURS, 0), Ok(()));
    }

    #[test]
    fn somebody_else_s_batch_at_the_end_is_a_foreign_write() {
        assert_eq!(foreign_from(&stands_at(20, 20, 8)), 20);
    }

    /// Found by resuming a mirror that had failed: with our displaced batch at its end, it was
    /// retried for ever under a wrong reason.
    #[test]
    fn our_batch_behind_foreign_ones_is_a_foreign_write_at_the_offset_it_was_meant_for() {
        assert_eq!(foreign_from(&stands_at(25, 20, 7)), 20);
    }
}

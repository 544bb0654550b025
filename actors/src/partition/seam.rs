//! The seam: the last batch of the mirror must be ours, and equal to what the source has at the
//! same offsets. Checked before each run, so that a divergence is named and never built upon.

use bytes::Bytes;
use catalog::{MirrorError, ProducerIdentity};
use kafka::batch::{self, BatchHeader, RawBatch};
use kafka::fetch::{self, Position, TopicPartition};
use kafka::offsets::LogEnds;
use kafka::producers::ProducerState;
use kafka::{Connection, Error};
use uuid::Uuid;

use crate::lane;
use crate::partition::FootingError;
use crate::partition::footing::Question;
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
    let records = read_from(connection, partition, topic_id, offset).await?;
    Ok(batch::containing(&records, offset))
}

async fn read_from(
    connection: &Connection,
    partition: &TopicPartition,
    topic_id: Uuid,
    offset: i64,
) -> Result<Bytes, Error> {
    let position = Position { topic_id, offset, leader_epoch: -1 };
    let share = fetch::fetch_once(connection, partition, position, READ_BYTES).await?;
    if let Some(code) = share.error {
        let what = format!("Fetch of {}[{}] at offset {offset}", partition.topic, partition.partition);
        return Err(Error::Broker { what, code });
    }
    Ok(share.records)
}

/// Whoever wrote the last batch must be us, and it must stand where it was meant to.
///
/// # Errors
/// What was found instead, in words.
pub fn check_author(tail: Option<&RawBatch>, producer: ProducerIdentity) -> Result<(), String> {
    let Some(header) = tail.map(|batch| &batch.header).filter(|h| !is_ours_in_place(h, producer)) else {
        return Ok(());
    };
    let (first, last) = (header.base_offset, header.last_offset());
    if header.producer_id == producer.producer_id {
        let sequence = header.base_sequence;
        return Err(format!("our batch of sequence {sequence} stands at offsets {first} to {last}"));
    }
    let (theirs, ours) = (header.producer_id, producer.producer_id);
    Err(format!("the last batch, at offsets {first} to {last}, has producer id {theirs}, ours is {ours}"))
}

/// What we append takes its sequence from its offset: a batch of ours with another one stands where
/// it wasn't meant to, because somebody wrote before it.
fn is_ours_in_place(header: &BatchHeader, producer: ProducerIdentity) -> bool {
    header.producer_id == producer.producer_id
        && (header.is_control() || header.base_sequence == lane::sequence_at(header.base_offset))
}

/// The first offset that isn't ours or not where it was meant to be, when the batch that begins at
/// `tail` is such a one. From there on nothing is ours in its place, so it is found by halving: some 30
/// reads of one batch each in a log of a billion offsets. Where one can't be read, what is known by then
/// is the answer: that others have written is certain.
pub async fn first_foreign(
    connection: &Connection,
    question: &Question,
    topic_id: Uuid,
    (log_start, tail): (i64, i64),
) -> i64 {
    let mut halving = Halving::new(log_start, tail);
    while let Some(middle) = halving.middle() {
        let Ok(records) = read_from(connection, &question.mirror, topic_id, middle).await else { break };
        let Some(batch) = batch::at_or_after(&records, middle) else { break };
        halving.found(&batch.header, question.producer);
    }
    halving.first
}

/// A search for the first foreign batch: all below `ours_below` is ours, `first` is not.
struct Halving {
    ours_below: i64,
    foreign_from: i64,
    first: i64,
}

impl Halving {
    fn new(log_start: i64, known: i64) -> Self {
        Self { ours_below: log_start, foreign_from: known, first: known }
    }

    /// Where to look next: at the first batch that ends there or later.
    fn middle(&self) -> Option<i64> {
        let between = self.foreign_from - self.ours_below;
        (between > 0).then(|| self.ours_below + between / 2)
    }

    fn found(&mut self, header: &BatchHeader, producer: ProducerIdentity) {
        let middle = self.ours_below + (self.foreign_from - self.ours_below) / 2;
        if is_ours_in_place(header, producer) {
            self.ours_below = header.next_offset();
        } else {
            self.first = header.base_offset.max(self.ours_below);
            // Behind a hole of compaction it begins above the middle.
            self.foreign_from = self.first.min(middle);
        }
    }
}

/// The failure of a mirror in which others have written from `first` on.
pub fn foreign_write(what: &str, first: i64, ends: LogEnds, ours: Option<&ProducerState>) -> FootingError {
    let all = ends.end_offset - first;
    // Our sequences are offsets: the last one says how far we had come at the source.
    let displaced = ours.filter(|state| state.last_sequence >= 0).map(|state| {
        let next = i64::from(lane::sequence_after(state.last_sequence, 1));
        (next - i64::from(lane::sequence_at(first))).rem_euclid(1 << 31)
    });
    let whose = match displaced.filter(|displaced| *displaced <= all) {
        Some(displaced) => {
            format!("{} of others and {displaced} of ours, displaced by them", all - displaced)
        }
        None => "how many of them are ours, displaced, isn't remembered there".to_owned(),
    };
    let message = format!(
        "another producer wrote to the mirror: {all} offsets from {first} on are not the source's ({whose}); {what}; \
         see who may WRITE there"
    );
    NotFooted::Verdict(Verdict::Fail { error: MirrorError::ForeignWrite, offset: first, message })
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

    fn found(tail: &RawBatch) -> String {
        check_author(Some(tail), OURS).expect_err("not ours, or not in its place")
    }

    #[test]
    fn a_batch_of_ours_at_its_offset_is_a_tail_to_build_upon() {
        assert_eq!(check_author(Some(&stands_at(20, 20, 7)), OURS), Ok(()));
        let wrapped = (1 << 31) + 20;
        assert_eq!(check_author(Some(&stands_at(wrapped, wrapped, 7)), OURS), Ok(()));
        assert_eq!(check_author(None, OURS), Ok(()));
    }

    #[test]
    fn somebody_else_s_batch_at_the_end_is_told_from_ours() {
        assert!(found(&stands_at(20, 20, 8)).contains("has producer id 8, ours is 7"));
    }

    /// Found by resuming a mirror that had failed: with our displaced batch at its end, it was
    /// retried for ever under a wrong reason.
    #[test]
    fn our_batch_behind_foreign_ones_is_told_from_one_in_its_place() {
        assert!(found(&stands_at(25, 20, 7)).contains("our batch of sequence 20 stands at offsets 25 to 34"));
    }

    /// Batches of ten: ours up to `first_foreign`, others' behind, none in `hole`.
    fn halved(first_foreign: i64, end: i64, hole: std::ops::Range<i64>) -> i64 {
        let mut halving = Halving::new(0, end - 10);
        while let Some(middle) = halving.middle() {
            let base = if hole.contains(&middle) { hole.end } else { middle / 10 * 10 };
            let producer_id = if base < first_foreign { 7 } else { 8 };
            halving.found(&stands_at(base, base, producer_id).header, OURS);
        }
        halving.first
    }

    #[test]
    fn the_first_foreign_batch_is_found_wherever_it_stands_and_across_holes() {
        for first in [0, 10, 500, 980, 990] {
            assert_eq!(halved(first, 1000, 0..0), first);
        }
        assert_eq!(halved(100, 200, 140..160), 100, "a hole in the foreign part");
        assert_eq!(halved(100, 200, 40..60), 100, "a hole in our part");
        assert_eq!(halved(160, 200, 120..160), 160, "a hole before the first foreign batch");
    }

    fn failure(first: i64, end_offset: i64, last_sequence: Option<i32>) -> (i64, String) {
        let ends = LogEnds { start_offset: 0, high_watermark: end_offset, end_offset };
        let state = last_sequence.map(|last_sequence| ProducerState {
            producer_id: 7,
            producer_epoch: 0,
            last_sequence,
            last_timestamp_ms: 1,
            is_in_transaction: false,
        });
        match foreign_write("…", first, ends, state.as_ref()) {
            NotFooted::Verdict(Verdict::Fail { error: MirrorError::ForeignWrite, offset, message }) => {
                (offset, message)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_foreign_write_is_told_with_how_much_is_whose() {
        let told = |first, end, last| {
            let (offset, message) = failure(first, end, last);
            assert_eq!(offset, first);
            message
        };
        let message = told(20, 35, Some(29));
        assert!(message.contains("15 offsets from 20 on"), "{message}");
        assert!(message.contains("(5 of others and 10 of ours, displaced by them)"), "{message}");
        assert!(told(20, 25, Some(19)).contains("(5 of others and 0 of ours"));
        let wrap = (1 << 31) - 5;
        assert!(told(wrap, wrap + 15, Some(4)).contains("(5 of others and 10 of ours"));
        assert!(told(20, 25, None).contains("isn't remembered there"));
    }
}

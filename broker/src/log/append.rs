//! What a leader does with a batch that it is to append: the checks in Kafka's order
//! (`UnifiedLog.append`, `LogValidator`), then the assigned offset.

use bytes::Bytes;
use kafka_protocol::error::ResponseError as Code;

use super::batch::{
    Assigned, HEADER_BYTES, Header, LENGTH_MIN, MAGIC, NO_TIMESTAMP, OVERHEAD_BYTES, UP_TO_MAGIC_BYTES,
    assign,
};
use super::records::{self, Record, Unreadable};
use super::{Batch, Log, Segment, control_batch};

/// Zstandard needs Produce 7.
const ZSTD: i16 = 4;
const ZSTD_FROM_VERSION: i16 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a topic's configs say about batches.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub message_max_bytes: usize,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    /// Records need a key.
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub end: i64,
    /// The answer's field: -1 with CreateTime; a duplicate's timestamp.
    pub log_append_time_ms: i64,
}

/// Why a batch isn't appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: Option<String>,
    /// Index of the record in the batch, and what is wrong with it.
    pub records: Vec<(i32, String)>,
    /// Kafka tells the log start with some refusals only.
    pub tells_log_start: bool,
}

impl Refusal {
    fn plain(code: Code) -> Self {
        Self { code, message: None, records: Vec::new(), tells_log_start: true }
    }

    /// One of the errors that `ReplicaManager` answers with nothing but their code.
    fn bare(code: Code) -> Self {
        Self { tells_log_start: false, ..Self::plain(code) }
    }
}

/// The one batch that a partition's part of a produce request may carry. What follows it counts as cut
/// off when it is shorter than it says, and is silently dropped, as Kafka does.
///
/// # Errors
/// `INVALID_RECORD`, `CORRUPT_MESSAGE`, `UNSUPPORTED_COMPRESSION_TYPE`.
pub fn sole_batch(records: &[u8], version: i16) -> Result<&[u8], Code> {
    let batch = next_batch(records)?.ok_or(Code::InvalidRecord)?;
    if batch[16].cast_signed() != MAGIC {
        return Err(Code::InvalidRecord);
    }
    let codec = i16::from_be_bytes([*batch.get(21).unwrap_or(&0), *batch.get(22).unwrap_or(&0)]) & 7;
    if codec == ZSTD && version < ZSTD_FROM_VERSION {
        return Err(Code::UnsupportedCompressionType);
    }
    if codec > ZSTD && version < ZSTD_FROM_VERSION {
        return Err(Code::UnknownServerError);
    }
    match next_batch(&records[batch.len()..])? {
        Some(_) => Err(Code::InvalidRecord),
        None => Ok(batch),
    }
}

/// The header of the batch at the start of `records`, when all of it is there.
///
/// # Errors
/// `CORRUPT_MESSAGE`.
pub fn first_header(records: &[u8]) -> Result<Option<Header>, Code> {
    Ok(next_batch(records)?.and_then(Header::read))
}

/// The batch at the start of `records`, None when it isn't whole (`ByteBufferLogInputStream`).
fn next_batch(records: &[u8]) -> Result<Option<&[u8]>, Code> {
    if records.len() < OVERHEAD_BYTES {
        return Ok(None);
    }
    let length = i32::from_be_bytes([records[8], records[9], records[10], records[11]]);
    if length < LENGTH_MIN {
        return Err(Code::CorruptMessage);
    }
    if records.len() < UP_TO_MAGIC_BYTES {
        return Ok(None);
    }
    if !(0..=MAGIC).contains(&records[16].cast_signed()) {
        return Err(Code::CorruptMessage);
    }
    Ok(records.get(..length as usize + OVERHEAD_BYTES))
}

impl Log {
    /// Appends a client's batch.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was appended.
    pub fn append(
        &mut self,
        batch: &[u8],
        rules: &Rules,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, Refusal> {
        let header = check_frame(batch, rules)?;
        check_header(&header)?;
        let records = read_records(&header, batch)?;
        check_records(&header, &records, rules, now_ms)?;
        if batch.len() as u64 > rules.segment_bytes {
            return Err(Refusal::bare(Code::RecordListTooLarge));
        }
        let log_append_time = rules.timestamp_type == TimestampType::LogAppendTime;
        let newest = records.iter().map(|record| record.timestamp).fold(NO_TIMESTAMP, i64::max);
        let max_timestamp = if log_append_time { now_ms } else { newest };
        // Also for a batch that its producer's state refuses, as Kafka does.
        self.roll_before(batch.len(), max_timestamp, rules, now_ms);
        if header.has_producer() {
            if let Some(first) = self.producers.duplicate_of(&header) {
                let (base_offset, end) = (first.base_offset, first.last_offset + 1);
                return Ok(Appended { base_offset, end, log_append_time_ms: first.timestamp });
            }
            self.producers.check_data(&header).map_err(Refusal::plain)?;
        }

        let assigned = Assigned { base_offset: self.end, leader_epoch, max_timestamp, log_append_time };
        let (header, bytes) = assign(batch, &assigned);
        if header.has_producer() {
            self.producers.appended(&header);
        }
        self.store(header, bytes, now_ms);
        let log_append_time_ms = if log_append_time { now_ms } else { NO_TIMESTAMP };
        Ok(Appended { base_offset: header.base_offset, end: self.end, log_append_time_ms })
    }

    /// Appends the marker of a transaction's end.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH`, `TRANSACTION_COORDINATOR_FENCED`.
    pub(crate) fn append_marker(
        &mut self,
        marker: Marker,
        rules: &Rules,
        leader_epoch: i32,
        now_ms: i64,
        high_watermark: i64,
    ) -> Result<i64, Code> {
        let Marker { producer_id, producer_epoch, commit, coordinator_epoch } = marker;
        let bytes = control_batch(producer_id, producer_epoch, commit, coordinator_epoch, now_ms);
        self.roll_before(bytes.len(), now_ms, rules, now_ms);
        self.producers.check_marker(producer_id, producer_epoch, coordinator_epoch)?;
        let log_append_time = rules.timestamp_type == TimestampType::LogAppendTime;
        let assigned =
            Assigned { base_offset: self.end, leader_epoch, max_timestamp: now_ms, log_append_time };
        let (header, bytes) = assign(&bytes, &assigned);
        let offset = header.base_offset;
        let began = self.producers.marked(producer_id, producer_epoch, coordinator_epoch, now_ms);
        self.store(header, bytes, now_ms);
        if let Some(first) = began {
            self.aborted.ended(producer_id, first, offset, commit, high_watermark);
        }
        Ok(offset)
    }

    /// Begins a new segment when the active one has no room, or no time, for a batch like this.
    fn roll_before(&mut self, bytes: usize, max_timestamp: i64, rules: &Rules, now_ms: i64) {
        let full = self.segments.back().is_some_and(|active| {
            // Age is what lies between the timestamps of a segment's batches, not how long it exists.
            let age_ms = match active.first_timestamp {
                Some(first) if first >= 0 => max_timestamp - first,
                _ => now_ms - active.created_ms,
            };
            let bytes = active.bytes + bytes as u64;
            active.bytes > 0 && (bytes > rules.segment_bytes || age_ms > rules.segment_ms)
        });
        if full {
            self.segments.push_back(Segment::at(self.end));
        }
    }

    fn store(&mut self, header: Header, bytes: Bytes, now_ms: i64) {
        let mut position = 0;
        if let Some(active) = self.segments.back_mut() {
            if active.first_timestamp.is_none() {
                (active.first_timestamp, active.created_ms) = (Some(header.max_timestamp), now_ms);
            }
            position = active.index.take_in(bytes.len() as u64, header.last_offset());
            active.bytes += bytes.len() as u64;
            active.max_timestamp = active.max_timestamp.max(header.max_timestamp);
        }
        self.end = header.last_offset() + 1;
        self.batches.push_back(Batch { header, bytes, position });
    }
}

/// The end of a transaction, as a coordinator or `WriteTxnMarkers` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
}

fn check_frame(batch: &[u8], rules: &Rules) -> Result<Header, Refusal> {
    let header = Header::read(batch).ok_or(Refusal::bare(Code::CorruptMessage))?;
    if header.base_offset != 0 {
        return Err(Refusal::plain(Code::InvalidRecord));
    }
    if batch.len() > rules.message_max_bytes {
        return Err(Refusal::bare(Code::MessageTooLarge));
    }
    if batch.len() < HEADER_BYTES || !header.is_intact(batch) {
        return Err(Refusal::bare(Code::CorruptMessage));
    }
    if header.codec() > ZSTD {
        return Err(Refusal::plain(Code::UnknownServerError));
    }
    Ok(header)
}

fn check_header(header: &Header) -> Result<(), Refusal> {
    let offsets = i64::from(header.last_offset_delta) + 1;
    let counted = offsets > 0 && header.count > 0 && offsets == i64::from(header.count);
    let sequenced = !header.has_producer() || header.base_sequence >= 0;
    if counted && sequenced && !header.is_control() {
        Ok(())
    } else {
        Err(Refusal::plain(Code::InvalidRecord))
    }
}

fn read_records(header: &Header, batch: &[u8]) -> Result<Vec<Record>, Refusal> {
    records::read(header, batch).map_err(|unreadable| match unreadable {
        Unreadable::Compression => Refusal::plain(Code::UnknownServerError),
        Unreadable::Shape => Refusal::plain(Code::InvalidRecord),
    })
}

fn check_records(header: &Header, records: &[Record], rules: &Rules, now_ms: i64) -> Result<(), Refusal> {
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let mut timestamps = false;
    let mut wrong = Vec::new();
    for (index, record) in (0..).zip(records) {
        if rules.compacted && !record.has_key {
            wrong.push((index, "a compacted topic takes no record without a key".to_owned()));
        } else if create_time && record.timestamp != NO_TIMESTAMP {
            if out_of_bounds(record.timestamp, rules, now_ms) {
                timestamps = true;
                wrong.push((index, format!("timestamp {} is out of range", record.timestamp)));
            }
        } else if header.has_log_append_time() {
            timestamps = true;
            wrong.push((index, "a producer doesn't set LogAppendTime".to_owned()));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let code = if timestamps { Code::InvalidTimestamp } else { Code::InvalidRecord };
    let message = Some(format!("{} of {} records were refused", wrong.len(), records.len()));
    Err(Refusal { code, message, records: wrong, tells_log_start: true })
}

fn out_of_bounds(timestamp: i64, rules: &Rules, now_ms: i64) -> bool {
    let age_ms = now_ms.wrapping_sub(timestamp);
    age_ms > rules.timestamp_before_max_ms || age_ms.wrapping_neg() > rules.timestamp_after_max_ms
}

//! Record batches (magic 2) as bytes: headers are read, checked and re-written; records are
//! neither decoded nor copied.
//!
//! Layout of the 61-byte header (protocol guide, "Record Batch"): base offset 0..8, length 8..12,
//! partition leader epoch 12..16, magic 16, CRC32C 17..21 of everything from 21, attributes
//! 21..23, last offset delta 23..27, base timestamp 27..35, max timestamp 35..43, producer id
//! 43..51, producer epoch 51..53, base sequence 53..57, record count 57..61, records.

use bytes::Bytes;

pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field doesn't count.
const LENGTH_OVERHEAD: usize = 12;
const CRC_START: usize = 21;
/// Up to the magic byte, headers of all formats agree.
const MAGIC_END: usize = 17;

const TIMESTAMP_TYPE_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

/// Up to here a second CRC pass is cheaper than shifting the old CRC (measured: about 1 µs).
const RECOMPUTE_BYTES_MAX: usize = 16 * 1024;

/// What a batch's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
    pub crc: u32,
    pub leader_epoch: i32,
}

impl BatchHeader {
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }
}

/// A batch as a broker sent it, its CRC checked.
#[derive(Clone, Debug)]
pub struct RawBatch {
    pub header: BatchHeader,
    /// Header and records, a slice of the response's frame.
    bytes: Bytes,
}

impl RawBatch {
    /// The records as stored: compressed or not, untouched.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The same batch under another identity, ready to be produced: base offset 0, no partition
    /// leader epoch, not transactional, and the given producer id, producer epoch and sequence.
    ///
    /// The new CRC follows from the checked old one, so a corruption can't be masked.
    pub fn readdress(&self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> OutgoingBatch {
        let old = &self.bytes[..HEADER_BYTES];
        let mut head = [0; HEADER_BYTES];
        head.copy_from_slice(old);
        head[0..8].copy_from_slice(&0i64.to_be_bytes());
        head[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        head[21..23].copy_from_slice(&(self.header.attributes & !TRANSACTIONAL_BIT).to_be_bytes());
        head[43..51].copy_from_slice(&producer_id.to_be_bytes());
        head[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&base_sequence.to_be_bytes());
        let payload = self.payload();
        let new_head_crc = crc32c::crc32c(&head[CRC_START..]);
        let crc = if payload.len() <= RECOMPUTE_BYTES_MAX {
            crc32c::crc32c_append(new_head_crc, &payload)
        } else {
            // CRCs are linear: only the changed bytes' contribution, shifted over the payload.
            let changed = crc32c::crc32c(&old[CRC_START..]) ^ new_head_crc;
            self.header.crc ^ crc32c::crc32c_combine(changed, 0, payload.len())
        };
        head[17..21].copy_from_slice(&crc.to_be_bytes());
        OutgoingBatch { head: Bytes::copy_from_slice(&head), payload, source: self.header, base_sequence }
    }
}

/// A batch to produce: a new header in front of a payload shared with the fetched frame.
#[derive(Clone, Debug)]
pub struct OutgoingBatch {
    pub head: Bytes,
    pub payload: Bytes,
    /// The header it had at the source.
    pub source: BatchHeader,
    pub base_sequence: i32,
}

impl OutgoingBatch {
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Why the batches after those that were cut can't be taken as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Magic 0 or 1: written before Kafka 0.11 and never rewritten.
    OldFormat { offset: i64, magic: u8 },
    /// The bytes aren't what was written, or no batch.
    Corrupt { offset: i64, reason: String },
    /// Offsets `from..to` hold no batch.
    Hole { from: i64, to: i64 },
    /// The batch that holds `offset` begins before it.
    Inside { offset: i64, base_offset: i64 },
    /// A transaction marker.
    Control { offset: i64 },
    /// Records of a transaction.
    Transactional { offset: i64 },
    /// Compaction took records out of the batch.
    Thinned { offset: i64, last_offset: i64, record_count: i32 },
    /// Timestamps are the source broker's.
    LogAppendTime { offset: i64 },
}

/// What one partition's share of a fetch response holds.
#[derive(Debug, Default)]
pub struct Cut {
    /// Without a hole, the first at the wanted position.
    pub batches: Vec<RawBatch>,
    pub obstacle: Option<Obstacle>,
}

/// Cuts a fetched byte range into batches, from `position` on, each checked against its CRC.
///
/// A truncated batch at the end is normal in a fetch response and left for the next fetch;
/// batches that end before `position` are passed over (a fetch may begin inside a batch).
pub fn cut(records: &Bytes, mut position: i64) -> Cut {
    let mut cut = Cut::default();
    let mut at = 0;
    while let Some((total_bytes, magic)) = frame_at(records, at) {
        let total_bytes = match total_bytes {
            Ok(total) if at + total <= records.len() => total,
            Ok(_) => break,
            Err(reason) => {
                cut.obstacle = Some(Obstacle::Corrupt { offset: position, reason });
                break;
            }
        };
        let bytes = records.slice(at..at + total_bytes);
        if magic != 2 {
            cut.obstacle = Some(Obstacle::OldFormat { offset: position, magic });
            break;
        }
        let header = parse(&bytes);
        if let Some(obstacle) = look(&header, &bytes, position) {
            cut.obstacle = Some(obstacle);
            break;
        }
        at += total_bytes;
        if header.last_offset() < position {
            continue;
        }
        position = header.next_offset();
        cut.batches.push(RawBatch { header, bytes });
    }
    cut
}

/// The whole batch that holds `offset`, whatever kind it is; `None` when there is none or its CRC
/// is wrong.
pub fn containing(records: &Bytes, offset: i64) -> Option<RawBatch> {
    at_or_after(records, offset).filter(|batch| batch.header.base_offset <= offset)
}

/// The first whole batch that ends at `offset` or later, whatever kind it is; `None` when there is none
/// or its CRC is wrong.
pub fn at_or_after(records: &Bytes, offset: i64) -> Option<RawBatch> {
    let mut at = 0;
    while let Some((Ok(total_bytes), 2)) = frame_at(records, at) {
        if at + total_bytes > records.len() {
            return None;
        }
        let bytes = records.slice(at..at + total_bytes);
        let header = parse(&bytes);
        if offset <= header.last_offset() {
            let intact = crc32c::crc32c(&bytes[CRC_START..]) == header.crc;
            return intact.then_some(RawBatch { header, bytes });
        }
        at += total_bytes;
    }
    None
}

/// Total bytes and magic of the batch at `at`; `None` when not even its magic is left.
fn frame_at(records: &Bytes, at: usize) -> Option<(Result<usize, String>, u8)> {
    let head = records.get(at..at + MAGIC_END)?;
    let length = i32::from_be_bytes(head[8..12].try_into().expect("4 bytes"));
    // Magic 0 and 1 have shorter headers; their smallest message is 14 bytes past the overhead.
    let bytes_min = if head[16] == 2 { HEADER_BYTES } else { LENGTH_OVERHEAD + 14 };
    let total = usize::try_from(length).ok().map(|l| l + LENGTH_OVERHEAD).filter(|t| *t >= bytes_min);
    Some((total.ok_or_else(|| format!("a batch length of {length}")), head[16]))
}

fn parse(b: &[u8]) -> BatchHeader {
    let i16_at = |p: usize| i16::from_be_bytes([b[p], b[p + 1]]);
    let i32_at = |p: usize| i32::from_be_bytes(b[p..p + 4].try_into().expect("4 bytes"));
    let i64_at = |p: usize| i64::from_be_bytes(b[p..p + 8].try_into().expect("8 bytes"));
    BatchHeader {
        base_offset: i64_at(0),
        leader_epoch: i32_at(12),
        crc: i32_at(17) as u32,
        attributes: i16_at(21),
        last_offset_delta: i32_at(23),
        base_timestamp: i64_at(27),
        max_timestamp: i64_at(35),
        producer_id: i64_at(43),
        producer_epoch: i16_at(51),
        base_sequence: i32_at(53),
        record_count: i32_at(57),
    }
}

/// What stands in the way of taking this batch at `position`. Old batches are only skipped.
fn look(header: &BatchHeader, bytes: &[u8], position: i64) -> Option<Obstacle> {
    let offset = position;
    let corrupt = |reason: String| Some(Obstacle::Corrupt { offset, reason });
    let found = crc32c::crc32c(&bytes[CRC_START..]);
    if found != header.crc {
        return corrupt(format!("CRC32C {found:08x}, the batch says {:08x}", header.crc));
    }
    if header.base_offset < 0 || header.last_offset_delta < 0 || header.record_count < 0 {
        return corrupt(format!(
            "base offset {}, last offset delta {}, {} records",
            header.base_offset, header.last_offset_delta, header.record_count
        ));
    }
    if header.last_offset() < position {
        return None;
    }
    if header.base_offset > position {
        return Some(Obstacle::Hole { from: position, to: header.base_offset });
    }
    if header.base_offset < position {
        return Some(Obstacle::Inside { offset, base_offset: header.base_offset });
    }
    if header.is_control() {
        return Some(Obstacle::Control { offset });
    }
    if header.is_transactional() {
        return Some(Obstacle::Transactional { offset });
    }
    if header.is_log_append_time() {
        return Some(Obstacle::LogAppendTime { offset });
    }
    if i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        let (last_offset, record_count) = (header.last_offset(), header.record_count);
        return Some(Obstacle::Thinned { offset, last_offset, record_count });
    }
    None
}

#[cfg(test)]
mod tests;

//! The header of a record batch (magic 2, KIP-98) as a broker reads and writes it. Shares no code with
//! the client's, so that a mistake in one isn't hidden by the same mistake in the other.

use bytes::{BufMut, Bytes, BytesMut};

/// Base offset to record count: what precedes the records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length, which the length doesn't count.
pub const OVERHEAD_BYTES: usize = 12;
/// A broker looks no further than the magic before it knows that a whole batch is there.
pub const UP_TO_MAGIC_BYTES: usize = 17;
/// The smallest length a broker takes for that of a record set (that of magic 0).
pub const LENGTH_MIN: i32 = 14;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 21;

pub const MAGIC: i8 = 2;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// Those above and the delete horizon.
const KNOWN_ATTRIBUTES: i16 = 0x7f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub base_offset: i64,
    /// Of the whole batch.
    pub bytes: usize,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl Header {
    /// None when fewer bytes than a header's are there.
    pub fn read(batch: &[u8]) -> Option<Self> {
        let field = |at: usize| batch.get(at..);
        let i64_at = |at: usize| Some(i64::from_be_bytes(field(at)?.get(..8)?.try_into().ok()?));
        let i32_at = |at: usize| Some(i32::from_be_bytes(field(at)?.get(..4)?.try_into().ok()?));
        let i16_at = |at: usize| Some(i16::from_be_bytes(field(at)?.get(..2)?.try_into().ok()?));
        Some(Self {
            base_offset: i64_at(0)?,
            bytes: usize::try_from(i32_at(8)?).ok()? + OVERHEAD_BYTES,
            leader_epoch: i32_at(12)?,
            magic: i8::from_be_bytes([*batch.get(16)?]),
            crc: i32_at(17)?.cast_unsigned(),
            attributes: i16_at(21)?,
            last_offset_delta: i32_at(23)?,
            base_timestamp: i64_at(27)?,
            max_timestamp: i64_at(35)?,
            producer_id: i64_at(43)?,
            producer_epoch: i16_at(51)?,
            base_sequence: i32_at(53)?,
            count: i32_at(57)?,
        })
    }

    pub fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub fn has_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Sequences wrap from the greatest 32-bit number to zero.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(NO_SEQUENCE)
    }

    pub fn is_intact(&self, batch: &[u8]) -> bool {
        self.bytes >= HEADER_BYTES
            && batch.get(CHECKED_FROM..).is_some_and(|body| crc32c::crc32c(body) == self.crc)
    }
}

/// What the leader writes into a client's batch before it stores it.
pub struct Assigned {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub max_timestamp: i64,
    pub log_append_time: bool,
}

/// `batch` with its assigned fields. The checksum changes only when what it covers does.
pub fn assign(batch: &[u8], assigned: &Assigned) -> (Header, Bytes) {
    let mut out = BytesMut::from(batch);
    out[..8].copy_from_slice(&assigned.base_offset.to_be_bytes());
    out[12..16].copy_from_slice(&assigned.leader_epoch.to_be_bytes());
    let attributes = i16::from_be_bytes([out[21], out[22]]);
    let wanted =
        if assigned.log_append_time { attributes | LOG_APPEND_TIME } else { attributes & !LOG_APPEND_TIME };
    let max_timestamp = assigned.max_timestamp.to_be_bytes();
    if wanted != attributes || out[35..43] != max_timestamp {
        // Written anew: bits that mean nothing are lost here, and only here.
        out[21..23].copy_from_slice(&(wanted & KNOWN_ATTRIBUTES).to_be_bytes());
        out[35..43].copy_from_slice(&max_timestamp);
        let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = out.freeze();
    let header = Header::read(&bytes).unwrap_or_else(|| unreachable!("a batch that was read before"));
    (header, bytes)
}

/// The marker that ends a transaction: a control batch of one record (KIP-98).
pub fn control_batch(
    producer_id: i64,
    producer_epoch: i16,
    commit: bool,
    coordinator_epoch: i32,
    now_ms: i64,
) -> Bytes {
    // Record: length, attributes, timestamp delta, offset delta, key (version, type), value (version,
    // coordinator epoch), no headers; all lengths are zigzag varints of one byte.
    let mut record = BytesMut::new();
    record.put_slice(&[0, 0, 0, 4 << 1, 0, 0, 0, u8::from(commit), 6 << 1, 0, 0]);
    record.put_i32(coordinator_epoch);
    record.put_u8(0);

    let mut out = BytesMut::new();
    out.put_i64(0);
    out.put_i32((HEADER_BYTES - OVERHEAD_BYTES + 1 + record.len()) as i32);
    out.put_i32(-1);
    out.put_i8(MAGIC);
    out.put_u32(0);
    out.put_i16(TRANSACTIONAL | CONTROL);
    out.put_i32(0);
    out.put_i64(now_ms);
    out.put_i64(now_ms);
    out.put_i64(producer_id);
    out.put_i16(producer_epoch);
    out.put_i32(NO_SEQUENCE);
    out.put_i32(1);
    out.put_u8((record.len() as u8) << 1);
    out.put_slice(&record);
    let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_an_intact_control_batch_of_one_record() {
        let bytes = control_batch(7, 3, true, 5, 1_000);
        let header = Header::read(&bytes).unwrap();
        assert!(header.is_intact(&bytes) && header.is_control() && header.is_transactional());
        assert_eq!((header.bytes, header.count, header.last_offset()), (bytes.len(), 1, 0));
        assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (7, 3, NO_SEQUENCE));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let bytes = control_batch(7, 3, true, 5, 1_000);
        let header =
            Header { base_sequence: i32::MAX - 1, last_offset_delta: 3, ..Header::read(&bytes).unwrap() };
        assert_eq!(header.last_sequence(), 1);
    }

    #[test]
    fn an_assigned_offset_leaves_the_checksum_and_a_new_timestamp_renews_it() {
        let bytes = control_batch(7, 3, true, 5, 1_000);
        let plain =
            Assigned { base_offset: 42, leader_epoch: 2, max_timestamp: 1_000, log_append_time: false };
        let (header, stored) = assign(&bytes, &plain);
        assert_eq!((header.base_offset, header.leader_epoch), (42, 2));
        assert_eq!(stored[17..], bytes[17..]);
        let (header, stored) = assign(&bytes, &Assigned { log_append_time: true, max_timestamp: 9, ..plain });
        assert!(header.is_intact(&stored) && header.has_log_append_time() && header.max_timestamp == 9);
    }
}

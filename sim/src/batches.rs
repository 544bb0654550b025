//! Record batches (magic 2, KIP-98) as this simulation's clients write and read them. Shares no code with
//! the product's nor with the broker's: a mistake in one isn't hidden by the same mistake here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::disk::Fnv;

/// Base offset to record count: what precedes the records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length, which the length doesn't count.
const OVERHEAD_BYTES: usize = 12;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 21;
const CODEC_MASK: i16 = 0x07;
const CONTROL: i16 = 0x20;

/// What a producer sends of itself with each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Identity {
    /// Not idempotent.
    pub const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

#[derive(Clone, Debug)]
pub struct Record {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// One uncompressed batch as a producer sends it.
pub fn write(records: &[Record], identity: Identity) -> Bytes {
    let base_ms = records.first().map_or(-1, |record| record.timestamp_ms);
    let max_ms = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(-1);
    let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
    let mut covered = BytesMut::new();
    covered.put_i16(0);
    covered.put_i32(count - 1);
    covered.put_i64(base_ms);
    covered.put_i64(max_ms);
    covered.put_i64(identity.producer_id);
    covered.put_i16(identity.producer_epoch);
    covered.put_i32(identity.base_sequence);
    covered.put_i32(count);
    for (delta, record) in (0..).zip(records) {
        let body = body(record, record.timestamp_ms - base_ms, delta);
        put_varint(&mut covered, body.len() as i64);
        covered.put_slice(&body);
    }
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(covered.len() + CHECKED_FROM - OVERHEAD_BYTES).unwrap_or(i32::MAX));
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(crc32c::crc32c(&covered));
    batch.put_slice(&covered);
    batch.freeze()
}

fn body(record: &Record, timestamp_delta: i64, offset_delta: i64) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_i8(0);
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta);
    match &record.key {
        None => put_varint(&mut body, -1),
        Some(key) => put_bytes(&mut body, key),
    }
    put_bytes(&mut body, &record.value);
    put_varint(&mut body, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_bytes(&mut body, name.as_bytes());
        put_bytes(&mut body, value);
    }
    body
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as i64);
    out.put_slice(bytes);
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A batch as it stands in a log.
#[derive(Clone, Debug)]
pub struct Stored {
    pub base_offset: i64,
    pub last_offset: i64,
    pub producer_id: i64,
    /// Attributes, last offset delta, base and max timestamp, record count: everything in a header that
    /// is neither identity, place nor checksum.
    pub shape: (i16, i32, i64, i64, i32),
    pub is_intact: bool,
    pub payload: Bytes,
}

impl Stored {
    /// The batch at the start of `bytes`, and what follows it; None when no whole one is there.
    pub fn read(bytes: &Bytes) -> Option<(Self, Bytes)> {
        let field = |at: usize| bytes.get(at..);
        let i64_at = |at: usize| Some(i64::from_be_bytes(field(at)?.get(..8)?.try_into().ok()?));
        let i32_at = |at: usize| Some(i32::from_be_bytes(field(at)?.get(..4)?.try_into().ok()?));
        let i16_at = |at: usize| Some(i16::from_be_bytes(field(at)?.get(..2)?.try_into().ok()?));
        let total = usize::try_from(i32_at(8)?).ok()? + OVERHEAD_BYTES;
        if total < HEADER_BYTES || total > bytes.len() {
            return None;
        }
        let base_offset = i64_at(0)?;
        let crc = i32_at(17)?.cast_unsigned();
        let stored = Self {
            base_offset,
            last_offset: base_offset + i64::from(i32_at(23)?),
            producer_id: i64_at(43)?,
            shape: (i16_at(21)?, i32_at(23)?, i64_at(27)?, i64_at(35)?, i32_at(57)?),
            is_intact: crc32c::crc32c(&bytes[CHECKED_FROM..total]) == crc,
            payload: bytes.slice(HEADER_BYTES..total),
        };
        Some((stored, bytes.slice(total..)))
    }

    pub fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }

    pub fn is_compressed(&self) -> bool {
        self.shape.0 & CODEC_MASK != 0
    }

    /// A marker of a transaction, and no record.
    pub fn is_control(&self) -> bool {
        self.shape.0 & CONTROL != 0
    }

    /// What each record says (its timestamp, key, value and headers), as a hash; None for what isn't an
    /// uncompressed batch of whole records numbered 0, 1, 2, …
    pub fn records(&self) -> Option<Vec<u64>> {
        let (_, last_delta, base_ms, _, count) = self.shape;
        if self.is_compressed() || last_delta != count - 1 {
            return None;
        }
        let mut rest: &[u8] = &self.payload;
        let mut records = Vec::new();
        for number in 0..i64::from(count) {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            let mut record = rest.get(..length)?;
            rest = &rest[length..];
            record = record.get(1..)?;
            let timestamp_ms = base_ms + varint(&mut record)?;
            if varint(&mut record)? != number {
                return None;
            }
            let mut hash = Fnv::default();
            hash.add(&timestamp_ms.to_le_bytes());
            hash.add(record);
            records.push(hash.0);
        }
        rest.is_empty().then_some(records)
    }
}

fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A batch of records with these values, at an offset.
    pub fn at(offset: i64, values: &[&str], identity: Identity) -> Stored {
        let record = |value: &&str| Record {
            timestamp_ms: 1_000,
            key: Some(b"key".to_vec()),
            value: value.as_bytes().to_vec(),
            headers: vec![("name".to_owned(), vec![0; 300])],
        };
        let mut bytes = BytesMut::from(&write(&values.iter().map(record).collect::<Vec<_>>(), identity)[..]);
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        Stored::read(&bytes.freeze()).expect("whole").0
    }

    #[test]
    fn what_is_written_is_read_and_equal_records_have_equal_hashes_wherever_they_stand() {
        let batch = at(7, &["a", "b", "a"], Identity::NONE);
        assert!(batch.is_intact);
        assert_eq!((batch.base_offset, batch.last_offset, batch.shape.4), (7, 9, 3));
        let records = batch.records().expect("plain");
        assert_eq!(records[0], records[2]);
        assert_ne!(records[0], records[1]);
        let other = Identity { producer_id: 5, producer_epoch: 0, base_sequence: 9 };
        assert_eq!(at(0, &["b"], other).records().expect("plain"), [records[1]]);
    }

    #[test]
    fn half_a_batch_is_none() {
        let whole = write(&[], Identity::NONE);
        assert!(Stored::read(&whole.slice(..whole.len() - 1)).is_none());
    }
}

//! Record batches of format 2: finding them in an answer, giving them another header, and joining
//! small neighbours into one.

use std::ops::Range;

use crate::wire::{Producer, i16_at, i32_at, i64_at};

pub const HEADER_BYTES: usize = 61;
/// Base offset and batch length, which the batch length doesn't count.
const LENGTH_PREFIX_BYTES: usize = 12;
const LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
/// The CRC covers everything from here on.
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

/// Codec, transactional and control: with any of them a batch is left as it is.
const NOT_PLAIN: i16 = 0x37;
/// What the length, timestamp and offset of one record can grow by when it moves into another batch.
const RECORD_GROWTH_BYTES: usize = 9;
const VARINT_BYTES_MAX: usize = 10;

/// A whole batch in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of its partition among those of the group.
    pub partition: usize,
    pub range: Range<usize>,
    pub base_offset: i64,
    pub next_offset: i64,
}

/// The whole batches in `range` that don't begin before `from`.
pub fn find(bytes: &[u8], range: Range<usize>, partition: usize, from: i64) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at + HEADER_BYTES <= range.end {
        let length = LENGTH_PREFIX_BYTES + i32_at(bytes, at + LENGTH) as usize;
        if at + length > range.end {
            break;
        }
        let base_offset = i64_at(bytes, at);
        let next_offset = base_offset + i64::from(i32_at(bytes, at + LAST_OFFSET_DELTA)) + 1;
        if base_offset >= from {
            found.push(Found { partition, range: at..at + length, base_offset, next_offset });
        }
        at += length;
    }
    found
}

/// Gives a batch the producer's identity and base offset 0, as a broker wants it; the sequence is
/// taken from the offset it had.
pub fn readdress(batch: &mut [u8], producer: Producer) {
    let base_offset = i64_at(batch, 0);
    put_i64(batch, 0, 0);
    put_i32(batch, LEADER_EPOCH, -1);
    identify(batch, base_offset, producer);
}

fn identify(batch: &mut [u8], base_offset: i64, producer: Producer) {
    put_i64(batch, PRODUCER_ID, producer.id);
    put_i16(batch, PRODUCER_EPOCH, producer.epoch);
    put_i32(batch, BASE_SEQUENCE, (base_offset & 0x7fff_ffff) as i32);
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    put_i32(batch, CRC, crc.cast_signed());
}

/// Which neighbours go into one batch: ranges of `found`, each of one partition, without a gap,
/// plain, of equal attributes, and below `bytes_max` however its records grow.
pub fn runs(bytes: &[u8], found: &[Found], bytes_max: usize) -> Vec<Range<usize>> {
    let attributes = |at: usize| i16_at(bytes, found[at].range.start + ATTRIBUTES);
    let grown = |at: usize| {
        let records = i32_at(bytes, found[at].range.start + RECORD_COUNT) as usize;
        found[at].range.len() + RECORD_GROWTH_BYTES * records
    };
    let mut runs = Vec::new();
    let mut start = 0;
    while start < found.len() {
        let mut end = start + 1;
        if attributes(start) & NOT_PLAIN == 0 {
            let mut total = grown(start);
            while end < found.len()
                && found[end].partition == found[start].partition
                && found[end].base_offset == found[end - 1].next_offset
                && attributes(end) == attributes(start)
                && total + grown(end) <= bytes_max
            {
                total += grown(end);
                end += 1;
            }
        }
        runs.push(start..end);
        start = end;
    }
    runs
}

/// Appends the batches of one run to `out` as one batch of the producer's.
pub fn coalesce(bytes: &[u8], run: &[Found], out: &mut Vec<u8>, producer: Producer) {
    let start = out.len();
    let first = run[0].range.start;
    let base_offset = run[0].base_offset;
    let base_timestamp = i64_at(bytes, first + BASE_TIMESTAMP);
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let (mut count, mut max_timestamp, mut last_delta) = (0, i64::MIN, 0);
    for Found { range, base_offset: own_base, next_offset, .. } in run {
        let offset_shift = own_base - base_offset;
        let timestamp_shift = i64_at(bytes, range.start + BASE_TIMESTAMP) - base_timestamp;
        max_timestamp = max_timestamp.max(i64_at(bytes, range.start + MAX_TIMESTAMP));
        count += i32_at(bytes, range.start + RECORD_COUNT);
        last_delta = (next_offset - 1 - base_offset) as i32;
        let records = &bytes[range.start + HEADER_BYTES..range.end];
        if offset_shift == 0 && timestamp_shift == 0 {
            out.extend_from_slice(records);
        } else {
            shift_records(records, offset_shift, timestamp_shift, out);
        }
    }
    let attributes = i16_at(bytes, first + ATTRIBUTES);
    let batch = &mut out[start..];
    put_i32(batch, LENGTH, (batch.len() - LENGTH_PREFIX_BYTES) as i32);
    put_i32(batch, LEADER_EPOCH, -1);
    batch[MAGIC] = 2;
    put_i16(batch, ATTRIBUTES, attributes);
    put_i32(batch, LAST_OFFSET_DELTA, last_delta);
    put_i64(batch, BASE_TIMESTAMP, base_timestamp);
    put_i64(batch, MAX_TIMESTAMP, max_timestamp);
    put_i32(batch, RECORD_COUNT, count);
    identify(batch, base_offset, producer);
}

/// Appends records with their offsets and timestamps, which a batch keeps as differences to its
/// first, shifted.
fn shift_records(records: &[u8], offset_shift: i64, timestamp_shift: i64, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < records.len() {
        let length = take_varint(records, &mut at) as usize;
        let end = at + length;
        let attributes = records[at];
        at += 1;
        let timestamp = take_varint(records, &mut at) + timestamp_shift;
        let offset = take_varint(records, &mut at) + offset_shift;
        let mut head = [attributes; 1 + 2 * VARINT_BYTES_MAX];
        let mut head_bytes = 1;
        head_bytes += write_varint(&mut head[head_bytes..], timestamp);
        head_bytes += write_varint(&mut head[head_bytes..], offset);
        put_varint(out, (head_bytes + end - at) as i64);
        out.extend_from_slice(&head[..head_bytes]);
        out.extend_from_slice(&records[at..end]);
        at = end;
    }
}

/// A record without key and headers at this place of its batch.
pub fn record(value: &[u8], offset_delta: i64) -> Vec<u8> {
    let mut body = vec![0, 0]; // attributes, timestamp delta
    put_varint(&mut body, offset_delta);
    put_varint(&mut body, -1); // null key
    put_varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    put_varint(&mut body, 0); // headers
    let mut record = Vec::new();
    put_varint(&mut record, body.len() as i64);
    record.extend(body);
    record
}

/// A batch of `count` records, compressed as `codec` says, without a producer's identity.
pub fn plain(records: &[u8], count: i32, codec: i16, timestamp_ms: i64) -> Vec<u8> {
    let mut batch = vec![0; HEADER_BYTES];
    batch.extend_from_slice(records);
    let length = batch.len() - LENGTH_PREFIX_BYTES;
    put_i32(&mut batch, LENGTH, length as i32);
    put_i32(&mut batch, LEADER_EPOCH, -1);
    batch[MAGIC] = 2;
    put_i16(&mut batch, ATTRIBUTES, codec);
    put_i32(&mut batch, LAST_OFFSET_DELTA, count - 1);
    put_i64(&mut batch, BASE_TIMESTAMP, timestamp_ms);
    put_i64(&mut batch, MAX_TIMESTAMP, timestamp_ms);
    put_i64(&mut batch, PRODUCER_ID, -1);
    put_i16(&mut batch, PRODUCER_EPOCH, -1);
    put_i32(&mut batch, BASE_SEQUENCE, -1);
    put_i32(&mut batch, RECORD_COUNT, count);
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    put_i32(&mut batch, CRC, crc.cast_signed());
    batch
}

fn put_i16(bytes: &mut [u8], at: usize, value: i16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn put_i32(bytes: &mut [u8], at: usize, value: i32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put_i64(bytes: &mut [u8], at: usize, value: i64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Reads a zigzag variable-length integer and moves past it.
fn take_varint(bytes: &[u8], at: &mut usize) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
        }
        shift += 7;
    }
}

/// Writes a zigzag variable-length integer; returns its length.
fn write_varint(out: &mut [u8], value: i64) -> usize {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut length = 0;
    while rest >= 0x80 {
        out[length] = rest as u8 | 0x80;
        length += 1;
        rest >>= 7;
    }
    out[length] = rest as u8;
    length + 1
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let length = write_varint(&mut bytes, value);
    out.extend_from_slice(&bytes[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Producer = Producer { id: 7, epoch: 3 };

    /// Batches of one record each at the given offsets, a millisecond apart, one after the other.
    fn log(offsets: &[i64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, offset) in offsets.iter().enumerate() {
            let mut batch = plain(&record(&[number as u8; 200], 0), 1, 0, 1_000 + number as i64);
            put_i64(&mut batch, 0, *offset);
            bytes.extend(batch);
        }
        bytes
    }

    fn found(bytes: &[u8]) -> Vec<Found> {
        find(bytes, 0..bytes.len(), 0, 0)
    }

    fn crc_holds(batch: &[u8]) -> bool {
        crc32c::crc32c(&batch[ATTRIBUTES..]).cast_signed() == i32_at(batch, CRC)
    }

    #[test]
    fn a_cut_off_batch_and_one_before_the_offset_are_left_out() {
        let bytes = log(&[4, 5, 6]);
        let offsets: Vec<i64> =
            find(&bytes, 0..bytes.len() - 1, 0, 5).iter().map(|batch| batch.base_offset).collect();
        assert_eq!(offsets, [5]);
    }

    #[test]
    fn neighbours_join_up_to_a_gap_and_up_to_the_limit() {
        let bytes = log(&[4, 5, 6, 8, 9]);
        let found = found(&bytes);
        assert_eq!(runs(&bytes, &found, 1_000_000), [0..3, 3..5]);
        let two = 2 * (found[0].range.len() + RECORD_GROWTH_BYTES);
        assert_eq!(runs(&bytes, &found, two), [0..2, 2..3, 3..5]);
    }

    #[test]
    fn a_compressed_batch_stays_alone() {
        let mut bytes = log(&[4, 5, 6]);
        let found = found(&bytes);
        put_i16(&mut bytes, found[1].range.start + ATTRIBUTES, 4);
        assert_eq!(runs(&bytes, &found, 1_000_000), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_joined_batch_has_the_same_records_at_the_same_offsets_and_times() {
        let bytes = log(&[4, 5, 6]);
        let mut out = vec![0xee; 5];
        coalesce(&bytes, &found(&bytes), &mut out, OURS);
        let batch = &out[5..];
        assert!(crc_holds(batch));
        assert_eq!(i32_at(batch, LENGTH) as usize, batch.len() - LENGTH_PREFIX_BYTES);
        assert_eq!((i32_at(batch, RECORD_COUNT), i32_at(batch, LAST_OFFSET_DELTA)), (3, 2));
        assert_eq!((i64_at(batch, BASE_TIMESTAMP), i64_at(batch, MAX_TIMESTAMP)), (1_000, 1_002));
        assert_eq!((i64_at(batch, PRODUCER_ID), i32_at(batch, BASE_SEQUENCE)), (7, 4));
        let mut at = HEADER_BYTES;
        for number in 0..3u8 {
            let end = take_varint(batch, &mut at) as usize + at;
            at += 1;
            let timestamp = take_varint(batch, &mut at);
            let offset = take_varint(batch, &mut at);
            assert_eq!((timestamp, offset), (i64::from(number), i64::from(number)));
            assert_eq!(batch[end - 201..end], [&[number; 200][..], &[0]].concat());
            at = end;
        }
        assert_eq!(at, batch.len());
    }

    #[test]
    fn a_readdressed_batch_differs_in_its_header_alone() {
        let bytes = log(&[9]);
        let mut batch = bytes.clone();
        readdress(&mut batch, OURS);
        assert!(crc_holds(&batch));
        assert_eq!((i64_at(&batch, 0), i32_at(&batch, BASE_SEQUENCE)), (0, 9));
        assert_eq!(batch[HEADER_BYTES..], bytes[HEADER_BYTES..]);
    }

    #[test]
    fn variable_length_integers_come_back() {
        for value in [0, -1, 63, 64, -65, 300_000, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut at = 0;
            assert_eq!((take_varint(&bytes, &mut at), at), (value, bytes.len()));
        }
    }
}

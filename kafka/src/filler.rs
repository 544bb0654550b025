//! Filler batches: records that only take up offsets, in as few bytes and as little broker time
//! as possible. They stand below a mirror's log start and are cut off before any consumer reads.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::batch::{self, HEADER_BYTES, RawBatch};

/// Records in a full filler batch. Compressed it takes about 0.4 MB: below the smallest
/// `max.message.bytes` in common use (1 MB), and brokers check one in a few dozen milliseconds.
pub const RECORDS_MAX: i32 = 200_000;

/// No full batch is larger, compressed.
const FULL_BYTES_MAX: usize = 900_000;

/// Of one filler record before compression.
const RECORD_BYTES_MAX: usize = 11;

/// How many fillers fit into a batch of `batch_bytes_max`, whatever compression makes of them.
pub fn records_max(batch_bytes_max: usize) -> i32 {
    if batch_bytes_max >= FULL_BYTES_MAX {
        return RECORDS_MAX;
    }
    // 100 bytes for the batch header and what gzip adds.
    (batch_bytes_max.saturating_sub(100) / RECORD_BYTES_MAX).clamp(1, RECORDS_MAX as usize) as i32
}

/// Codec 1 of the attributes: gzip. Every broker since 0.11 reads it without a native library.
const GZIP: i16 = 1;

/// Fillers are older than any record: a look-up of an offset by time never lands on one, and a
/// destination that retains by time drops their segments first.
const TIMESTAMP_MS: i64 = 0;

/// A batch of `count` fillers at `base_offset`, as a source would have sent it.
///
/// # Panics
/// When `count` isn't in 1..=[`RECORDS_MAX`].
pub fn filler_batch(base_offset: i64, count: i32) -> RawBatch {
    assert!((1..=RECORDS_MAX).contains(&count), "{count} fillers in one batch");
    static FULL: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes =
        if count == RECORDS_MAX { FULL.get_or_init(|| build(RECORDS_MAX)).clone() } else { build(count) };
    // The base offset lies outside the CRC.
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch::containing(&Bytes::from(bytes), base_offset).expect("a batch built here is whole")
}

fn build(count: i32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut records = Vec::with_capacity(count as usize * 10);
    for delta in 0..count {
        put_record(&mut records, delta);
    }
    encoder.write_all(&records).expect("writing to memory");
    let payload = encoder.finish().expect("writing to memory");
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[8..12].copy_from_slice(&((HEADER_BYTES - 12 + payload.len()) as i32).to_be_bytes());
    bytes[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    bytes[16] = 2;
    bytes[21..23].copy_from_slice(&GZIP.to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[27..35].copy_from_slice(&TIMESTAMP_MS.to_be_bytes());
    bytes[35..43].copy_from_slice(&TIMESTAMP_MS.to_be_bytes());
    bytes[43..51].copy_from_slice(&(-1i64).to_be_bytes());
    bytes[51..53].copy_from_slice(&(-1i16).to_be_bytes());
    bytes[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&payload);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Length, attributes, timestamp delta, offset delta, null key, null value, no headers.
fn put_record(records: &mut Vec<u8>, offset_delta: i32) {
    let mut delta = [0u8; 5];
    let mut bytes = 0;
    let mut zigzag = (offset_delta as u32) << 1;
    loop {
        delta[bytes] = (zigzag & 0x7f) as u8 | if zigzag > 0x7f { 0x80 } else { 0 };
        bytes += 1;
        zigzag >>= 7;
        if zigzag == 0 {
            break;
        }
    }
    // Bodies of 6 to 10 bytes: the length's zigzag form is one byte.
    records.push(((2 + bytes + 3) as u8) << 1);
    records.extend_from_slice(&[0, 0]);
    records.extend_from_slice(&delta[..bytes]);
    // -1, -1 and 0 as zigzag varints.
    records.extend_from_slice(&[1, 1, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_filler_batch_fits_the_smallest_common_message_limit() {
        let full = filler_batch(7_000_000_000, RECORDS_MAX);
        assert!(full.size_bytes() < FULL_BYTES_MAX, "{} bytes", full.size_bytes());
        assert_eq!(full.header.base_offset, 7_000_000_000);
        assert_eq!(full.header.next_offset(), 7_000_000_000 + i64::from(RECORDS_MAX));
        assert_eq!(full.header.record_count, RECORDS_MAX);
    }

    #[test]
    fn a_topic_with_a_small_message_limit_is_filled_in_batches_that_fit() {
        for limit in [200, 1_000, 50_000, 899_999, 900_000, 1_048_588] {
            let batch = filler_batch(1 << 40, records_max(limit));
            assert!(batch.size_bytes() <= limit, "{} bytes of {limit}", batch.size_bytes());
        }
        assert_eq!((records_max(0), records_max(1_048_588)), (1, RECORDS_MAX));
    }

    #[test]
    fn one_filler_is_a_batch_too() {
        let one = filler_batch(3, 1);
        assert_eq!((one.header.base_offset, one.header.next_offset(), one.header.record_count), (3, 4, 1));
    }
}

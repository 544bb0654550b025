//! The bytes of record batches on their way out and in: ids and times that differ between two ends are
//! put in or taken out, everything else stays as it is. Also of batches that are cut or spoiled.

use bytes::{Bytes, BytesMut};

/// Everything before the records.
const BATCH_HEADER_BYTES: usize = 61;
const OVERHEAD_BYTES: usize = 12;
const CRC_AT: usize = 17;
const CHECKED_FROM: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const LOG_APPEND_TIME: i16 = 0x08;
const CONTROL: i16 = 0x20;

/// Puts an end's own producer ids in place of marks. A checksum that was right stays right.
pub fn localised(records: &Bytes, own: impl Fn(i64) -> i64) -> Bytes {
    let mut out = BytesMut::from(&records[..]);
    each_batch(&mut out, |batch, whole| {
        let mark = i64_at(batch, PRODUCER_ID_AT);
        let intact = whole && is_intact(batch);
        put(batch, PRODUCER_ID_AT, &own(mark).to_be_bytes());
        if intact {
            let crc = crc32c::crc32c(&batch[CHECKED_FROM..]);
            put(batch, CRC_AT, &crc.to_be_bytes());
        }
    });
    out.freeze()
}

/// Puts marks in place of producer ids and 0 in place of times of the wall clock (which a broker writes
/// into markers and with LogAppendTime). A right checksum becomes 0, a wrong one stays.
pub fn marked(records: &Bytes, mut mark: impl FnMut(i64) -> i64, is_now: impl Fn(i64) -> bool) -> Bytes {
    let mut out = BytesMut::from(&records[..]);
    each_batch(&mut out, |batch, whole| {
        let attributes = i16::from_be_bytes([batch[21], batch[22]]);
        if !whole || is_intact(batch) {
            put(batch, CRC_AT, &[0; 4]);
        }
        let own = i64_at(batch, PRODUCER_ID_AT);
        put(batch, PRODUCER_ID_AT, &mark(own).to_be_bytes());
        let clocked: &[usize] = match (attributes & CONTROL != 0, attributes & LOG_APPEND_TIME != 0) {
            (true, _) => &[BASE_TIMESTAMP_AT, MAX_TIMESTAMP_AT],
            (_, true) => &[MAX_TIMESTAMP_AT],
            _ => &[],
        };
        for at in clocked.iter().copied() {
            if is_now(i64_at(batch, at)) {
                put(batch, at, &[0; 8]);
            }
        }
    });
    out.freeze()
}

/// Calls `act` with each batch whose header is there; the last one may be cut. Of a header that is cut
/// itself nothing behind the magic is compared, as it may end in the middle of an id.
fn each_batch(records: &mut [u8], mut act: impl FnMut(&mut [u8], bool)) {
    let mut rest = records;
    while rest.len() >= OVERHEAD_BYTES {
        let claimed = i32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]);
        let Ok(claimed) = usize::try_from(claimed) else { return };
        let total = claimed + OVERHEAD_BYTES;
        let (batch, behind) = rest.split_at_mut(total.min(rest.len()));
        if batch.len() >= BATCH_HEADER_BYTES {
            let whole = batch.len() == total;
            act(batch, whole);
        } else if batch.len() > CRC_AT {
            batch[CRC_AT..].fill(0);
        }
        rest = behind;
    }
}

fn is_intact(batch: &[u8]) -> bool {
    batch[CRC_AT..CHECKED_FROM] == crc32c::crc32c(&batch[CHECKED_FROM..]).to_be_bytes()
}

fn i64_at(batch: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(std::array::from_fn(|index| batch[at + index]))
}

fn put(batch: &mut [u8], at: usize, value: &[u8]) {
    batch[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::batches::{Batch, LOG_APPEND_TIME, Record};

    fn batch(producer_id: i64, max_timestamp: i64, value: &[u8]) -> Bytes {
        let value = Some(value.to_vec());
        let record = Record { timestamp_delta: 0, offset_delta: 0, key: None, value, headers: 0 };
        let mut batch = Batch::new(1_000, vec![record]);
        (batch.producer_id, batch.max_timestamp, batch.flags) = (producer_id, max_timestamp, LOG_APPEND_TIME);
        batch.encode()
    }

    fn seen(records: &Bytes) -> Bytes {
        marked(records, |_| 7, |time| time > 5_000)
    }

    #[test]
    fn two_ends_differ_in_ids_and_times_of_their_clocks_alone() {
        assert_eq!(seen(&batch(1, 6_000, b"same")), seen(&batch(2, 7_000, b"same")));
        assert_ne!(seen(&batch(1, 6_000, b"same")), seen(&batch(1, 6_000, b"sama")));
        assert_ne!(seen(&batch(1, 4_000, b"same")), seen(&batch(1, 4_001, b"same")));
    }

    #[test]
    fn a_wrong_checksum_and_a_cut_are_seen() {
        let whole = batch(1, 6_000, b"same");
        let mut spoilt = BytesMut::from(&whole[..]);
        spoilt[CRC_AT] ^= 1;
        assert_ne!(seen(&whole), seen(&spoilt.freeze()));
        for cut in [0, 10, 30, 62] {
            assert_ne!(seen(&whole), seen(&whole.slice(..cut)));
        }
    }

    #[test]
    fn an_ends_own_id_leaves_a_right_checksum_right_and_a_wrong_one_wrong() {
        let own = localised(&batch(1, 6_000, b"same"), |_| 9);
        assert_eq!(own, batch(9, 6_000, b"same"));
        let mut spoilt = BytesMut::from(&batch(1, 6_000, b"same")[..]);
        spoilt[CRC_AT] ^= 1;
        let own = localised(&spoilt.freeze(), |_| 9);
        assert!(!is_intact(&own));
    }
}

//! Record batches (magic 2) made by hand, as a plain producer sends them.

use bytes::{BufMut, Bytes, BytesMut};

const CHECKED_FROM: usize = 21;
const OVERHEAD_BYTES: usize = 12;

/// One batch of records with this timestamp and these values.
pub fn write(timestamp_ms: i64, values: &[String]) -> Bytes {
    let count = i32::try_from(values.len()).expect("few records");
    let mut covered = BytesMut::new();
    covered.put_i16(0);
    covered.put_i32(count - 1);
    covered.put_i64(timestamp_ms);
    covered.put_i64(timestamp_ms);
    covered.put_i64(-1);
    covered.put_i16(-1);
    covered.put_i32(-1);
    covered.put_i32(count);
    for (delta, value) in (0..).zip(values) {
        let mut body = BytesMut::new();
        body.put_i8(0);
        [0, delta, -1, value.len() as i64].into_iter().for_each(|number| put_varint(&mut body, number));
        body.put_slice(value.as_bytes());
        put_varint(&mut body, 0);
        put_varint(&mut covered, body.len() as i64);
        covered.put_slice(&body);
    }
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(covered.len() + CHECKED_FROM - OVERHEAD_BYTES).expect("a small batch"));
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(crc32c::crc32c(&covered));
    batch.put_slice(&covered);
    batch.freeze()
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

//! Record batches of format 2, byte by byte: the header, its CRC, and the records inside.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::compression::decompress;
use super::cursor::Cursor;

/// Everything before the records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and batch length, which the batch length doesn't count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// The CRC covers everything from the attributes on.
const CRC_STARTS_AT: usize = 21;
const MAGIC: i8 = 2;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A batch as the broker sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBatch {
    pub base_offset: i64,
    pub partition_leader_epoch: i32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
    /// What follows the header: the records, compressed together when the attributes say so.
    pub payload: Vec<u8>,
}

/// One record with its absolute offset and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl RawBatch {
    /// The whole batches in `bytes`; a broker may cut off the last one, which is left out.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<RawBatch>> {
        let mut batches = Vec::new();
        let mut at = 0;
        while let Some(range) = whole_batch(bytes, at)? {
            at = range.end;
            let batch = RawBatch::parse(&bytes[range.clone()])
                .with_context(|| format!("batch at byte {} of the answer", range.start))?;
            batches.push(batch);
        }
        Ok(batches)
    }

    fn parse(bytes: &[u8]) -> Result<RawBatch> {
        let mut cursor = Cursor::new(bytes);
        let base_offset = cursor.i64()?;
        cursor.i32()?; // batch length, already used to cut these bytes out
        let partition_leader_epoch = cursor.i32()?;
        let magic = cursor.i8()?;
        ensure!(magic == MAGIC, "offset {base_offset}: record format {magic}, only {MAGIC} is read here");
        let stored = cursor.u32()?;
        let computed = crc32c::crc32c(&bytes[CRC_STARTS_AT..]);
        ensure!(stored == computed, "offset {base_offset}: CRC {stored:08x} stored, {computed:08x} computed");
        Ok(RawBatch {
            base_offset,
            partition_leader_epoch,
            attributes: cursor.i16()?,
            last_offset_delta: cursor.i32()?,
            base_timestamp_ms: cursor.i64()?,
            max_timestamp_ms: cursor.i64()?,
            producer_id: cursor.i64()?,
            producer_epoch: cursor.i16()?,
            base_sequence: cursor.i32()?,
            record_count: cursor.i32()?,
            payload: cursor.take(cursor.remaining())?.to_vec(),
        })
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// A transaction marker, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The attributes without the one bit a mirror may change.
    pub fn attributes_but_transactional(&self) -> i16 {
        self.attributes & !TRANSACTIONAL
    }

    /// Number of the codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    /// Decompresses and takes apart every record; the count must match the header's.
    pub fn records(&self) -> Result<Vec<RawRecord>> {
        let place = || format!("batch at offset {}", self.base_offset);
        let bytes = decompress(self.codec(), &self.payload).with_context(place)?;
        let mut cursor = Cursor::new(&bytes);
        let mut records = Vec::new();
        for _ in 0..self.record_count {
            records.push(self.record(&mut cursor).with_context(place)?);
        }
        if cursor.remaining() != 0 {
            bail!("{}: {} bytes after its last record", place(), cursor.remaining());
        }
        Ok(records)
    }

    fn record(&self, outer: &mut Cursor) -> Result<RawRecord> {
        let length = outer.varint()?;
        let mut cursor = Cursor::new(outer.counted(length)?.context("a record without a length")?);
        cursor.i8()?; // attributes, unused by the format
        let timestamp_delta = cursor.varint()?;
        let offset_delta = cursor.varint()?;
        let key = counted_bytes(&mut cursor)?;
        let value = counted_bytes(&mut cursor)?;
        let header_count = cursor.varint()?;
        let mut headers = Vec::new();
        for _ in 0..header_count {
            let name = counted_bytes(&mut cursor)?.context("a header without a name")?;
            let name = String::from_utf8(name).context("a header's name is not UTF-8")?;
            headers.push((name, counted_bytes(&mut cursor)?));
        }
        ensure!(cursor.remaining() == 0, "{} bytes left inside a record", cursor.remaining());
        let timestamp_ms = match self.attributes & LOG_APPEND_TIME {
            0 => self.base_timestamp_ms + timestamp_delta,
            _ => self.max_timestamp_ms,
        };
        Ok(RawRecord { offset: self.base_offset + offset_delta, timestamp_ms, key, value, headers })
    }
}

fn counted_bytes(cursor: &mut Cursor) -> Result<Option<Vec<u8>>> {
    let length = cursor.varint()?;
    Ok(cursor.counted(length)?.map(<[u8]>::to_vec))
}

/// Where the batch that starts at `at` lies, or nothing when it is cut off.
fn whole_batch(bytes: &[u8], at: usize) -> Result<Option<Range<usize>>> {
    let rest = &bytes[at..];
    if rest.len() < LENGTH_PREFIX_BYTES {
        return Ok(None);
    }
    let mut cursor = Cursor::new(rest);
    let base_offset = cursor.i64()?;
    let length = usize::try_from(cursor.i32()?).context("a batch's length")?;
    ensure!(
        length >= BATCH_HEADER_BYTES - LENGTH_PREFIX_BYTES,
        "offset {base_offset}: a batch of {length} bytes is shorter than its header"
    );
    let end = at + LENGTH_PREFIX_BYTES + length;
    Ok((end <= bytes.len()).then_some(at..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two records, uncompressed: (k, v, one header) and (null, null), written out by hand.
    fn sample() -> Vec<u8> {
        let first = [0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1];
        let second = [0, 10, 2, 1, 1, 0];
        let mut payload = vec![u8::try_from(first.len() * 2).unwrap()];
        payload.extend(first);
        payload.push(u8::try_from(second.len() * 2).unwrap());
        payload.extend(second);

        let mut covered = Vec::new();
        covered.extend(TRANSACTIONAL.to_be_bytes());
        covered.extend(1i32.to_be_bytes());
        covered.extend(1_000i64.to_be_bytes());
        covered.extend(1_005i64.to_be_bytes());
        covered.extend(7i64.to_be_bytes());
        covered.extend(3i16.to_be_bytes());
        covered.extend(40i32.to_be_bytes());
        covered.extend(2i32.to_be_bytes());
        covered.extend(payload);

        let mut batch = 100i64.to_be_bytes().to_vec();
        batch.extend(u32::try_from(covered.len() + 9).unwrap().to_be_bytes());
        batch.extend(5i32.to_be_bytes());
        batch.push(2);
        batch.extend(crc32c::crc32c(&covered).to_be_bytes());
        batch.extend(covered);
        batch
    }

    #[test]
    fn a_batch_written_by_hand_is_read_back() {
        let batches = RawBatch::parse_all(&sample()).unwrap();
        let [batch] = &batches[..] else { panic!("one batch expected") };
        assert_eq!((batch.base_offset, batch.last_offset(), batch.record_count), (100, 101, 2));
        assert_eq!((batch.producer_id, batch.producer_epoch, batch.base_sequence), (7, 3, 40));
        assert_eq!(batch.attributes_but_transactional(), 0);
        assert!(!batch.is_control());
        let records = batch.records().unwrap();
        assert_eq!(
            records,
            [
                RawRecord {
                    offset: 100,
                    timestamp_ms: 1_000,
                    key: Some(b"k".to_vec()),
                    value: Some(b"v".to_vec()),
                    headers: vec![("h".to_owned(), None)],
                },
                RawRecord { offset: 101, timestamp_ms: 1_005, key: None, value: None, headers: Vec::new() },
            ]
        );
    }

    #[test]
    fn a_cut_off_batch_is_left_out() {
        let mut bytes = sample();
        bytes.extend(sample());
        for cut in 1..sample().len() {
            let batches = RawBatch::parse_all(&bytes[..bytes.len() - cut]).unwrap();
            assert_eq!(batches.len(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_under_the_crc_is_noticed() {
        for at in CRC_STARTS_AT..sample().len() {
            let mut bytes = sample();
            bytes[at] ^= 1;
            assert!(RawBatch::parse_all(&bytes).unwrap_err().root_cause().to_string().contains("CRC"));
        }
    }
}

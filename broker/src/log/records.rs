//! A walk over the records of one batch: only what a broker checks of them.

use std::borrow::Cow;

use super::batch::{HEADER_BYTES, Header};
use super::compression::decompress;

/// What the checks need of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub offset_delta: i64,
    pub timestamp: i64,
    pub has_key: bool,
}

/// The records couldn't be read: what Kafka answers to that depends on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// They don't unfold, or the codec doesn't exist.
    Compression,
    /// A length doesn't fit what is there, or records are missing or left over.
    Shape,
}

/// Reads all records of `batch`.
///
/// # Errors
/// [`Unreadable`] when they aren't what the header says.
pub fn read(header: &Header, batch: &[u8]) -> Result<Vec<Record>, Unreadable> {
    let payload = batch.get(HEADER_BYTES..).ok_or(Unreadable::Shape)?;
    let payload = match header.codec() {
        0 => Cow::Borrowed(payload),
        codec => match decompress(codec, payload) {
            Some(Ok(unfolded)) => Cow::Owned(unfolded),
            Some(Err(_)) | None => return Err(Unreadable::Compression),
        },
    };
    let mut rest: &[u8] = &payload;
    let mut records = Vec::new();
    for _ in 0..header.count {
        let length = usize::try_from(varint(&mut rest)?).map_err(|_| Unreadable::Shape)?;
        let record = rest.get(..length).ok_or(Unreadable::Shape)?;
        rest = &rest[length..];
        records.push(one(record, header)?);
    }
    if rest.is_empty() { Ok(records) } else { Err(Unreadable::Shape) }
}

fn one(mut rest: &[u8], header: &Header) -> Result<Record, Unreadable> {
    take(&mut rest, 1)?;
    let timestamp = header.base_timestamp.wrapping_add(varint(&mut rest)?);
    let offset_delta = varint(&mut rest)?;
    let has_key = skip_nullable(&mut rest)?;
    skip_nullable(&mut rest)?;
    let headers = varint(&mut rest)?;
    if headers < 0 {
        return Err(Unreadable::Shape);
    }
    for _ in 0..headers {
        if !skip_nullable(&mut rest)? {
            return Err(Unreadable::Shape);
        }
        skip_nullable(&mut rest)?;
    }
    let timestamp = if header.has_log_append_time() { header.max_timestamp } else { timestamp };
    if rest.is_empty() { Ok(Record { offset_delta, timestamp, has_key }) } else { Err(Unreadable::Shape) }
}

/// Whether there was a value.
fn skip_nullable(rest: &mut &[u8]) -> Result<bool, Unreadable> {
    let length = varint(rest)?;
    if length < 0 {
        return Ok(false);
    }
    take(rest, usize::try_from(length).map_err(|_| Unreadable::Shape)?)?;
    Ok(true)
}

fn take(rest: &mut &[u8], count: usize) -> Result<(), Unreadable> {
    *rest = rest.get(count..).ok_or(Unreadable::Shape)?;
    Ok(())
}

/// A zigzag varint of up to 64 bits.
fn varint(rest: &mut &[u8]) -> Result<i64, Unreadable> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(Unreadable::Shape)?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(Unreadable::Shape)
}

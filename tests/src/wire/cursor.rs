//! Reading and writing the protocol's primitive types; every read is checked against the end.

use anyhow::{Context, Result, bail};

/// Walks over bytes from a broker.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            bail!("{count} bytes wanted, {} left", self.bytes.len());
        };
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().context("take returned another length than asked for")
    }

    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A string with a 16-bit length, −1 for null.
    pub fn string(&mut self) -> Result<Option<String>> {
        let length = self.i16()?;
        self.text(i64::from(length))
    }

    fn text(&mut self, length: i64) -> Result<Option<String>> {
        let bytes = self.counted(length)?;
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).context("a string is not UTF-8")).transpose()
    }

    /// Bytes with a 32-bit length, −1 for null.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let length = self.i32()?;
        self.counted(i64::from(length))
    }

    /// Bytes of a length read before, −1 for null.
    pub fn counted(&mut self, length: i64) -> Result<Option<&'a [u8]>> {
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(self.take(usize::try_from(length).context("a length is out of range")?)?)),
            _ => bail!("a length of {length}"),
        }
    }

    /// An array with a 32-bit count, −1 for null (returned as empty).
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Cursor<'a>) -> Result<T>) -> Result<Vec<T>> {
        let count = self.i32()?;
        // No allocation by a count from the wire: a wrong one runs into the end of the bytes.
        (0..count.max(0)).map(|_| item(self)).collect()
    }

    /// A zigzag variable-length integer, as in records.
    pub fn varint(&mut self) -> Result<i64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        bail!("a variable-length integer of more than ten bytes")
    }
}

/// Appends a string with a 16-bit length, null as −1.
///
/// # Panics
/// For a text of more than 32,767 bytes.
pub fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else {
        out.extend((-1i16).to_be_bytes());
        return;
    };
    let length = i16::try_from(text.len()).expect("names in requests are a few characters long");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers_zigzag() {
        let cases: [(&[u8], i64); 6] = [
            (&[0x00], 0),
            (&[0x01], -1),
            (&[0x02], 1),
            (&[0xac, 0x02], 150),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
        ];
        for (bytes, value) in cases {
            assert_eq!(Cursor::new(bytes).varint().unwrap(), value);
        }
        assert!(Cursor::new(&[0x80]).varint().is_err());
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        assert!(Cursor::new(&[0, 0, 0]).i32().is_err());
        assert!(Cursor::new(&[0, 5, b'a']).string().is_err());
        assert!(Cursor::new(&[0x7f, 0xff, 0xff, 0xff]).list(|cursor| cursor.i64()).is_err());
        assert_eq!(Cursor::new(&[0xff, 0xff]).string().unwrap(), None);
    }
}

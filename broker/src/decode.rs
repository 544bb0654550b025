//! Decoding what clients sent. The codec reserves memory for as many elements as an array claims to have,
//! and one claim of two thousand million would end the process with all its brokers: so a count that the
//! bytes behind it can't hold is an error before the codec believes it, as it is to Kafka's own readers.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

/// Reads one message from the beginning of `bytes`.
///
/// # Errors
/// What isn't as it should be.
pub(crate) fn decode<T: Decodable>(bytes: &mut Bytes, version: i16) -> Result<T, String> {
    let mut wary = Wary { bytes: bytes.clone(), doubted: false };
    let decoded = T::decode(&mut wary, version).map_err(|error| format!("{error:#}"))?;
    if !wary.doubted {
        *bytes = wary.bytes;
        return Ok(decoded);
    }
    // What was doubted is no count: a message with a doubtful count has ended above.
    T::decode(bytes, version).map_err(|error| format!("{error:#}"))
}

/// Believes no count. Any 32-bit number may be one, so each is told as at most one more than the bytes
/// behind it: with that many elements, of a byte at least, no array can be read.
struct Wary {
    bytes: Bytes,
    /// A number was told as less than it is.
    doubted: bool,
}

impl Buf for Wary {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let number = self.bytes.try_get_i32()?;
        let told = i32::try_from(self.bytes.len() + 1).map_or(number, |most| number.min(most));
        self.doubted |= told != number;
        Ok(told)
    }

    /// Of varints, which are counts and lengths, and of booleans, which are one byte.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let (requested, available) = (varint(&self.bytes), self.bytes.len());
        if requested > available {
            return Err(TryGetError { requested, available });
        }
        self.bytes.try_get_u8()
    }
}

impl ByteBuf for Wary {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.bytes.split_to(size)
    }
}

/// The number that begins here, if it is of several bytes (of one, it is small whatever it counts).
fn varint(bytes: &[u8]) -> usize {
    const BYTES_MAX: usize = 5;
    let goes_on = bytes.iter().take(BYTES_MAX).take_while(|byte| **byte >= 0x80).count();
    let own = bytes.iter().take(BYTES_MAX.min(goes_on + 1)).rev();
    if goes_on == 0 { 0 } else { own.fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f)) }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::{FetchRequest, MetadataRequest};
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn a_count_that_the_rest_of_the_message_cannot_hold_is_an_error() {
        let counted = [&i32::MAX.to_be_bytes()[..], &[0; 40]].concat();
        assert!(decode::<MetadataRequest>(&mut counted.into(), 1).is_err());
        let compact = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 40]].concat();
        assert!(decode::<MetadataRequest>(&mut compact.into(), 9).is_err());
    }

    #[test]
    fn numbers_that_are_no_counts_may_be_any() {
        let request = FetchRequest::default().with_max_wait_ms(i32::MAX).with_max_bytes(i32::MAX);
        for version in [4, 11, 12, 16] {
            let mut bytes = BytesMut::new();
            request.encode(&mut bytes, version).unwrap();
            let mut bytes = bytes.freeze();
            let read = decode::<FetchRequest>(&mut bytes, version).unwrap();
            assert_eq!((read.max_wait_ms, read.max_bytes, bytes.len()), (i32::MAX, i32::MAX, 0));
        }
    }
}

//! A checksum around large values: redb verifies its pages when a store is opened, not when it reads
//! them, and a disk may return something else than what it was given.
//!
//! The first byte tells a sealed value from those that earlier builds wrote (there it is the codec's
//! version), which are taken as they are.

use super::StoreError;

const SEALED: u8 = 0xC5;
const HEAD: usize = 1 + size_of::<u32>();

pub(super) fn seal(value: Vec<u8>) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEAD + value.len());
    sealed.push(SEALED);
    sealed.extend_from_slice(&crc32c::crc32c(&value).to_le_bytes());
    sealed.extend_from_slice(&value);
    sealed
}

pub(super) fn open<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let Some((&SEALED, rest)) = bytes.split_first() else { return Ok(bytes) };
    let wrong = || StoreError::Inconsistent(format!("{what} doesn't have its checksum"));
    let (sum, value) = rest.split_first_chunk().ok_or_else(wrong)?;
    if crc32c::crc32c(value) == u32::from_le_bytes(*sum) { Ok(value) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_keeps_its_bytes() {
        // CRC-32C of "123456789", as its catalogue of parameters gives it.
        let sealed = seal(b"123456789".to_vec());
        assert_eq!(sealed, [&[0xC5, 0x83, 0x92, 0x06, 0xE3], &b"123456789"[..]].concat());
        assert_eq!(open("it", &sealed).expect("as written"), b"123456789");
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let sealed = seal(vec![1, 2, 3]);
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x10;
            let error = open("log entry 7", &changed).expect_err("noticed").to_string();
            assert_eq!(error, "log entry 7 doesn't have its checksum");
            assert!(open("it", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_value_of_an_earlier_build_is_taken_as_it_is() {
        assert_eq!(open("it", &[1, 7]).expect("unsealed"), [1, 7]);
        assert_eq!(open("it", &[]).expect("unsealed"), [0_u8; 0]);
    }
}

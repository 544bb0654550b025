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

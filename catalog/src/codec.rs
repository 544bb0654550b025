//! The bytes of everything durable or sent between nodes: one version byte, then bincode 2
//! (standard configuration: variable-length integers, little endian).
//!
//! The only module that names bincode (unmaintained upstream, RUSTSEC-2025-0141), so that it can
//! be replaced. bincode is positional: new enum kinds go to the end, fields are never reordered;
//! any other change of shape is a new version here.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format of what this build writes. Older formats are read by the arms of [`decode`].
pub const VERSION: u8 = 1;

/// Decoding stops beyond this: a bound on what a corrupt length can make us allocate.
const DECODED_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("empty value: not even a version byte")]
    Empty,
    #[error("written in format {found}, this build reads {VERSION}: use a newer lockstep")]
    Version { found: u8 },
    #[error("not a valid value of format {VERSION}")]
    Malformed(#[source] bincode::error::DecodeError),
    #[error("{0} bytes behind the value's end")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>()
}

/// # Panics
/// Never for the types of this workspace: encoding to memory fails only for types that serde
/// can't size (none here).
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config()).expect("encoding to memory");
    bytes
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    let (value, used) = bincode::serde::decode_from_slice(body, config()).map_err(CodecError::Malformed)?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    Ok(value)
}

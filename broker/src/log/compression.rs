//! The four codecs of record batches, reading only, all in Rust.

use std::io::{self, Read};

/// Java wraps snappy in the xerial library's framing: a magic, two versions, then blocks.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// What the records of one batch may unfold to: a bound on what a hostile batch can take.
const UNFOLDED_BYTES_MAX: u64 = 256 << 20;

/// Undoes codec `codec`; None for one that doesn't exist.
pub fn decompress(codec: i16, bytes: &[u8]) -> Option<io::Result<Vec<u8>>> {
    match codec {
        1 => Some(read_bounded(flate2::read::MultiGzDecoder::new(bytes))),
        2 => Some(snappy(bytes)),
        3 => Some(read_bounded(lz4_flex::frame::FrameDecoder::new(bytes))),
        4 => Some(zstd(bytes)),
        _ => None,
    }
}

fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(UNFOLDED_BYTES_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > UNFOLDED_BYTES_MAX { Err(too_large()) } else { Ok(out) }
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("records unfold to more than {UNFOLDED_BYTES_MAX} bytes"),
    )
}

fn zstd(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(io::Error::other)?;
    read_bounded(decoder)
}

fn snappy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    let mut unfold = |block: &[u8], sofar: usize| {
        if snap::raw::decompress_len(block)? as u64 + sofar as u64 > UNFOLDED_BYTES_MAX {
            return Err(too_large());
        }
        decoder.decompress_vec(block).map_err(io::Error::from)
    };
    if !bytes.starts_with(&XERIAL_MAGIC) {
        return unfold(bytes, 0);
    }
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(cut)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = behind.get(..length).ok_or_else(cut)?;
        out.extend(unfold(block, out.len())?);
        rest = &behind[length..];
    }
    Ok(out)
}

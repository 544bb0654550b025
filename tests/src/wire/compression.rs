//! The four codecs of record batches, as Java and librdkafka write them.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::cursor::Cursor;

/// Java wraps snappy in the framing of the xerial library: a magic, two versions, then blocks.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_VERSIONS_BYTES: usize = 8;

/// Undoes codec number `codec`.
pub(super) fn decompress(codec: i16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match codec {
        0 => out.extend(bytes),
        1 => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).context("gzip")?;
        }
        2 => out = snappy(bytes).context("snappy")?,
        3 => {
            lz4_flex::frame::FrameDecoder::new(bytes).read_to_end(&mut out).context("lz4")?;
        }
        4 => out = zstd::stream::decode_all(bytes).context("zstd")?,
        other => bail!("codec {other} is not known"),
    }
    Ok(out)
}

/// Xerial's blocks when its magic is there (Java), else one bare block (librdkafka).
fn snappy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    let Some(framed) = bytes.strip_prefix(&XERIAL_MAGIC) else {
        return decoder.decompress_vec(bytes).context("a bare block");
    };
    let mut cursor = Cursor::new(framed);
    cursor.take(XERIAL_VERSIONS_BYTES)?;
    let mut out = Vec::new();
    while cursor.remaining() > 0 {
        let block = cursor.bytes()?.context("a block without a length")?;
        ensure!(!block.is_empty(), "an empty block");
        out.extend(decoder.decompress_vec(block).context("a framed block")?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snappy_is_read_bare_and_in_xerial_blocks() {
        let mut encoder = snap::raw::Encoder::new();
        let first = encoder.compress_vec(b"one one one ").unwrap();
        let second = encoder.compress_vec(b"two two two").unwrap();
        assert_eq!(decompress(2, &first).unwrap(), b"one one one ");

        let mut framed = XERIAL_MAGIC.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for block in [&first, &second] {
            framed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
            framed.extend(block);
        }
        assert_eq!(decompress(2, &framed).unwrap(), b"one one one two two two");
        framed.pop();
        assert!(decompress(2, &framed).is_err());
    }

    #[test]
    fn an_unknown_codec_is_an_error() {
        assert!(decompress(5, b"").is_err());
    }
}

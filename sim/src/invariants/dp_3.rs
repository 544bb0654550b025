//! DP-3: on the raw path record bytes are untouched; only identity fields of the batch header differ. So
//! each batch of a mirror is one of the source's, byte for byte but for base offset, partition leader
//! epoch, producer and checksum, and its checksum is right.

use super::walk::{Judging, New};
use crate::batches::Stored;
use crate::judge::Image;

#[derive(Default)]
pub struct BytesUntouched;

impl Judging for BytesUntouched {
    const ID: &'static str = "DP-3";

    fn judge(&mut self, image: &Image<'_>, new: &New) -> Result<(), String> {
        new.batches.iter().try_for_each(|stored| is_the_sources(image, stored))
    }
}

fn is_the_sources(image: &Image<'_>, stored: &Stored) -> Result<(), String> {
    let offset = stored.base_offset;
    if !stored.is_intact {
        return Err(format!("the checksum of the batch at offset {offset} is wrong"));
    }
    let candidates = image.source.batches_at(offset);
    if image.may_be_filler(stored)
        || candidates.iter().any(|theirs| theirs.shape == stored.shape && theirs.payload == stored.payload)
    {
        return Ok(());
    }
    let shapes: Vec<_> = candidates.iter().map(|theirs| theirs.shape).collect();
    Err(format!(
        "the batch at offset {offset} of shape {:?} is none of the source's, {shapes:?}",
        stored.shape
    ))
}

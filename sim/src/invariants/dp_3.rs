//! DP-3: on the raw path record bytes are untouched; only identity fields of the batch header differ. So
//! each batch of a mirror is one of the source's, byte for byte but for base offset, partition leader
//! epoch, producer and checksum, and its checksum is right.

use std::collections::BTreeMap;

use super::Invariant;
use crate::batches::Stored;
use crate::history::Key;
use crate::judge::{Image, Seen};

/// Up to where each mirror partition was judged.
#[derive(Default)]
pub struct BytesUntouched(BTreeMap<Key, i64>);

impl Invariant for BytesUntouched {
    fn id(&self) -> &'static str {
        "DP-3"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let logs = match seen {
            Seen::Logs(logs) => logs,
            Seen::End(logs, _) => {
                self.0.clear();
                logs
            }
            _ => return Ok(()),
        };
        for image in logs.images() {
            let log = &image.partition.log;
            let judged_to = self.0.entry(image.key.clone()).or_default();
            let from = (*judged_to).min(log.end());
            for batch in log.batches().rev().take_while(|batch| batch.header.last_offset() >= from) {
                judge(&image, &batch.bytes)
                    .map_err(|why| format!("{}[{}]: {why}", image.key.0, image.key.1))?;
            }
            *judged_to = log.end();
        }
        Ok(())
    }
}

fn judge(image: &Image<'_>, bytes: &bytes::Bytes) -> Result<(), String> {
    let (stored, _) = Stored::read(bytes).ok_or("half a batch")?;
    let offset = stored.base_offset;
    if !stored.is_intact {
        return Err(format!("the checksum of the batch at offset {offset} is wrong"));
    }
    let candidates = image.source.batches_at(offset);
    // Nobody compresses here but the product, what isn't a record.
    let is_filler = stored.is_compressed() && stored.last_offset < image.mirror.fill_to(image.key.1);
    if is_filler
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

//! DP-4: the position of a mirror partition, as the node shows it, never moves back within an assignment
//! epoch. An unclean election at the destination is the exception: the product then goes back with it.

use std::collections::BTreeMap;

use super::Invariant;
use crate::history::Key;
use crate::judge::{Row, Seen};

/// By node and mirror partition: assignment epoch and position.
#[derive(Default)]
pub struct NeverBack(BTreeMap<(usize, Key), (u64, i64)>);

impl Invariant for NeverBack {
    fn id(&self) -> &'static str {
        "DP-4"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let (Seen::Shown(shown) | Seen::End(_, shown)) = seen else { return Ok(()) };
        let is_judged = |row: &&Row| !shown.struck.is_unclean_mirror(&row.key.0, row.key.1);
        shown.rows.iter().filter(is_judged).try_for_each(|row| self.follow(row))
    }
}

impl NeverBack {
    fn follow(&mut self, row: &Row) -> Result<(), String> {
        let (epoch, Some(position)) = (row.assignment_epoch, row.view.mirror_end_offset) else {
            return Ok(());
        };
        match self.0.insert((row.node, row.key.clone()), (epoch, position)) {
            Some((before_epoch, before)) if before_epoch == epoch && position < before => {
                let (topic, partition) = &row.key;
                Err(format!(
                    "{topic}[{partition}] went from offset {before} back to {position} in epoch {epoch}"
                ))
            }
            _ => Ok(()),
        }
    }
}

//! Which node should run which mirror partition, as a plan that leaves no choices.
//!
//! Sticky: an assigned partition stays where it is. Balancing by load and moving partitions off
//! lost nodes come with fleets of several nodes.

use std::collections::BTreeMap;
use std::fmt;

use crate::command::Move;
use crate::model::{Catalog, NodeId};

/// Moves in one command, at most: bounds the entry's size in the Raft log (about 64 bytes each).
pub const MOVES_MAX: usize = 4_096;

/// What to assign, in the order to propose it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub moves: Vec<Move>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, m) in self.moves.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}[{}] -> {}", m.mirror.topic, m.partition, m.node)?;
        }
        Ok(())
    }
}

/// Gives every unassigned mirror partition to the node with the fewest.
pub fn plan(catalog: &Catalog) -> Plan {
    let mut load: BTreeMap<NodeId, usize> = catalog.nodes.keys().map(|id| (*id, 0)).collect();
    let mirrors = || catalog.links.values().flat_map(|l| l.mirrors.values().map(move |m| (l, m)));
    for (_, mirror) in mirrors() {
        for assignment in mirror.partitions.iter().filter_map(|p| p.assignment.as_ref()) {
            *load.entry(assignment.node).or_default() += 1;
        }
    }
    let mut moves = Vec::new();
    for (link, mirror) in mirrors() {
        for (index, _) in mirror.partitions.iter().enumerate().filter(|(_, p)| p.assignment.is_none()) {
            let Some((&node, _)) = load.iter().min_by_key(|(id, count)| (**count, **id)) else {
                return Plan::default();
            };
            if moves.len() == MOVES_MAX {
                return Plan { moves };
            }
            *load.entry(node).or_default() += 1;
            moves.push(Move {
                mirror: link.key(&mirror.name),
                partition: index as u32,
                node,
                expected_epoch: None,
            });
        }
    }
    Plan { moves }
}

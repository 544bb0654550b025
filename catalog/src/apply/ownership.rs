//! Mirror partitions get owners and change hands. Assignment epochs only rise (CT-2).

use std::sync::Arc;

use super::Applied;
use crate::command::{Move, Outcome, Refusal, Released};
use crate::fleet::PartitionKey;
use crate::model::{Assignment, Catalog, MirrorPartition, NodeId};

impl Catalog {
    pub(super) fn assign(&mut self, moves: &[Move]) -> Applied {
        self.check_moves(moves)?;
        let first = self.fleet.deleted_epoch_max + 1;
        for m in moves {
            let partition = &mut self.mirror_mut(&m.mirror)?.partitions[m.partition as usize];
            let (epoch, unclean) = match &partition.assignment {
                // The former owner was not seen to stop.
                Some(before) => (before.epoch + 1, true),
                None => (first, false),
            };
            partition.assignment = Some(Assignment { node: m.node, epoch, unclean });
            self.fleet.hand_overs.remove(&key(m));
        }
        Ok(if moves.is_empty() { Outcome::Unchanged } else { Outcome::Done })
    }

    pub(super) fn hand_over(&mut self, moves: &[Move]) -> Applied {
        self.check_moves(moves)?;
        if let Some(m) = moves.iter().find(|m| m.expected_epoch.is_none()) {
            let message = format!("mirror topic '{}' partition {} has no owner", m.mirror.topic, m.partition);
            return Err(Refusal::Illegal(message));
        }
        let mut outcome = Outcome::Unchanged;
        for m in moves {
            let to_another = self.owner(&key(m)) != Some(m.node);
            let changes = if to_another {
                self.fleet.hand_overs.insert(key(m), m.node) != Some(m.node)
            } else {
                let cancelled = self.fleet.hand_overs.remove(&key(m)).is_some();
                if cancelled {
                    self.outdate_release(&key(m));
                }
                cancelled
            };
            if changes {
                outcome = Outcome::Done;
            }
        }
        Ok(outcome)
    }

    /// What no longer is as the owner saw it is left out: another command has overtaken it.
    pub(super) fn release(&mut self, node: NodeId, released: &[Released]) -> Applied {
        let mut outcome = Outcome::Unchanged;
        for Released { key, assignment_epoch, in_doubt } in released {
            let Some(&to) = self.fleet.hand_overs.get(key) else { continue };
            let is_member = self.nodes.contains_key(&to);
            let Ok(mirror) = self.mirror_mut(&key.mirror) else { continue };
            let assignment =
                mirror.partitions.get_mut(key.partition as usize).and_then(|p| p.assignment.as_mut());
            let Some(assignment) = assignment.filter(|a| a.node == node && a.epoch == *assignment_epoch)
            else {
                continue;
            };
            if is_member {
                // A doubt of the owner before this one, if it hasn't waited it out, is among its own.
                *assignment = Assignment { node: to, epoch: assignment.epoch + 1, unclean: *in_doubt };
            }
            self.fleet.hand_overs.remove(key);
            if !is_member {
                self.outdate_release(key);
            }
            outcome = Outcome::Done;
        }
        Ok(outcome)
    }

    /// After a hand-over that is off: the owner goes on under another assignment epoch, so that a release
    /// of before, still on its way to the Raft leader, can't give away what runs again.
    fn outdate_release(&mut self, key: &PartitionKey) {
        let Ok(mirror) = self.mirror_mut(&key.mirror) else { return };
        let partition = mirror.partitions.get_mut(key.partition as usize);
        if let Some(assignment) = partition.and_then(|p| p.assignment.as_mut()) {
            assignment.epoch += 1;
        }
    }

    /// A node that starts takes over from the process before it, which may have requests under way.
    pub(super) fn take_over_own(&mut self, id: NodeId) {
        for link in self.links.values_mut() {
            for mirror in Arc::make_mut(link).mirrors.values_mut() {
                if !mirror.partitions.iter().any(|p| owner(p) == Some(id)) {
                    continue;
                }
                let assignments =
                    Arc::make_mut(mirror).partitions.iter_mut().filter_map(|p| p.assignment.as_mut());
                for assignment in assignments.filter(|a| a.node == id) {
                    assignment.epoch += 1;
                    assignment.unclean = true;
                }
            }
        }
    }

    /// Forgets the hand-overs (by owner and by receiver) for which `which` is true.
    pub(super) fn cancel_hand_overs(&mut self, which: impl Fn(Option<NodeId>, NodeId) -> bool) {
        let hand_overs = self.fleet.hand_overs.iter();
        let off: Vec<PartitionKey> =
            hand_overs.filter(|(key, to)| which(self.owner(key), **to)).map(|(key, _)| key.clone()).collect();
        for key in off {
            self.fleet.hand_overs.remove(&key);
            self.outdate_release(&key);
        }
    }

    /// Mirror partitions that the node owns.
    pub fn owned_by(&self, node: NodeId) -> usize {
        let mirrors = self.links.values().flat_map(|link| link.mirrors.values());
        mirrors.flat_map(|mirror| &mirror.partitions).filter(|p| owner(p) == Some(node)).count()
    }

    pub fn owner(&self, key: &PartitionKey) -> Option<NodeId> {
        owner(self.mirror(&key.mirror)?.partitions.get(key.partition as usize)?)
    }

    /// A plan is taken or refused as a whole, never half of it.
    fn check_moves(&self, moves: &[Move]) -> Result<(), Refusal> {
        for m in moves {
            let stale =
                || Refusal::Stale(format!("mirror topic '{}' partition {}", m.mirror.topic, m.partition));
            let mirror = self.mirror(&m.mirror).ok_or_else(stale)?;
            let partition = mirror.partitions.get(m.partition as usize).ok_or_else(stale)?;
            if partition.assignment.as_ref().map(|a| a.epoch) != m.expected_epoch
                || !self.nodes.contains_key(&m.node)
            {
                return Err(stale());
            }
        }
        Ok(())
    }
}

fn owner(partition: &MirrorPartition) -> Option<NodeId> {
    partition.assignment.as_ref().map(|a| a.node)
}

fn key(m: &Move) -> PartitionKey {
    PartitionKey { mirror: m.mirror.clone(), partition: m.partition }
}

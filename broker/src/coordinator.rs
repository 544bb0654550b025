//! Which broker coordinates a group or a transactional id: Kafka's hash of the key chooses, and while the
//! chosen one is down the next that is up stands in for it.

use kafka_protocol::error::ResponseError as Code;

use crate::state::State;

/// `offsets.topic.num.partitions` and `transaction.state.log.num.partitions`.
const COORDINATOR_PARTITIONS: usize = 50;

impl State {
    /// None when all brokers are down.
    pub fn coordinator(&self, key: &str) -> Option<i32> {
        let brokers = &self.settings.brokers;
        let first = coordinator_partition(key);
        let in_turn = (0..brokers.len()).map(|step| brokers[(first + step) % brokers.len()].id);
        in_turn.into_iter().find(|id| self.is_up(*id))
    }

    /// # Errors
    /// `NOT_COORDINATOR`.
    pub(crate) fn check_coordinator(&self, broker: i32, key: &str) -> Result<(), Code> {
        if self.coordinator(key) == Some(broker) { Ok(()) } else { Err(Code::NotCoordinator) }
    }
}

pub(crate) fn coordinator_partition(key: &str) -> usize {
    // Java's `String.hashCode`.
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    // Kafka's `Utils.abs`: the one number without a positive counterpart counts as 0.
    let hash = hash.checked_abs().unwrap_or(0);
    usize::try_from(hash).unwrap_or(0) % COORDINATOR_PARTITIONS
}

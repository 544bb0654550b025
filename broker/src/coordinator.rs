//! Which broker coordinates a group or a transactional id: Kafka's hash of the key chooses, and while the
//! chosen one is down the next that is up stands in for it.

use std::collections::BTreeMap;

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

    pub(crate) fn coordinators(&self) -> BTreeMap<String, Option<i32>> {
        self.groups.iter().map(|(id, _)| (id.to_owned(), self.coordinator(id))).collect()
    }

    /// Groups that `before` were coordinated by other brokers are read anew by their new ones.
    pub(crate) fn hand_groups_over(&mut self, before: BTreeMap<String, Option<i32>>) {
        for (id, coordinator) in before {
            if self.coordinator(&id) != coordinator {
                self.groups.reload(&id, self.now_ms);
            }
        }
    }
}

pub(crate) fn coordinator_partition(key: &str) -> usize {
    // Java's `String.hashCode`.
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    // Kafka's `Utils.abs`: the one number without a positive counterpart counts as 0.
    let hash = hash.checked_abs().unwrap_or(0);
    usize::try_from(hash).unwrap_or(0) % COORDINATOR_PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stop;
    use crate::state::{Endpoint, Settings};

    #[test]
    fn keys_hash_as_in_java() {
        // `"group".hashCode()` is 98629247; `"polygenelubricants".hashCode()` is the smallest number.
        assert_eq!(coordinator_partition("group"), 98_629_247 % COORDINATOR_PARTITIONS);
        assert_eq!(coordinator_partition("polygenelubricants"), 0);
    }

    #[test]
    fn a_coordinator_that_is_down_is_stood_in_for_until_it_is_back() {
        let endpoint = |id| Endpoint { id, host: String::new(), port: 1 };
        let settings = Settings::new("test", (1..=3).map(endpoint).collect(), 1);
        let mut state = State::new(settings, 0);
        let first = state.coordinator("group").unwrap();
        state.stop_broker(first, Stop::Crash);
        let second = state.coordinator("group").unwrap();
        assert_ne!(first, second);
        assert_eq!(state.check_coordinator(first, "group"), Err(Code::NotCoordinator));
        assert_eq!(state.check_coordinator(second, "group"), Ok(()));
        state.start_broker(first);
        assert_eq!(state.coordinator("group"), Some(first));
        (1..=3).for_each(|broker| state.stop_broker(broker, Stop::Clean));
        assert_eq!(state.coordinator("group"), None);
    }
}

//! Where replicas go: what the controller checks of it (`ReplicationControlManager`).

use kafka_protocol::error::ResponseError as Code;

use crate::api::ApiError;
use crate::state::State;

/// Of all topics together (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// Whether one request may bring so many partitions, topic by topic: if not, nothing of it is done.
///
/// # Errors
/// `POLICY_VIOLATION`.
pub(crate) fn check_total(partitions: impl Iterator<Item = i64>, of_what: &str) -> Result<(), ApiError> {
    if partitions.map(|count| count.max(0)).sum::<i64>() <= PARTITIONS_PER_REQUEST_MAX {
        return Ok(());
    }
    let message = format!("Excessively large number of {of_what} per request.");
    Err(ApiError::new(Code::PolicyViolation, message))
}

impl State {
    /// Replicas for `count` partitions from `first` on, spread over the brokers.
    ///
    /// # Errors
    /// `INVALID_REPLICATION_FACTOR`.
    pub(crate) fn place(
        &self,
        first: usize,
        count: i32,
        replication: i16,
    ) -> Result<Vec<Vec<i32>>, ApiError> {
        let unable = |why: String| {
            let message = format!("Unable to replicate the partition {replication} time(s): {why}");
            Err(ApiError::new(Code::InvalidReplicationFactor, message))
        };
        let registered = self.settings.brokers.len();
        if usize::try_from(replication).is_ok_and(|wanted| wanted > registered) {
            return unable(format!(
                "The target replication factor of {replication} cannot be reached because only \
                 {registered} broker(s) are registered."
            ));
        }
        if self.live().is_empty() {
            return unable("All brokers are currently fenced.".to_owned());
        }
        let turns = (first..).take(usize::try_from(count).unwrap_or(0));
        Ok(turns.map(|turn| self.placed(turn, replication)).collect())
    }

    /// Whether a client may choose these replicas for a partition; `replication`: of those before it.
    ///
    /// # Errors
    /// `INVALID_REPLICA_ASSIGNMENT`.
    pub(crate) fn check_replicas(
        &self,
        partition: i32,
        replicas: &[i32],
        replication: Option<usize>,
    ) -> Result<(), ApiError> {
        let wrong = |why: String| Err(ApiError::new(Code::InvalidReplicaAssignment, why));
        let manual = "The manual partition assignment includes";
        if replicas.is_empty() {
            return wrong(format!("{manual} an empty replica list."));
        }
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        if let Some(unknown) = sorted.iter().find(|broker| self.endpoint(**broker).is_none()) {
            return wrong(format!("{manual} broker {unknown}, but no such broker is registered."));
        }
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!("{manual} the broker {} more than once.", twice[0]));
        }
        if let Some(others) = replication.filter(|others| *others != replicas.len()) {
            return wrong(format!(
                "{manual} a partition with {} replica(s), but this is not consistent with previous partitions, \
                 which have {others} replica(s).",
                replicas.len()
            ));
        }
        if !replicas.iter().any(|broker| self.is_up(*broker)) {
            return wrong(format!(
                "All brokers specified in the manual partition assignment for partition {partition} are fenced \
                 or in controlled shutdown."
            ));
        }
        Ok(())
    }
}

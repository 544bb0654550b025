//! Watches idle mirrors: a foreign write to a mirror whose source is quiet would be noticed only by
//! our next write otherwise.
//!
//! A request a destination broker each time, or a few. It only makes a partition look again: what stands
//! there is the look's to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka::fetch::TopicPartition;
use kafka::offsets;
use ractor::ActorRef;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::observe::{PartitionState, PartitionStats};
use crate::partition::{Event, PartitionMessage};
use crate::plane::LinkPlane;

/// Partitions asked about in one request: answers stay well below what a control response may have.
const CHUNK: usize = 2_000;

/// The round that was begun last. Ends with it.
pub struct Round {
    begun: Instant,
    task: AbortHandle,
}

impl Round {
    pub fn begin(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { begun: Instant::now(), task: tokio::spawn(work).abort_handle() }
    }

    /// One round at a time: a slow broker delays the next. And metadata that is asked for ten times a second
    /// brings no more rounds: each asks about every idle partition.
    pub fn delays_next(&self, pause: Duration) -> bool {
        !self.task.is_finished() || self.begun.elapsed() < pause
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A running mirror partition, as its supervisor knows it.
pub struct Watched {
    pub mirror: TopicPartition,
    pub stats: Arc<PartitionStats>,
    pub actor: ActorRef<PartitionMessage>,
}

/// The mirror's log end as we left it, while nothing of ours is under way.
fn idle_end(stats: &PartitionStats) -> Option<i64> {
    let runs = stats.state() == PartitionState::Running;
    let idle = stats.outstanding_bytes.load(Ordering::Acquire) == 0;
    (runs && idle).then(|| stats.mirror_end.load(Ordering::Acquire))
}

/// Looks once at the log ends of all idle partitions; a broker that doesn't answer is left out.
pub async fn run(plane: Arc<LinkPlane>, watched: Vec<Watched>) {
    let metadata = plane.metadata().destination;
    let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
    let mut idle: BTreeMap<TopicPartition, (i64, Watched)> = BTreeMap::new();
    for partition in watched {
        let Some(end) = idle_end(&partition.stats) else { continue };
        let TopicPartition { topic, partition: index } = &partition.mirror;
        let Some(Ok(topic)) = metadata.topics.get(&**topic) else { continue };
        let Some(found) = topic.partitions.get(index) else { continue };
        let Some(leader) = found.leader else { continue };
        by_leader.entry(leader).or_default().push((partition.mirror.clone(), found.leader_epoch));
        idle.insert(partition.mirror.clone(), (end, partition));
    }
    let mut chunks: Vec<(i32, &[(TopicPartition, i32)])> = Vec::new();
    for (leader, all) in &by_leader {
        chunks.extend(all.chunks(CHUNK).map(|some| (*leader, some)));
    }
    for (leader, partitions) in chunks {
        let Ok(connection) = plane.destination().control(leader).await else { continue };
        let ends = match offsets::end_offsets(&connection, partitions).await {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(%error, "log ends of idle mirrors can't be read");
                continue;
            }
        };
        for (mirror, found) in ends {
            let Some((end, watched)) = idle.get(&mirror) else { continue };
            // Still idle at the same place: nothing of ours can have moved it meanwhile.
            if found != *end && idle_end(&watched.stats) == Some(*end) {
                let _ = watched.actor.cast(PartitionMessage::Event(Event::LogEndMoved));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_next_round_waits_for_the_pause_and_for_a_slow_broker() {
        let quick = Round::begin(std::future::ready(()));
        tokio::time::sleep(PAUSE - Duration::from_millis(10)).await;
        assert!(quick.delays_next(PAUSE), "however often metadata changes");
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!quick.delays_next(PAUSE));
        let slow = Round::begin(tokio::time::sleep(3 * PAUSE));
        tokio::time::sleep(2 * PAUSE).await;
        assert!(slow.delays_next(PAUSE), "one at a time");
        tokio::time::sleep(2 * PAUSE).await;
        assert!(!slow.delays_next(PAUSE));
    }

    #[test]
    fn only_a_running_partition_with_nothing_under_way_is_idle() {
        let stats = PartitionStats::default();
        stats.looked(70, 70, 1);
        assert_eq!(idle_end(&stats), None, "still looking");
        stats.set_state(PartitionState::Running, 1);
        assert_eq!(idle_end(&stats), Some(70));
        stats.outstanding_bytes.store(1, Ordering::Relaxed);
        assert_eq!(idle_end(&stats), None, "something is under way");
    }
}

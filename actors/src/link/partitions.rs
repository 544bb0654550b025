//! A link's partitions on this node: how one is started, stopped, and forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catalog::command::Released;
use catalog::placement::HAND_OVER_MAX;
use catalog::{Catalog, Link};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{LinkMessage, LinkState, RESTART_WAIT, RunningPartition};
use crate::doubts::Doubts;
use crate::meters::MirrorMeters;
use crate::observe::PartitionStats;
use crate::partition::machine::{AMBIGUITY_WAIT, TAKEOVER_WAIT};
use crate::partition::{
    PartitionArguments, PartitionMessage, PartitionMirror, Question, Quiet, topic_partition,
};
use crate::plan::{PartitionKey, Start};

/// Kafka's default of `max.message.bytes`.
const MESSAGE_BYTES_MAX_DEFAULT: usize = 1_048_588;

impl LinkState {
    pub(super) async fn start_partition(&mut self, myself: &ActorRef<LinkMessage>, start: Start) {
        let Start { key, assignment_epoch, .. } = start.clone();
        let (topic, partition) = &key;
        let Some(mirror) = self.link.mirrors.get(topic).cloned() else { return };
        let Some(producer) = mirror.producer else { return };
        self.instances += 1;
        let mirror_key = self.link.key(topic);
        let question = Question {
            source: topic_partition(&mirror.source_topic, *partition),
            source_topic_id: mirror.source_topic_id,
            mirror: topic_partition(topic, *partition),
            destination_topic_id: mirror.destination_topic_id,
            producer,
            quiet: Quiet::From(Instant::now()),
            has_lease: false,
            looked_at: Duration::ZERO,
            prefix: mirror.partitions.get(*partition as usize).and_then(|p| p.prefix),
            is_compacted: mirror.configs.get("cleanup.policy").is_some_and(|p| p.contains("compact")),
            batch_bytes_max: mirror
                .configs
                .get("max.message.bytes")
                .and_then(|value| value.parse().ok())
                .unwrap_or(MESSAGE_BYTES_MAX_DEFAULT),
        };
        let stats = self.surroundings.observatory.enter(&mirror_key, *partition);
        let unclean = self.doubts.take(&start);
        let arguments = PartitionArguments {
            stats: stats.clone(),
            mirror: mirror_key,
            partition: *partition,
            assignment_epoch,
            instance: self.instances,
            unclean,
            wait: takeover_wait(&self.surroundings.catalog.applied().catalog),
            question,
            plane: self.plane.clone(),
            meters: MirrorMeters::new(&self.link, &mirror),
            catalog: self.surroundings.catalog.clone(),
        };
        match Actor::spawn_linked(None, PartitionMirror, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                let running = RunningPartition { actor, stats, assignment_epoch, stopping: false };
                self.partitions.insert(key, running);
            }
            Err(error) => {
                tracing::error!(%topic, partition, %error, "can't start the partition's actor");
                if unclean {
                    self.doubts.add(key);
                }
                myself.send_after(RESTART_WAIT, || LinkMessage::Reconcile);
            }
        }
    }

    pub(super) fn stop_partition(&mut self, myself: &ActorRef<LinkMessage>, key: &PartitionKey) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        if std::mem::replace(&mut partition.stopping, true) {
            return;
        }
        let (answer, stopped) = oneshot::channel();
        let (actor, key, assignment_epoch) =
            (partition.actor.clone(), key.clone(), partition.assignment_epoch);
        let (myself, stats) = (myself.clone(), partition.stats.clone());
        tokio::spawn(async move {
            let told = actor.cast(PartitionMessage::Stop(answer)).is_ok();
            // An actor that is gone without an answer leaves doubt.
            let in_doubt = !told || end_of(stopped, &key, &stats).await;
            let _ = myself.cast(LinkMessage::PartitionStopped { key, assignment_epoch, in_doubt });
        });
    }

    pub(super) fn partition_failed(&mut self, cell: &ActorCell, error: &ActorProcessingErr) {
        let failed = self.partitions.iter().find(|(_, p)| p.actor.get_id() == cell.get_id());
        let Some(key) = failed.map(|(key, _)| key.clone()) else { return };
        tracing::error!(topic = %key.0, partition = key.1, %error, "a partition's actor failed; starting it again");
        self.partitions.remove(&key);
        self.doubts.add(key);
    }

    /// Deleted mirrors and what other nodes have, once nothing of it runs. What is paused, has failed or
    /// starts again keeps its rows.
    pub(super) fn forget_what_is_gone(&mut self) {
        let Self { link, partitions, doubts, surroundings, .. } = self;
        let here = surroundings.node;
        let owner = |topic: &Arc<str>, partition: u32| {
            let partition = link.mirrors.get(topic)?.partitions.get(partition as usize)?;
            Some(partition.assignment.as_ref().map(|a| a.node))
        };
        let runs = |topic: &Arc<str>, partition: u32| partitions.contains_key(&(topic.clone(), partition));
        let is_ours = |topic: &Arc<str>, partition: u32| match owner(topic, partition) {
            Some(owner) => owner.is_none_or(|owner| owner == here) || runs(topic, partition),
            None => runs(topic, partition),
        };
        surroundings.observatory.retain(&link.id, is_ours);
        doubts.forget_starts(is_ours);
        doubts.forget_moved(|topic, partition| {
            let elsewhere = owner(topic, partition).flatten().is_some_and(|owner| owner != here);
            elsewhere && !runs(topic, partition)
        });
    }
}

/// Whether anything was in doubt when it had stopped. One that takes too long is shown as stuck.
async fn end_of(mut stopped: oneshot::Receiver<bool>, key: &PartitionKey, stats: &PartitionStats) -> bool {
    if let Ok(in_doubt) = tokio::time::timeout(HAND_OVER_MAX, &mut stopped).await {
        return in_doubt.unwrap_or(true);
    }
    let (topic, partition) = key;
    tracing::error!(%topic, partition, "a partition hasn't stopped after {HAND_OVER_MAX:?}");
    stats.stops_late.store(true, Ordering::Relaxed);
    let in_doubt = stopped.await.unwrap_or(true);
    stats.stops_late.store(false, Ordering::Relaxed);
    in_doubt
}

/// What an owner that has stopped, or never ran, says of its partition.
pub fn released(link: &Link, owned: &Start, doubts: &Doubts) -> Released {
    let Start { key: (topic, partition), assignment_epoch, .. } = owned;
    let key = catalog::PartitionKey { mirror: link.key(topic), partition: *partition };
    Released { key, assignment_epoch: *assignment_epoch, in_doubt: doubts.owes(owned) }
}

/// How long an owner that starts after one that wasn't seen to stop must reckon with its requests. The
/// catalog doesn't say where that one ran: only in a fleet that has never had another member was it
/// surely this node. A restart may also inherit what it took over and hadn't waited out.
fn takeover_wait(catalog: &Catalog) -> Duration {
    let only_one = catalog.nodes.len() <= 1 && catalog.fleet.removed.is_empty();
    if only_one { AMBIGUITY_WAIT } else { TAKEOVER_WAIT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_does_not_stop_says_so_until_it_has() {
        let stats = Arc::new(PartitionStats::default());
        let (answer, stopped) = oneshot::channel();
        let waits = tokio::spawn({
            let stats = stats.clone();
            async move { end_of(stopped, &("orders".into(), 3), &stats).await }
        });
        tokio::time::sleep(HAND_OVER_MAX - Duration::from_millis(1)).await;
        assert_eq!(stats.view(3, 0).error, None);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(stats.view(3, 0).error.is_some_and(|(_, message)| message.contains("told to stop")));
        answer.send(false).expect("heard");
        assert!(!waits.await.expect("no panic"));
        assert_eq!(stats.view(3, 0).error, None);
    }
}

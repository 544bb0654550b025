//! Looks at partitions that nothing of ours moves: idle ones, which others may write to, and those at rest.

use std::time::Duration;

use super::{LinkState, RunningPartition, Surroundings};
use crate::observe::PartitionState;
use crate::partition::topic_partition;
use crate::plan::PartitionKey;
use crate::rest::{self, Resting};
use crate::watch::{self, Round, Watched};

/// What was told of a mirror at rest is unknown again after 15 s.
const REST_EVERY_MAX: Duration = Duration::from_secs(5);

impl LinkState {
    pub(super) fn watch_idle(&mut self) {
        let pause = self.plane.metadata_max_age() / 2;
        if self.watch.as_ref().is_some_and(|round| round.delays_next(pause)) {
            return;
        }
        let watched = |((topic, partition), p): (&PartitionKey, &RunningPartition)| Watched {
            mirror: topic_partition(topic, *partition),
            stats: p.stats.clone(),
            actor: p.actor.clone(),
        };
        let watched = self.partitions.iter().map(watched).collect();
        self.watch = Some(Round::begin(watch::run(self.plane.clone(), watched)));
    }

    pub(super) fn look_at_rest(&mut self) {
        let pause = (self.plane.metadata_max_age() / 2).min(REST_EVERY_MAX);
        if self.rest.as_ref().is_some_and(|round| round.delays_next(pause)) {
            return;
        }
        let Surroundings { node, observatory, .. } = &self.surroundings;
        let keys = rest::at_rest(&self.link, *node).into_iter();
        let keys = keys.filter(|key| !self.partitions.contains_key(key));
        let resting = keys.filter_map(|(topic, partition)| {
            let stats = observatory.enter(&self.link.key(&topic), partition);
            stats.set_state(PartitionState::Stopped, self.plane.now_ms());
            let known = self.link.mirrors.get(&topic)?;
            let source = (topic_partition(&known.source_topic, partition), known.source_topic_id);
            let mirror = (topic_partition(&topic, partition), known.destination_topic_id);
            Some(Resting { source, mirror, stats })
        });
        let resting: Vec<Resting> = resting.collect();
        self.rest = (!resting.is_empty()).then(|| Round::begin(rest::look(self.plane.clone(), resting)));
    }
}

//! Looks at what clients write to a cluster: by the sizes of logs, or, where we may not see those, by high watermarks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::MirrorStatus;
use kafka::fetch::TopicPartition;
use kafka::{Client, Error, Metadata, log_dirs, offsets};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clients::{Growth, Sizes, Unit};
use super::{Budget, Clients, Shared};

/// Between two looks while nothing is held back, and while clients are there or may be.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_LIMITED: Duration = Duration::from_millis(500);
/// A look costs brokers something for each partition: beyond so many it comes as much more rarely.
const PARTITIONS_AT_EVERY: usize = 5_000;
const EVERY_MAX: Duration = Duration::from_secs(10);

/// Which topics there are is asked so often, where logs' sizes can't be seen.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// After a refusal sizes are asked for again: somebody may have granted it.
const SIZES_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is remembered between looks.
#[derive(Default)]
struct Looks {
    growth: Growth,
    /// No sizes are asked for until then.
    offsets_until: Option<Instant>,
    topics: Option<(Instant, Metadata)>,
}

/// Looks again and again.
pub(super) async fn at_clients(shared: &Shared) {
    let mut looks = Looks::default();
    loop {
        let mut partitions = 0;
        if let Some(client) = shared.client() {
            let (unit, seen) = looks.look(&client).await;
            let clients = match seen {
                Ok(sizes) => {
                    partitions = sizes.len();
                    looks.growth.seen(shared.now(), unit, sizes, &mirrors(shared))
                }
                Err(error) => {
                    tracing::debug!(cluster = %shared.cluster_id, %error, "what clients write can't be seen");
                    looks.growth.forget();
                    Some(Clients::Unknown)
                }
            };
            if let Some(clients) = clients {
                let mut state = shared.state();
                (state.clients, state.news) = (clients, Some(clients));
            }
        }
        let is_free = shared.state().control.budget() == Budget::Free;
        let every = if is_free { EVERY } else { EVERY_LIMITED };
        let times = (partitions / PARTITIONS_AT_EVERY) as u32 + 1;
        tokio::time::sleep((every * times).min(EVERY_MAX)).await;
    }
}

impl Looks {
    /// Each partition's size.
    async fn look(&mut self, client: &Client) -> (Unit, Result<Sizes, Error>) {
        if self.offsets_until.is_none_or(|until| Instant::now() >= until) {
            match sizes(client).await {
                Err(error) if is_refusal(&error) => {
                    tracing::info!(%error, "log sizes can't be read; what clients write is told by high watermarks");
                    self.offsets_until = Some(Instant::now() + SIZES_AGAIN_AFTER);
                }
                seen => return (Unit::Bytes, seen),
            }
        }
        (Unit::Offsets, self.high_watermarks(client).await)
    }

    async fn high_watermarks(&mut self, client: &Client) -> Result<Sizes, Error> {
        let metadata = match self.topics.take().filter(|(at, _)| at.elapsed() < TOPICS_EVERY) {
            Some(known) => known,
            None => (Instant::now(), client.metadata(None).await?),
        };
        let (_, found) = self.topics.insert(metadata);
        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
        for (name, topic) in &found.topics {
            let Ok(topic) = topic else { continue };
            let name: Arc<str> = name.as_str().into();
            for (&partition, of) in &topic.partitions {
                if let Some(leader) = of.leader {
                    let key = TopicPartition { topic: name.clone(), partition };
                    by_leader.entry(leader).or_default().push((key, of.leader_epoch));
                }
            }
        }
        let mut asked = JoinSet::new();
        for (leader, partitions) in by_leader {
            let client = client.clone();
            asked.spawn(async move {
                let connection = client.control(leader).await?;
                offsets::high_watermarks(&connection, &partitions).await
            });
        }
        Ok(all_but_silent(asked).await?.into_iter().collect())
    }
}

/// Of every log on any broker; a follower's is no larger than its partition leader's for long.
async fn sizes(client: &Client) -> Result<Sizes, Error> {
    let mut asked = JoinSet::new();
    for broker in client.metadata(Some(&[])).await?.brokers.into_keys() {
        let client = client.clone();
        asked.spawn(async move {
            let sizes = log_dirs::sizes(&client.control(broker).await?).await?;
            Ok(sizes.into_iter().collect())
        });
    }
    let mut largest = Sizes::new();
    for (partition, size) in all_but_silent(asked).await? {
        let known = largest.entry(partition).or_default();
        *known = size.max(*known);
    }
    Ok(largest)
}

/// What brokers answered; an error when none did.
async fn all_but_silent<T: 'static>(mut asked: JoinSet<Result<Vec<T>, Error>>) -> Result<Vec<T>, Error> {
    let (mut told, mut has_told, mut silent) = (Vec::new(), false, None);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(answer)) => {
                told.extend(answer);
                has_told = true;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a broker's logs can't be seen");
                silent = Some(error);
            }
            Err(_) => {}
        }
    }
    match silent {
        Some(error) if !has_told => Err(error),
        _ => Ok(told),
    }
}

/// No other look at sizes would help: it isn't granted, or not there.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Broker { code, .. } if *code == kafka::ErrorCode::CLUSTER_AUTHORIZATION_FAILED)
        || matches!(error, Error::Unsupported { .. })
}

/// The fleet's own mirrors at this cluster, but those that were stopped: to them clients write.
fn mirrors(shared: &Shared) -> BTreeSet<Arc<str>> {
    let applied = shared.catalog.watch().borrow().clone();
    let links =
        applied.catalog.links.values().filter(|link| link.destination_cluster_id == shared.cluster_id);
    let mirrors = links.flat_map(|link| link.mirrors.values().cloned());
    mirrors
        .filter(|mirror| mirror.status != MirrorStatus::Stopped)
        .map(|mirror| mirror.name.clone())
        .collect()
}

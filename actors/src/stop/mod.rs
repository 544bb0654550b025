//! How a mirror topic stops: a promotion catches up, then the fence; a failover begins with the fence.
//!
//! The owner of partition 0 does it, as it does the set-up. Every step can be repeated by the next owner,
//! and both at once do no harm. After STOPPED nothing is written for the topic any more.
//!
//! - [`catch_up`]: when a promotion may go on, as a value. [`fence`]: what keeps late writes out.
//! - [`configs`]: what was held while mirroring is set free.

pub mod catch_up;
pub mod configs;
pub mod fence;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::stop::StopKind;
use catalog::{Action, MirrorKey, MirrorTopic};
use kafka::fetch::TopicPartition;
use kafka::{Client, Metadata, TopicMetadata, offsets};
use tokio::time::Instant;

use crate::catalog_port::CatalogPort;
use crate::observe::Observatory;
use crate::partition::topic_partition;
use crate::plane::LinkPlane;
use catch_up::{CatchUp, Ends, Progress};

/// Between two looks of a promotion.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A source that is lost answers nothing: a failover asks it once for its ends, and doesn't wait.
const SOURCE_LIMIT: Duration = Duration::from_secs(2);

/// What a stop works with.
#[derive(Clone)]
pub struct Stopping {
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
    pub key: MirrorKey,
}

impl Stopping {
    fn mirror(&self) -> Option<Arc<MirrorTopic>> {
        self.catalog.watch().borrow().catalog.mirror(&self.key).cloned()
    }

    /// Until every partition is where its source is, or the caller drops the future.
    pub async fn catch_up(self) {
        let mut state = CatchUp::default();
        while let Some(mirror) = self.mirror() {
            let progress = match self.look(&mirror).await {
                Ok(ends) => state.looked(Instant::now(), &ends),
                Err(waits_for) => {
                    // Nothing is known of what the source did meanwhile.
                    state = CatchUp::default();
                    Progress::Waits(waits_for)
                }
            };
            match (progress, mirror.producer) {
                (Progress::Done, Some(producer)) => {
                    tracing::info!(topic = %self.key.topic, "promotion: the mirror has caught up with a quiet source");
                    let action = Action::FenceMirror { mirror: self.key.clone(), producer };
                    if let Err(refusal) = self.catalog.submit_until_taken(action).await {
                        tracing::info!(topic = %self.key.topic, %refusal, "the catalog didn't take the promotion's end");
                    }
                    break;
                }
                (Progress::Done, None) => break,
                (Progress::Waits(message), _) => self.waits_for(message),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.observatory.set_waiting(&self.key, None);
    }

    /// Log ends of every partition, the mirror's first.
    async fn look(&self, mirror: &MirrorTopic) -> Result<BTreeMap<u32, Option<Ends>>, String> {
        let unsettled = |p: &catalog::model::MirrorPartition| p.prefix.is_some_and(|prefix| !prefix.settled);
        if mirror.partitions.iter().any(unsettled) {
            return Err("the missing prefix to be filled and cut off for good".into());
        }
        let metadata = self.plane.metadata();
        if let Some(error) = &metadata.source_error {
            return Err(format!("the source to answer: {error}"));
        }
        let (source, destination) = (self.plane.source(), self.plane.destination());
        let source_topic = topic(&metadata.source, &mirror.source_topic, "source")?;
        let at_source = source_topic.partitions.len();
        let count = mirror.partitions.len();
        if at_source != count {
            return Err(format!("the mirror's {count} partitions to become {at_source}, as the source has"));
        }
        let mirror_topic = topic(&metadata.destination, &mirror.name, "destination")?;
        let ours = ends(destination, mirror_topic, &mirror.name)
            .await
            .map_err(|e| format!("the destination: {e}"))?;
        let theirs =
            ends(source, source_topic, &mirror.source_topic).await.map_err(|e| format!("the source: {e}"))?;
        let both = |partition: &u32| {
            let (mirror, source) = (*ours.get(partition)?, *theirs.get(partition)?);
            Some(Ends { mirror, source })
        };
        Ok((0..count as u32).map(|partition| (partition, both(&partition))).collect())
    }

    /// Until the mirror has STOPPED, or the caller drops the future.
    pub async fn fence(self) {
        let mut back_off = RETRY_FIRST;
        while let Some(mirror) = self.mirror() {
            let (Some(producer), Some(stop)) = (mirror.producer, &mirror.stop) else { break };
            match self.fenced(&mirror).await {
                Ok((ends, remarks)) => {
                    let kind = match stop.kind {
                        StopKind::Promote => "promoted",
                        StopKind::FailOver => "failed over",
                    };
                    tracing::info!(topic = %self.key.topic, "mirror topic {kind}: the fence stands in every partition");
                    let remarks = remarks.into_iter().map(Into::into).collect();
                    let action = Action::MirrorStopped { mirror: self.key.clone(), producer, ends, remarks };
                    if let Err(refusal) = self.catalog.submit_until_taken(action).await {
                        tracing::info!(topic = %self.key.topic, %refusal, "the catalog didn't take the mirror's stop");
                    }
                    break;
                }
                Err(waits_for) => {
                    tracing::info!(topic = %self.key.topic, "the fence isn't up yet: {waits_for}");
                    self.waits_for(waits_for);
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(RETRY_MAX);
                }
            }
        }
        self.observatory.set_waiting(&self.key, None);
    }

    async fn fenced(
        &self,
        mirror: &MirrorTopic,
    ) -> Result<(Vec<catalog::stop::StoppedPartition>, Vec<String>), String> {
        let fence::Fenced { mut ends, mut remarks } = fence::put_up(&self.plane, &self.key, mirror).await?;
        let at_source =
            tokio::time::timeout(SOURCE_LIMIT, self.source_ends(mirror)).await.unwrap_or_default();
        for (partition, end) in (0..).zip(&mut ends) {
            end.source_end = at_source.get(&partition).copied();
        }
        let source =
            tokio::time::timeout(SOURCE_LIMIT, configs::held_at(self.plane.source(), &mirror.source_topic));
        let source = source.await.ok().and_then(Result::ok);
        let _writes = self.plane.config_writes().lock().await;
        remarks.extend(configs::set_free(self.plane.destination(), &mirror.name, source.as_ref()).await?);
        Ok((ends, remarks))
    }

    /// As far as the source answers.
    async fn source_ends(&self, mirror: &MirrorTopic) -> BTreeMap<u32, i64> {
        let name = &*mirror.source_topic;
        let Ok(metadata) = self.plane.source().metadata(Some(&[name])).await else { return BTreeMap::new() };
        let Ok(found) = topic(&metadata, name, "source") else { return BTreeMap::new() };
        ends(self.plane.source(), found, &mirror.source_topic).await.unwrap_or_default()
    }

    fn waits_for(&self, message: String) {
        self.observatory.set_waiting(&self.key, Some(message));
    }
}

fn topic<'a>(metadata: &'a Metadata, name: &str, side: &str) -> Result<&'a TopicMetadata, String> {
    match metadata.topics.get(name) {
        Some(Ok(found)) => Ok(found),
        Some(Err(code)) => Err(format!("topic '{name}' at the {side}: {code}")),
        None => Err(format!("topic '{name}' to be in the {side}'s metadata")),
    }
}

/// True log ends by partition; one whose partition leader doesn't say is left out.
async fn ends(
    client: &Client,
    topic: &TopicMetadata,
    name: &Arc<str>,
) -> Result<BTreeMap<u32, i64>, kafka::Error> {
    let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i32)>> = BTreeMap::new();
    for (partition, found) in &topic.partitions {
        let Some(leader) = found.leader else { continue };
        let at = topic_partition(name, *partition as u32);
        by_leader.entry(leader).or_default().push((at, found.leader_epoch));
    }
    let mut all = BTreeMap::new();
    for (leader, partitions) in by_leader {
        let connection = client.control(leader).await?;
        let ends = offsets::end_offsets(&connection, &partitions).await?;
        all.extend(ends.into_iter().map(|(at, end)| (at.partition as u32, end)));
    }
    Ok(all)
}

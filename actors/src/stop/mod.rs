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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::stop::{StopKind, StoppedPartition};
use catalog::{Action, MirrorKey, MirrorStatus, MirrorTopic, NodeId, ProducerIdentity};
use kafka::acls::Acl;
use kafka::connection::Gate;
use kafka::fetch::TopicPartition;
use kafka::{Client, Metadata, TopicMetadata, offsets};
use tokio::time::Instant;

use crate::catalog_port::CatalogPort;
use crate::observe::Observatory;
use crate::partition::topic_partition;
use crate::plane::LinkPlane;
use crate::sync::acls::at_stop::{self, AtStop};
use crate::sync::offsets::settings::OffsetSettings;
use crate::{settings, sync};
use catch_up::{CatchUp, Ends, Progress};

/// Between two looks of a promotion.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A promotion's last sync of topic configs; that of group offsets has its own limit.
const LAST_CONFIGS_MAX: Duration = Duration::from_secs(10);

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
    /// The mirror, while it is this node's to stop and is fenced, or not, as `is_fenced` says.
    fn mirror(&self, is_fenced: bool) -> Option<Arc<MirrorTopic>> {
        let watch = self.catalog.watch();
        let applied = watch.borrow();
        let mirror = applied.catalog.mirror(&self.key)?;
        (is_to_stop(mirror, self.catalog.node()) && mirror.is_fenced() == is_fenced).then(|| mirror.clone())
    }

    /// Open while this node holds the lease that it holds now and, by what it has applied, is the one to fence
    /// the mirror: whoever was cut off or hung meanwhile writes nothing when another has finished.
    fn gate(&self, producer: ProducerIdentity) -> Gate {
        let lease = self.plane.lease().gate(self.plane.lease().pass(), Duration::ZERO);
        let (applied, key, node) = (self.catalog.watch(), self.key.clone(), self.catalog.node());
        Arc::new(move || {
            let applied = applied.borrow();
            let is_ours =
                |m: &Arc<MirrorTopic>| m.producer == Some(producer) && m.is_fenced() && is_to_stop(m, node);
            lease() && applied.catalog.mirror(&key).is_some_and(is_ours)
        })
    }

    fn is_link_paused(&self) -> bool {
        let watch = self.catalog.watch();
        watch.borrow().catalog.links.get(&self.key.link).is_some_and(|link| link.is_paused())
    }

    /// Until every partition is where its source is, or the caller drops the future.
    pub async fn catch_up(self) {
        let mut state = CatchUp::default();
        while let Some(mirror) = self.mirror(false) {
            let progress = match self.look(&mirror).await {
                Ok((asked, ends)) => state.looked(asked, Instant::now(), &ends),
                Err(waits_for) => {
                    // Nothing is known of what the source did meanwhile.
                    state = CatchUp::default();
                    Progress::Waits(waits_for)
                }
            };
            match (progress, mirror.producer, &mirror.stop) {
                (Progress::Done, Some(producer), Some(stop)) => {
                    tracing::info!(topic = %self.key.topic, "promotion: the mirror has caught up with a quiet source");
                    let asked_at_ms = stop.asked_at_ms;
                    let action = Action::FenceMirror { mirror: self.key.clone(), producer, asked_at_ms };
                    // Once: what was seen is old by the next try.
                    if let Err(error) = self.catalog.submit(action).await {
                        tracing::info!(topic = %self.key.topic, %error, "the promotion's fence isn't in the catalog yet");
                        state = CatchUp::default();
                    }
                }
                (Progress::Done, ..) => break,
                (Progress::Waits(message), ..) => self.waits_for(message),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.observatory.set_waiting(&self.key, None);
    }

    /// Log ends of every partition, the mirror's first, and when the source was asked for its own.
    async fn look(&self, mirror: &MirrorTopic) -> Result<(Instant, BTreeMap<u32, Option<Ends>>), String> {
        let unsettled = |p: &catalog::model::MirrorPartition| p.prefix.is_some_and(|prefix| !prefix.settled);
        if self.is_link_paused() {
            return Err("the link to be resumed".into());
        }
        if mirror.partitions.iter().any(unsettled) {
            return Err("the missing prefix to be filled and cut off for good".into());
        }
        let (source, destination) = (self.plane.source(), self.plane.destination());
        let at_destination = destination.metadata(Some(&[&mirror.name])).await;
        let at_destination = at_destination.map_err(|e| format!("the destination to answer: {e}"))?;
        let at_source = source.metadata(Some(&[&mirror.source_topic])).await;
        let at_source = at_source.map_err(|e| format!("the source to answer: {e}"))?;
        let source_topic = topic(&at_source, &mirror.source_topic, "source")?;
        if !mirror.source_topic_id.is_none() && source_topic.topic_id.as_bytes() != &mirror.source_topic_id.0
        {
            return Err(format!("topic '{}' at the source is another one by now", mirror.source_topic));
        }
        let at_source = source_topic.partitions.len();
        let count = mirror.partitions.len();
        if at_source != count {
            return Err(format!("the mirror's {count} partitions to become {at_source}, as the source has"));
        }
        let mirror_topic = topic(&at_destination, &mirror.name, "destination")?;
        if mirror_topic.topic_id.as_bytes() != &mirror.destination_topic_id.0 {
            return Err(format!("topic '{}' at the destination is another one by now", mirror.name));
        }
        // What followers may still lose isn't there yet; at the source it counts all the same.
        let ours = ends(destination, mirror_topic, &mirror.name, Kind::HighWatermark).await;
        let ours = ours.map_err(|e| format!("the destination: {e}"))?;
        let asked = Instant::now();
        let theirs = ends(source, source_topic, &mirror.source_topic, Kind::LogEnd).await;
        let theirs = theirs.map_err(|e| format!("the source: {e}"))?;
        let both = |partition: &u32| {
            let (mirror, source) = (*ours.get(partition)?, *theirs.get(partition)?);
            Some(Ends { mirror, source })
        };
        Ok((asked, (0..count as u32).map(|partition| (partition, both(&partition))).collect()))
    }

    /// Until the mirror has STOPPED, or isn't this node's to stop any more.
    pub async fn fence(self) {
        let mut back_off = RETRY_FIRST;
        let mut tries = fence::Tries::default();
        // Once it stands it isn't put up again: each time costs an offset in every partition.
        let mut fenced = None;
        loop {
            if self.plane.lease().pass().is_none() {
                self.waits_for("its node to hold a lease: the Raft leader doesn't answer it".into());
                self.plane.lease().held().await;
            }
            let Some(mirror) = self.mirror(true) else { break };
            let (Some(producer), Some(stop)) = (mirror.producer, &mirror.stop) else { break };
            let Some(assignment_epoch) = mirror.first_assignment().map(|assignment| assignment.epoch) else {
                break;
            };
            let gate = self.gate(producer);
            match self.try_to_stop(&mirror, &gate, &mut tries, &mut fenced).await {
                Ok((ends, remarks)) => {
                    let kind = match stop.kind {
                        StopKind::Promote => "promoted",
                        StopKind::FailOver => "failed over",
                    };
                    tracing::info!(topic = %self.key.topic, "mirror topic {kind}: the fence stands in every partition");
                    let remarks = remarks.into_iter().map(Into::into).collect();
                    let mirror = self.key.clone();
                    let action = Action::MirrorStopped { mirror, producer, assignment_epoch, ends, remarks };
                    if let Err(refusal) = self.catalog.submit_until_taken(action).await {
                        tracing::info!(topic = %self.key.topic, %refusal, "the catalog didn't take the mirror's stop");
                    }
                    break;
                }
                Err(waits_for) => {
                    tracing::info!(topic = %self.key.topic, "the mirror hasn't stopped yet: {waits_for}");
                    self.waits_for(waits_for);
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(RETRY_MAX);
                }
            }
        }
        self.observatory.set_waiting(&self.key, None);
    }

    async fn try_to_stop(
        &self,
        mirror: &Arc<MirrorTopic>,
        gate: &Gate,
        tries: &mut fence::Tries,
        fenced: &mut Option<(fence::Fenced, Option<BTreeSet<Acl>>)>,
    ) -> Result<(Vec<StoppedPartition>, Vec<String>), String> {
        let (stands, acls) = match fenced {
            Some(fenced) => fenced,
            None => {
                let mut stands = fence::put_up(&self.plane, &self.key, mirror, gate, tries).await?;
                let ends =
                    tokio::time::timeout(SOURCE_LIMIT, self.source_ends(mirror)).await.unwrap_or_default();
                for (partition, end) in (0..).zip(&mut stands.ends) {
                    end.source_end = ends.get(&partition).copied();
                }
                let is_promotion = mirror.stop.as_ref().is_some_and(|stop| stop.kind == StopKind::Promote);
                let mut acls = None;
                if is_promotion && !stands.is_gone {
                    let (left, found) = self.sync_once_more(mirror, gate).await;
                    stands.remarks.extend(left);
                    acls = found;
                }
                fenced.insert((stands, acls))
            }
        };
        let mut remarks = stands.remarks.clone();
        if !stands.is_gone {
            let source = configs::held_at(self.plane.source(), &mirror.source_topic);
            let source = tokio::time::timeout(SOURCE_LIMIT, source).await.ok().and_then(Result::ok);
            let _writes = self.plane.sync_writes().write().await;
            let Self { plane, catalog, key, .. } = self;
            remarks.extend(AtStop { plane, catalog, key, gate, at_source: acls.as_ref() }.write().await?);
            let destination = plane.destination();
            remarks.extend(configs::set_free(destination, &mirror.name, source.as_ref(), gate).await?);
        }
        Ok((stands.ends.clone(), remarks))
    }

    /// What followed the source follows it to the end. What couldn't is said, in words. And the ACLs that the source
    /// has by now.
    async fn sync_once_more(
        &self,
        mirror: &Arc<MirrorTopic>,
        gate: &Gate,
    ) -> (Vec<String>, Option<BTreeSet<Acl>>) {
        let link = self.catalog.watch().borrow().catalog.links.get(&self.key.link).cloned();
        let Some(link) = link else { return (Vec::new(), None) };
        if link.is_paused() {
            const REMARK: &str =
                "its link was paused: topic configs, group offsets and ACLs weren't synced a last time";
            return (vec![REMARK.into()], None);
        }
        // Syncs begin nothing for it behind its fence; what they began before has ended then.
        drop(self.plane.sync_writes().write().await);
        let include = settings::synced_topic_configs(&link.configs);
        let configs = sync::configs::last_time(&self.plane, mirror, &include, gate);
        let configs = tokio::time::timeout(LAST_CONFIGS_MAX, configs).await;
        let configs = configs.unwrap_or_else(|_| vec!["it wasn't done in time".into()]);
        let mut left: Vec<String> =
            configs.into_iter().map(|why| format!("the last sync of topic configs: {why}")).collect();
        if let Some(settings) = OffsetSettings::of(&link.configs) {
            let offsets = sync::offsets::last_time(&self.plane, mirror, &settings, gate).await;
            left.extend(offsets.into_iter().map(|why| format!("the last sync of group offsets: {why}")));
        }
        let (acls, remark) = at_stop::last_look(&self.plane, &*self.catalog, &self.key).await;
        left.extend(remark);
        (left, acls)
    }

    /// As far as the source answers.
    async fn source_ends(&self, mirror: &MirrorTopic) -> BTreeMap<u32, i64> {
        let name = &*mirror.source_topic;
        let Ok(metadata) = self.plane.source().metadata(Some(&[name])).await else { return BTreeMap::new() };
        let Ok(found) = topic(&metadata, name, "source") else { return BTreeMap::new() };
        ends(self.plane.source(), found, &mirror.source_topic, Kind::LogEnd).await.unwrap_or_default()
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

#[derive(Clone, Copy)]
enum Kind {
    LogEnd,
    HighWatermark,
}

/// By partition; one whose partition leader doesn't say is left out.
async fn ends(
    client: &Client,
    topic: &TopicMetadata,
    name: &Arc<str>,
    kind: Kind,
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
        let ends = match kind {
            Kind::LogEnd => offsets::end_offsets(&connection, &partitions).await?,
            Kind::HighWatermark => offsets::high_watermarks(&connection, &partitions).await?,
        };
        all.extend(ends.into_iter().map(|(at, end)| (at.partition as u32, end)));
    }
    Ok(all)
}

/// Whether the mirror is to stop, and the node is the one that sees to it.
fn is_to_stop(mirror: &MirrorTopic, node: NodeId) -> bool {
    mirror.status == MirrorStatus::PendingStopped && mirror.is_seen_to_by(node)
}

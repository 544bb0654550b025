//! `apply`: the only way the catalog changes. Total and deterministic; a refusal changes nothing.

mod acls;
mod events;
mod fleet;
mod itself;
mod life;
mod ownership;

use std::sync::Arc;

use crate::command::{Action, Command, NewLink, NewMirror, Outcome, Refusal};
use crate::model::{
    Catalog, Cluster, Link, LinkId, MirrorKey, MirrorPartition, MirrorStatus, MirrorTopic, Prefix, TopicId,
};

pub use fleet::{JOIN_TOKENS_MAX, REMOVED_MAX};
pub use itself::FORGOTTEN_MAX;

/// Mirror partitions in a topic, at most: what a Kafka topic can reasonably have, and a bound on
/// what one command can make the catalog grow by.
pub const PARTITIONS_MAX: u32 = 100_000;

/// From this level on every member counts a destination's links.
const LIMITED_FROM_LEVEL: u32 = 4;

type Applied = Result<Outcome, Refusal>;

impl Catalog {
    /// Applies one committed command. On `Err` the catalog is as it was.
    pub fn apply(&mut self, command: Command) -> Applied {
        let at_ms = command.at_ms;
        let (through, action) = events::asked(command.action)?;
        let watched = self.watch(through, &action);
        let outcome = self.change(action, at_ms)?;
        if let Some(watched) = watched {
            self.record(watched, &outcome, at_ms);
        }
        Ok(outcome)
    }

    fn change(&mut self, action: Action, at_ms: i64) -> Applied {
        match action {
            Action::StartNode { node, name } => self.start_node(node, name),
            Action::CreateCluster { name, cluster_id, configs } => {
                self.create_cluster(Cluster { name, cluster_id, configs })
            }
            Action::UpdateCluster { name, expected, configs } => {
                let cluster =
                    self.clusters.get_mut(&name).ok_or_else(|| Refusal::not_found("cluster", &name))?;
                if cluster.configs != expected {
                    return Err(Refusal::Stale(format!("cluster '{name}'")));
                }
                Ok(replace(&mut Arc::make_mut(cluster).configs, configs))
            }
            Action::DeleteCluster { name } => self.delete_cluster(&name),
            Action::CreateLink(link) => self.create_link(link),
            Action::AlterLinkConfigs { link: id, expected, configs } => {
                let link = self.link_mut(&id)?;
                if link.configs != expected {
                    return Err(Refusal::Stale(format!("link '{}'", link.name)));
                }
                let outcome = replace(&mut link.configs, configs);
                if !link.makes_mirrors() {
                    self.forgotten.remove(&id);
                }
                Ok(outcome)
            }
            Action::DeleteLink { link } => self.delete_link(&link),
            Action::CreateMirror(mirror) => self.create_mirror(mirror, at_ms),
            Action::MirrorReady { mirror, destination_topic_id, producer } => {
                self.mirror_ready(&mirror, destination_topic_id, producer, at_ms)
            }
            Action::Assign { moves } => self.assign(&moves),
            Action::FailPartition { mirror, partition, assignment_epoch, failure } => {
                self.fail_partition(&mirror, partition, assignment_epoch, failure, at_ms)
            }
            Action::FailMirror { mirror, failure } => self.fail_mirror(&mirror, failure, at_ms),
            Action::PauseMirror { mirror } => self.pause_mirror(&mirror, at_ms),
            Action::ResumeMirror { mirror } => self.resume_mirror(&mirror, at_ms),
            Action::DeleteMirror { mirror } => self.delete_mirror(&mirror),
            Action::AddPartitions { mirror, partitions } => self.add_partitions(&mirror, partitions),
            Action::SetPrefix { mirror, partition, assignment_epoch, log_start } => {
                self.set_prefix(&mirror, partition, assignment_epoch, log_start)
            }
            Action::SettlePrefix { mirror, partition, log_start } => {
                self.settle_prefix(&mirror, partition, log_start)
            }
            Action::FoundFleet { fleet, authority } => self.found_fleet(fleet, authority),
            Action::RecordStart { node, description } => self.record_start(node, description),
            Action::AdmitNode { node, description, token } => {
                self.admit_node(node, description, token, at_ms)
            }
            Action::SetDuty { node, duty } => self.set_duty(node, duty),
            Action::RemoveNode { node, lost } => self.remove_node(node, lost, at_ms),
            Action::IssueToken { id, token } => self.issue_token(id, token, at_ms),
            Action::AddAuthority { authority } => self.add_authority(authority),
            Action::RemoveAuthority { certificate } => self.remove_authority(&certificate),
            Action::HandOver { moves } => self.hand_over(&moves),
            Action::Release { node, released } => self.release(node, &released),
            Action::PromoteMirror { mirror } => self.promote(&mirror, at_ms),
            Action::CancelPromotion { mirror } => self.cancel_promotion(&mirror, at_ms),
            Action::FailOverMirror { mirror } => self.fail_over(&mirror, at_ms),
            Action::FenceMirror { mirror, producer, asked_at_ms } => {
                self.fence(&mirror, producer, asked_at_ms, at_ms)
            }
            Action::MirrorStopped { mirror, producer, assignment_epoch, ends, remarks } => {
                self.stopped(&mirror, (producer, assignment_epoch), (ends, remarks), at_ms)
            }
            Action::RecordAcls { link, as_of_ms, changes } => self.record_acls(&link, as_of_ms, changes),
            Action::CreateMirrorByItself(mirror) => self.create_mirror_by_itself(mirror, at_ms),
            // Taken off before.
            Action::Asked { .. } => Err(events::asked_twice()),
        }
    }

    fn link_mut(&mut self, id: &LinkId) -> Result<&mut Link, Refusal> {
        self.links.get_mut(id).map(Arc::make_mut).ok_or_else(|| Refusal::not_found("link", &id.0))
    }

    fn mirror_mut(&mut self, key: &MirrorKey) -> Result<&mut MirrorTopic, Refusal> {
        let mirror = self.link_mut(&key.link)?.mirrors.get_mut(&key.topic);
        mirror.map(Arc::make_mut).ok_or_else(|| Refusal::not_found("mirror topic", &key.topic))
    }

    fn create_cluster(&mut self, cluster: Cluster) -> Applied {
        if self.clusters.contains_key(&cluster.name) {
            return Err(Refusal::exists("cluster", &cluster.name));
        }
        if let Some(other) = self.clusters.values().find(|c| c.cluster_id == cluster.cluster_id) {
            let what = format!(
                "cluster with Kafka cluster id {} (registered as '{}')",
                cluster.cluster_id, other.name
            );
            return Err(Refusal::exists(&what, &cluster.name));
        }
        self.clusters.insert(cluster.name.clone(), Arc::new(cluster));
        Ok(Outcome::Done)
    }

    fn delete_cluster(&mut self, name: &Arc<str>) -> Applied {
        let uses = |l: &&Arc<Link>| l.destination == *name || l.source.as_ref() == Some(name);
        if let Some(link) = self.links.values().find(uses) {
            let by = format!("link '{}' on '{}'; delete the link first", link.name, link.destination);
            return Err(Refusal::InUse { what: "cluster".into(), name: name.to_string(), by });
        }
        self.clusters.remove(name).ok_or_else(|| Refusal::not_found("cluster", name))?;
        Ok(Outcome::Done)
    }

    fn create_link(&mut self, new: NewLink) -> Applied {
        let destination = self
            .clusters
            .get(&new.destination)
            .ok_or_else(|| Refusal::not_found("cluster", &new.destination))?;
        let destination_cluster_id = destination.cluster_id.clone();
        let links = self.links.values().filter(|link| link.destination == new.destination).count();
        // Members of older builds take any number.
        if links >= destination.links_max() && self.level() >= LIMITED_FROM_LEVEL {
            return Err(Refusal::Illegal(format!(
                "cluster '{}' is the destination of {links} links already, and {} are allowed: raise its {} \
                 (lockstep cluster update {} --config {}=N)",
                new.destination,
                destination.links_max(),
                Cluster::LINKS_MAX_KEY,
                new.destination,
                Cluster::LINKS_MAX_KEY
            )));
        }
        if let Some(source) = &new.source
            && !self.clusters.contains_key(source)
        {
            return Err(Refusal::not_found("cluster", source));
        }
        if self.link_on(&new.destination, &new.name).is_some() {
            return Err(Refusal::exists("link", &new.name));
        }
        if self.links.contains_key(&new.id) {
            return Err(Refusal::exists("link id", &new.id.0));
        }
        if new.source_cluster_id == destination_cluster_id {
            return Err(Refusal::Invalid {
                field: "source_cluster_id".into(),
                message: format!(
                    "source and destination are the same Kafka cluster ({destination_cluster_id})"
                ),
            });
        }
        let link = Link {
            id: new.id.clone(),
            name: new.name,
            destination: new.destination,
            source: new.source,
            source_cluster_id: new.source_cluster_id,
            destination_cluster_id,
            configs: new.configs,
            mirrors: Default::default(),
        };
        self.links.insert(new.id, Arc::new(link));
        Ok(Outcome::Done)
    }

    fn delete_link(&mut self, id: &LinkId) -> Applied {
        let link = self.links.get(id).ok_or_else(|| Refusal::not_found("link", &id.0))?;
        let mut mirroring = link.mirrors.values().filter(|m| m.status != MirrorStatus::Stopped).peekable();
        if let Some(first) = mirroring.peek().map(|m| m.name.clone()) {
            let by = format!(
                "{} mirror topic(s) not STOPPED, first '{first}'; promote, fail over or delete them first",
                mirroring.count()
            );
            return Err(Refusal::InUse { what: "link".into(), name: link.name.to_string(), by });
        }
        self.links.remove(id);
        self.acls.remove(id);
        self.forgotten.remove(id);
        Ok(Outcome::Done)
    }

    fn create_mirror(&mut self, new: NewMirror, at_ms: i64) -> Applied {
        let topic = new.mirror.topic.clone();
        if !(1..=PARTITIONS_MAX).contains(&new.partitions) {
            let message = format!("{} partitions; a mirror topic has 1 to {PARTITIONS_MAX}", new.partitions);
            return Err(Refusal::Invalid { field: "partitions".into(), message });
        }
        let destination = self.links.get(&new.mirror.link).map(|l| l.destination.clone());
        let same_destination = |l: &&Arc<Link>| Some(&l.destination) == destination.as_ref();
        if let Some(other) =
            self.links.values().filter(same_destination).find(|l| l.mirrors.contains_key(&topic))
        {
            return Err(Refusal::exists(&format!("mirror topic (link '{}')", other.name), &topic));
        }
        let mirror = MirrorTopic {
            name: topic.clone(),
            source_topic: new.source_topic,
            source_topic_id: new.source_topic_id,
            destination_topic_id: TopicId::NONE,
            replication_factor: new.replication_factor,
            configs: new.configs,
            status: MirrorStatus::PendingMirror,
            status_since_ms: at_ms,
            producer: None,
            stop: None,
            partitions: vec![MirrorPartition::default(); new.partitions as usize],
            history: Default::default(),
        };
        self.link_mut(&new.mirror.link)?.mirrors.insert(topic, Arc::new(mirror));
        self.forget_stopped(&new.mirror);
        Ok(Outcome::Done)
    }

    fn set_prefix(&mut self, key: &MirrorKey, index: u32, epoch: u64, log_start: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        let stale = Refusal::Stale(format!("mirror topic '{}' partition {index}", key.topic));
        let Some(partition) = mirror.partitions.get_mut(index as usize) else { return Err(stale) };
        // It only rises: what lies below was promised to be cut.
        let rises = partition.prefix.is_none_or(|p| log_start >= p.log_start);
        if partition.assignment.as_ref().is_none_or(|a| a.epoch != epoch) || !rises {
            return Err(stale);
        }
        if partition.prefix.is_some_and(|p| p.log_start == log_start) {
            return Ok(Outcome::Unchanged);
        }
        partition.prefix = Some(Prefix { log_start, settled: false });
        Ok(Outcome::Done)
    }

    fn settle_prefix(&mut self, key: &MirrorKey, index: u32, log_start: i64) -> Applied {
        let mirror = self.mirror_mut(key)?;
        let prefix = mirror.partitions.get_mut(index as usize).and_then(|p| p.prefix.as_mut());
        match prefix.filter(|p| p.log_start == log_start) {
            Some(prefix) => Ok(replace(&mut prefix.settled, true)),
            None => Err(Refusal::Stale(format!("mirror topic '{}' partition {index}", key.topic))),
        }
    }

    fn add_partitions(&mut self, key: &MirrorKey, partitions: u32) -> Applied {
        let mirror = self.mirror_mut(key)?;
        if mirror.is_fenced() {
            return Err(Refusal::Stale(format!("mirror topic '{}'", mirror.name)));
        }
        let now = mirror.partitions.len();
        if partitions > PARTITIONS_MAX {
            let message = format!("{partitions} partitions; a mirror topic has at most {PARTITIONS_MAX}");
            return Err(Refusal::Invalid { field: "partitions".into(), message });
        }
        match (partitions as usize).cmp(&now) {
            std::cmp::Ordering::Less => Err(Refusal::Stale(format!("mirror topic '{}'", mirror.name))),
            std::cmp::Ordering::Equal => Ok(Outcome::Unchanged),
            std::cmp::Ordering::Greater => {
                mirror.partitions.resize_with(partitions as usize, MirrorPartition::default);
                Ok(Outcome::Done)
            }
        }
    }
}

fn replace<T: PartialEq>(slot: &mut T, value: T) -> Outcome {
    if *slot == value {
        return Outcome::Unchanged;
    }
    *slot = value;
    Outcome::Done
}

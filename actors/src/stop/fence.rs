//! The fence: after it, whatever an owner sends that wasn't seen to stop is refused by the brokers.
//!
//! A newer producer epoch of the mirror's own producer id, put into every partition by the marker of an
//! empty transaction: from there on older epochs get 47, for as long as the broker remembers (a day after
//! the marker). Every step can be repeated, by whoever: each try takes a higher producer epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::stop::StoppedPartition;
use catalog::{MirrorKey, MirrorTopic, Prefix, ProducerIdentity};
use kafka::connection::Gate;
use kafka::fetch::TopicPartition;
use kafka::offsets::{self, LogEnds};
use kafka::producers::{self, ProducerState};
use kafka::transactions::{self, Transactional};
use kafka::{Client, Error, ErrorCode, TopicMetadata};
use tokio::time::Instant;

use crate::partition::machine::TAKEOVER_WAIT;
use crate::partition::{read_at, topic_partition};
use crate::plane::LinkPlane;
use crate::setup;

/// Coordinators answer and replicas follow within it, or the fence is tried again.
const STEP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Batches read back from a log's end to find where the fence begins. Each try before this one may have
/// left a marker, a coordinator more.
const READ_BACK_MAX: usize = 256;

const CONCURRENT_TRANSACTIONS: ErrorCode = ErrorCode(51);

/// One partition of the mirror topic, and who leads it.
struct Target {
    partition: u32,
    leader: i32,
    leader_epoch: i32,
}

/// What a finished fence says.
pub struct Fenced {
    /// Index is the partition.
    pub ends: Vec<StoppedPartition>,
    pub remarks: Vec<String>,
    /// There is no topic to fence, nor to put right.
    pub is_gone: bool,
}

/// What one try tells the next.
#[derive(Default)]
pub struct Tries {
    /// Since when the destination says that the topic isn't there, or is another one.
    gone_since: Option<Instant>,
}

/// A broker that was away may not know of the topic yet.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// What one try works on.
struct Try<'a> {
    destination: &'a Client,
    key: &'a MirrorKey,
    producer: ProducerIdentity,
    targets: Vec<Target>,
    gate: &'a Gate,
}

/// One try, each request only while the gate is open. The error says in words what it waits for.
pub async fn put_up(
    plane: &LinkPlane,
    key: &MirrorKey,
    mirror: &MirrorTopic,
    gate: &Gate,
    tries: &mut Tries,
) -> Result<Fenced, String> {
    let Some(producer) = mirror.producer else { return Err("the mirror to be set up".into()) };
    let destination = plane.destination();
    let Some(topic) = look_up(destination, mirror).await? else {
        let since = *tries.gone_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GONE_AFTER {
            return Err(format!(
                "topic '{}', which the destination says is gone or another one",
                mirror.name
            ));
        }
        let remark = "its topic is gone from the destination, or is another one by now: nothing was fenced";
        let ends =
            vec![StoppedPartition { records_end: 0, log_end: 0, source_end: None }; mirror.partitions.len()];
        return Ok(Fenced { ends, remarks: vec![remark.into()], is_gone: true });
    };
    tries.gone_since = None;
    let this = Try { destination, key, producer, targets: targets(&topic, mirror)?, gate };
    let mut remarks = Vec::new();
    if let Some(epoch) = this.raise(&mut remarks).await? {
        this.shown(epoch).await?;
    }
    let mut ends = Vec::with_capacity(this.targets.len());
    for target in &this.targets {
        let partition = mirror.partitions.get(target.partition as usize);
        let prefix = partition.and_then(|p| p.prefix);
        let mut end = this.end_of(&topic, prefix, target).await?;
        // What follows a foreign write isn't where the source has it.
        if let Some(failure) = partition.and_then(|p| p.failure.as_ref()) {
            end.records_end = end.records_end.min(failure.offset);
        }
        ends.push(end);
    }
    Ok(Fenced { ends, remarks, is_gone: false })
}

/// The mirror's own topic; none when it is gone for good.
async fn look_up(destination: &Client, mirror: &MirrorTopic) -> Result<Option<TopicMetadata>, String> {
    let metadata = destination.metadata(Some(&[&mirror.name])).await.map_err(|e| e.to_string())?;
    match metadata.topics.get(&*mirror.name) {
        Some(Ok(found)) if found.topic_id.as_bytes() == &mirror.destination_topic_id.0 => {
            Ok(Some(found.clone()))
        }
        Some(Ok(_)) | None | Some(Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)) => Ok(None),
        Some(Err(code)) => Err(format!("topic '{}' at the destination: {code}", mirror.name)),
    }
}

fn targets(topic: &TopicMetadata, mirror: &MirrorTopic) -> Result<Vec<Target>, String> {
    let target = |partition: u32| {
        let found = topic.partitions.get(&(partition as i32));
        let leader = found.and_then(|p| p.leader.map(|leader| (leader, p.leader_epoch)));
        let (leader, leader_epoch) = leader
            .ok_or_else(|| format!("partition {partition} at the destination has no partition leader"))?;
        Ok(Target { partition, leader, leader_epoch })
    };
    (0..mirror.partitions.len() as u32).map(target).collect()
}

impl Try<'_> {
    /// The producer epoch that the partitions must show now; none where only leases fence.
    async fn raise(&self, remarks: &mut Vec<String>) -> Result<Option<i32>, String> {
        let Self { destination, key, producer, targets, gate } = self;
        let id = setup::transactional_id(key);
        let (producer_id, producer_epoch) =
            producers::init_producer_id(destination, &id, Some((*gate).clone()))
                .await
                .map_err(|e| setup::with_grant(&e))?;
        if producer_id != producer.producer_id || producer_epoch <= producer.producer_epoch {
            return self.by_markers(remarks).await;
        }
        let transactional = Transactional { id, producer_id, producer_epoch };
        let partitions: Vec<i32> = targets.iter().map(|t| t.partition as i32).collect();
        let gate = || Some((*gate).clone());
        let topic = &key.topic;
        settled(|| transactions::add_partitions(destination, &transactional, topic, &partitions, gate()))
            .await?;
        settled(|| transactions::commit(destination, &transactional, gate())).await?;
        // Once more: the first answer comes before the markers are written.
        settled(|| transactions::commit(destination, &transactional, gate())).await?;
        Ok(Some(i32::from(producer_epoch)))
    }

    /// The coordinator doesn't know the mirror's producer id any more (transactional ids expire): markers of its
    /// next epoch, where the cluster permits them. Else whoever wasn't seen to stop is waited out.
    async fn by_markers(&self, remarks: &mut Vec<String>) -> Result<Option<i32>, String> {
        let Self { destination, key, producer, targets, gate } = self;
        let mut newest = i32::from(producer.producer_epoch);
        for target in targets {
            let found = self.state(target).await.map_err(|e| e.to_string())?;
            newest = newest.max(found.map_or(-1, |state| state.producer_epoch));
        }
        let epoch = i16::try_from(newest + 1).map_err(|_| "a producer epoch above 32,767".to_owned())?;
        for (leader, partitions) in by_leader(targets) {
            let connection = destination.control(leader).await.map_err(|e| e.to_string())?;
            let identity = (producer.producer_id, epoch);
            match transactions::write_markers(
                &connection,
                identity,
                &key.topic,
                &partitions,
                Some((*gate).clone()),
            )
            .await
            {
                Ok(()) => {}
                Err(error) if error.code() == Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
                    remarks.push(format!(
                    "the destination has forgotten the mirror's transactional id, and Lockstep may not write markers \
                     there (grant ALTER on the cluster): owners that weren't seen to stop were waited out for {} s, \
                     nothing fences them",
                    TAKEOVER_WAIT.as_secs()
                ));
                    tokio::time::sleep(TAKEOVER_WAIT).await;
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(Some(i32::from(epoch)))
    }

    async fn state(&self, target: &Target) -> Result<Option<ProducerState>, Error> {
        let connection = self.destination.control(target.leader).await?;
        let states =
            producers::describe_producers(&connection, &self.key.topic, target.partition as i32).await?;
        Ok(states.into_iter().find(|state| state.producer_id == self.producer.producer_id))
    }

    /// Waits until every partition leader shows the epoch, and no transaction of it.
    async fn shown(&self, epoch: i32) -> Result<(), String> {
        let begun = Instant::now();
        for target in &self.targets {
            loop {
                let found = self.state(target).await.map_err(|e| e.to_string())?;
                if found.is_some_and(|s| s.producer_epoch >= epoch && !s.is_in_transaction) {
                    break;
                }
                if begun.elapsed() >= STEP_LIMIT {
                    return Err(format!("partition {} to show the fence", target.partition));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn end_of(
        &self,
        topic: &TopicMetadata,
        prefix: Option<Prefix>,
        target: &Target,
    ) -> Result<StoppedPartition, String> {
        let Self { destination, key, producer, gate, .. } = self;
        let connection = destination.control(target.leader).await.map_err(|e| e.to_string())?;
        let at = topic_partition(&key.topic, target.partition);
        let ends = known_ends(&connection, &at, target).await?;
        // Fillers that nobody cuts off any more would be records of an ordinary topic.
        let cut = prefix.map_or(0, |p| p.log_start.min(ends.high_watermark));
        if ends.start_offset < cut {
            if !gate() {
                return Err("a lease of this node".into());
            }
            let deleted =
                offsets::delete_records(&connection, &key.topic, target.partition as i32, cut).await;
            deleted.map_err(|e| format!("{e}; the filler below offset {cut} must go first"))?;
        }
        let log_end = ends.end_offset;
        let mut records_end = log_end;
        let mut offset = log_end - 1;
        for _ in 0..READ_BACK_MAX {
            if offset < ends.start_offset.max(cut) {
                break;
            }
            let read = read_at(&connection, &at, topic.topic_id, offset).await.map_err(|e| e.to_string())?;
            let Some(batch) = read else { break };
            let header = batch.header;
            if header.producer_id == producer.producer_id && !header.is_control() {
                break;
            }
            if header.producer_id == producer.producer_id {
                records_end = header.base_offset;
            }
            offset = header.base_offset - 1;
        }
        Ok(StoppedPartition { records_end, log_end, source_end: None })
    }
}

/// Asks until the coordinator is at rest.
async fn settled<F: Future<Output = Result<(), Error>>>(ask: impl Fn() -> F) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some(CONCURRENT_TRANSACTIONS) && begun.elapsed() < STEP_LIMIT => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(setup::with_grant(&error)),
        }
    }
}

fn by_leader(targets: &[Target]) -> BTreeMap<i32, Vec<i32>> {
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for target in targets {
        leaders.entry(target.leader).or_default().push(target.partition as i32);
    }
    leaders
}

async fn known_ends(
    connection: &kafka::Connection,
    at: &TopicPartition,
    target: &Target,
) -> Result<LogEnds, String> {
    let begun = Instant::now();
    loop {
        let ends = offsets::log_ends(connection, &at.topic, at.partition, target.leader_epoch).await;
        let ends = ends.map_err(|e| e.to_string())?;
        if ends.known_end().is_some() {
            return Ok(ends);
        }
        if begun.elapsed() >= STEP_LIMIT {
            return Err(format!("the followers of partition {} to have all of it", at.partition));
        }
        tokio::time::sleep(POLL).await;
    }
}

//! CT-3: after STOPPED nothing of ours is written for the topic. Of a log: behind the fence's marker no batch of
//! the mirror's producer, behind the end that came with STOPPED no marker of it either, and no record that no
//! client of the topic's has sent. Of configs and group positions: nothing changes them once what was on its
//! way must have arrived (ADR 8).

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{State, TopicConfigs};
use catalog::stop::StoppedPartition;
use catalog::{MirrorStatus, MirrorTopic};
use consensus::Applied;

use super::Invariant;
use crate::batches::Stored;
use crate::clusters::DESTINATION;
use crate::history::Key;
use crate::judge::{Logs, Seen};

/// As the product marks what it commits (ADR 9).
const MARK: &str = "lockstep";
/// What a node or the network held back has arrived by then.
const LATE: Duration = Duration::from_secs(25);

/// By mirror topic that is fenced.
#[derive(Default)]
pub struct NothingOfOurs(BTreeMap<String, Fenced>);

struct Fenced {
    producer_id: i64,
    /// As STOPPED has them, and which partitions had failed.
    ends: Option<Vec<(StoppedPartition, bool)>>,
    /// STOPPED was seen.
    since: Option<Duration>,
    walked: BTreeMap<i32, Walked>,
    /// What must not change any more.
    left: Option<Left>,
}

#[derive(Clone, Copy, Default)]
struct Walked {
    to: i64,
    /// The fence's marker was met.
    has_marker: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Left {
    configs: TopicConfigs,
    /// By group and partition: offset, and when it was committed.
    positions: BTreeMap<(String, i32), (i64, i64)>,
}

impl Invariant for NothingOfOurs {
    fn id(&self) -> &'static str {
        "CT-3"
    }

    fn see(&mut self, seen: Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Applied(applied) => self.learn(applied),
            Seen::Logs(logs) => {
                for (topic, fenced) in &mut self.0 {
                    fenced.look(topic, logs)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl NothingOfOurs {
    fn learn(&mut self, applied: &Applied) {
        let links = applied.catalog.links.values().filter(|link| *link.destination == *DESTINATION.name);
        for mirror in links.flat_map(|link| link.mirrors.values()).filter(|mirror| mirror.is_fenced()) {
            let Some(producer) = mirror.producer else { continue };
            let new = || Fenced {
                producer_id: producer.producer_id,
                ends: None,
                since: None,
                walked: BTreeMap::new(),
                left: None,
            };
            let fenced = self.0.entry(mirror.name.to_string()).or_insert_with(new);
            if mirror.status == MirrorStatus::Stopped && fenced.ends.is_none() {
                fenced.ends = ends(mirror);
                // All is judged anew, by what is known now.
                fenced.walked.clear();
            }
        }
    }
}

fn ends(mirror: &MirrorTopic) -> Option<Vec<(StoppedPartition, bool)>> {
    let ends = mirror.stop.as_ref()?.ends.iter().copied();
    Some(ends.zip(mirror.partitions.iter().map(|partition| partition.failure.is_some())).collect())
}

impl Fenced {
    fn look(&mut self, topic: &str, logs: &Logs<'_>) -> Result<(), String> {
        // Deleted since.
        let Some(found) = logs.destination.topic(topic) else { return Ok(()) };
        for (index, partition) in (0..).zip(&found.partitions) {
            if logs.struck.is_unclean_mirror(topic, index) {
                continue;
            }
            let walked = self.walked.get(&index).copied().unwrap_or_default();
            let walked = if partition.log.end() < walked.to { Walked::default() } else { walked };
            let walked = self.walk(walked, &(topic.to_owned(), index), logs);
            self.walked.insert(index, walked.map_err(|why| format!("{topic}[{index}]: {why}"))?);
        }
        if self.ends.is_none() {
            return Ok(());
        }
        let since = *self.since.get_or_insert(logs.at);
        if logs.at < since + LATE {
            return Ok(());
        }
        let now = Left { configs: found.configs.clone(), positions: positions(logs.destination, topic) };
        match &self.left {
            Some(before) if *before != now => {
                Err(format!("{topic} has STOPPED, and {before:?} was changed to {now:?}"))
            }
            _ => {
                self.left = Some(now);
                Ok(())
            }
        }
    }

    fn walk(&self, mut walked: Walked, key: &Key, logs: &Logs<'_>) -> Result<Walked, String> {
        let Some(partition) = logs.destination.partition(&key.0, key.1) else { return Ok(walked) };
        let new = partition.log.batches().rev().take_while(|batch| batch.header.last_offset() >= walked.to);
        let new: Vec<_> = new.collect();
        for batch in new.into_iter().rev() {
            let stored = Stored::read(&batch.bytes).ok_or("half a batch")?.0;
            let (offset, is_ours) = (stored.base_offset, stored.producer_id == self.producer_id);
            let (end, failed) = self.end(key.1);
            if is_ours && stored.is_control() {
                if offset >= end.log_end {
                    return Err(format!(
                        "a marker of ours at offset {offset}, where {} was the end",
                        end.log_end
                    ));
                }
                walked.has_marker = true;
            } else if is_ours && walked.has_marker {
                return Err(format!("a batch of ours at offset {offset}, behind the fence"));
            } else if is_ours && offset >= if failed { end.log_end } else { end.records_end } {
                return Err(format!("a batch of ours at offset {offset}, where {end:?} was the end"));
            } else if walked.has_marker {
                let unknown = |record: &u64| !logs.stopped.was_sent(key, *record);
                if stored.records().is_none_or(|records| records.iter().any(unknown)) {
                    return Err(format!("what stands at offset {offset} was sent by no client"));
                }
            }
        }
        walked.to = partition.log.end();
        Ok(walked)
    }

    /// As far as it is known, and whether the partition had failed. A topic that the product took to be gone
    /// has none.
    fn end(&self, partition: i32) -> (StoppedPartition, bool) {
        let unknown = StoppedPartition { records_end: i64::MAX, log_end: i64::MAX, source_end: None };
        let place = usize::try_from(partition).unwrap_or_default();
        let found = self.ends.as_ref().and_then(|ends| ends.get(place).copied());
        found.filter(|(end, _)| end.log_end > 0).unwrap_or((unknown, false))
    }
}

fn positions(state: &State, topic: &str) -> BTreeMap<(String, i32), (i64, i64)> {
    let of_group = |(group, found): (&str, &broker::Group)| {
        let ours = found.offsets.iter().filter(|((of, _), at)| of == topic && *at.metadata == *MARK);
        let ours =
            ours.map(|((_, partition), at)| ((group.to_owned(), *partition), (at.offset, at.committed_ms)));
        ours.collect::<Vec<_>>()
    };
    state.groups.iter().flat_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker::{Cluster, Endpoint, Settings};

    use super::*;
    use crate::batches::{self, Identity, Record};
    use crate::history::History;
    use crate::mirrors::Mirrors;
    use crate::stops::Stopped;
    use crate::struck::Struck;

    const TOPIC: &str = "orders";
    const OURS: i64 = 7;

    fn fenced(ends_at: Option<i64>) -> Fenced {
        let end = |end| StoppedPartition { records_end: end, log_end: end + 1, source_end: None };
        Fenced {
            producer_id: OURS,
            ends: ends_at.map(|at| vec![(end(at), false)]),
            since: None,
            walked: BTreeMap::new(),
            left: None,
        }
    }

    fn cluster() -> Cluster {
        let endpoints = vec![Endpoint { id: 1, host: "broker".to_owned(), port: 9092 }];
        let cluster = Cluster::new(Settings::new("id", endpoints, 1), Arc::new(|| 1_000));
        cluster.with(|state| state.create_topic(TOPIC, 1, 1, TopicConfigs::default()));
        cluster
    }

    fn with_logs<T>(state: &State, stopped: &Stopped, at: Duration, judge: impl FnOnce(&Logs<'_>) -> T) -> T {
        let (mirrors, history, struck) = (Mirrors::of(TOPIC, TOPIC), History::default(), Struck::default());
        let (mirrors, history, struck) = (&mirrors, &history, &struck);
        judge(&Logs { source: state, destination: state, mirrors, history, struck, stopped, at })
    }

    /// Judges a log of one record, of a producer with this id, at offset 0, sent by a client or not.
    fn judge(producer_id: i64, ends_at: Option<i64>, has_marker: bool, was_sent: bool) -> Result<(), String> {
        let record = Record { timestamp_ms: 1_000, key: None, value: b"a".to_vec(), headers: Vec::new() };
        let identity = Identity { producer_id, producer_epoch: 0, base_sequence: 0 };
        let batch = batches::write(&[record], identity);
        let stopped = Stopped::default();
        if was_sent {
            let records = Stored::read(&batch).and_then(|(stored, _)| stored.records()).expect("a record");
            stopped.sends(&(TOPIC.to_owned(), 0), &records);
        }
        cluster().with(|state| {
            let log = &mut state.partition_mut(TOPIC, 0).expect("created").log;
            log.append(&batch, &TopicConfigs::default().rules(), 0, 1_000).expect("taken");
            let walked = Walked { to: 0, has_marker };
            with_logs(state, &stopped, Duration::ZERO, |logs| {
                fenced(ends_at).walk(walked, &(TOPIC.to_owned(), 0), logs).map(|_| ())
            })
        })
    }

    /// A commit of ours that comes so many seconds after STOPPED.
    fn committed(after_s: u64) -> Result<(), String> {
        let (cluster, mut fenced) = (cluster(), fenced(Some(0)));
        let mut look = |at_s: u64, committed_ms: i64| {
            cluster.with(|state| {
                let committer = broker::Committer { member_id: "", instance_id: None, generation: -1 };
                let offsets = state.groups.committing("app", committer, 1_000).expect("taken");
                let (leader_epoch, expires_ms) = (-1, None);
                let metadata = kafka_protocol::protocol::StrBytes::from_static_str(MARK);
                let committed =
                    broker::Committed { offset: 0, leader_epoch, metadata, committed_ms, expires_ms };
                offsets.commit((TOPIC.to_owned(), 0), committed);
                let at = Duration::from_secs(at_s);
                with_logs(state, &Stopped::default(), at, |logs| fenced.look(TOPIC, logs))
            })
        };
        look(0, 1)?;
        look(after_s - 1, 1)?;
        look(after_s, 2)
    }

    #[test]
    fn a_commit_of_ours_is_seen_once_what_was_on_its_way_has_arrived() {
        assert_eq!(committed(12), Ok(()));
        assert!(committed(40).is_err());
    }

    #[test]
    fn a_batch_of_ours_behind_the_fence_or_the_end_is_seen() {
        assert_eq!(judge(OURS, None, false, false), Ok(()), "a mirror's record");
        assert!(judge(OURS, None, true, false).is_err());
        assert_eq!(judge(OURS, Some(1), false, false), Ok(()));
        assert!(judge(OURS, Some(0), false, false).is_err());
    }

    #[test]
    fn what_no_client_has_sent_is_seen_behind_the_fence() {
        assert_eq!(judge(OURS + 1, Some(1), true, true), Ok(()));
        assert!(judge(OURS + 1, Some(1), true, false).is_err());
    }
}

//! Both ends of a link's mirror topics, partition by partition.
//!
//! One partition at a time, one record an end: memory is librdkafka's two bounded queues.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Side;
use super::comparison::{Comparison, Step};
use super::extent::{self, Limit, Log, Note};
use super::pace::Pace;
use super::reader::{Reader, Trouble, record};
use super::report::{PartitionReport, TopicReport};

/// Upper bound of what a record takes beside key, value and headers: a batch of its own has a header
/// of 61 bytes. Counting it keeps floods of tiny records below the rate.
const RECORD_OVERHEAD_BYTES: u64 = 70;
/// Records between two looks at the progress.
const PROGRESS_RECORDS: u64 = 256;

/// A topic under its name at each end.
#[derive(Clone, Debug)]
pub struct MirrorTopic {
    pub source_name: String,
    pub mirror_name: String,
}

/// Where the audit is.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub position: i64,
    pub to: i64,
}

/// Two connected ends and how they are read.
pub struct Audit<'a> {
    pub source: &'a Reader,
    pub mirror: &'a Reader,
    pub limit: Limit,
    pub pace: Pace,
    pub watch: &'a mut dyn FnMut(&Progress<'_>),
}

/// An end that no longer answers, in words: the audit is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over(pub String);

impl Audit<'_> {
    /// Compares topic by topic; what was found so far, and why it ended early if it did.
    pub fn run(&mut self, topics: &[MirrorTopic]) -> (Vec<TopicReport>, Option<Over>) {
        let mut reports = Vec::new();
        for topic in topics {
            let mut report = TopicReport {
                mirror_topic_name: topic.mirror_name.clone(),
                source_topic_name: topic.source_name.clone(),
                partitions: Vec::new(),
                error: None,
            };
            let done = self.topic(topic, &mut report);
            reports.push(report);
            if let Err(over) = done {
                return (reports, Some(over));
            }
        }
        (reports, None)
    }

    fn topic(&mut self, topic: &MirrorTopic, report: &mut TopicReport) -> Result<(), Over> {
        let (source, mirror) = match self.partitions(topic) {
            Ok(both) => both,
            Err(trouble) => return settle(Err(trouble), &mut report.error),
        };
        for partition in source.union(&mirror) {
            let at = (source.contains(partition), mirror.contains(partition));
            let mut row = match at {
                (true, false) => PartitionReport::only_at(Side::Source, *partition),
                (false, true) => PartitionReport::only_at(Side::Mirror, *partition),
                _ => PartitionReport::new(*partition),
            };
            let done = if at == (true, true) { self.partition(topic, &mut row) } else { Ok(()) };
            let ended = settle(done, &mut row.error);
            report.partitions.push(row);
            ended?;
        }
        Ok(())
    }

    /// Of the topic at the source, and of its mirror.
    fn partitions(&self, topic: &MirrorTopic) -> Result<(BTreeSet<i32>, BTreeSet<i32>), Trouble> {
        let missing =
            |end: &str, name: &str| Trouble::Unreadable(format!("the {end} cluster has no topic '{name}'"));
        let source = self.source.partitions(&topic.source_name)?;
        let mirror = self.mirror.partitions(&topic.mirror_name)?;
        let source = source.ok_or_else(|| missing("source", &topic.source_name))?;
        let mirror = mirror.ok_or_else(|| missing("destination", &topic.mirror_name))?;
        Ok((source, mirror))
    }

    fn partition(&mut self, topic: &MirrorTopic, row: &mut PartitionReport) -> Result<(), Trouble> {
        let (source, mirror) = self.logs(topic, row.partition)?;
        (row.source_log, row.mirror_log) = (Some(source), Some(mirror));
        let extent = extent::extent(source, mirror, self.limit);
        row.notes = extent.notes.iter().map(ToString::to_string).collect();
        let mut comparison = Comparison::new(extent.range);
        row.from_offset = Some(comparison.position());
        let found = self.compare(topic, row, &mut comparison);
        self.source.stop();
        self.mirror.stop();
        row.to_offset = Some(comparison.position());
        (row.records, row.bytes) = (comparison.records, comparison.bytes);
        row.conclude(match found? {
            Step::Differs(difference) => Some(difference),
            Step::Next | Step::Equal => extent.beyond,
        });
        Ok(())
    }

    /// The mirror's first: see [`extent::extent`].
    fn logs(&self, topic: &MirrorTopic, partition: i32) -> Result<(Log, Log), Trouble> {
        let mirror = self.mirror.log(&topic.mirror_name, partition)?;
        Ok((self.source.log(&topic.source_name, partition)?, mirror))
    }

    /// Until a difference or the end; past what is deleted meanwhile.
    fn compare(
        &mut self,
        topic: &MirrorTopic,
        row: &mut PartitionReport,
        comparison: &mut Comparison,
    ) -> Result<Step, Trouble> {
        while !comparison.is_done() {
            let done = self.read(topic, row.partition, comparison);
            match done {
                Err(Trouble::Deleted) => {}
                other => return other,
            }
            let position = comparison.position();
            let (source, mirror) = self.logs(topic, row.partition)?;
            let Some(start) = extent::deleted_to(position, source, mirror) else {
                let message = format!("offset {position} was refused as out of range, and both logs hold it");
                return Err(Trouble::Unreadable(message));
            };
            comparison.skip_to(start);
            row.notes.push(Note::DeletedMeanwhile(position..comparison.position()).to_string());
        }
        Ok(Step::Equal)
    }

    fn read(
        &mut self,
        topic: &MirrorTopic,
        partition: i32,
        comparison: &mut Comparison,
    ) -> Result<Step, Trouble> {
        let (at_source, at_mirror) = ((&*topic.source_name, partition), (&*topic.mirror_name, partition));
        self.source.start(at_source.0, partition, comparison.position())?;
        self.mirror.start(at_mirror.0, partition, comparison.position())?;
        loop {
            if comparison.records.is_multiple_of(PROGRESS_RECORDS) {
                let (position, to) = (comparison.position(), comparison.to());
                (self.watch)(&Progress { topic: at_mirror.0, partition, position, to });
            }
            let (position, to) = (comparison.position(), comparison.to());
            let source = self.source.next(at_source, position, to)?;
            let mirror = self.mirror.next(at_mirror, position, to)?;
            let source = source.as_ref().map(record).transpose()?;
            let mirror = mirror.as_ref().map(record).transpose()?;
            match comparison.judge(source.as_ref(), mirror.as_ref()) {
                Step::Next => {}
                step => return Ok(step),
            }
            let bytes = source.map_or(0, |record| record.bytes()) + RECORD_OVERHEAD_BYTES;
            if let Some(wait) = self.pace.book(bytes, Instant::now()) {
                std::thread::sleep(wait);
            }
        }
    }
}

/// Writes down why something is unfinished. An end that is silent ends the audit.
fn settle(done: Result<(), Trouble>, error: &mut Option<String>) -> Result<(), Over> {
    let Err(trouble) = done else { return Ok(()) };
    let message = trouble.to_string();
    *error = Some(message.clone());
    if matches!(trouble, Trouble::Silent(_)) { Err(Over(message)) } else { Ok(()) }
}

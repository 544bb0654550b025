//! What an audit found, as programs and people read it.

use std::fmt;

use serde::Serialize;

use super::Side;
use super::extent::Log;
use super::record::FieldDifference;

/// The first difference of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    /// Null for a partition that is missing.
    pub offset: Option<i64>,
    /// Of a record that is at both ends.
    pub fields: Vec<FieldDifference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// Both ends have a record there, and not the same.
    Record,
    OnlyAtSource,
    OnlyAtMirror,
    /// The mirror holds offsets that the source never had.
    BeyondSource,
    PartitionOnlyAtSource,
    PartitionOnlyAtMirror,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    Equal,
    Different,
    /// Neither was shown.
    Unfinished,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    pub partition: i32,
    pub result: Verdict,
    /// Found equal from here, null when nothing was compared, …
    pub from_offset: Option<i64>,
    /// … up to here, exclusive; but for what the notes leave out.
    pub to_offset: Option<i64>,
    pub records: u64,
    /// Of keys, values and headers.
    pub bytes: u64,
    pub source_log: Option<Log>,
    pub mirror_log: Option<Log>,
    pub notes: Vec<String>,
    pub difference: Option<Difference>,
    /// Why it is unfinished.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    pub mirror_topic_name: String,
    pub source_topic_name: String,
    pub partitions: Vec<PartitionReport>,
    /// Why partitions are missing here.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub link_name: String,
    pub source_cluster_id: String,
    pub destination_cluster_id: String,
    pub result: Verdict,
    pub topics: Vec<TopicReport>,
    /// Why topics or partitions are missing here.
    pub error: Option<String>,
}

impl PartitionReport {
    /// Of a partition of which nothing is known yet.
    pub fn new(partition: i32) -> Self {
        Self {
            partition,
            result: Verdict::Unfinished,
            from_offset: None,
            to_offset: None,
            records: 0,
            bytes: 0,
            source_log: None,
            mirror_log: None,
            notes: Vec::new(),
            difference: None,
            error: None,
        }
    }

    /// Of a partition that only one end has.
    pub fn only_at(side: Side, partition: i32) -> Self {
        let kind = match side {
            Side::Source => Kind::PartitionOnlyAtSource,
            Side::Mirror => Kind::PartitionOnlyAtMirror,
        };
        let mut report = Self::new(partition);
        report.conclude(Some(Difference { kind, offset: None, fields: Vec::new() }));
        report
    }

    /// Compared to its end, or to a difference.
    pub fn conclude(&mut self, difference: Option<Difference>) {
        self.result = if difference.is_some() { Verdict::Different } else { Verdict::Equal };
        self.difference = difference;
    }
}

/// The worst of all: a difference found outweighs what couldn't be looked at.
pub fn verdict(topics: &[TopicReport], error: Option<&str>) -> Verdict {
    let results = || topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.result);
    if results().any(|result| result == Verdict::Different) {
        return Verdict::Different;
    }
    let failed = error.is_some() || topics.iter().any(|topic| topic.error.is_some());
    let unfinished = failed || results().any(|result| result == Verdict::Unfinished);
    if unfinished { Verdict::Unfinished } else { Verdict::Equal }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offset) = self.offset {
            write!(f, "offset {offset}: ")?;
        }
        match self.kind {
            Kind::Record => {
                let fields: Vec<String> = self.fields.iter().map(ToString::to_string).collect();
                f.write_str(&fields.join("; "))
            }
            Kind::OnlyAtSource => f.write_str("only the source has a record"),
            Kind::OnlyAtMirror => f.write_str("only the mirror has a record"),
            Kind::BeyondSource => f.write_str("the source's log ends there, the mirror's goes on"),
            Kind::PartitionOnlyAtSource => f.write_str("only the source has this partition"),
            Kind::PartitionOnlyAtMirror => f.write_str("only the mirror has this partition"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(results: &[Verdict]) -> TopicReport {
        let partition = |result: &Verdict| PartitionReport { result: *result, ..PartitionReport::new(0) };
        TopicReport {
            mirror_topic_name: "m".into(),
            source_topic_name: "s".into(),
            partitions: results.iter().map(partition).collect(),
            error: None,
        }
    }

    #[test]
    fn only_what_was_compared_and_equal_throughout_is_equal() {
        use Verdict::{Different, Equal, Unfinished};
        for (results, expected) in [
            (&[Equal, Equal][..], Equal),
            (&[Equal, Unfinished], Unfinished),
            (&[Unfinished, Different, Equal], Different),
        ] {
            assert_eq!(verdict(&[topic(results)], None), expected, "{results:?}");
        }
        assert_eq!(verdict(&[topic(&[Equal])], Some("silent")), Unfinished);
        let broken = TopicReport { error: Some("gone".into()), ..topic(&[Equal]) };
        assert_eq!(verdict(&[topic(&[Equal]), broken], None), Unfinished);
    }

    #[test]
    fn a_partition_at_one_end_is_a_difference() {
        let report = PartitionReport::only_at(Side::Mirror, 3);
        assert_eq!(report.result, Verdict::Different);
        let told = report.difference.expect("a difference").to_string();
        assert_eq!(told, "only the mirror has this partition");
    }
}

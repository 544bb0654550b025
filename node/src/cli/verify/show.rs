//! A report as people read it, and the verdict as words and exit code.

use crate::cli::failure::Failure;
use crate::cli::output::{self, or_dash, say};
use crate::verify::report::{PartitionReport, Report, TopicReport, Verdict};

/// A row a partition, then what there is to say of some.
pub fn show(report: &Report) -> String {
    let rows = report.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
    let table = output::table(
        &["TOPIC", "PARTITION", "FROM", "TO", "RECORDS", "BYTES", "RESULT"],
        rows.map(|(topic, partition)| row(topic, partition)),
    );
    let words = report.topics.iter().flat_map(remarks);
    let words: Vec<String> = words.collect();
    if words.is_empty() { table } else { format!("{table}\n\n{}", words.join("\n")) }
}

fn row(topic: &TopicReport, partition: &PartitionReport) -> Vec<String> {
    let result = match partition.result {
        Verdict::Equal => "equal",
        Verdict::Different => "DIFFERENT",
        Verdict::Unfinished => "UNFINISHED",
    };
    vec![
        topic.mirror_topic_name.clone(),
        partition.partition.to_string(),
        or_dash(partition.from_offset),
        or_dash(partition.to_offset),
        partition.records.to_string(),
        partition.bytes.to_string(),
        result.to_owned(),
    ]
}

fn remarks(topic: &TopicReport) -> Vec<String> {
    let name = &topic.mirror_topic_name;
    let mut lines = Vec::new();
    for partition in &topic.partitions {
        let at = format!("{name}, partition {}", partition.partition);
        let difference = partition.difference.iter().map(|what| format!("{at}: first difference: {what}"));
        lines.extend(difference);
        lines.extend(partition.error.iter().map(|why| format!("{at}: unfinished: {why}")));
        lines.extend(partition.notes.iter().map(|note| format!("{at}: note: {note}")));
    }
    lines.extend(topic.error.iter().map(|why| format!("{name}: unfinished: {why}")));
    lines
}

/// The verdict in words and as an exit code.
pub fn conclude(report: &Report) -> Result<(), Failure> {
    let partitions = || report.topics.iter().flat_map(|topic| &topic.partitions);
    let count = |result: Verdict| partitions().filter(|partition| partition.result == result).count();
    let all = partitions().count();
    let records: u64 = partitions().map(|partition| partition.records).sum();
    let bytes: u64 = partitions().map(|partition| partition.bytes).sum();
    let reason = || {
        let topic_error = || report.topics.iter().find_map(|topic| topic.error.as_ref());
        let partition_error = || partitions().find_map(|partition| partition.error.as_ref());
        let reason = report.error.as_ref().or_else(topic_error).or_else(partition_error);
        reason.map_or("nothing was compared", String::as_str)
    };
    match report.result {
        Verdict::Equal if records == 0 => {
            say(&format!("Equal, and without a record to compare in {all} partitions."));
            Ok(())
        }
        Verdict::Equal => {
            let (topics, link) = (report.topics.len(), &report.link_name);
            say(&format!(
                "Equal: {records} records ({bytes} bytes) in {all} partitions of {topics} topics on link '{link}'."
            ));
            Ok(())
        }
        Verdict::Different => Err(Failure::new(format!(
            "{} of {all} partitions differ{}",
            count(Verdict::Different),
            if unfinished(report) {
                format!(", and not all could be compared: {}", reason())
            } else {
                String::new()
            }
        ))),
        Verdict::Unfinished => Err(Failure::new(format!("not finished, no difference so far: {}", reason()))),
    }
}

fn unfinished(report: &Report) -> bool {
    let in_topic = |topic: &TopicReport| {
        topic.error.is_some() || topic.partitions.iter().any(|p| p.result == Verdict::Unfinished)
    };
    report.error.is_some() || report.topics.iter().any(in_topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Side;
    use crate::verify::report::{Difference, Kind, verdict};

    fn report() -> Report {
        let equal = PartitionReport {
            result: Verdict::Equal,
            from_offset: Some(4),
            to_offset: Some(10),
            records: 6,
            bytes: 600,
            notes: vec!["offsets 0 to 3 were left out (see --last)".into()],
            ..PartitionReport::new(0)
        };
        let mut differs = PartitionReport { from_offset: Some(0), to_offset: Some(7), ..equal.clone() };
        differs.partition = 1;
        differs.notes.clear();
        differs.conclude(Some(Difference { kind: Kind::OnlyAtMirror, offset: Some(7), fields: vec![] }));
        let missing = PartitionReport::only_at(Side::Source, 2);
        let topic = TopicReport {
            mirror_topic_name: "orders".into(),
            source_topic_name: "orders".into(),
            partitions: vec![equal, differs, missing],
            error: None,
        };
        Report {
            link_name: "east-west".into(),
            source_cluster_id: "e".into(),
            destination_cluster_id: "w".into(),
            result: verdict(std::slice::from_ref(&topic), None),
            topics: vec![topic],
            error: None,
        }
    }

    #[test]
    fn people_see_a_row_a_partition_and_the_first_difference_of_each() {
        let expected = "\
TOPIC   PARTITION  FROM  TO  RECORDS  BYTES  RESULT
orders  0          4     10  6        600    equal
orders  1          0     7   6        600    DIFFERENT
orders  2          -     -   0        0      DIFFERENT

orders, partition 0: note: offsets 0 to 3 were left out (see --last)
orders, partition 1: first difference: offset 7: only the mirror has a record
orders, partition 2: first difference: only the source has this partition";
        assert_eq!(show(&report()), expected);
        let failure = conclude(&report()).expect_err("they differ");
        assert_eq!(failure.message, "2 of 3 partitions differ");
    }

    #[test]
    fn programs_see_names_and_numbers() {
        let shown = serde_json::to_value(report()).expect("JSON");
        assert_eq!(shown["result"], "DIFFERENT");
        let row = &shown["topics"][0]["partitions"][1];
        assert_eq!(row["difference"]["kind"], "ONLY_AT_MIRROR");
        assert_eq!((&row["difference"]["offset"], &row["records"]), (&7.into(), &6.into()));
        assert_eq!(row["error"], serde_json::Value::Null);
    }

    #[test]
    fn what_could_not_be_finished_is_a_failure_with_its_reason() {
        let mut report = report();
        report.topics[0].partitions.truncate(1);
        report.result = verdict(&report.topics, None);
        assert_eq!(conclude(&report), Ok(()));
        report.error = Some("the source said nothing".into());
        report.result = verdict(&report.topics, report.error.as_deref());
        let failure = conclude(&report).expect_err("unfinished");
        assert_eq!(failure.message, "not finished, no difference so far: the source said nothing");
    }
}

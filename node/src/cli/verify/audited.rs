//! From a link's name to the verdict: what to read from the API, whom to connect to, how to show it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use kafka::ClientConfig;

use super::VerifyCommand;
use crate::api::secrets;
use crate::api::types::{ClusterRow, ConfigEntry, LinkConfigRow, LinkRow, MirrorRow};
use crate::cli::client::{Client, escaped, typed, typed_all};
use crate::cli::failure::Failure;
use crate::cli::output::{self, or_dash, say};
use crate::cli::{Scope, link};
use crate::verify::Side;
use crate::verify::audit::{Audit, MirrorTopic, Over, Progress};
use crate::verify::extent::Limit;
use crate::verify::pace::Pace;
use crate::verify::reader::Reader;
use crate::verify::report::{PartitionReport, Report, TopicReport, Verdict, verdict};
use crate::verify::settings::{self, Properties};

const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Back to the line's begin, and clear it.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// One end, as the API knows it.
struct End {
    side: Side,
    /// As messages call it.
    name: String,
    cluster_id: String,
    properties: Properties,
}

/// What is to be compared.
struct Plan {
    link: LinkRow,
    topics: Vec<MirrorTopic>,
    source: End,
    mirror: End,
}

impl VerifyCommand {
    pub fn run(self) -> Result<(), Failure> {
        let plan = plan(&self.remote.client(), &self.link, &self.scope, &self.topics)?;
        let source = connect(&plan.source, self.timeout)?;
        let mirror = connect(&plan.mirror, self.timeout)?;
        let terminal = std::io::stderr().is_terminal();
        let mut shown_at = Instant::now();
        let mut watch = |progress: &Progress<'_>| {
            if terminal && shown_at.elapsed() >= PROGRESS_EVERY {
                shown_at = Instant::now();
                show_progress(progress);
            }
        };
        let mut audit = Audit {
            source: &source,
            mirror: &mirror,
            limit: if self.all { Limit::All } else { Limit::Last(self.last) },
            pace: Pace::new(self.max_bytes_per_second, Instant::now()),
            watch: &mut watch,
        };
        let (topics, over) = audit.run(&plan.topics);
        if terminal {
            let _ = write!(std::io::stderr().lock(), "{CLEAR_LINE}");
        }
        source.close();
        mirror.close();
        let error = over.map(|Over(message)| message);
        let report = Report {
            link_name: plan.link.link_name,
            source_cluster_id: plan.link.source_cluster_id,
            destination_cluster_id: plan.link.destination_cluster_id,
            result: verdict(&topics, error.as_deref()),
            topics,
            error,
        };
        let data =
            serde_json::to_value(&report).map_err(|e| Failure::new(format!("can't write JSON: {e}")))?;
        output::show(self.remote.output, &data, || show(&report))?;
        conclude(&report)
    }
}

fn plan(client: &Client, name: &str, scope: &Scope, names: &[String]) -> Result<Plan, Failure> {
    let path = link::find(client, name, scope)?;
    let link: LinkRow = typed(&client.get(&path)?)?;
    let mirrors: Vec<MirrorRow> = typed_all(&client.list(&format!("{path}/mirrors"))?)?;
    let topics = choose(name, &mirrors, names)?;
    let cluster = |name: &str| -> Result<Vec<ConfigEntry>, Failure> {
        let row: ClusterRow = typed(&client.get(&format!("/lockstep/v1/clusters/{}", escaped(name)))?)?;
        Ok(row.configs)
    };
    let (source_name, source_configs) = match &link.source_cluster {
        Some(source) => (format!("source cluster '{source}'"), cluster(source)?),
        None => {
            let rows: Vec<LinkConfigRow> = typed_all(&client.list(&format!("{path}/configs"))?)?;
            let entries = rows.into_iter().map(|row| ConfigEntry { name: row.name, value: row.value });
            (format!("the source of link '{name}'"), entries.collect())
        }
    };
    let destination_name = format!("destination cluster '{}'", link.destination_cluster);
    let destination_configs = cluster(&link.destination_cluster)?;
    Ok(Plan {
        source: End {
            side: Side::Source,
            cluster_id: link.source_cluster_id.clone(),
            properties: properties(&source_name, source_configs)?,
            name: source_name,
        },
        mirror: End {
            side: Side::Mirror,
            cluster_id: link.destination_cluster_id.clone(),
            properties: properties(&destination_name, destination_configs)?,
            name: destination_name,
        },
        link,
        topics,
    })
}

/// The mirror topics of these names, or all.
fn choose(link: &str, mirrors: &[MirrorRow], names: &[String]) -> Result<Vec<MirrorTopic>, Failure> {
    let hint = format!("'lockstep mirror list --link {link}' shows the mirror topics there are");
    let known: BTreeMap<&str, &MirrorRow> =
        mirrors.iter().map(|row| (row.mirror_topic_name.as_str(), row)).collect();
    if known.is_empty() {
        return Err(Failure::new(format!("link '{link}' has no mirror topics: nothing to verify")));
    }
    let wanted: BTreeSet<&str> = match names {
        [] => known.keys().copied().collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    let find = |name: &str| {
        let missing = || Failure::new(format!("link '{link}' has no mirror topic '{name}'")).hint(&*hint);
        let row = known.get(name).ok_or_else(missing)?;
        Ok(MirrorTopic { source_name: row.source_topic_name.clone(), mirror_name: name.to_owned() })
    };
    wanted.into_iter().map(find).collect()
}

/// Client keys for librdkafka. References are followed here, on this machine.
fn properties(cluster: &str, configs: Vec<ConfigEntry>) -> Result<Properties, Failure> {
    if let Some(entry) = configs.iter().find(|entry| entry.value == secrets::HIDDEN) {
        let message = format!("{cluster}: {}: the API doesn't show a secret that it holds", entry.name);
        return Err(Failure::new(message).hint("give the secret as a reference, file:/PATH or env:NAME"));
    }
    let configs: BTreeMap<String, String> =
        configs.into_iter().map(|entry| (entry.name, entry.value)).collect();
    ClientConfig::from_configs(&configs).and_then(|config| settings::librdkafka(&config)).map_err(|error| {
        Failure::new(format!("{cluster}: {error}"))
            .hint("verify connects from this machine: files and variables must be here too")
    })
}

fn connect(end: &End, timeout: Duration) -> Result<Reader, Failure> {
    let connected = Reader::connect(end.side, &end.properties, timeout);
    let (reader, cluster_id) = connected.map_err(|trouble| {
        Failure::new(format!("{} can't be read: {trouble}", end.name))
            .hint("verify connects from this machine, not from a node: brokers must be reachable here")
    })?;
    if cluster_id != end.cluster_id {
        reader.close();
        return Err(Failure::new(format!(
            "{} answers as Kafka cluster '{cluster_id}', and the link was made with '{}'",
            end.name, end.cluster_id
        )));
    }
    Ok(reader)
}

fn show_progress(progress: &Progress<'_>) {
    let Progress { topic, partition, position, to } = progress;
    // Nobody is left to tell that nobody looks.
    let _ = write!(
        std::io::stderr().lock(),
        "{CLEAR_LINE}{topic}, partition {partition}: equal up to offset {position} of {to}"
    );
}

/// A row a partition, then what there is to say of some.
fn show(report: &Report) -> String {
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
fn conclude(report: &Report) -> Result<(), Failure> {
    let partitions = || report.topics.iter().flat_map(|topic| &topic.partitions);
    let count = |result: Verdict| partitions().filter(|partition| partition.result == result).count();
    let all = partitions().count();
    let records: u64 = partitions().map(|partition| partition.records).sum();
    let bytes: u64 = partitions().map(|partition| partition.bytes).sum();
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
            if unfinished(report) { ", and not all could be compared" } else { "" }
        ))),
        Verdict::Unfinished => {
            let topic_error = || report.topics.iter().find_map(|topic| topic.error.as_ref());
            let partition_error = || partitions().find_map(|partition| partition.error.as_ref());
            let reason = report.error.as_ref().or_else(topic_error).or_else(partition_error);
            let reason = reason.map_or("nothing was compared", String::as_str);
            Err(Failure::new(format!("not finished, no difference so far: {reason}")))
        }
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
    use crate::verify::report::{Difference, Kind};

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

    #[test]
    fn topics_are_the_links_own() {
        let row = |name: &str| -> MirrorRow {
            let text = serde_json::json!({
                "link_name": "l", "destination_cluster": "west", "mirror_topic_name": name,
                "source_topic_name": format!("{name}-s"), "num_partitions": 1, "mirror_lags": [],
                "mirror_status": "ACTIVE", "mirror_topic_error": "NO_ERROR",
                "mirror_topic_error_message": null, "state_time_ms": 0,
                "mirror_state_transition_errors": [], "waiting_for": null
            });
            serde_json::from_value(text).expect("a row")
        };
        let rows = [row("a"), row("b")];
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let topics = choose("l", &rows, &names).map_err(|failure| failure.message)?;
            Ok(topics.into_iter().map(|t| format!("{}<{}", t.mirror_name, t.source_name)).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]), Ok(vec!["a<a-s".to_owned(), "b<b-s".to_owned()]));
        assert_eq!(chosen(&["b", "b"]), Ok(vec!["b<b-s".to_owned()]));
        assert_eq!(chosen(&["c"]), Err("link 'l' has no mirror topic 'c'".to_owned()));
        assert!(choose("l", &[], &[]).is_err());
    }

    #[test]
    fn a_secret_that_is_not_shown_is_asked_for_as_a_reference() {
        let entry = |name: &str, value: &str| ConfigEntry { name: name.into(), value: value.into() };
        let configs = vec![entry("bootstrap.servers", "a:1"), entry("sasl.password", secrets::HIDDEN)];
        let failure = properties("cluster 'west'", configs).expect_err("hidden");
        assert_eq!(
            failure.message,
            "cluster 'west': sasl.password: the API doesn't show a secret that it holds"
        );
    }
}

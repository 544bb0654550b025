//! From a link's name to the verdict: what to read from the API, whom to connect to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use kafka::ClientConfig;

use super::VerifyCommand;
use super::show::{conclude, show};
use crate::api::secrets;
use crate::api::types::{ClusterRow, ConfigEntry, LinkConfigRow, LinkRow, MirrorRow};
use crate::cli::client::{Client, escaped, typed, typed_all};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::{Scope, link};
use crate::verify::Side;
use crate::verify::audit::{Audit, MirrorTopic, Over, Progress};
use crate::verify::extent::Limit;
use crate::verify::pace::Pace;
use crate::verify::reader::{Reader, Trouble};
use crate::verify::report::{Report, TopicReport, verdict};
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
        let source = plan.source.open(self.timeout)?;
        let mirror = plan.mirror.open(self.timeout)?;
        let checked = plan.source.check(&source).and_then(|()| plan.mirror.check(&mirror));
        let found = checked.map(|()| self.audit(&plan.topics, &source, &mirror));
        source.close();
        mirror.close();
        let (topics, over) = found?;
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

    fn audit(
        &self,
        topics: &[MirrorTopic],
        source: &Reader,
        mirror: &Reader,
    ) -> (Vec<TopicReport>, Option<Over>) {
        let terminal = std::io::stderr().is_terminal();
        let mut shown_at = Instant::now();
        let mut watch = |progress: &Progress<'_>| {
            if terminal && shown_at.elapsed() >= PROGRESS_EVERY {
                shown_at = Instant::now();
                show_progress(progress);
            }
        };
        let mut audit = Audit {
            source,
            mirror,
            limit: if self.all { Limit::All } else { Limit::Last(self.last) },
            pace: Pace::new(self.max_bytes_per_second, Instant::now()),
            watch: &mut watch,
        };
        let found = audit.run(topics);
        if terminal {
            let _ = write!(std::io::stderr().lock(), "{CLEAR_LINE}");
        }
        found
    }
}

impl End {
    fn open(&self, timeout: Duration) -> Result<Reader, Failure> {
        Reader::open(self.side, &self.properties, timeout).map_err(|trouble| self.unreadable(&trouble))
    }

    /// Whether the cluster that answers is the link's.
    fn check(&self, reader: &Reader) -> Result<(), Failure> {
        let cluster_id = reader.cluster_id().map_err(|trouble| self.unreadable(&trouble))?;
        if cluster_id == self.cluster_id {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} answers as Kafka cluster '{cluster_id}', and the link was made with '{}'",
            self.name, self.cluster_id
        )))
    }

    fn unreadable(&self, trouble: &Trouble) -> Failure {
        Failure::new(format!("{} can't be read: {trouble}", self.name))
            .hint("verify connects from this machine, not from a node: brokers must be reachable here")
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

fn show_progress(progress: &Progress<'_>) {
    let Progress { topic, partition, position, to } = progress;
    // Nobody is left to tell that nobody looks.
    let _ = write!(
        std::io::stderr().lock(),
        "{CLEAR_LINE}{topic}, partition {partition}: equal up to offset {position} of {to}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! `lockstep mirror`: mirror topics and what becomes of them. [`stop`]: how they end; [`errors`]: what went wrong.

pub mod errors;
pub mod stop;

use clap::{Args, Subcommand};

use super::client::{Client, escaped, typed, typed_all};
use super::failure::Failure;
use super::output::{self, known, or_dash, say};
use super::{Remote, Scope, configs, link};
use crate::api::types::{
    AlterMirrorRow, AlterMirrors, CreateMirror, DeletedMirror, LagRow, MirrorPlanBody, MirrorRow,
};
use stop::Stop;

const EXAMPLE: &str = "\
Examples:
  lockstep mirror create orders --link east-west
  lockstep mirror describe orders --link east-west";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct MirrorCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Mirror a topic
    #[command(after_help = "Examples:\n  lockstep mirror create orders --link east-west --dry-run\n  \
                            lockstep mirror create orders-copy --link east-west --source-topic orders")]
    Create(Create),
    /// List mirror topics
    #[command(after_help = "Example:\n  lockstep mirror list --link east-west --mirror-status failed")]
    List {
        /// Of this link; of all when left out
        #[arg(long, value_name = "LINK")]
        link: Option<String>,
        /// In this status, such as active or failed
        #[arg(long, value_name = "STATUS")]
        mirror_status: Option<String>,
        #[command(flatten)]
        scope: Scope,
    },
    /// Show a mirror topic and each of its partitions
    #[command(after_help = "Example:\n  lockstep mirror describe orders --link east-west")]
    Describe {
        topic: String,
        #[command(flatten)]
        of: OfLink,
    },
    /// Stop mirroring for now; positions are kept
    #[command(after_help = "Example:\n  lockstep mirror pause orders payments --link east-west")]
    Pause(Several),
    /// Go on after a pause, or try again after a failure was mended
    #[command(after_help = "Example:\n  lockstep mirror resume --pattern 'orders.*' --link east-west")]
    Resume(Several),
    /// Make mirror topics ordinary topics once they have caught up with a source that is quiet
    #[command(after_help = "Examples:\n  lockstep mirror promote orders --link east-west --wait\n  \
                            lockstep mirror promote orders --link east-west --cancel")]
    Promote {
        #[command(flatten)]
        stop: Stop,
        /// Take a promotion back that still catches up
        #[arg(long, conflicts_with_all = ["wait", "yes"])]
        cancel: bool,
    },
    /// Make mirror topics ordinary topics at once, with what they have: the source may be gone
    #[command(after_help = "Examples:\n  lockstep mirror failover orders --link east-west --wait\n  \
                            lockstep mirror failover --pattern '.*' --link east-west --yes --wait=5m")]
    Failover(Stop),
    /// What went wrong with a mirror topic, and when
    #[command(after_help = "Example:\n  lockstep mirror state-transition-error list orders --link east-west")]
    StateTransitionError {
        #[command(subcommand)]
        verb: errors::Verb,
    },
    /// Forget a mirror; the destination topic stays as it is unless told otherwise
    #[command(after_help = "Examples:\n  lockstep mirror delete orders --link east-west --yes\n  \
                            lockstep mirror delete orders --link east-west --delete-topic")]
    Delete {
        topic: String,
        #[command(flatten)]
        of: OfLink,
        /// Delete the destination topic with all its records as well
        #[arg(long)]
        delete_topic: bool,
        /// Don't ask; required without a terminal
        #[arg(long)]
        yes: bool,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct OfLink {
    /// The link that the mirror topic belongs to
    #[arg(long, value_name = "LINK")]
    link: String,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, Args)]
struct Create {
    /// The topic; its mirror is called the same, behind the link's cluster.link.prefix
    topic: String,
    #[command(flatten)]
    of: OfLink,
    /// The source's name for it, when it is another; TOPIC is then the mirror's whole name
    #[arg(long, value_name = "TOPIC")]
    source_topic: Option<String>,
    /// Replicas at the destination; its default when left out
    #[arg(long, value_name = "N")]
    replication_factor: Option<i16>,
    /// Topic keys on top of the synced ones: k=v,… or a properties file; may be repeated
    #[arg(long, value_name = "K=V,…|FILE")]
    config: Vec<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Several {
    #[arg(required_unless_present = "pattern", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Every mirror topic of the link whose whole name matches
    #[arg(long, value_name = "REGEX", conflicts_with = "topics")]
    pattern: Option<String>,
    #[command(flatten)]
    of: OfLink,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl OfLink {
    fn path(&self, client: &Client) -> Result<String, Failure> {
        Ok(format!("{}/mirrors", link::find(client, &self.link, &self.scope)?))
    }

    fn topic_path(&self, client: &Client, topic: &str) -> Result<String, Failure> {
        Ok(format!("{}/{}", self.path(client)?, escaped(topic)))
    }
}

impl MirrorCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Self { remote, verb } = self;
        let client = remote.client();
        match verb {
            Verb::Create(create) => create.run(&remote, &client),
            Verb::List { link, mirror_status, scope } => {
                list(&remote, &client, link.as_deref(), mirror_status.as_deref(), &scope)
            }
            Verb::Describe { topic, of } => {
                let found = client.get(&of.topic_path(&client, &topic)?)?;
                let row: MirrorRow = typed(&found)?;
                output::show(remote.output, &found, || describe(&row))
            }
            Verb::Pause(several) => several.run(&remote, &client, ("pause", ""), ["Would pause", "Paused"]),
            Verb::Resume(several) => {
                several.run(&remote, &client, ("resume", ""), ["Would resume", "Resumed"])
            }
            Verb::Promote { stop: Stop { several, .. }, cancel: true } => {
                let did = ["Would cancel the promotion of", "Cancelled the promotion of"];
                several.run(&remote, &client, ("promote", "&cancel=true"), did)
            }
            Verb::Promote { stop, cancel: false } => stop.run(&remote, &client, &stop::PROMOTE),
            Verb::Failover(stop) => stop.run(&remote, &client, &stop::FAIL_OVER),
            Verb::StateTransitionError { verb } => verb.run(&remote, &client),
            Verb::Delete { topic, of, delete_topic, yes, dry_run } => {
                let path = of.topic_path(&client, &topic)?;
                if !dry_run {
                    let question = format!("Forget the mirror of topic '{topic}' on link '{}'", of.link);
                    let more = if delete_topic { ", and delete the topic with all its records" } else { "" };
                    output::confirm(&format!("{question}{more}?"), yes)?;
                }
                let query = format!("validate_only={dry_run}&delete_topic={delete_topic}");
                let found = client.delete(&format!("{path}?{query}"))?;
                let deleted: DeletedMirror = typed(&found)?;
                let did = if dry_run { "Would forget" } else { "Forgot" };
                say(&format!(
                    "{did} mirror topic '{topic}'; {}.",
                    topic_fate(&deleted, delete_topic, dry_run)
                ));
                output::show(remote.output, &found, String::new)?;
                deleted.error_message.map_or(Ok(()), |message| Err(Failure::new(message)))
            }
        }
    }
}

fn topic_fate(deleted: &DeletedMirror, delete_topic: bool, dry_run: bool) -> &'static str {
    match (delete_topic, dry_run, deleted.topic_deleted) {
        (true, true, _) => "the destination topic would be deleted",
        (true, false, true) => "the destination topic is deleted",
        _ => "the destination topic stays",
    }
}

impl Create {
    fn run(self, remote: &Remote, client: &Client) -> Result<(), Failure> {
        let path = format!("{}?validate_only={}", self.of.path(client)?, self.dry_run);
        let body = CreateMirror {
            mirror_topic_name: self.source_topic.is_some().then(|| self.topic.clone()),
            source_topic_name: self.source_topic.unwrap_or_else(|| self.topic.clone()),
            replication_factor: self.replication_factor,
            configs: configs::read_all(&self.config)?,
        };
        let made = client.post(&path, &body)?;
        if self.dry_run {
            let plan: MirrorPlanBody = typed(&made)?;
            return output::show(remote.output, &made, || show_plan(&plan));
        }
        let name = made["mirror_topic_name"].as_str().unwrap_or(&self.topic);
        say(&format!("Created mirror topic '{name}' on link '{}'.", self.of.link));
        output::show(remote.output, &made, String::new)
    }
}

fn show_plan(plan: &MirrorPlanBody) -> String {
    let destination = match plan.adopts_existing {
        true => {
            format!("{} on {} (there already and empty)", plan.mirror_topic_name, plan.destination_cluster)
        }
        false => format!("{} on {}", plan.mirror_topic_name, plan.destination_cluster),
    };
    let mut fields = vec![
        ("Source topic", plan.source_topic_name.clone()),
        ("Mirror topic", destination),
        ("Partitions", plan.num_partitions.to_string()),
        (
            "Replication factor",
            plan.replication_factor.map_or("the destination's default".to_owned(), |n| n.to_string()),
        ),
        ("Offsets to fill", plan.offsets_to_fill.to_string()),
        ("Offsets to mirror", plan.offsets_to_mirror.to_string()),
    ];
    fields.extend(plan.configs.iter().map(|c| ("Config", format!("{}={}", c.name, c.value))));
    output::fields(&fields)
}

fn list(
    remote: &Remote,
    client: &Client,
    link: Option<&str>,
    status: Option<&str>,
    scope: &Scope,
) -> Result<(), Failure> {
    let path = match link {
        Some(name) => link::find(client, name, scope)?,
        None => {
            format!("/kafka/v3/clusters/{}/links/-", escaped(scope.cluster().unwrap_or("-")))
        }
    };
    let filter = status.map(|status| format!("?mirror_status={}", escaped(status)));
    let found = client.list(&format!("{path}/mirrors{}", filter.unwrap_or_default()))?;
    let rows: Vec<MirrorRow> = typed_all(&found)?;
    output::show(remote.output, &found.into(), || {
        let cells = rows.iter().map(|row| {
            let error = Some(&row.mirror_topic_error).filter(|error| *error != "NO_ERROR");
            vec![
                row.mirror_topic_name.clone(),
                row.source_topic_name.clone(),
                row.link_name.clone(),
                row.destination_cluster.clone(),
                row.mirror_status.clone(),
                row.num_partitions.to_string(),
                known(total_lag(&row.mirror_lags)),
                or_dash(error),
            ]
        });
        let head =
            ["MIRROR TOPIC", "SOURCE TOPIC", "LINK", "CLUSTER", "STATUS", "PARTITIONS", "LAG", "ERROR"];
        output::table(&head, cells)
    })
}

/// Unknown as soon as one partition's is.
fn total_lag(rows: &[LagRow]) -> Option<i64> {
    rows.iter().map(|row| row.lag).sum()
}

pub fn describe(row: &MirrorRow) -> String {
    let mut fields = vec![
        ("Mirror topic", format!("{} on {}", row.mirror_topic_name, row.destination_cluster)),
        ("Source topic", row.source_topic_name.clone()),
        ("Link", row.link_name.clone()),
        ("Status", row.mirror_status.clone()),
        ("Since", output::time(row.state_time_ms)),
        ("Lag", known(total_lag(&row.mirror_lags))),
    ];
    if row.mirror_topic_error != "NO_ERROR" {
        let message = row.mirror_topic_error_message.clone().unwrap_or_default();
        fields.push(("Error", format!("{}: {message}", row.mirror_topic_error)));
    }
    fields.extend(row.waiting_for.clone().map(|reason| ("Waits for", reason)));
    let cells = row.mirror_lags.iter().map(|lag| {
        vec![
            lag.partition.to_string(),
            lag.state.clone(),
            known(lag.source_end_offset),
            known(lag.mirror_end_offset),
            known(lag.lag),
            lag.guarded.map_or("unknown", |guarded| if guarded { "yes" } else { "no" }).to_owned(),
            or_dash(lag.node.as_ref()),
            trouble(lag),
        ]
    });
    let head = ["PARTITION", "STATE", "SOURCE END", "MIRROR END", "LAG", "GUARDED", "NODE", "ERROR, RETRY"];
    format!("{}\n\n{}", output::fields(&fields), output::table(&head, cells))
}

fn trouble(lag: &LagRow) -> String {
    let error = lag.error.as_ref().map(|error| match &lag.error_message {
        Some(message) => format!("{error}: {message}"),
        None => error.clone(),
    });
    let retry = lag.retry_at.as_ref().map(|at| format!("again at {at}"));
    let filling = lag.fills_to.map(|to| format!("filling offsets up to {to}"));
    let parts: Vec<String> = error.into_iter().chain(retry).chain(filling).collect();
    or_dash(Some(parts.join(", ")).filter(|text| !text.is_empty()))
}

impl Several {
    fn body(&self) -> AlterMirrors {
        AlterMirrors {
            mirror_topic_names: self.pattern.is_none().then(|| self.topics.clone()),
            mirror_topic_name_pattern: self.pattern.clone(),
        }
    }

    /// `action`, and what its query has beside `validate_only`.
    fn run(
        self,
        remote: &Remote,
        client: &Client,
        (action, query): (&str, &str),
        did: [&str; 2],
    ) -> Result<(), Failure> {
        let path = format!("{}:{action}?validate_only={}{query}", self.of.path(client)?, self.dry_run);
        let mut answer = client.post(&path, &self.body())?;
        let rows: Vec<AlterMirrorRow> = typed(&answer["data"])?;
        let [would, done] = did;
        let did = if self.dry_run { would } else { done };
        self.say_no_match(&rows);
        let mut failed = 0;
        for row in &rows {
            match &row.error_message {
                None => say(&format!("{did} '{}'.", row.mirror_topic_name)),
                Some(message) => {
                    failed += 1;
                    say(&format!("error: '{}': {message}", row.mirror_topic_name));
                }
            }
        }
        output::show(remote.output, &answer["data"].take(), String::new)?;
        if failed > 0 {
            return Err(Failure::new(format!("{failed} of {} mirror topics failed", rows.len())));
        }
        Ok(())
    }

    fn say_no_match(&self, rows: &[AlterMirrorRow]) {
        if rows.is_empty() {
            say(&format!("No mirror topic of link '{}' matches the pattern.", self.of.link));
        }
    }
}

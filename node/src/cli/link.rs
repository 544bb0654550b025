//! `lockstep link`: bridges from a source cluster to a destination cluster.

pub mod delete;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, escaped, typed, typed_all};
use super::configs::Changes;
use super::failure::Failure;
use super::output::{self, or_dash, say};
use super::{Remote, Scope, configs};
use crate::api::types::{
    AlterConfigs, AlteredConfigs, ConfigChange, ConfigEntry, ConfigOperation, CreateLink, LinkConfigRow,
    LinkRow, TaskRow,
};

const EXAMPLE: &str = "\
Example:
  lockstep link create east-west --source east --destination west";

const UPDATE_EXAMPLE: &str = "\
Examples:
  lockstep link configuration list east-west
  lockstep link update east-west --config replica.fetch.wait.max.ms=100
  lockstep link update east-west --delete-config replica.fetch.wait.max.ms";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct LinkCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a link
    #[command(after_help = EXAMPLE)]
    Create(Create),
    /// List the links on one cluster, or on all
    #[command(after_help = "Example:\n  lockstep link list --cluster west")]
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Show one link and its configuration
    #[command(after_help = "Example:\n  lockstep link describe east-west")]
    Describe {
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
    /// Change a link's configuration; it goes on with that at once
    #[command(after_help = UPDATE_EXAMPLE)]
    Update(Update),
    /// A link's configuration alone
    #[command(after_help = UPDATE_EXAMPLE)]
    Configuration {
        #[command(subcommand)]
        verb: ConfigurationVerb,
    },
    /// What a link keeps in step beside records: topic configs, group offsets, ACLs
    #[command(after_help = "Example:\n  lockstep link task list east-west")]
    Task {
        #[command(subcommand)]
        verb: TaskVerb,
    },
    /// Stop mirroring and syncing on a link for now; a failover still works
    #[command(after_help = "Example:\n  lockstep link pause east-west")]
    Pause {
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
    /// Go on with a paused link, from where it stands
    #[command(after_help = "Example:\n  lockstep link resume east-west")]
    Resume {
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
    /// Delete a link whose mirror topics have STOPPED, or are to be failed over first
    #[command(after_help = "Examples:\n  lockstep link delete east-west --yes\n  \
                            lockstep link delete east-west --failover-mirrors")]
    Delete(delete::Delete),
}

#[derive(Debug, Args)]
struct Create {
    name: String,
    /// Registered cluster to mirror from
    #[arg(
        long,
        visible_alias = "source-cluster",
        value_name = "CLUSTER",
        required_unless_present = "source_bootstrap_server",
        conflicts_with = "source_bootstrap_server"
    )]
    source: Option<String>,
    /// Brokers of a source that isn't registered; its client keys go into --config
    #[arg(long, value_name = "HOST:PORT,…")]
    source_bootstrap_server: Option<String>,
    /// Kafka cluster id that the source must answer
    #[arg(long, value_name = "ID")]
    source_cluster_id: Option<String>,
    /// Registered cluster to mirror to
    #[arg(long, visible_alias = "cluster", env = "LOCKSTEP_CLUSTER", value_name = "CLUSTER")]
    destination: String,
    /// Link keys: k=v,… or a properties file, - for stdin; may be repeated
    #[arg(long, value_name = "K=V,…|FILE")]
    config: Vec<String>,
    /// Don't ask the source's brokers
    #[arg(long)]
    no_validate: bool,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum TaskVerb {
    /// List them, with what is wrong and what is to be known
    #[command(after_help = "Example:\n  lockstep link task list east-west -o json")]
    List {
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigurationVerb {
    /// List what is set, and the defaults of what isn't
    #[command(after_help = "Example:\n  lockstep link configuration list east-west -o json")]
    List {
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
    /// The same as 'lockstep link update'
    #[command(after_help = UPDATE_EXAMPLE)]
    Update(Update),
}

#[derive(Debug, Args)]
struct Update {
    name: String,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    changes: Changes,
    /// Don't ask the source's brokers when its client keys change
    #[arg(long)]
    no_validate: bool,
    /// Don't ask; required without a terminal to set acl.sync.mode to mirror
    #[arg(long)]
    yes: bool,
    /// Only say whether it could be done; of ACL keys also what they would do
    #[arg(long)]
    dry_run: bool,
}

/// Path of the links on a cluster.
fn links_path(cluster: &str) -> String {
    format!("/kafka/v3/clusters/{}/links", escaped(cluster))
}

/// Path of the one link of that name.
pub fn find(client: &Client, name: &str, scope: &Scope) -> Result<String, Failure> {
    if let Some(cluster) = scope.cluster() {
        return Ok(format!("{}/{}", links_path(cluster), escaped(name)));
    }
    let links: Vec<LinkRow> = typed_all(&client.list(&links_path("-"))?)?;
    let found: Vec<&str> =
        links.iter().filter(|l| l.link_name == name).map(|l| l.destination_cluster.as_str()).collect();
    match found.as_slice() {
        [] => Err(Failure::new(format!("there is no link '{name}'"))
            .hint("'lockstep link list' shows the links there are")),
        [cluster] => Ok(format!("{}/{}", links_path(cluster), escaped(name))),
        several => Err(Failure::usage(format!(
            "link '{name}' is ambiguous: it exists on {}; name one with --cluster",
            several.join(", ")
        ))),
    }
}

impl LinkCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Self { remote, verb } = self;
        let client = remote.client();
        match verb {
            Verb::Create(create) => create.run(&remote, &client),
            Verb::List { scope } => {
                let found = client.list(&links_path(scope.cluster().unwrap_or("-")))?;
                let rows: Vec<LinkRow> = typed_all(&found)?;
                output::show(remote.output, &found.into(), || list(&rows))
            }
            Verb::Describe { name, scope } => describe(&remote, &client, &name, &scope),
            Verb::Update(update) | Verb::Configuration { verb: ConfigurationVerb::Update(update) } => {
                update.run(&remote, &client)
            }
            Verb::Configuration { verb: ConfigurationVerb::List { name, scope } } => {
                let found = client.list(&format!("{}/configs", find(&client, &name, &scope)?))?;
                let rows: Vec<LinkConfigRow> = typed_all(&found)?;
                output::show(remote.output, &found.into(), || config_table(&rows))
            }
            Verb::Task { verb: TaskVerb::List { name, scope } } => {
                let found = client.get(&format!("{}?include_tasks=true", find(&client, &name, &scope)?))?;
                let row: LinkRow = typed(&found)?;
                output::show(remote.output, &found["tasks"], || task_table(&row.tasks))
            }
            Verb::Pause { name, scope } => set_paused(&remote, &client, &name, &scope, true),
            Verb::Resume { name, scope } => set_paused(&remote, &client, &name, &scope, false),
            Verb::Delete(delete) => delete.run(&remote, &client),
        }
    }
}

impl Create {
    fn run(self, remote: &Remote, client: &Client) -> Result<(), Failure> {
        let mut entries = configs::read_all(&self.config)?;
        let entry = |name: &str, value| ConfigEntry { name: name.to_owned(), value };
        entries.extend(self.source.map(|source| entry("source.cluster", source)));
        entries.extend(self.source_bootstrap_server.map(|servers| entry("bootstrap.servers", servers)));
        let body = CreateLink { source_cluster_id: self.source_cluster_id, configs: entries };
        let path = format!(
            "{}?link_name={}&validate_only={}&validate_link={}",
            links_path(&self.destination),
            escaped(&self.name),
            self.dry_run,
            !self.no_validate
        );
        let made = client.post(&path, &body)?;
        let row: LinkRow = typed(&made)?;
        output::warn(&row.warnings);
        let did = if self.dry_run { "Would create" } else { "Created" };
        let (name, to) = (&row.link_name, &row.destination_cluster);
        say(&format!("{did} link '{name}' from {} to {to}.", source(&row)));
        output::show(remote.output, &made, String::new)
    }
}

impl Update {
    fn run(self, remote: &Remote, client: &Client) -> Result<(), Failure> {
        let body = AlterConfigs { data: self.changes.read(None)? };
        let link = find(client, &self.name, &self.scope)?;
        let path = |dry_run: bool| {
            let validate_link = !self.no_validate;
            format!("{link}/configs:alter?validate_only={dry_run}&validate_link={validate_link}")
        };
        if !self.dry_run && body.data.iter().any(deletes_acls_of_others) {
            let would: AlteredConfigs = typed(&client.put(&path(true), &body)?)?;
            output::warn(&would.warnings);
            let question = "From now on delete at the destination every ACL that acl.filters mean and the source \
                            doesn't have, whoever wrote it?";
            output::confirm(question, self.yes)?;
        }
        let found = client.put(&path(self.dry_run), &body)?;
        let altered: AlteredConfigs = typed(&found)?;
        output::warn(&altered.warnings);
        let did = if self.dry_run { "Would update" } else { "Updated" };
        say(&format!("{did} the configuration of link '{}'.", self.name));
        output::show(remote.output, &found["data"], || {
            let rows: Vec<LinkConfigRow> = altered.data.into_iter().map(|row| row.body).collect();
            if rows.is_empty() { String::new() } else { config_table(&rows) }
        })
    }
}

fn deletes_acls_of_others(change: &ConfigChange) -> bool {
    let is_mirror = |value: &String| value.trim().eq_ignore_ascii_case("mirror");
    change.name == "acl.sync.mode" && change.value.as_ref().is_some_and(is_mirror)
}

fn set_paused(
    remote: &Remote,
    client: &Client,
    name: &str,
    scope: &Scope,
    paused: bool,
) -> Result<(), Failure> {
    let (value, operation) = match paused {
        true => (Some("true".to_owned()), ConfigOperation::Set),
        false => (None, ConfigOperation::Delete),
    };
    let change = ConfigChange { name: catalog::Link::PAUSED_KEY.to_owned(), value, operation };
    let path = format!("{}/configs:alter", find(client, name, scope)?);
    let found = client.put(&path, &AlterConfigs { data: vec![change] })?;
    say(&format!("{} link '{name}'.", if paused { "Paused" } else { "Resumed" }));
    output::show(remote.output, &found["data"], String::new)
}

fn config_table(rows: &[LinkConfigRow]) -> String {
    let cells = rows.iter().map(|config| {
        let origin = if config.source == "DEFAULT_CONFIG" { "default" } else { "set" };
        vec![config.name.clone(), config.value.clone(), origin.to_owned()]
    });
    output::table(&["CONFIG", "VALUE", "ORIGIN"], cells)
}

/// What is to be told of a task stands in rows of its own, below it.
fn task_table(rows: &[TaskRow]) -> String {
    let cells = rows.iter().flat_map(|task| {
        let errors = task.errors.iter().map(|error| format!("{}: {}", error.error_code, error.error_message));
        let mut told = errors.chain(task.remarks.iter().cloned());
        let first = vec![task.task_name.clone(), task.state.clone(), or_dash(told.next())];
        let more = told.map(|told| vec![String::new(), String::new(), told]);
        std::iter::once(first).chain(more).collect::<Vec<_>>()
    });
    output::table(&["TASK", "STATE", "TOLD"], cells)
}

fn source(row: &LinkRow) -> &str {
    row.source_cluster.as_deref().unwrap_or(&row.source_cluster_id)
}

fn list(rows: &[LinkRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.link_name.clone(),
            source(row).to_owned(),
            row.destination_cluster.clone(),
            row.link_state.clone(),
            row.topic_names.len().to_string(),
            if row.link_error == "NO_ERROR" { "-".to_owned() } else { row.link_error.clone() },
        ]
    });
    output::table(&["NAME", "SOURCE", "DESTINATION", "STATE", "MIRROR TOPICS", "ERROR"], cells)
}

fn describe(remote: &Remote, client: &Client, name: &str, scope: &Scope) -> Result<(), Failure> {
    let path = find(client, name, scope)?;
    let mut found = client.get(&path)?;
    let row: LinkRow = typed(&found)?;
    let configs = client.list(&format!("{path}/configs"))?;
    let config_rows: Vec<LinkConfigRow> = typed_all(&configs)?;
    found["configs"] = Value::Array(configs);
    output::show(remote.output, &found, || {
        let counts = row.category_counts.iter().map(|c| format!("{} {}", c.count, c.state_category));
        let counts: Vec<String> = counts.collect();
        let fields = output::fields(&[
            ("Name", row.link_name.clone()),
            ("Link id", row.cluster_link_id.clone()),
            ("Source", format!("{} (Kafka cluster id {})", source(&row), row.source_cluster_id)),
            (
                "Destination",
                format!("{} (Kafka cluster id {})", row.destination_cluster, row.destination_cluster_id),
            ),
            ("State", row.link_state.clone()),
            ("Error", format!("{} {}", row.link_error, row.link_error_message.clone().unwrap_or_default())),
            ("Mirror topics", or_dash(Some(counts.join(", ")).filter(|text| !text.is_empty()))),
        ]);
        format!("{fields}\n\n{}", config_table(&config_rows))
    })
}

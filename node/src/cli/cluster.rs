//! `lockstep cluster`: the Kafka clusters that links connect.

use clap::{Args, Subcommand};

use super::client::{escaped, typed, typed_all};
use super::configs::Changes;
use super::failure::Failure;
use super::output::{self, or_dash, say};
use super::{Remote, configs};
use crate::api::types::{ClusterRow, ConfigEntry, CreateCluster, UpdateCluster};

const EXAMPLE: &str = "\
Example:
  lockstep cluster create east --bootstrap-server east-1:9092,east-2:9092";

const UPDATE_EXAMPLE: &str = "\
Examples:
  lockstep cluster update east --bootstrap-server east-3:9092,east-4:9092
  lockstep cluster update east --config sasl.password=file:/run/secrets/new --delete-config client.id";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ClusterCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Register a Kafka cluster under a name
    #[command(after_help = EXAMPLE)]
    Create(Create),
    /// List the registered clusters
    #[command(after_help = "Example:\n  lockstep cluster list -o json")]
    List,
    /// Show one cluster
    #[command(after_help = "Example:\n  lockstep cluster describe east")]
    Describe { name: String },
    /// Change how a cluster is reached; links that use it go on with that at once
    #[command(after_help = UPDATE_EXAMPLE)]
    Update(Update),
    /// Forget a cluster that no link uses
    #[command(after_help = "Example:\n  lockstep cluster delete east")]
    Delete {
        name: String,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct Create {
    name: String,
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_server: Option<String>,
    /// Kafka client keys: k=v,… or a properties file, - for stdin; may be repeated
    #[arg(long, value_name = "K=V,…|FILE")]
    config: Vec<String>,
    /// Kafka cluster id that the brokers must answer; required with --no-validate
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
    /// Don't ask the brokers
    #[arg(long)]
    no_validate: bool,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Update {
    name: String,
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_server: Option<String>,
    #[command(flatten)]
    changes: Changes,
    /// Don't ask the brokers first
    #[arg(long)]
    no_validate: bool,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

const PATH: &str = "/lockstep/v1/clusters";

impl ClusterCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Self { remote, verb } = self;
        match verb {
            Verb::Create(create) => create.run(&remote),
            Verb::List => list(&remote),
            Verb::Describe { name } => {
                let found = remote.client().get(&format!("{PATH}/{}", escaped(&name)))?;
                let row: ClusterRow = typed(&found)?;
                output::show(remote.output, &found, || describe(&row))
            }
            Verb::Update(update) => update.run(&remote),
            Verb::Delete { name, dry_run } => {
                let path = format!("{PATH}/{}?validate_only={dry_run}", escaped(&name));
                let found = remote.client().delete(&path)?;
                say(&format!("{} cluster '{name}'.", if dry_run { "Would delete" } else { "Deleted" }));
                output::show(remote.output, &found, String::new)
            }
        }
    }
}

impl Create {
    fn run(self, remote: &Remote) -> Result<(), Failure> {
        let mut entries = configs::read_all(&self.config)?;
        if let Some(servers) = self.bootstrap_server {
            entries.push(ConfigEntry { name: "bootstrap.servers".into(), value: servers });
        }
        let body = CreateCluster { name: self.name, configs: entries, cluster_id: self.cluster_id };
        let path = format!("{PATH}?validate_only={}&validate_cluster={}", self.dry_run, !self.no_validate);
        let made = remote.client().post(&path, &body)?;
        let row: ClusterRow = typed(&made)?;
        output::warn(&row.warnings);
        let did = if self.dry_run { "Would register" } else { "Registered" };
        say(&format!("{did} cluster '{}' (Kafka cluster id {}).", row.name, row.cluster_id));
        output::show(remote.output, &made, String::new)
    }
}

impl Update {
    fn run(self, remote: &Remote) -> Result<(), Failure> {
        let bootstrap =
            self.bootstrap_server.map(|value| ConfigEntry { name: "bootstrap.servers".into(), value });
        let body = UpdateCluster { configs: self.changes.read(bootstrap)? };
        let path = format!(
            "{PATH}/{}?validate_only={}&validate_cluster={}",
            escaped(&self.name),
            self.dry_run,
            !self.no_validate
        );
        let found = remote.client().patch(&path, &body)?;
        let row: ClusterRow = typed(&found)?;
        output::warn(&row.warnings);
        say(&format!("{} cluster '{}'.", if self.dry_run { "Would update" } else { "Updated" }, row.name));
        output::show(remote.output, &found, String::new)
    }
}

fn list(remote: &Remote) -> Result<(), Failure> {
    let found = remote.client().list(PATH)?;
    let rows: Vec<ClusterRow> = typed_all(&found)?;
    output::show(remote.output, &found.into(), || {
        let bootstrap = |row: &ClusterRow| {
            let entry = row.configs.iter().find(|entry| entry.name == "bootstrap.servers");
            or_dash(entry.map(|entry| &entry.value))
        };
        let cells =
            rows.iter().map(|r| vec![r.name.clone(), r.cluster_id.clone(), r.state.clone(), bootstrap(r)]);
        output::table(&["NAME", "CLUSTER ID", "STATE", "BOOTSTRAP SERVERS"], cells)
    })
}

fn describe(row: &ClusterRow) -> String {
    let mut fields = vec![
        ("Name", row.name.clone()),
        ("Cluster id", row.cluster_id.clone()),
        ("State", row.state.clone()),
    ];
    fields.extend(row.state_message.clone().map(|message| ("Reason", message)));
    let configs = row.configs.iter().map(|entry| ("Config", format!("{}={}", entry.name, entry.value)));
    fields.extend(configs);
    output::fields(&fields)
}

//! `lockstep node …`: the members of the fleet.

use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Remote;
use super::client::{Client, escaped, typed, typed_all};
use super::failure::Failure;
use super::output::{self, or_dash};
use crate::api::types::{CreateJoinToken, JoinTokenBody, NodeRow};

const NODES: &str = "/lockstep/v1/nodes";
const TOKENS: &str = "/lockstep/v1/join-tokens";

const RECOVER_HELP: &str = "\
Example, on the machine of a node that is left, and stopped:
  lockstep node recover --data-dir /var/lib/lockstep
  lockstep server --data-dir /var/lib/lockstep";

/// Between two looks at a node that drains.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

const EXAMPLE: &str = "\
Examples:
  lockstep node list
  lockstep node token
  lockstep node drain node-2 --wait";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct NodeCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Members of the fleet, and whether each answers
    #[command(after_help = "Example:\n  lockstep node list")]
    List,
    /// One member
    #[command(after_help = "Example:\n  lockstep node describe node-2")]
    Describe { name: String },
    /// Have a member hand its partitions over to the others, and take none
    #[command(after_help = "Example:\n  lockstep node drain node-2 --wait=60s")]
    Drain {
        name: String,
        /// Let it take part again
        #[arg(long)]
        undo: bool,
        /// Wait until it owns nothing, 60s unless told otherwise
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_name = "TIME", conflicts_with = "undo")]
        wait: Option<humantime::Duration>,
    },
    /// Take a member out of the fleet, for good
    #[command(
        after_help = "Examples:\n  lockstep node remove node-2           after it was drained\n  lockstep node remove node-2 --lost    it never comes back"
    )]
    Remove {
        name: String,
        /// It is lost for good: its partitions are taken over as from a node that failed
        #[arg(long)]
        lost: bool,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Make this machine's node the only one of its fleet, after a majority is lost for good
    #[command(after_help = RECOVER_HELP)]
    Recover {
        /// Data directory of a node that isn't running
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Print a token that lets one node in, once
    #[command(
        after_help = "Example:\n  lockstep node token > token\n  lockstep server --data-dir DIR --join node-1:7781 --join-token file:token"
    )]
    Token {
        /// How long it may be used
        #[arg(long, default_value = "1h", value_name = "TIME")]
        expires_in: humantime::Duration,
    },
}

impl NodeCommand {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.remote.client();
        let format = self.remote.output;
        match self.verb {
            Verb::Recover { data_dir, yes } => recover(data_dir, yes),
            Verb::List => {
                let found = client.list(NODES)?;
                let rows: Vec<NodeRow> = typed_all(&found)?;
                output::show(format, &Value::Array(found), || table(&rows))
            }
            Verb::Describe { name } => {
                let found = client.get(&path(&name))?;
                let row: NodeRow = typed(&found)?;
                output::show(format, &found, || description(&row))
            }
            Verb::Drain { name, undo, wait } => {
                let verb = if undo { "undrain" } else { "drain" };
                let found = client.post(&format!("{}:{verb}", path(&name)), &Value::Null)?;
                let mut row: NodeRow = typed(&found)?;
                if let Some(wait) = wait {
                    row = wait_until_empty(&client, &name, row, *wait)?;
                }
                output::say(&drained(&row, undo));
                Ok(())
            }
            Verb::Remove { name, lost, yes } => {
                let row: NodeRow = typed(&client.get(&path(&name))?)?;
                output::confirm(&question(&row, lost), yes)?;
                client.delete(&format!("{}?lost={lost}", path(&name)))?;
                output::say(&format!("node {name} is no longer a member; its data directory may be deleted"));
                Ok(())
            }
            Verb::Token { expires_in } => {
                let body = CreateJoinToken { expires_in_seconds: Some(expires_in.as_secs()) };
                let found = client.post(TOKENS, &body)?;
                let token: JoinTokenBody = typed(&found)?;
                output::say(&format!(
                    "lets one node in until {}; it joins at any of: {}",
                    token.expires_at,
                    token.addresses.join(", ")
                ));
                output::show(format, &found, || token.token.clone())
            }
        }
    }
}

/// Works on the data directory alone: there is nobody to ask.
fn recover(data_dir: PathBuf, yes: bool) -> Result<(), Failure> {
    let question = format!(
        "The node in {} is to become the only one of its fleet; all other nodes are removed from it for good. \
         Commands that only they had are lost. Do this only when a majority of voters never comes back.",
        data_dir.display()
    );
    output::confirm(&question, yes)?;
    let options = consensus::Options::new(data_dir, "");
    let found = consensus::recover(&options).map_err(|error| Failure::from(anyhow::Error::new(error)))?;
    output::say(&recovered(&found));
    Ok(())
}

fn recovered(found: &consensus::Recovered) -> String {
    let name = &found.node_name;
    if !found.changed {
        return format!("node {name} is the only one of its fleet already; nothing was changed");
    }
    let mut lines = vec![format!("node {name} ({}) is now the only one of its fleet", found.node_id)];
    lines.extend(found.removed.iter().map(|(id, name)| format!("removed: node {name} ({id})")));
    let last = found.last_command_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let last = last.and_then(|since| UNIX_EPOCH.checked_add(since));
    lines.push(match last {
        Some(at) => format!(
            "it holds {} entries, the last command of {}: what was changed later is missing",
            found.last_index,
            humantime::format_rfc3339_seconds(at)
        ),
        None => format!("it holds {} entries; what was changed later is missing", found.last_index),
    });
    if found.not_known_committed > 0 {
        lines.push(format!(
            "the last {} of them may never have been acknowledged; they count from now on",
            found.not_known_committed
        ));
    }
    if !found.voted {
        lines.push("it was a learner, which may have been further behind than a voter".to_owned());
    }
    lines.push(
        "start it, let new nodes join, and compare clusters, links and mirrors with what you expect"
            .to_owned(),
    );
    lines.join("\n")
}

fn path(name: &str) -> String {
    format!("{NODES}/{}", escaped(name))
}

fn wait_until_empty(
    client: &Client,
    name: &str,
    mut row: NodeRow,
    limit: Duration,
) -> Result<NodeRow, Failure> {
    let end = Instant::now() + limit;
    while row.assignments > 0 {
        if Instant::now() >= end {
            let message = format!("node {name} still owns {} mirror partitions", row.assignments);
            return Err(
                Failure::new(message).hint("it goes on draining; 'lockstep node list' shows how far it is")
            );
        }
        std::thread::sleep(LOOK_AGAIN);
        row = typed(&client.get(&path(name))?)?;
    }
    Ok(row)
}

fn drained(row: &NodeRow, undone: bool) -> String {
    match (undone, row.assignments) {
        (true, _) => format!("node {} takes part again", row.name),
        (false, 0) => format!("node {} owns no mirror partition and takes none", row.name),
        (false, owned) => {
            format!("node {} is handing {owned} mirror partition(s) over and takes none", row.name)
        }
    }
}

fn question(row: &NodeRow, lost: bool) -> String {
    let lost = if lost { ", as lost," } else { "" };
    format!(
        "Node {} ({}) is {}, owns {} mirror partition(s), and is to be removed{lost} for good: it can only come \
         back as a new node, with an empty data directory.",
        row.name, row.node_id, row.state, row.assignments
    )
}

fn table(rows: &[NodeRow]) -> String {
    let row = |node: &NodeRow| {
        let partitions = match (node.leaving, node.coming) {
            (0, 0) => node.assignments.to_string(),
            (leaving, coming) => format!("{} (-{leaving} +{coming})", node.assignments),
        };
        vec![
            node.name.clone(),
            node.node_id.clone(),
            node.state.clone(),
            node.duty.clone(),
            node.raft_role.clone(),
            partitions,
            or_dash(node.address.as_ref()),
        ]
    };
    output::table(
        &["NODE", "ID", "STATE", "DUTY", "RAFT", "MIRROR PARTITIONS", "ADDRESS"],
        rows.iter().map(row),
    )
}

fn description(node: &NodeRow) -> String {
    let state = match &node.state_message {
        Some(message) => format!("{}: {message}", node.state),
        None => node.state.clone(),
    };
    output::fields(&[
        ("Name", node.name.clone()),
        ("Id", node.node_id.clone()),
        ("State", state),
        ("Duty", node.duty.clone()),
        ("Raft", node.raft_role.clone()),
        ("Peers reach it at", or_dash(node.address.as_ref())),
        ("Version", node.version.clone()),
        ("Starts", node.starts.to_string()),
        ("Mirror partitions", node.assignments.to_string()),
        ("Leaving it", node.leaving.to_string()),
        ("Coming to it", node.coming.to_string()),
    ])
}

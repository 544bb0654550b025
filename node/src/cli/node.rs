//! `lockstep node …`: the members of the fleet.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Remote;
use super::authority::{self, AuthorityVerb};
use super::client::{Client, escaped, typed, typed_all};
use super::failure::Failure;
use super::output::{self, or_dash};
use super::recover::{self, RecoverArgs};
use crate::api::types::{CreateJoinToken, JoinTokenBody, NodeRow};

const NODES: &str = "/lockstep/v1/nodes";
const TOKENS: &str = "/lockstep/v1/join-tokens";

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
    /// Who signs the certificates with which members trust each other
    #[command(after_help = authority::EXAMPLE)]
    Authority {
        #[command(subcommand)]
        verb: AuthorityVerb,
    },
    /// Make this machine's node the only one of its fleet, after a majority is lost for good
    #[command(after_help = recover::EXAMPLE)]
    Recover(RecoverArgs),
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
            Verb::Recover(args) => args.run(),
            Verb::Authority { verb } => verb.run(&client, format),
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

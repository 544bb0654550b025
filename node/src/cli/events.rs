//! `lockstep events`: what has happened, when, why and who asked.

use clap::Args;

use super::client::{escaped, typed_all};
use super::failure::Failure;
use super::output::{self, or_dash};
use super::{Remote, Scope};
use crate::api::types::EventRow;

const EXAMPLE: &str = "\
Examples:
  lockstep events
  lockstep events --link east-west --topic orders
  lockstep events --node node-2 --last 10 -o json";

/// As many as the API answers at once, at most.
const PAGE_MAX: usize = 1_000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct EventsCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    scope: Scope,
    /// Of this link
    #[arg(long, value_name = "LINK")]
    link: Option<String>,
    /// Of this mirror topic; its own newest 20 are kept whatever else happens
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// About this node, or decided by it
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// So many of the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    last: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number from 1 on".into()),
        Ok(number) => Ok(number),
    }
}

impl EventsCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Self { remote, scope, link, topic, node, last } = self;
        // The variable is for links: it doesn't hide what nodes do.
        let cluster = scope.cluster().filter(|_| link.is_some() || topic.is_some());
        let filters = [
            ("cluster", cluster),
            ("link", link.as_deref()),
            ("topic", topic.as_deref()),
            ("node", node.as_deref()),
        ];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let filters: String = filters.map(|(name, value)| format!("&{name}={}", escaped(value))).collect();
        let path = format!("/lockstep/v1/events?page_size={}{filters}", last.min(PAGE_MAX));
        let found = remote.client().first(&path, last)?;
        let rows: Vec<EventRow> = typed_all(&found)?;
        output::show(remote.output, &found.into(), || table(&rows))
    }
}

/// Oldest first: the newest stands where the eye is.
pub fn table(rows: &[EventRow]) -> String {
    let cells = rows.iter().rev().map(|row| {
        let words = [row.cause.clone(), row.cause_message.clone()];
        let words: Vec<String> = words.into_iter().flatten().collect();
        vec![
            output::time(row.time_ms),
            row.kind.clone(),
            subject(row),
            or_dash(row.from.as_ref()),
            or_dash(row.to.as_ref()),
            asked_by(row),
            or_dash(Some(words.join(": ")).filter(|words| !words.is_empty())),
        ]
    });
    output::table(&["TIME", "EVENT", "OF", "FROM", "TO", "ASKED BY", "CAUSE"], cells)
}

fn subject(row: &EventRow) -> String {
    let parts = [row.node.as_deref(), row.link.as_deref(), row.topic.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

fn asked_by(row: &EventRow) -> String {
    match (row.asked_by.as_str(), &row.asked_at) {
        ("OPERATOR", Some(node)) => format!("operator at {node}"),
        ("OPERATOR", None) => "operator".into(),
        ("NODE", Some(node)) => node.clone(),
        ("NODE", None) => "a node".into(),
        ("LINK", _) => "the link itself".into(),
        (other, _) => other.to_lowercase(),
    }
}

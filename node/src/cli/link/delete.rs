//! `lockstep link delete`: with `--failover-mirrors` its mirror topics are failed over first, which can't be taken
//! back, so they are shown with what they lose, and asked for.

use std::time::Duration;

use clap::Args;

use super::{Client, Failure, Remote, Scope, find, output, say, typed_all};
use crate::api::types::MirrorRow;
use crate::cli::mirror::stop;

/// A failover takes seconds where the destination answers.
const STOP_LIMIT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Args)]
pub struct Delete {
    name: String,
    #[command(flatten)]
    scope: Scope,
    /// Fail its mirror topics over first, with what they have; those that aren't set up yet are forgotten
    #[arg(long)]
    failover_mirrors: bool,
    /// Don't ask; required without a terminal
    #[arg(long)]
    yes: bool,
    /// Only say whether it could be done, and what would become of the mirror topics
    #[arg(long)]
    dry_run: bool,
}

impl Delete {
    pub fn run(self, remote: &Remote, client: &Client) -> Result<(), Failure> {
        let Self { name, scope, failover_mirrors, yes, dry_run } = self;
        let path = find(client, &name, &scope)?;
        let rows: Vec<MirrorRow> = match failover_mirrors {
            true => typed_all(&client.list(&format!("{path}/mirrors"))?)?,
            false => vec![],
        };
        let going: Vec<&MirrorRow> = rows.iter().filter(|row| row.mirror_status != "STOPPED").collect();
        if dry_run {
            let query = format!("validate_only=true&force={failover_mirrors}");
            let found = client.delete(&format!("{path}?{query}"))?;
            going.iter().for_each(|row| say(&format!("Would {}.", end_of(row))));
            say(&format!("Would delete link '{name}'."));
            return output::show(remote.output, &found, String::new);
        }
        output::confirm(&question(&name, &going), yes)?;
        if !going.is_empty() {
            let topics = going.iter().filter(|row| is_set_up(row)).map(|row| row.mirror_topic_name.clone());
            stop::fail_over(client, &format!("{path}/mirrors"), topics.collect(), STOP_LIMIT)?;
        }
        // With force also when all have STOPPED: one may have come in between.
        let found = client.delete(&format!("{path}?force={failover_mirrors}"))?;
        say(&format!("Deleted link '{name}'."));
        output::show(remote.output, &found, String::new)
    }
}

/// The others are the node's to judge.
fn is_set_up(row: &MirrorRow) -> bool {
    row.mirror_status != "PENDING_MIRROR"
}

pub fn question(link: &str, going: &[&MirrorRow]) -> String {
    if going.is_empty() {
        return format!("Delete link '{link}'?");
    }
    let ends: Vec<String> = going.iter().map(|row| end_of(row)).collect();
    format!("Delete link '{link}', and before that {}? This is final.", stop::named(&ends))
}

fn end_of(row: &MirrorRow) -> String {
    match is_set_up(row) {
        true => format!("fail over {}", stop::FAIL_OVER.with_lag(row)),
        false => format!("forget {}, which isn't set up", row.mirror_topic_name),
    }
}

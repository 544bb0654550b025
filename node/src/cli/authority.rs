//! `lockstep node authority …`: who signs the certificates with which members trust each other.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, escaped, typed, typed_all};
use super::failure::Failure;
use super::output::{self, Format, known};
use crate::api::types::AuthorityRow;

const AUTHORITIES: &str = "/lockstep/v1/authorities";

/// Between two looks at members that renew their certificates.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub const EXAMPLE: &str = "\
Examples:
  lockstep node authority list
  lockstep node authority rotate --wait       a new one; each member renews its certificate
  lockstep node authority remove ID           then: the old one is trusted no more";

const REMOVE_EXAMPLE: &str = "\
Example:
  lockstep node authority remove 3f5c0d0f8e2b7c1d9a6e4b3a2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d";

#[derive(Debug, Subcommand)]
pub enum AuthorityVerb {
    /// Authorities that members trust, and whose certificates each has signed
    #[command(after_help = "Example:\n  lockstep node authority list")]
    List,
    /// Make a new authority that signs from now on; the one before stays trusted until it is removed
    #[command(
        after_help = "Examples:\n  lockstep node authority rotate\n  lockstep node authority rotate --wait=60s --yes"
    )]
    Rotate {
        /// Wait until each member has a certificate of it, 60s unless told otherwise
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_name = "TIME")]
        wait: Option<humantime::Duration>,
        /// Don't ask; required without a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Trust an authority no more, once no member has a certificate of it
    #[command(after_help = REMOVE_EXAMPLE)]
    Remove {
        /// As 'lockstep node authority list' shows it
        id: String,
        /// Don't ask; required without a terminal
        #[arg(long)]
        yes: bool,
    },
}

impl AuthorityVerb {
    pub(super) fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::List => {
                let found = client.list(AUTHORITIES)?;
                let rows: Vec<AuthorityRow> = typed_all(&found)?;
                output::show(format, &Value::Array(found), || table(&rows))
            }
            Self::Rotate { wait, yes } => {
                output::confirm(ROTATE_QUESTION, yes)?;
                let found = client.post(AUTHORITIES, &Value::Null)?;
                let made: AuthorityRow = typed(&found)?;
                output::say(
                    "the new authority signs from now on; members renew their certificates as soon as all of \
                     them trust it",
                );
                output::show(format, &found, || made.authority_id.clone())?;
                if let Some(wait) = wait {
                    wait_until_held(client, &made.authority_id, *wait)?;
                    output::say("each member has a certificate of it: the old authority can be removed");
                }
                Ok(())
            }
            Self::Remove { id, yes } => {
                output::confirm(&remove_question(&id), yes)?;
                let found = client.delete(&format!("{AUTHORITIES}/{}", escaped(&id)))?;
                output::say(&format!("authority {id} is trusted no more"));
                output::show(format, &found, String::new)
            }
        }
    }
}

const ROTATE_QUESTION: &str = "A new authority is made, which signs the certificates of all members from now on. \
     The one before stays trusted until you remove it. This can't be undone, only done again.";

fn remove_question(id: &str) -> String {
    format!(
        "Authority {id} is to be trusted no more, for good. It is refused while a member has a certificate of it, \
         or doesn't say. Members close their connections and make them again."
    )
}

/// Waits until no member has, or may have, a certificate of another authority.
fn wait_until_held(client: &Client, id: &str, limit: Duration) -> Result<(), Failure> {
    let end = Instant::now() + limit;
    loop {
        let rows: Vec<AuthorityRow> = typed_all(&client.list(AUTHORITIES)?)?;
        let late = late(&rows, id);
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let message = format!("no certificate of the new authority yet: {}", late.join(", "));
            return Err(Failure::new(message).hint(
                "members go on trying; who doesn't answer keeps all from renewing: 'lockstep node list' says why, \
                 'lockstep node remove NAME --lost' goes on without it",
            ));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Members that have, or may have, a certificate of another authority.
pub(super) fn late(rows: &[AuthorityRow], id: &str) -> Vec<String> {
    let others = rows.iter().filter(|row| row.authority_id != id).flat_map(|row| row.held_by.clone());
    // The same in each row.
    let unknown = rows.iter().take(1).flat_map(|row| &row.not_known_of);
    others.chain(unknown.map(|name| format!("{name} (doesn't say)"))).collect()
}

pub(super) fn table(rows: &[AuthorityRow]) -> String {
    let row = |row: &AuthorityRow| {
        vec![
            row.authority_id.clone(),
            if row.signs { "yes" } else { "no" }.to_owned(),
            known(row.not_before.as_ref()),
            known(row.not_after.as_ref()),
            names(&row.held_by),
            names(&row.not_known_of),
        ]
    };
    output::table(
        &["AUTHORITY", "SIGNS", "VALID FROM", "VALID UNTIL", "SIGNED FOR", "NOT KNOWN OF"],
        rows.iter().map(row),
    )
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

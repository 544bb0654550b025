//! `lockstep mirror state-transition-error`: what went wrong with a mirror topic, and when.

use clap::Subcommand;

use super::{Client, Failure, MirrorRow, OfLink, Remote, output, typed};
use crate::api::types::TransitionErrorRow;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List its remembered failures and what couldn't be put right when it stopped, newest first
    #[command(after_help = "Example:\n  lockstep mirror state-transition-error list orders --link east-west")]
    List {
        topic: String,
        #[command(flatten)]
        of: OfLink,
    },
}

impl Verb {
    pub fn run(self, remote: &Remote, client: &Client) -> Result<(), Failure> {
        let Self::List { topic, of } = self;
        let path = of.topic_path(client, &topic)?;
        let found = client.get(&format!("{path}?include_state_transition_errors=true"))?;
        let row: MirrorRow = typed(&found)?;
        output::show(remote.output, &found["mirror_state_transition_errors"], || {
            table(&row.mirror_state_transition_errors)
        })
    }
}

pub fn table(rows: &[TransitionErrorRow]) -> String {
    let cells = rows
        .iter()
        .map(|row| vec![output::time(row.time_ms), row.error_code.clone(), row.error_message.clone()]);
    output::table(&["TIME", "ERROR", "MESSAGE"], cells)
}

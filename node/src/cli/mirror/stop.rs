//! `lockstep mirror promote`, `lockstep mirror failover`: what can't be taken back, so it is shown and asked
//! first, and waited for when that is wanted. Deleting a link with its mirrors is made of the same.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Client, Failure, MirrorRow, Remote, Several, escaped, known, output, say, total_lag, typed};
use crate::api::types::{AlterMirrorRow, AlterMirrors};

const POLL: Duration = Duration::from_millis(500);

/// As many as the API takes at once.
const TOPICS_MAX: usize = 1_000;

/// At most this many topics are named in a question.
const NAMED_MAX: usize = 20;

#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub several: Several,
    /// Wait until they have STOPPED, for so long at most
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Don't ask; required without a terminal
    #[arg(long)]
    yes: bool,
}

/// The words of one of the two.
pub struct Kind {
    action: &'static str,
    question: &'static str,
    would: &'static str,
    begun: &'static str,
    /// What a lag means for it.
    lag: &'static str,
}

pub const PROMOTE: Kind = Kind {
    action: "promote",
    question: "Promote",
    would: "Would promote",
    begun: "Promotes",
    lag: "to catch up",
};

pub const FAIL_OVER: Kind = Kind {
    action: "failover",
    question: "Fail over",
    would: "Would fail over",
    begun: "Fails over",
    lag: "to lose",
};

impl Stop {
    pub fn run(self, remote: &Remote, client: &Client, kind: &Kind) -> Result<(), Failure> {
        let Self { several, wait, yes } = self;
        let path = several.of.path(client)?;
        let ask = |validate_only: bool, body: &AlterMirrors| -> Result<_, Failure> {
            let answer =
                client.post(&format!("{path}:{}?validate_only={validate_only}", kind.action), body)?;
            let rows: Vec<AlterMirrorRow> = typed(&answer["data"])?;
            Ok((answer, rows))
        };
        let (answer, rows) = ask(true, &several.body())?;
        several.say_no_match(&rows);
        let mut refused = say_refused(&rows);
        let total = rows.len();
        let topics: Vec<String> = rows
            .into_iter()
            .filter(|row| row.error_code.is_none())
            .map(|row| row.mirror_topic_name)
            .collect();
        let shown = topics.iter().map(|topic| {
            let row: MirrorRow = typed(&client.get(&topic_path(&path, topic))?)?;
            Ok(kind.with_lag(&row))
        });
        let shown: Vec<String> = shown.collect::<Result<_, Failure>>()?;
        if several.dry_run {
            shown.iter().for_each(|topic| say(&format!("{} {topic}.", kind.would)));
            output::show(remote.output, &answer["data"], String::new)?;
        } else if !topics.is_empty() {
            output::confirm(&question(kind, &several.of.link, &shown), yes)?;
            // By name: a pattern might match what wasn't there when it was shown.
            let body = AlterMirrors { mirror_topic_names: Some(topics), mirror_topic_name_pattern: None };
            let (answer, rows) = ask(false, &body)?;
            refused += say_refused(&rows);
            let begun: Vec<String> = rows
                .into_iter()
                .filter(|row| row.error_code.is_none())
                .map(|row| row.mirror_topic_name)
                .collect();
            begun.iter().for_each(|topic| say(&format!("{} '{topic}'.", kind.begun)));
            output::show(remote.output, &answer["data"], String::new)?;
            if let Some(limit) = wait {
                wait_for(client, &path, begun, limit)?;
            }
        }
        match refused {
            0 => Ok(()),
            _ => Err(Failure::new(format!("{refused} of {total} mirror topics failed"))),
        }
    }
}

fn say_refused(rows: &[AlterMirrorRow]) -> usize {
    let refused = rows.iter().filter_map(|row| Some((&row.mirror_topic_name, row.error_message.as_ref()?)));
    refused.map(|(topic, message)| say(&format!("error: '{topic}': {message}"))).count()
}

impl Kind {
    pub fn with_lag(&self, row: &MirrorRow) -> String {
        format!("{} ({} offsets {})", row.mirror_topic_name, known(total_lag(&row.mirror_lags)), self.lag)
    }
}

/// Fails mirror topics over and waits until they have STOPPED. What is refused is left to the caller.
pub fn fail_over(
    client: &Client,
    mirrors: &str,
    topics: Vec<String>,
    limit: Duration,
) -> Result<(), Failure> {
    let mut begun = Vec::new();
    for some in topics.chunks(TOPICS_MAX) {
        let body = AlterMirrors { mirror_topic_names: Some(some.to_vec()), mirror_topic_name_pattern: None };
        let answer = client.post(&format!("{mirrors}:{}", FAIL_OVER.action), &body)?;
        let rows: Vec<AlterMirrorRow> = typed(&answer["data"])?;
        let taken = rows.into_iter().filter(|row| row.error_code.is_none());
        begun.extend(taken.map(|row| row.mirror_topic_name));
    }
    wait_for(client, mirrors, begun, limit)
}

fn topic_path(mirrors: &str, topic: &str) -> String {
    format!("{mirrors}/{}", escaped(topic))
}

fn question(kind: &Kind, link: &str, shown: &[String]) -> String {
    format!("{} {} of link '{link}'? This is final.", kind.question, named(shown))
}

/// The first of them by name, the others by number.
pub fn named(shown: &[String]) -> String {
    let named: Vec<&str> = shown.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = match shown.len().checked_sub(NAMED_MAX) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

/// Polls until all have STOPPED, telling what each waits for as that changes.
fn wait_for(client: &Client, mirrors: &str, topics: Vec<String>, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let mut waiting: BTreeMap<String, String> =
        topics.into_iter().map(|topic| (topic, String::new())).collect();
    loop {
        let mut left = BTreeMap::new();
        for (topic, told) in waiting {
            let row: MirrorRow = typed(&client.get(&topic_path(mirrors, &topic))?)?;
            match row.mirror_status.as_str() {
                "STOPPED" => say(&format!("'{topic}' has STOPPED; {}.", fate(&row))),
                "PENDING_STOPPED" => {
                    let now = row.waiting_for.unwrap_or_else(|| "its fence".into());
                    if now != told {
                        say(&format!("'{topic}' waits for {now}"));
                    }
                    left.insert(topic, now);
                }
                other => {
                    let why =
                        row.mirror_topic_error_message.map(|why| format!(": {why}")).unwrap_or_default();
                    return Err(Failure::new(format!(
                        "mirror topic '{topic}' is {other} and won't stop{why}"
                    )));
                }
            }
        }
        waiting = left;
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let named: Vec<String> =
                waiting.iter().map(|(topic, what)| format!("'{topic}' ({what})")).collect();
            let message =
                format!("not STOPPED within {limit:?}; they go on by themselves: {}", named.join(", "));
            return Err(Failure::new(message));
        }
        thread::sleep(POLL);
    }
}

fn fate(row: &MirrorRow) -> String {
    let lost = match total_lag(&row.mirror_lags) {
        Some(0) => "it has all that the source had".to_owned(),
        Some(lost) => format!("{lost} offsets of the source are not in it"),
        None => "the source didn't answer: what it had beyond isn't known".to_owned(),
    };
    let remarks: Vec<String> =
        row.mirror_state_transition_errors.iter().map(|error| error.error_message.clone()).collect();
    std::iter::once(lost).chain(remarks).collect::<Vec<_>>().join("; ")
}

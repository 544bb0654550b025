//! Data to stdout as people or programs want it; words to stderr.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Human,
    Json,
    Yaml,
}

/// Shows data: for people as `human` writes it, for programs as it is.
pub fn show(format: Format, data: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
    let text = match format {
        Format::Human => human(),
        Format::Json => {
            serde_json::to_string_pretty(data).map_err(|e| Failure::new(format!("can't write JSON: {e}")))?
        }
        Format::Yaml => {
            serde_saphyr::to_string(data).map_err(|e| Failure::new(format!("can't write YAML: {e}")))?
        }
    };
    let text = text.trim_end();
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(io::stdout().lock(), "{text}") {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::new(format!("can't write to stdout: {e}"))),
    }
}

/// A sentence for people.
pub fn say(words: &str) {
    // Nobody is left to tell that nobody listens.
    let _ = writeln!(io::stderr().lock(), "{words}");
}

pub fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
}

/// A yes before something that can't be taken back.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Without a terminal to ask on, this needs --yes")));
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) => Ok(()),
        _ => Err(Failure::new("not done: the answer was not yes")),
    }
}

/// A table without lines, one row a line, never wrapped: for eyes and for `grep`.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    lines(&table.to_string())
}

/// Names and values, one a line.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:width$}{value}")).collect();
    self::lines(&lines.join("\n"))
}

/// Without the padding at the ends of lines.
fn lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end().trim_start_matches(' ')).collect();
    lines.join("\n")
}

/// Of milliseconds since 1970, RFC 3339.
pub fn time(ms: i64) -> String {
    let since_1970 = u64::try_from(ms).map(Duration::from_millis).unwrap_or_default();
    let at = UNIX_EPOCH.checked_add(since_1970);
    known(at.map(humantime::format_rfc3339_millis))
}

/// A value, or that it isn't known.
pub fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

/// A value, or a dash where there is none.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

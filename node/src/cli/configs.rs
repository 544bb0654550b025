//! `--config`: pairs on the command line, or a properties file.

use std::io::Read as _;
use std::path::Path;

use clap::Args;

use super::failure::Failure;
use super::properties;
use crate::api::types::{ConfigChange, ConfigEntry, ConfigOperation};

/// Changes to a configuration that stands.
#[derive(Debug, Args)]
pub struct Changes {
    /// Keys to set: k=v,… or a properties file, - for stdin; may be repeated
    #[arg(long, value_name = "K=V,…|FILE")]
    config: Vec<String>,
    /// Keys to set back to their defaults
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    delete_config: Vec<String>,
}

impl Changes {
    /// With what other flags set beside them.
    pub fn read(&self, more: Option<ConfigEntry>) -> Result<Vec<ConfigChange>, Failure> {
        let sets = read_all(&self.config)?.into_iter().chain(more).map(|ConfigEntry { name, value }| {
            ConfigChange { name, value: Some(value), operation: ConfigOperation::Set }
        });
        let deletes = self.delete_config.iter().map(|name| ConfigChange {
            name: name.trim().to_owned(),
            value: None,
            operation: ConfigOperation::Delete,
        });
        let changes: Vec<ConfigChange> = sets.chain(deletes).collect();
        if changes.is_empty() {
            return Err(Failure::usage("nothing to change: give --config or --delete-config"));
        }
        Ok(changes)
    }
}

/// Reads `k=v,k2=v2`, the path of a properties file, or `-` for one on stdin.
pub fn read(argument: &str) -> Result<Vec<ConfigEntry>, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("--config {argument}: {e}"));
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
        return properties(&text);
    }
    if Path::new(argument).is_file() {
        return properties(&std::fs::read_to_string(argument).map_err(failed)?);
    }
    if !argument.contains('=') {
        return Err(Failure::usage(format!("--config {argument}: neither a file nor key=value pairs")));
    }
    pairs(argument)
}

pub fn read_all(arguments: &[String]) -> Result<Vec<ConfigEntry>, Failure> {
    let all = arguments.iter().map(|argument| read(argument)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

/// A part without `=` belongs to the value before it: `bootstrap.servers=a:1,b:2`.
fn pairs(text: &str) -> Result<Vec<ConfigEntry>, Failure> {
    let mut entries: Vec<ConfigEntry> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('='), entries.last_mut()) {
            (Some((name, value)), _) => entries.push(entry(name, value)?),
            (None, Some(last)) => last.value = format!("{},{part}", last.value),
            (None, None) => return Err(Failure::usage(format!("--config: '{part}' is not key=value"))),
        }
    }
    Ok(entries)
}

fn properties(text: &str) -> Result<Vec<ConfigEntry>, Failure> {
    let pairs = properties::parse(text).map_err(|reason| Failure::usage(format!("--config: {reason}")))?;
    Ok(pairs.into_iter().map(|(name, value)| ConfigEntry { name, value }).collect())
}

fn entry(name: &str, value: &str) -> Result<ConfigEntry, Failure> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Failure::usage("--config: a value without a key"));
    }
    Ok(ConfigEntry { name: name.to_owned(), value: value.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(entries: Result<Vec<ConfigEntry>, Failure>) -> Vec<String> {
        entries.expect("entries").iter().map(|e| format!("{} -> {}", e.name, e.value)).collect()
    }

    #[test]
    fn pairs_may_have_commas_in_their_values() {
        assert_eq!(
            shown(read("bootstrap.servers=a:1,b:2, client.id = x")),
            ["bootstrap.servers -> a:1,b:2", "client.id -> x"]
        );
    }

    #[test]
    fn a_properties_file_is_read_as_java_reads_it() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("client.properties");
        let text = "# east\n\n! too\nbootstrap.servers = a:1,\\\n    b:2\nclient.id: x\nkey=v=w";
        std::fs::write(&file, text).expect("file");
        assert_eq!(
            shown(read(&file.display().to_string())),
            ["bootstrap.servers -> a:1,b:2", "client.id -> x", "key -> v=w"]
        );
    }

    #[test]
    fn changes_are_what_is_set_then_what_is_set_back() {
        let changes = |config: &[&str], delete_config: &[&str]| Changes {
            config: config.iter().map(ToString::to_string).collect(),
            delete_config: delete_config.iter().map(ToString::to_string).collect(),
        };
        let servers = ConfigEntry { name: "bootstrap.servers".into(), value: "a:1".into() };
        let read = changes(&["client.id=x"], &["sasl.username"]).read(Some(servers)).expect("changes");
        let shown = serde_json::to_value(read).expect("JSON");
        let expected = serde_json::json!([
            {"name": "client.id", "value": "x", "operation": "SET"},
            {"name": "bootstrap.servers", "value": "a:1", "operation": "SET"},
            {"name": "sasl.username", "operation": "DELETE"},
        ]);
        assert_eq!(shown, expected);
        let failure = changes(&[], &[]).read(None).expect_err("nothing");
        assert_eq!(failure, Failure::usage("nothing to change: give --config or --delete-config"));
    }

    #[test]
    fn what_is_neither_file_nor_pairs_is_named() {
        let failure = read("no-such-file").expect_err("neither");
        assert_eq!(failure.message, "--config no-such-file: neither a file nor key=value pairs");
    }
}

//! The client whose latency is at stake: `raw-path pace`, followed second by second.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What it tells of a second; the warm-up's have negative numbers.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Second {
    pub second: i64,
    pub p99_ms: f64,
}

/// What it tells of all seconds behind the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Whole {
    pub bytes: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Line {
    Second(Second),
    Whole(Whole),
}

/// Runs the client to its end. Told of each second as it ends, the warm-up's too.
pub fn run(command: &mut Command, ended: &mut impl FnMut(Second) -> Result<()>) -> Result<Whole> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the client")?;
    let told = follow(&mut child, ended);
    if told.is_err() {
        child.kill().context("end the client")?;
    }
    let status = child.wait().context("wait for the client")?;
    ensure!(told.is_err() || status.success(), "the client ended with {status}");
    told?.context("the client ended without a word on all seconds")
}

fn follow(child: &mut Child, ended: &mut impl FnMut(Second) -> Result<()>) -> Result<Option<Whole>> {
    let output = child.stdout.take().context("the client has no output")?;
    let mut whole = None;
    for line in BufReader::new(output).lines() {
        match parse(&line.context("read what the client says")?)? {
            Line::Second(second) => ended(second)?,
            Line::Whole(found) => whole = Some(found),
        }
    }
    Ok(whole)
}

fn parse(line: &str) -> Result<Line> {
    serde_json::from_str(line).with_context(|| format!("the client says {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(lines: &str) -> (Vec<i64>, Result<Whole>) {
        let mut seconds = Vec::new();
        let whole = run(Command::new("printf").arg(lines), &mut |second| {
            seconds.push(second.second);
            Ok(())
        });
        (seconds, whole)
    }

    #[test]
    fn a_client_is_followed_to_its_end() {
        let second =
            |number| format!(r#"{{"second":{number},"batches":9,"p50_ms":1,"p99_ms":2,"max_ms":3}}\n"#);
        let whole = r#"{"batches":18,"bytes":900,"p50_ms":1,"p99_ms":2,"p999_ms":3,"max_ms":4}\n"#;
        let (seconds, said) = say(&format!("{}{}{whole}", second(-1), second(0)));
        assert_eq!(seconds, [-1, 0]);
        assert_eq!(
            said.unwrap(),
            Whole { bytes: 900.0, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, max_ms: 4.0 }
        );
        assert!(say(&second(0)).1.is_err(), "without the whole");
        assert!(say("nonsense").1.is_err());
    }
}

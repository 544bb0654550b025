//! The example settings, and the facts that several files of `deploy/` must agree on.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::findings::{Findings, Outcome};
use super::folder;
use super::known::Known;

/// In the container file, the compose file and the chart.
const IMAGE_USER: &str = "10001";
const IMAGE_DATA_DIR: &str = "/var/lib/lockstep";

pub fn check(known: &Known) -> Result<Outcome> {
    let read =
        |path: &str| fs::read_to_string(folder().join(path)).with_context(|| format!("read deploy/{path}"));
    let mut findings = Findings::default();
    known.note().into_iter().for_each(|note| findings.tell(note));
    findings.take("lockstep.toml", node_file(&read("systemd/lockstep.toml")?, known));
    findings.take("lockstep.env", variables(&read("systemd/lockstep.env")?, known));
    findings.take("Containerfile", container(&read("container/Containerfile")?, known));
    findings.take("Chart.yaml", versions(&read("helm/lockstep/Chart.yaml")?));

    let mut caught = |what: &str, wrong: Vec<String>| {
        findings.expect(!wrong.is_empty(), format!("planted and not caught: {what}"));
    };
    caught("a misspelt key", node_file("data_dri = '/'\n", known).wrong);
    caught("a misspelt variable", variables("LOCKSTEP_LOGS=info\n", known).wrong);
    caught("an image that runs as root", container("USER 0\n", known).wrong);
    Ok(Outcome::Judged(findings))
}

/// As it is, and with each setting that is commented out.
fn node_file(text: &str, known: &Known) -> Findings {
    let mut findings = Findings::default();
    known.toml(text, &mut findings);
    let offered = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| is_setting(line));
    for line in offered {
        known.toml(line, &mut findings);
    }
    findings
}

/// Words and an equals sign are prose; one word before it is a setting.
fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ') && !key.contains('`'))
}

fn variables(text: &str, known: &Known) -> Findings {
    let mut findings = Findings::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some((name, _)) => known.variable(name, &mut findings),
            None => findings.expect(false, format!("{line} is no NAME=VALUE")),
        }
    }
    findings
}

fn container(text: &str, known: &Known) -> Findings {
    let mut findings = Findings::default();
    let instructions: Vec<&str> = text.lines().collect();
    let has = |wanted: String| instructions.contains(&wanted.as_str());
    findings.expect(has(format!("USER {IMAGE_USER}:{IMAGE_USER}")), format!("runs not as {IMAGE_USER}"));
    findings.expect(has(format!("VOLUME {IMAGE_DATA_DIR}")), format!("{IMAGE_DATA_DIR} is no volume"));
    findings.expect(has(format!("ENV LOCKSTEP_DATA_DIR={IMAGE_DATA_DIR}")), "the data is not in the volume");
    for line in instructions.iter().filter_map(|line| line.strip_prefix("ENV ")) {
        findings.take("ENV", variables(line, known));
    }
    findings
}

/// One version in all of the repository.
fn versions(chart: &str) -> Findings {
    let mut findings = Findings::default();
    let chart: Value = serde_saphyr::from_str(chart).unwrap_or_default();
    for key in ["version", "appVersion"] {
        let is_ours = chart.get(key).and_then(Value::as_str) == Some(env!("CARGO_PKG_VERSION"));
        findings.expect(is_ours, format!("{key} isn't the workspace's {}", env!("CARGO_PKG_VERSION")));
    }
    findings
}

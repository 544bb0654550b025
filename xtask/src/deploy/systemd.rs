//! The unit: systemd's own tool reads it in a root of its own, and says how exposed the service is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::findings::{Findings, Outcome};
use super::{folder, scratch, tools};
use crate::exec;

const UNIT: &str = "lockstep.service";
/// In tenths, from 0 to 100. systemd 252 gives the unit 11, all of it for talking to brokers anywhere; other
/// versions weigh a little differently.
const EXPOSURE_MAX: u32 = 15;
/// Where the files of other units are, which ours names.
const SYSTEM_UNITS: &str = "/lib/systemd/system";
/// A stop hands mirrors over within 10 s, and starts after it.
const STOP_SECONDS_MIN: u32 = 15;

/// A change of the unit, and what must come of it.
const PLANTED: [(&str, &str, &str); 5] = [
    ("a key that systemd doesn't know", "RestartSec=", "RestarSec="),
    ("a binary that isn't there", "/usr/bin/lockstep ", "/usr/bin/locstep "),
    ("a sandbox with a hole", "\nCapabilityBoundingSet=\n", "\n"),
    ("a stop that is cut short", "TimeoutStopSec=30s", "TimeoutStopSec=5s"),
    ("a data directory that can't be written", "StateDirectory=lockstep", "StateDirectory=other"),
];

pub fn check() -> Result<Outcome> {
    let analyze = match tools::on_path("systemd-analyze") {
        Ok(analyze) => analyze,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let unit = fs::read_to_string(folder().join("systemd").join(UNIT)).context("read the unit")?;
    let data_dir = examples_data_dir()?;
    let root = stage()?;
    let mut findings = judge(&analyze, &root, &unit, &data_dir)?;
    for (what, from, to) in PLANTED {
        let planted = unit.replacen(from, to, 1);
        let is_caught = planted != unit && !judge(&analyze, &root, &planted, &data_dir)?.wrong.is_empty();
        findings.expect(is_caught, format!("planted and not caught: {what}"));
    }
    Ok(Outcome::Judged(findings))
}

fn examples_data_dir() -> Result<String> {
    let example = fs::read_to_string(folder().join("systemd").join("lockstep.toml"))?;
    let table: toml::Table = example.parse().context("read lockstep.toml")?;
    Ok(table.get("data_dir").and_then(|dir| dir.as_str()).unwrap_or_default().to_owned())
}

/// The folders of a machine on which the package is installed.
fn stage() -> Result<PathBuf> {
    let root = scratch("systemd")?;
    let (binaries, units) = (root.join("usr/bin"), root.join("usr/lib/systemd"));
    fs::create_dir_all(&binaries)?;
    fs::create_dir_all(&units)?;
    fs::create_dir_all(root.join("etc/systemd/system"))?;
    std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    exec::run(Command::new("cp").args(["-rL", SYSTEM_UNITS]).arg(&units))?;
    let binary = binaries.join("lockstep");
    fs::write(&binary, "#!/bin/sh\n")?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    Ok(root)
}

fn judge(analyze: &Path, root: &Path, unit: &str, data_dir: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    fs::write(root.join("etc/systemd/system").join(UNIT), unit)?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(analyze);
        exec::capture(command.args(arguments).arg("--root").arg(root).arg("--no-pager").arg(UNIT))
    };
    // Some versions only warn of keys that they don't know.
    let (is_fine, said) = run(&["verify", "--man=no", "--recursive-errors=no"])?;
    findings.expect(is_fine && said.trim().is_empty(), format!("systemd-analyze verify: {}", said.trim()));

    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let (is_fine, said) = run(&["security", "--offline=true", &threshold])?;
    let verdict = said.lines().find(|line| line.contains("exposure level")).unwrap_or(&said).trim();
    findings.expect(is_fine, format!("systemd-analyze security, above {EXPOSURE_MAX} tenths: {verdict}"));
    findings.tell(format!("systemd-analyze verify has nothing to say; security: {verdict}"));

    let stop_seconds = value(unit, "TimeoutStopSec").trim_end_matches('s').parse::<u32>().unwrap_or_default();
    findings.expect(stop_seconds >= STOP_SECONDS_MIN, "TimeoutStopSec is too short for a hand-over");
    let state_dir = format!("/var/lib/{}", value(unit, "StateDirectory"));
    findings.expect(state_dir == data_dir, format!("data_dir {data_dir} isn't the unit's state directory"));
    Ok(findings)
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.find(|(found, _)| *found == key).map(|(_, value)| value).unwrap_or_default()
}

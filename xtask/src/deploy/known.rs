//! The settings that a node takes, as its own `--help` lists them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::findings::Findings;
use crate::exec;

const PREFIX: &str = "LOCKSTEP_";

/// Settings of a fleet of several nodes, which `deploy/` is written for. A binary that knows one of them
/// must know all; one that knows none is of a version in which one node is a whole fleet.
const FLEET: [&str; 3] = ["LOCKSTEP_ADVERTISE", "LOCKSTEP_JOIN", "LOCKSTEP_JOIN_TOKEN_FILE"];

pub struct Known {
    variables: BTreeSet<String>,
    has_fleet: bool,
}

impl Known {
    pub fn ask(binary: &Path) -> Result<Self> {
        let (is_fine, help) = exec::capture(Command::new(binary).args(["server", "--help"]))?;
        ensure!(is_fine, "`{} server --help` failed: {help}", binary.display());
        let known = Self::from_help(&help);
        ensure!(!known.variables.is_empty(), "`{} server --help` names no variables", binary.display());
        Ok(known)
    }

    pub fn from_help(help: &str) -> Self {
        let named = help.split("[env: ").skip(1).filter_map(|text| text.split([']', '=']).next());
        let mut variables: BTreeSet<String> = named.map(|name| name.trim().to_owned()).collect();
        let has_fleet = FLEET.iter().any(|name| variables.contains(*name));
        if !has_fleet {
            variables.extend(FLEET.map(str::to_owned));
        }
        Self { variables, has_fleet }
    }

    /// What is to be said once.
    pub fn note(&self) -> Option<String> {
        (!self.has_fleet).then(|| {
            format!("this binary founds fleets of one: its word on {} was NOT asked for", FLEET.join(", "))
        })
    }

    /// Variables that are meant for a node, and none that it doesn't take.
    pub fn variable(&self, name: &str, findings: &mut Findings) {
        if name.starts_with(PREFIX) && !self.variables.contains(name) {
            findings.expect(false, format!("{name} is no variable of `lockstep server`"));
        }
    }

    /// A key of the TOML file.
    pub fn key(&self, key: &str, findings: &mut Findings) {
        let variable = format!("{PREFIX}{}", key.to_uppercase());
        let is_known = self.variables.contains(&variable);
        findings.expect(is_known, format!("{key} is no setting of `lockstep server`"));
    }

    /// All keys of a TOML text.
    pub fn toml(&self, text: &str, findings: &mut Findings) -> toml::Table {
        match text.parse::<toml::Table>() {
            Ok(table) => {
                table.keys().for_each(|key| self.key(key, findings));
                table
            }
            Err(error) => {
                findings.expect(false, format!("isn't TOML: {error}"));
                toml::Table::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: &str = "--listen <A> Where [env: LOCKSTEP_LISTEN]\n--log <F> Which [env: LOCKSTEP_LOG]\n";

    #[test]
    fn a_setting_that_the_node_does_not_take_is_found() {
        let known = Known::from_help(TODAY);
        let mut findings = Findings::default();
        known.variable("LOCKSTEP_LISTEN", &mut findings);
        known.variable("PATH", &mut findings);
        known.toml("log = 'info'\nlisten = 'a'", &mut findings);
        assert!(findings.wrong.is_empty(), "{findings:?}");
        known.variable("LOCKSTEP_LISTENS", &mut findings);
        known.toml("logs = 'info'", &mut findings);
        known.toml("log: info", &mut findings);
        assert_eq!(findings.wrong.len(), 3, "{findings:?}");
    }

    #[test]
    fn a_node_that_knows_a_part_of_the_fleets_settings_must_know_all() {
        let without = Known::from_help(TODAY);
        assert!(without.note().is_some());
        let mut findings = Findings::default();
        without.key("join", &mut findings);
        assert!(findings.wrong.is_empty());
        let with = Known::from_help(&format!("{TODAY}--advertise <A> [env: LOCKSTEP_ADVERTISE]"));
        assert!(with.note().is_none());
        with.key("join", &mut findings);
        assert_eq!(findings.wrong, ["join is no setting of `lockstep server`"]);
    }
}

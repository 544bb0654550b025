//! Programs that judge files of `deploy/`. Each is found or installed, or else the reason says why not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use harness::workspace_root;

use crate::exec;

const HELM_MODULE: &str = "helm.sh/helm/v4/cmd/helm";
const HELM_VERSION: &str = "v4.3.1";
/// What Helm's module asks for; an older Go would fetch another toolchain.
const GO_MINOR_MIN: u32 = 26;

/// Knows Kubernetes' own definitions, those of many versions, without asking a network.
const VALIDATOR: &str = "kubernetes-validate";
const VALIDATOR_VERSION: &str = "1.37.0";

/// A program, or why it isn't there.
pub type Found = Result<PathBuf, String>;

pub fn on_path(program: &str) -> Found {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).ok_or_else(|| format!("{program} isn't installed"))
}

/// Kept between checks, one folder a version.
fn home(tool: &str, version: &str) -> PathBuf {
    workspace_root().join("target").join("tools").join(format!("{tool}-{version}"))
}

/// Built by Go from its module, at first: minutes.
pub fn helm() -> Result<Found> {
    let folder = home("helm", HELM_VERSION);
    let helm = folder.join("helm");
    if helm.is_file() {
        return Ok(Ok(helm));
    }
    let go = match on_path("go") {
        Ok(go) => go,
        Err(why) => return Ok(Err(format!("no helm: {why}"))),
    };
    let (_, version) =
        exec::capture(Command::new(&go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    if go_minor(version.trim()).is_none_or(|minor| minor < GO_MINOR_MIN) {
        return Ok(Err(format!("no helm: it needs Go 1.{GO_MINOR_MIN}, here is {}", version.trim())));
    }
    let mut install = Command::new(&go);
    install.args(["install", &format!("{HELM_MODULE}@{HELM_VERSION}")]);
    exec::run(install.env("GOBIN", &folder).env("GOTOOLCHAIN", "local"))?;
    Ok(Ok(helm))
}

/// From a line like `go1.26.8`.
fn go_minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Installed by pip, into a folder of its own.
pub fn kubernetes_validate() -> Result<Found> {
    let folder = home(VALIDATOR, VALIDATOR_VERSION);
    let program = folder.join("bin").join(VALIDATOR);
    if program.is_file() {
        return Ok(Ok(program));
    }
    let python = match on_path("python3") {
        Ok(python) => python,
        Err(why) => return Ok(Err(format!("no {VALIDATOR}: {why}"))),
    };
    let (has_venv, _) = exec::capture(Command::new(&python).args(["-c", "import ensurepip, venv"]))?;
    if !has_venv {
        return Ok(Err(format!("no {VALIDATOR}: Python lacks venv (Debian: python3-venv)")));
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    exec::run(Command::new(&python).args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin").join("pip"));
    exec::run(pip.args(["install", "--quiet", &format!("{VALIDATOR}=={VALIDATOR_VERSION}")]))?;
    Ok(Ok(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_of_go_is_read() {
        assert_eq!(go_minor("go1.26.8"), Some(26));
        assert_eq!(go_minor("go1.19"), Some(19));
        assert_eq!(go_minor("devel"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        assert_eq!(on_path("no-such-program"), Err("no-such-program isn't installed".to_owned()));
        assert!(on_path("sh").is_ok());
    }
}

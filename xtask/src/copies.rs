//! Other commits beside this checkout, each in a folder of its own below `target/`: what is built of them
//! must never be taken for the product.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use harness::workspace_root;

use crate::exec;

/// What git prints; anything but success is an error.
pub fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let (is_fine, text) = exec::capture(Command::new("git").args(arguments).current_dir(folder))?;
    ensure!(is_fine, "git {}: {}", arguments.join(" "), text.trim());
    Ok(text.trim().to_owned())
}

/// The files of a commit, in `target/FOLDER/workspace`.
pub fn check_out(revision: &str, folder: &Path) -> Result<PathBuf> {
    let root = workspace_root();
    let copy = folder.join("workspace");
    let commit = git(&root, &["rev-parse", "--verify", &format!("{revision}^{{commit}}")])?;
    if copy.join(".git").exists() {
        git(&copy, &["checkout", "--quiet", "--force", "--detach", &commit])?;
    } else {
        git(&root, &["worktree", "prune"])?;
        let shown = copy.to_string_lossy();
        git(&root, &["worktree", "add", "--quiet", "--force", "--detach", &shown, &commit])?;
    }
    Ok(copy)
}

/// Where the copies and builds of this name are.
pub fn folder(name: &str) -> PathBuf {
    workspace_root().join("target").join(name)
}

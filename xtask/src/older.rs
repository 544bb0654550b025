//! The binary of an older commit, for tests in which it and this one are one fleet.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{copies, exec};

const FOLDER: &str = "older";

/// Builds the product as it was at `revision`.
pub fn build(revision: &str) -> Result<PathBuf> {
    let folder = copies::folder(FOLDER);
    let copy = copies::check_out(revision, &folder)?;
    let mut build = exec::cargo(&["build", "--release", "-p", "lockstep"]);
    exec::run(build.current_dir(&copy).env("CARGO_TARGET_DIR", &folder))
        .with_context(|| format!("{revision} doesn't build"))?;
    let binary = folder.join("release").join("lockstep");
    ensure!(binary.is_file(), "the build left no {}", binary.display());
    Ok(binary)
}

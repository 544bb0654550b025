//! `cargo xtask sim mutants`: known bugs are put back, one at a time, into a copy of the workspace, and the
//! simulation must catch each. A net that catches nothing proves nothing.
//!
//! Each bug is a patch in `sim/mutants/`. One that no longer applies fails the command: then the code that
//! it breaks has changed, and the patch must follow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::workspace_root;

use crate::copies::{self, git};
use crate::exec;
use crate::sim::PROFILE;

/// Beside the workspace's own builds: a mutant must never be taken for the product.
const FOLDER: &str = "mutants";

struct Mutant {
    name: String,
    patch: PathBuf,
}

/// # Errors
/// When a mutant isn't caught by one of `count` seeds from `first` on, or a patch doesn't apply.
pub fn run(first: u64, count: u64) -> Result<()> {
    // Changes that aren't in the last commit are none that a mutant is judged by.
    let copy = copies::check_out("HEAD", &copies::folder(FOLDER))?;
    let mut missed = Vec::new();
    for mutant in mutants()? {
        let binary = build(&copy, &mutant)?;
        match hunt(&binary, first, count)? {
            Some((seed, why)) => println!("{}: caught by seed {seed}: {why}", mutant.name),
            None => {
                println!("{}: NOT caught by {count} seeds from {first} on", mutant.name);
                missed.push(mutant.name);
            }
        }
    }
    ensure!(missed.is_empty(), "not caught: {missed:?}");
    Ok(())
}

fn mutants() -> Result<Vec<Mutant>> {
    let folder = workspace_root().join("sim").join("mutants");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let patch = entry?.path();
        if patch.extension().is_some_and(|extension| extension == "patch") {
            let name = patch.file_stem().map(|name| name.to_string_lossy().into_owned());
            found.push(Mutant { name: name.unwrap_or_default(), patch });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!found.is_empty(), "no patches in {}", folder.display());
    Ok(found)
}

fn build(copy: &Path, mutant: &Mutant) -> Result<PathBuf> {
    git(copy, &["checkout", "--quiet", "--", "."])?;
    git(copy, &["apply", &mutant.patch.to_string_lossy()])
        .with_context(|| format!("{} no longer applies", mutant.patch.display()))?;
    let target = copies::folder(FOLDER);
    let built = exec::run(
        exec::cargo(&["build", "--package", "sim", "--profile", PROFILE])
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", &target),
    );
    git(copy, &["checkout", "--quiet", "--", "."])?;
    built.with_context(|| format!("{} doesn't build", mutant.name))?;
    Ok(target.join(PROFILE).join("sim"))
}

/// The first seed that an invariant fails, and what it says.
fn hunt(binary: &Path, first: u64, count: u64) -> Result<Option<(u64, String)>> {
    for seed in (0..count).map(|place| first.wrapping_add(place)) {
        let output = Command::new(binary).args(["one", "--seed", &seed.to_string()]).output()?;
        if output.status.success() {
            continue;
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let said = text.lines().find_map(|line| line.split_once(&format!("seed {seed}: ")));
        let Some((_, why)) = said.filter(|(_, why)| why.contains(" is violated: ")) else {
            bail!("seed {seed} fails by no invariant: {}", text.trim());
        };
        return Ok(Some((seed, why.to_owned())));
    }
    Ok(None)
}

//! `cargo xtask sim mutants`: known bugs are put back, one at a time, into a copy of the workspace, and the
//! simulation must catch each. A net that catches nothing proves nothing.
//!
//! Each bug is a patch in `sim/mutants/`. One that no longer applies fails the command: then the code that
//! it breaks has changed, and the patch must follow.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
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
/// When one of them (all, if none is named) isn't caught by an invariant within `count` seeds from `first`
/// on, or a patch doesn't apply.
pub fn run(named: &[String], first: u64, count: u64) -> Result<()> {
    let chosen = choose(mutants()?, named)?;
    // Changes that aren't in the last commit are none that a mutant is judged by.
    let copy = copies::check_out("HEAD", &copies::folder(FOLDER))?;
    let mut missed = Vec::new();
    for mutant in chosen {
        let binary = build(&copy, &mutant)?;
        let is_caught = match hunt(&binary, first, count)? {
            Some(found) => {
                println!("{}: {found}", mutant.name);
                found.is_by_invariant()
            }
            None => {
                println!("{}: NOT caught by {count} seeds from {first} on", mutant.name);
                false
            }
        };
        if !is_caught {
            missed.push(mutant.name);
        }
    }
    ensure!(missed.is_empty(), "not caught: {missed:?}");
    Ok(())
}

fn choose(all: Vec<Mutant>, named: &[String]) -> Result<Vec<Mutant>> {
    for name in named {
        ensure!(all.iter().any(|mutant| mutant.name == *name), "no patch sim/mutants/{name}.patch");
    }
    Ok(all.into_iter().filter(|mutant| named.is_empty() || named.contains(&mutant.name)).collect())
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
            .env("CARGO_TARGET_DIR", &target)
            // A patch changes a few lines: what else a crate holds needn't be compiled again.
            .env("CARGO_INCREMENTAL", "1"),
    );
    git(copy, &["checkout", "--quiet", "--", "."])?;
    built.with_context(|| format!("{} doesn't build", mutant.name))?;
    Ok(target.join(PROFILE).join("sim"))
}

/// What the first seed that fails said.
struct Found {
    seed: u64,
    why: String,
}

impl Found {
    /// A bug that a panic or a hang gives away shows nothing of the invariants.
    fn is_by_invariant(&self) -> bool {
        self.why.contains(" is violated: ")
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, why } = self;
        if self.is_by_invariant() {
            write!(f, "caught by seed {seed}: {why}")
        } else {
            write!(f, "NOT caught: seed {seed} fails by no invariant: {why}")
        }
    }
}

/// The first seed that fails, as many at once as there are processors.
fn hunt(binary: &Path, first: u64, count: u64) -> Result<Option<Found>> {
    let next = AtomicU64::new(0);
    let is_found = AtomicBool::new(false);
    let hunter = || -> Result<Option<Found>> {
        while !is_found.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count {
                break;
            }
            let found = run_one(binary, first.wrapping_add(place))?;
            if found.is_some() {
                is_found.store(true, Ordering::Relaxed);
                return Ok(found);
            }
        }
        Ok(None)
    };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let found = thread::scope(|scope| {
        let hunters: Vec<_> = (0..at_once).map(|_| scope.spawn(hunter)).collect();
        let found = hunters.into_iter().map(|hunter| hunter.join().expect("a hunter never panics"));
        found.collect::<Result<Vec<_>>>()
    })?;
    // Seeds begin in their order and end before this does, so that it is the first of all.
    Ok(found.into_iter().flatten().min_by_key(|found| found.seed.wrapping_sub(first)))
}

fn run_one(binary: &Path, seed: u64) -> Result<Option<Found>> {
    let output = Command::new(binary).args(["one", "--seed", &seed.to_string()]).output()?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let said = text.lines().find_map(|line| line.split_once(&format!("seed {seed}: ")));
    let why = said.map_or_else(|| text.trim().to_owned(), |(_, why)| why.to_owned());
    Ok(Some(Found { seed, why }))
}

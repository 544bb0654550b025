//! `cargo xtask check`: everything that needs no broker.

use anyhow::Result;

use crate::exec::{self, cargo};

/// What the released binary is built with and a plain build isn't.
const AUDIT: [&str; 2] = ["--features", "lockstep/audit"];

pub fn run() -> Result<()> {
    exec::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let warnings = ["--", "-D", "warnings"];
    exec::run(cargo(&["clippy", "--workspace", "--all-targets"]).args(AUDIT).args(warnings))?;
    exec::run(cargo(&["test", "--workspace", "--exclude", "tests"]).args(AUDIT))?;
    // Without it, for what is said there.
    exec::run(cargo(&["clippy", "-p", "lockstep", "--all-targets"]).args(warnings))?;
    exec::run(&mut cargo(&["test", "-p", "lockstep", "without_the_audit"]))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    exec::run(doc.args(AUDIT).env("RUSTDOCFLAGS", "-D warnings"))
}

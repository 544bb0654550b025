//! `cargo xtask check`: everything that needs no broker.

use anyhow::Result;

use crate::exec::{self, cargo};

pub fn run() -> Result<()> {
    exec::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    exec::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    exec::run(&mut cargo(&["test", "--workspace", "--exclude", "tests"]))?;
    exec::run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

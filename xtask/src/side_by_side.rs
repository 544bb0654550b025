//! Tests against real brokers that mostly wait: for a sync's next round, for a timeout. Two of them at a time
//! take the machine no more than one does that works; all others have it for themselves.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::workspace_root;

use crate::exec::{self, cargo};

/// Their bodies run in a scenario that shares the machine. The longest first.
pub const TESTS: [&str; 9] = [
    "walkthroughs",
    "acl_sync",
    "auto_create",
    "offset_sync",
    "operations",
    "clients_first",
    "config_sync",
    "topics_gone",
    "security",
];

const AT_ONCE: usize = 2;

/// Every other test of the crate, by name.
pub fn others() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in std::fs::read_dir(workspace_root().join("tests/tests")).context("list the tests")? {
        let path = file.context("list the tests")?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("a test's name")?;
        if !TESTS.contains(&name) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs them all, whatever becomes of one; `prepare` sets what each is to know.
///
/// # Errors
/// Those that failed, by name.
pub fn run(prepare: impl Fn(&mut Command) + Sync) -> Result<()> {
    let waiting = Mutex::new(build()?);
    let failed = Mutex::new(Vec::new());
    let worker = || -> Result<()> {
        loop {
            let next = waiting.lock().expect("no panic while held").pop_front();
            let Some((name, binary)) = next else { return Ok(()) };
            let mut command = Command::new(binary);
            command.args(["--test-threads=1", "--show-output"]).current_dir(workspace_root().join("tests"));
            prepare(&mut command);
            let begun = Instant::now();
            let (passed, output) = exec::capture(&mut command)?;
            let mut failed = failed.lock().expect("no panic while held");
            eprintln!("\n> {name}, beside another\n{output}> {:.0} s", begun.elapsed().as_secs_f32());
            if !passed {
                failed.push(name);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker never panics"))
    })?;
    let failed = failed.into_inner().expect("no panic while held");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Name and binary of each.
fn build() -> Result<VecDeque<(&'static str, PathBuf)>> {
    let mut command = cargo(&["test", "-p", "tests", "--no-run", "--message-format=json-render-diagnostics"]);
    command.args(TESTS.iter().flat_map(|name| ["--test", name]));
    let output = command.stderr(std::process::Stdio::inherit()).output().context("build the tests")?;
    ensure!(output.status.success(), "the tests can't be built");
    let text = String::from_utf8_lossy(&output.stdout);
    let built: Vec<(String, PathBuf)> = text.lines().filter_map(executable).collect();
    let find = |name: &'static str| {
        let found = built.iter().find(|(of, _)| of == name);
        Ok((name, found.with_context(|| format!("the build left no test {name}"))?.1.clone()))
    };
    TESTS.into_iter().map(find).collect()
}

/// Of one line of cargo's messages.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    Some((message.get("target")?.get("name")?.as_str()?.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_is_in_one_of_the_two_groups() {
        let others = others().expect("readable");
        assert!(
            others.iter().any(|name| name == "matrix") && others.iter().all(|name| !TESTS.contains(&&**name))
        );
        let directory = workspace_root().join("tests/tests");
        for name in TESTS {
            let text = std::fs::read_to_string(directory.join(format!("{name}.rs"))).expect("a test");
            assert!(text.contains("Scenario::share("), "{name} doesn't share the machine");
        }
        for name in others {
            let text = std::fs::read_to_string(directory.join(format!("{name}.rs"))).expect("a test");
            assert!(!text.contains("Scenario::share("), "{name} shares the machine with nobody");
        }
    }

    #[test]
    fn a_tests_binary_is_read_from_cargos_message() {
        let line =
            r#"{"reason":"compiler-artifact","target":{"name":"security"},"executable":"/t/security-1"}"#;
        assert_eq!(executable(line), Some(("security".into(), "/t/security-1".into())));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#),
            None
        );
    }
}

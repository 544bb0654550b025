//! The built binary as a node, without any cluster.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::node::find_binary;
use tests::poll_until;
use tests::ports::PortLease;
use tests::process::Process;
use tests::scenario::Scenario;

const READY_LIMIT: Duration = Duration::from_secs(20);
const ENDED_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

#[test]
fn a_node_whose_log_takes_nothing_serves_all_the_same() {
    Scenario::run("full-log", |scenario| {
        let api = PortLease::take()?;
        let mut command = Command::new(find_binary()?);
        command.args(["server", "--bootstrap", "--listen", &api.address().to_string(), "--data-dir"]);
        command.arg(scenario.directory().join("data"));
        let mut node = Process::spawn("node", command, Path::new("/dev/full"))?;
        wait_ready(&mut node, &format!("http://{}/lockstep/v1/clusters", api.address()))
    });
}

/// Nobody could tell it anything any more, and it would append beside those that take over.
#[test]
fn a_node_whose_disk_takes_nothing_ends_itself() {
    Scenario::run("full-disk", |scenario| {
        let (api, binary) = (PortLease::take()?, find_binary()?);
        // Without the signal a write beyond the limit is refused as a full disk refuses it.
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(&binary);
        command.args(["server", "--bootstrap", "--listen", &api.address().to_string(), "--data-dir"]);
        command.arg(scenario.directory().join("data"));
        let mut node = Process::spawn("node", command, Path::new("/dev/null"))?;
        let url = format!("http://{}", api.address());
        wait_ready(&mut node, &format!("{url}/lockstep/v1/clusters"))?;
        let limit = ["--pid", &node.pid().to_string(), "--fsize=4096"];
        ensure!(Command::new("prlimit").args(limit).status()?.success(), "prlimit refuses");
        let token = Command::new(&binary).args(["node", "token", "--url", &url]).output()?;
        ensure!(!token.status.success(), "what can't be kept was acknowledged: {token:?}");
        let exited = poll_until(ENDED_LIMIT, POLL, || node.exited().ok().flatten());
        let exited = exited.context("the node goes on without its store")?;
        ensure!(exited.code() == Some(1), "the node ended with {exited}");
        Ok(())
    });
}

fn wait_ready(node: &mut Process, url: &str) -> Result<()> {
    let found = poll_until(READY_LIMIT, POLL, || {
        let exited = node.exited().ok().flatten();
        exited.map(Some).or_else(|| ureq::get(url).call().is_ok().then_some(None))
    });
    let exited = found.context("the node doesn't answer")?;
    ensure!(exited.is_none(), "the node ended: {exited:?}");
    Ok(())
}

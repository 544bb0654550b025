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

fn wait_ready(node: &mut Process, url: &str) -> Result<()> {
    let found = poll_until(READY_LIMIT, POLL, || {
        let exited = node.exited().ok().flatten();
        exited.map(Some).or_else(|| ureq::get(url).call().is_ok().then_some(None))
    });
    let exited = found.context("the node doesn't answer")?;
    ensure!(exited.is_none(), "the node ended: {exited:?}");
    Ok(())
}

//! One node, as a process of its own with files of its own, so that it can be killed.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::operator::answers;
use crate::cli::Failure;

const START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Of a node that didn't start.
const LOG_LINES_SHOWN: usize = 5;

pub struct Child {
    name: String,
    log: PathBuf,
    listen: SocketAddr,
    /// Of `lockstep server`, at each start the same.
    arguments: Vec<String>,
    running: Option<process::Child>,
}

impl Child {
    pub fn new(name: String, directory: &Path, listen: SocketAddr, peer_listen: SocketAddr) -> Self {
        let data = directory.join(&name).display().to_string();
        let (api, peers) = (listen.to_string(), peer_listen.to_string());
        let flags = ["--data-dir", &data, "--listen", &api, "--peer-listen", &peers, "--node-name", &name];
        let arguments = flags.map(str::to_owned).to_vec();
        Self { log: directory.join(format!("{name}.log")), name, listen, arguments, running: None }
    }

    pub fn with(mut self, flags: &[&str]) -> Self {
        self.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the node. Its standard input is a pipe from here: a demo that is killed takes its nodes with
    /// it.
    pub fn start(&mut self) -> Result<(), Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("can't start a node: {what}: {error}"))
        };
        let binary = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.map_err(|error| failed("open its log", &error))?;
        let mut command = Command::new(binary);
        command.args(["server", "--until-stdin-ends"]).args(&self.arguments);
        // What the caller's environment says to a node is not for this one.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOCKSTEP_"))
        {
            command.env_remove(name);
        }
        // Ctrl-C is for the demo, which then stops the node.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().map_err(|error| failed("spawn", &error))?);
        Ok(())
    }

    /// Waits until the node's API answers.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_MAX;
        while !answers(&self.url()).await {
            let ended = self.ended();
            if ended.is_some() || Instant::now() >= deadline {
                let what = ended.map_or("isn't ready".to_owned(), |status| format!("ended ({status})"));
                return Err(not_ready(&self.name, &what, &self.last_lines(LOG_LINES_SHOWN)));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// How it ended, told once, when nobody here has ended it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.running.as_mut()?.try_wait().ok().flatten()?;
        self.running = None;
        Some(status)
    }

    pub fn last_lines(&self, count: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.running {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.running = None;
    }

    /// Asks the node to end, as an operator would: it takes the end of its standard input for SIGTERM.
    pub fn tell_to_stop(&mut self) {
        if let Some(child) = &mut self.running {
            drop(child.stdin.take());
        }
    }

    /// By force when it hasn't ended by then.
    pub async fn stopped(&mut self, deadline: Instant) {
        while self.runs() && self.ended().is_none() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        self.kill();
    }
}

/// A log without a line is what a full disk leaves.
fn not_ready(name: &str, what: &str, said: &str) -> Failure {
    if !said.is_empty() {
        return Failure::new(format!("{name} {what}:\n{said}"));
    }
    let place = std::env::temp_dir();
    Failure::new(format!("{name} {what} and wrote no log"))
        .hint(format!("is there room in {}? TMPDIR=DIR chooses another directory", place.display()))
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_could_not_even_log_points_to_the_disk() {
        assert_eq!(not_ready("node-2", "ended", "a\nb"), Failure::new("node-2 ended:\na\nb"));
        let silent = not_ready("node-2", "ended", "");
        assert!(silent.message.contains("wrote no log") && silent.hint.unwrap().contains("room"));
    }
}

//! The node, as a process of its own with a directory of its own, so that it can be killed.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::{Client, Failure};

const START_MAX: Duration = Duration::from_secs(20);
/// A node exits within 10 seconds of SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Of a node that didn't start.
const LOG_LINES_SHOWN: usize = 5;

pub struct Child {
    /// Goes with this value, unless it is kept.
    directory: Option<PathBuf>,
    log: PathBuf,
    listen: SocketAddr,
    running: Option<process::Child>,
}

impl Child {
    /// Chooses port and directory.
    pub fn prepare(port: Option<u16>) -> Result<Self, Failure> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let listen =
            TcpListener::bind(wanted).and_then(|listener| listener.local_addr()).map_err(|error| {
                Failure::new(format!("can't listen for the API on {wanted}: {error}")).hint(
                    "choose other ports with --port N (seven from there on), or leave it out for free ones",
                )
            })?;
        let directory = std::env::temp_dir().join(format!(
            "lockstep-demo-{}-{:08x}",
            process::id(),
            rand::random::<u32>()
        ));
        fs::create_dir(&directory)
            .map_err(|error| Failure::new(format!("can't make {}: {error}", directory.display())))?;
        let log = directory.join("node.log");
        Ok(Self { directory: Some(directory), log, listen, running: None })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the node and returns when it is ready. Its standard input is a pipe from here: a demo that is
    /// killed takes its node with it.
    pub async fn start(&mut self, first: bool) -> Result<(), Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(format!("can't start a node: {what}: {error}"))
        };
        let binary = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.map_err(|error| failed("open its log", &error))?;
        let mut command = Command::new(binary);
        command
            .arg("server")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--listen")
            .arg(self.listen.to_string());
        command.args(["--node-name", "demo", "--until-stdin-ends"]);
        if first {
            command.arg("--bootstrap");
        }
        // What the caller's environment says to a node is not for this one.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOCKSTEP_"))
        {
            command.env_remove(name);
        }
        // Ctrl-C is for the demo, which then stops the node.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().map_err(|error| failed("spawn", &error))?);
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_MAX;
        let url = self.url();
        loop {
            let url = url.clone();
            let asked =
                tokio::task::spawn_blocking(move || Client::new(&[url]).get("/lockstep/v1/clusters").is_ok())
                    .await;
            if asked.unwrap_or(false) {
                return Ok(());
            }
            let exited = self.running.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if exited.is_some() || Instant::now() >= deadline {
                let what = exited.map_or("isn't ready".to_owned(), |status| format!("ended ({status})"));
                return Err(not_ready(&what, &self.last_lines()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(child) = &mut self.running {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.running = None;
    }

    /// Ends the node as an operator would, and by force when it doesn't.
    pub async fn stop(&mut self) {
        if let Some(child) = &mut self.running {
            // The node takes the end of its standard input for SIGTERM.
            drop(child.stdin.take());
            let deadline = Instant::now() + STOP_MAX;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        self.kill().await;
    }

    /// From now on the directory stays; where the log is.
    pub fn keep_log(&mut self) -> String {
        self.directory = None;
        self.log.display().to_string()
    }

    fn data_dir(&self) -> PathBuf {
        self.log.with_file_name("data")
    }
}

/// A log without a line is what a full disk leaves.
fn not_ready(what: &str, said: &str) -> Failure {
    if !said.is_empty() {
        return Failure::new(format!("the node {what}:\n{said}"));
    }
    let place = std::env::temp_dir();
    Failure::new(format!("the node {what} and wrote no log"))
        .hint(format!("is there room in {}? TMPDIR=DIR chooses another directory", place.display()))
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(directory) = &self.directory {
            // A temporary directory that can't be removed is the system's to clean.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_could_not_even_log_points_to_the_disk() {
        assert_eq!(not_ready("ended", "a\nb"), Failure::new("the node ended:\na\nb"));
        let silent = not_ready("ended", "");
        assert!(silent.message.contains("wrote no log") && silent.hint.unwrap().contains("room"));
    }
}

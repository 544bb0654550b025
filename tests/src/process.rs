//! Child processes a test owns: output to a log file, signals by pid, bounded waits.
//!
//! A child doesn't outlive its test, whatever ends the test: each has a *leash*, a tiny shell that
//! waits for the end of a pipe only we hold and then kills the child. Only a child let go on
//! purpose (`cargo xtask kafka up`) stays.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::poll_until;

/// What a failure shows of a log: enough for a Java stack trace with its cause.
pub const LOG_TAIL_LINES: usize = 40;
/// Read from the end of a log to find those lines; a broker's lines stay far below 1 KiB on average.
const LOG_TAIL_BYTES: u64 = 64 * 1024;
/// A SIGKILLed process is gone in milliseconds unless the disk hangs.
const KILL_WAIT: Duration = Duration::from_secs(10);
const EXIT_POLL: Duration = Duration::from_millis(20);

/// A started process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// None once the child is let go.
    leash: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let err = out.try_clone().context("share the log between stdout and stderr")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // Ctrl-C is for the test; it reaches the child through the leash, at any time but
            // not when the child was let go.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().to_string_lossy()))?;
        match tie_leash(child.id()) {
            Ok(leash) => {
                let (name, log) = (name.to_owned(), log.to_path_buf());
                Ok(Process { name, child, leash: Some(leash), log })
            }
            Err(error) => {
                child.kill().and_then(|()| child.wait()).context("end a child without a leash")?;
                Err(error)
            }
        }
    }

    /// Lets the child go: it runs on when we end.
    pub fn detach(mut self) {
        self.cut_leash();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status when the process has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Sends `signal`; an error when the process has already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.check_running()?;
        signal_pid(self.pid(), signal)
    }

    /// An error, with the end of the log, when the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} has already ended with {status}; end of its log:\n{}", self.name, log_tail(&self.log));
        }
        Ok(())
    }

    /// Waits for the end of the process, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = poll_until(limit, EXIT_POLL, || self.exited().transpose());
        match ended {
            Some(status) => status,
            None => bail!("{} (pid {}) still runs after {limit:?}", self.name, self.pid()),
        }
    }

    /// SIGKILL, then waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.exited()?.is_none() {
            self.signal(Signal::KILL)?;
            self.wait(KILL_WAIT)?;
        }
        Ok(())
    }

    /// SIGTERM, then waits; SIGKILL and an error when it doesn't end in time.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match self.wait(limit) {
            Ok(status) => Ok(status),
            Err(error) => {
                self.kill()?;
                Err(error.context(format!("SIGTERM was not obeyed:\n{}", log_tail(&self.log))))
            }
        }
    }
}

impl Process {
    /// Ends the leash without letting it pull.
    fn cut_leash(&mut self) {
        let Some(mut leash) = self.leash.take() else { return };
        if let Err(error) = leash.kill().and_then(|()| leash.wait()) {
            eprintln!("the leash of {} did not end: {error}", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leash.is_none() {
            return;
        }
        if let Err(error) = self.kill() {
            eprintln!("left behind: {error:#}");
        }
        // The child is reaped and its pid may soon be another's: the leash must not pull.
        self.cut_leash();
    }
}

fn tie_leash(pid: u32) -> Result<Child> {
    Command::new("sh")
        .args(["-c", r#"read -r _; kill -KILL "$1" 2>/dev/null"#, "leash", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C must not end the leash before it has pulled.
        .process_group(0)
        .spawn()
        .context("start the shell that ends children left behind")
}

/// Sends `signal` to a process known only by its pid.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).with_context(|| format!("pid {pid} is out of range"))?;
    let target = Pid::from_raw(raw).with_context(|| format!("pid {pid} is not a process"))?;
    kill_process(target, signal).with_context(|| format!("signal pid {pid}"))
}

/// The command line of a running process, empty for one that has ended.
pub fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// The last lines of a log, each indented, for error messages.
pub fn log_tail(path: &Path) -> String {
    match read_tail(path) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(LOG_TAIL_LINES);
            let shown: Vec<String> = lines[first..].iter().map(|line| format!("    {line}")).collect();
            format!("  {}:\n{}", path.display(), shown.join("\n"))
        }
        Err(error) => format!("  {}: {error}", path.display()),
    }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::spawn("sleeper", command, log).unwrap()
    }

    /// A process has no command line for a moment while the kernel replaces its image.
    fn sleeps(pid: u32) -> bool {
        let is_there = || command_line(pid).contains("sleep 600").then_some(());
        crate::poll_until(KILL_WAIT, Duration::from_millis(10), is_there).is_some()
    }

    #[test]
    fn dropping_an_owned_process_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(&dir.path().join("log"));
        let pid = process.pid();
        assert!(sleeps(pid));
        drop(process);
        assert_eq!(command_line(pid), "");
    }

    #[test]
    fn the_leash_pulls_when_its_pipe_closes() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(&dir.path().join("log"));
        let leash = process.leash.as_mut().unwrap();
        drop(leash.stdin.take());
        assert!(!process.wait(KILL_WAIT).unwrap().success());
    }

    #[test]
    fn a_process_let_go_runs_on() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(&dir.path().join("log"));
        let pid = process.pid();
        process.detach();
        assert!(sleeps(pid));
        signal_pid(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn a_process_that_obeys_sigterm_is_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(&dir.path().join("log"));
        let status = process.terminate(KILL_WAIT).unwrap();
        assert_eq!(status.code(), None, "ended by the signal itself");
    }
}

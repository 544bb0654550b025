//! The built `lockstep` binary: as a node that can be killed and started again, and as the CLI.
//!
//! It knows the binary only from outside: command line, REST, exit codes, log.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::poll_until;
use crate::ports::PortLease;
use crate::process::{Process, Signal, log_tail};

/// Names the binary under test.
pub const BINARY_VARIABLE: &str = "LOCKSTEP_BIN";

/// A start opens a store and loads a catalog: below a second, more under load and after a crash.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(25);
const HTTP_LIMIT: Duration = Duration::from_secs(10);
/// No CLI call of the tests waits for data.
const CLI_LIMIT: Duration = Duration::from_secs(60);
const CLI_POLL: Duration = Duration::from_millis(10);
/// SIGTERM promises an exit within 10 s; the rest is the machine's.
pub const TERMINATE_LIMIT: Duration = Duration::from_secs(12);

/// What a run of the CLI ended with.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// One node; dropping it kills it.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    name: String,
    directory: PathBuf,
    api: PortLease,
    peer: PortLease,
    /// At every start.
    settings: Vec<String>,
    process: Option<Process>,
}

/// Any answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Node {
    /// Founds a fleet of one with its data in `parent`/`name` and waits until it is ready.
    pub fn bootstrap(name: &str, parent: &Path) -> Result<Node> {
        let binary = find_binary()?;
        eprintln!("{name}: {}", binary.display());
        Node::bootstrap_binary(binary, name, parent)
    }

    /// [`bootstrap`](Self::bootstrap) with the binary at this path.
    pub fn bootstrap_binary(binary: PathBuf, name: &str, parent: &Path) -> Result<Node> {
        let mut node = Node::prepare(binary, name, parent)?;
        node.start(&["--bootstrap"])?;
        Ok(node)
    }

    /// A node with an empty directory and ports of its own; [`Node::start`] starts it.
    pub fn prepare(binary: PathBuf, name: &str, parent: &Path) -> Result<Node> {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Node {
            binary,
            name: name.to_owned(),
            directory,
            api: PortLease::take()?,
            peer: PortLease::take()?,
            settings: Vec::new(),
            process: None,
        })
    }

    /// What every later start and call of the CLI runs.
    pub fn replace_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Flags of every later start.
    pub fn set(&mut self, settings: Vec<String>) {
        self.settings = settings;
    }

    /// Starts with these flags, too, and waits until it is ready.
    pub fn start(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        self.spawn(more)?;
        self.wait_ready()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for its peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// From its next start on it listens elsewhere for its peers.
    pub fn move_peer_port(&mut self) -> Result<()> {
        self.peer = PortLease::take()?;
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts on its data, and waits until it ends by itself.
    pub fn start_and_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.spawn(&[])?;
        let status = self.running()?.wait(limit);
        self.process = None;
        status
    }

    /// All that it ever logged.
    pub fn log_text(&self) -> Result<String> {
        fs::read_to_string(self.log()).with_context(|| format!("read the log of {}", self.name))
    }

    /// Another node with a copy of this one's data, on ports of its own; [`Node::restart`] starts
    /// it. Hold or kill this one meanwhile, so that the copy is of one moment.
    pub fn copy(&self, name: &str, parent: &Path) -> Result<Node> {
        let directory = parent.join(name);
        copy_directory(&self.data(), &directory.join("data"))?;
        Ok(Node {
            binary: self.binary.clone(),
            name: name.to_owned(),
            directory,
            api: PortLease::take()?,
            peer: PortLease::take()?,
            settings: self.settings.clone(),
            process: None,
        })
    }

    /// Where the API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.api.address())
    }

    /// The pid of the running process.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process.as_ref().with_context(|| format!("{} doesn't run", self.name))?;
        Ok(process.pid())
    }

    /// SIGKILL; fails when the node has ended by itself before.
    pub fn kill9(&mut self) -> Result<()> {
        self.check_running()?;
        self.take_process()?.kill()
    }

    /// Fails, with the end of its log, when the node has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        self.running()?.check_running()
    }

    /// SIGTERM; fails when the node takes longer than it promises or reports a failure.
    pub fn sigterm(&mut self) -> Result<()> {
        let status = self.take_process()?.terminate(TERMINATE_LIMIT)?;
        ensure!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        Ok(())
    }

    /// SIGSTOP: what a suspended machine looks like to the others.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Starts again on the same data and ports, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.start(&[])
    }

    /// Runs the CLI against this node and returns its standard output; anything but exit code 0
    /// is an error that shows what it wrote.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let Said { status, stdout, stderr } = self.cli_said(arguments)?;
        if !status.success() {
            let shown = arguments.join(" ");
            bail!("`lockstep {shown}` ended with {status}\nstdout: {stdout}\nstderr: {stderr}");
        }
        Ok(stdout)
    }

    /// Runs the CLI against this node, whatever comes of it.
    pub fn cli_said(&self, arguments: &[&str]) -> Result<Said> {
        let shown = || format!("lockstep {}", arguments.join(" "));
        let out_path = self.directory.join("cli.out");
        let err_path = self.directory.join("cli.err");
        // Files, not pipes: a child that fills a pipe nobody reads would hang until the limit.
        let out = fs::File::create(&out_path).context("create the file for the CLI's output")?;
        let err = fs::File::create(&err_path).context("create the file for the CLI's messages")?;
        let mut child = Command::new(&self.binary)
            .args(arguments)
            .env("LOCKSTEP_URL", self.url())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let Some(status) = poll_until(CLI_LIMIT, CLI_POLL, || child.try_wait().transpose()) else {
            child.kill().context("kill the CLI")?;
            child.wait().context("reap the CLI")?;
            bail!("`{}` still runs after {CLI_LIMIT:?}", shown());
        };
        Ok(Said {
            status: status.with_context(|| format!("wait for `{}`", shown()))?,
            stdout: fs::read_to_string(&out_path).context("read the CLI's output")?,
            stderr: fs::read_to_string(&err_path).context("read the CLI's messages")?,
        })
    }

    /// The REST resource of one mirror topic.
    pub fn mirror_json(&self, destination: &str, link: &str, topic: &str) -> Result<serde_json::Value> {
        self.get_json(&format!("/kafka/v3/clusters/{destination}/links/{link}/mirrors/{topic}"))
    }

    pub fn get_json(&self, path: &str) -> Result<serde_json::Value> {
        let text = self.get_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("GET {path}: not JSON: {text}"))
    }

    /// One metric, added up over all its labels; 0 when the node has none of that name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        self.metric_with(name, "")
    }

    /// As [`metric`](Self::metric), of those with this label, written `name="value"`.
    pub fn metric_with(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.get_text("/metrics")?;
        let value_of = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            let rest = Some(rest).filter(|rest| rest.contains(label))?;
            rest.rsplit(' ').next().map(str::to_owned)
        };
        text.lines().filter_map(value_of).try_fold(0.0, |sum, value| {
            let value: f64 = value.parse().with_context(|| format!("{name}: {value:?} is not a number"))?;
            Ok(sum + value)
        })
    }

    /// POST without a body, whatever comes of it.
    pub fn post(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.url());
        let mut answer = http_agent().post(&url).send_empty().with_context(|| format!("POST {url}"))?;
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let body = answer.body_mut().read_to_string().with_context(|| format!("read {url}"))?;
        Ok(Answer { status: answer.status().as_u16(), retry_after, body })
    }

    pub fn get_text(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.url());
        let mut answer = http_agent().get(&url).call().with_context(|| format!("GET {url}"))?;
        let text = answer.body_mut().read_to_string().with_context(|| format!("read {url}"))?;
        ensure!(answer.status().is_success(), "GET {url}: {} {text}", answer.status());
        Ok(text)
    }

    fn spawn(&mut self, more: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .arg("server")
            .args(more)
            .args(&self.settings)
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen", &self.api.address().to_string()])
            .args(["--peer-listen", &self.peer.address().to_string()])
            .env("RUST_BACKTRACE", "1");
        self.process = Some(Process::spawn(&self.name, command, &self.log())?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.url());
        let agent = http_agent();
        let process = self.process.as_mut().context("the node was just started")?;
        let mut last = "never asked".to_owned();
        let ready = poll_until(READY_LIMIT, READY_POLL, || {
            match process.exited() {
                Ok(None) => {}
                Ok(Some(status)) => return Some(Err(anyhow::anyhow!("it ended with {status}"))),
                Err(error) => return Some(Err(error)),
            }
            match agent.get(&url).call() {
                Ok(answer) if answer.status() == 200 => return Some(Ok(())),
                Ok(answer) => last = format!("/readyz answers {}", answer.status()),
                Err(error) => last = error.to_string(),
            }
            None
        });
        let timed_out = || Err(anyhow::anyhow!("not ready after {READY_LIMIT:?}: {last}"));
        ready.unwrap_or_else(timed_out).map_err(|error| {
            let tail = log_tail(&self.log());
            anyhow::anyhow!("{} did not start: {error:#}; end of its log:\n{tail}", self.name)
        })
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("node.log")
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} doesn't run", self.name))
    }

    fn take_process(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("{} doesn't run", self.name))
    }
}

/// All of `from`, files and directories, into the new directory `to`.
fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let (source, target) = entry
            .map(|entry| (entry.path(), to.join(entry.file_name())))
            .with_context(|| format!("list {}", from.display()))?;
        if source.is_dir() {
            copy_directory(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Answers of every status are answers: the caller judges them.
fn http_agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().timeout_global(Some(HTTP_LIMIT)).http_status_as_error(false).build();
    config.into()
}

/// The binary named in the environment, else the newest one built in this target directory.
pub fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "{BINARY_VARIABLE} names {}, which is not a file", path.display());
        return Ok(path);
    }
    let test = std::env::current_exe().context("find the running test")?;
    // target/<profile>/deps/<test>
    let target = test.ancestors().nth(3).context("the test lies in no target directory")?;
    let built = |profile: &str| {
        let path = target.join(profile).join("lockstep");
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        modified.ok().map(|modified: SystemTime| (modified, path))
    };
    let newest = ["release", "debug"].into_iter().filter_map(built).max();
    let (_, path) = newest.with_context(|| {
        format!(
            "no lockstep binary in {}; build it with `cargo build --release -p lockstep \
             --features audit`, or name one in {BINARY_VARIABLE}",
            target.display()
        )
    })?;
    Ok(path)
}

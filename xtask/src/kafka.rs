//! `cargo xtask kafka`: clusters that stay until they are taken down. Each has a name and a
//! directory `.kafka/run/<name>`; its state file says which processes are its brokers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use harness::artifacts::{Artifacts, KAFKA_DEFAULT, kafka_home};
use harness::cluster::{KafkaCluster, KafkaConfig};
use harness::poll_until;
use harness::process::{Signal, command_line, signal_pid};
use serde::{Deserialize, Serialize};

/// A controlled shutdown of all brokers of a cluster; the last ones wait for a lost quorum.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const KILL_LIMIT: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(100);
const STATE_FILE: &str = "state.json";
const DEFAULT_NAME: &str = "default";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a cluster with empty logs; prints its bootstrap address when it answers
    Up {
        /// Such as 4.4.0
        version: String,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
        brokers: u16,
        /// Tells clusters that run at the same time apart
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// Broker n listens on this port plus 2(n-1), its controller one above; default: free ones
        #[arg(long)]
        port: Option<u16>,
        /// A line of every broker's server.properties; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_property)]
        properties: Vec<(String, String)>,
    },
    /// Stops clusters; their logs stay until the next `up` under the same name
    Down {
        /// A cluster's name, or a version for all clusters of that version
        #[arg(default_value = DEFAULT_NAME, conflicts_with = "all")]
        which: String,
        #[arg(long)]
        all: bool,
    },
    /// Shows the clusters that were started
    List,
    /// Runs one of Kafka's own command-line tools
    #[command(
        disable_help_flag = true,
        after_help = "Example: cargo xtask kafka tool topics --bootstrap-server 127.0.0.1:19092 --list"
    )]
    Tool {
        name: Tool,
        /// What the tool itself takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// As Kafka's scripts are called, without `kafka-` and `.sh`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Tool {
    ConsoleConsumer,
    ConsoleProducer,
    ConsumerGroups,
    GetOffsets,
    ProducerPerfTest,
    Topics,
}

impl Tool {
    fn class(self) -> &'static str {
        match self {
            Tool::ConsoleConsumer => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            Tool::ConsoleProducer => "org.apache.kafka.tools.ConsoleProducer",
            Tool::ConsumerGroups => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            Tool::GetOffsets => "org.apache.kafka.tools.GetOffsetShell",
            Tool::ProducerPerfTest => "org.apache.kafka.tools.ProducerPerformance",
            Tool::Topics => "org.apache.kafka.tools.TopicCommand",
        }
    }
}

/// What `up` leaves for `down` and `list`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    name: String,
    version: String,
    bootstrap: String,
    brokers: Vec<BrokerState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BrokerState {
    id: u16,
    pid: u32,
    log: PathBuf,
    properties: PathBuf,
}

impl BrokerState {
    /// The pid may have been given to another process since.
    fn runs(&self) -> bool {
        let line = command_line(self.pid);
        line.contains("kafka.Kafka") && line.contains(&self.properties.display().to_string())
    }
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { version, brokers, name, port, properties } => {
            let properties: BTreeMap<String, String> = properties.into_iter().collect();
            up(&version, brokers, &name, port, properties)
        }
        Command::Down { all: true, .. } => states()?.iter().try_for_each(down),
        Command::Down { which, .. } => {
            let matching: Vec<State> =
                states()?.into_iter().filter(|state| state.name == which || state.version == which).collect();
            ensure!(!matching.is_empty(), "no cluster named {which} and none of that version is up");
            matching.iter().try_for_each(down)
        }
        Command::List => list(),
        Command::Tool { name, arguments } => tool(name, &arguments),
    }
}

/// Ends as the tool ends, with its exit code.
fn tool(name: Tool, arguments: &[String]) -> Result<()> {
    let jars = Artifacts::ensure_tools(KAFKA_DEFAULT)?;
    let mut command = std::process::Command::new("java");
    command.args(["-cp", &jars.class_path(), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", name.class()]);
    let status = command.args(arguments).status().context("run java; install a JDK of 17 or later")?;
    std::process::exit(status.code().unwrap_or(1));
}

fn up(
    version: &str,
    brokers: u16,
    name: &str,
    first_port: Option<u16>,
    properties: BTreeMap<String, String>,
) -> Result<()> {
    check_name(name)?;
    let home = run_home();
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let lock = File::create(home.join(format!("{name}.lock"))).context("create the cluster's lock")?;
    lock.try_lock().with_context(|| format!("cluster {name} is just being started"))?;
    let directory = home.join(name);
    let running = read_state(&directory)?.filter(|state| state.brokers.iter().any(BrokerState::runs));
    if let Some(State { version, bootstrap, .. }) = running {
        bail!(
            "cluster {name} (Kafka {version}) is up at {bootstrap}; \
             `cargo xtask kafka down {name}` stops it, --name starts another beside it"
        );
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove old {}", directory.display()))?;
    }
    let cluster = KafkaCluster::start(KafkaConfig {
        name: name.to_owned(),
        version: version.to_owned(),
        brokers,
        properties,
        directory: directory.clone(),
        first_port,
    })?;
    write_state(&directory, version, &cluster)?;
    println!("{}", cluster.bootstrap());
    for facts in cluster.facts() {
        eprintln!("broker {}: pid {}, log {}", facts.id, facts.pid, facts.log.display());
    }
    // Only now: until here a failure or Ctrl-C ends the brokers as well.
    cluster.detach();
    Ok(())
}

fn write_state(directory: &Path, version: &str, cluster: &KafkaCluster) -> Result<()> {
    let brokers = cluster.facts().into_iter().map(|facts| BrokerState {
        id: facts.id,
        pid: facts.pid,
        log: facts.log,
        properties: facts.properties,
    });
    let state = State {
        name: cluster.name().to_owned(),
        version: version.to_owned(),
        bootstrap: cluster.bootstrap(),
        brokers: brokers.collect(),
    };
    let text = serde_json::to_string_pretty(&state).context("encode the state")?;
    let path = directory.join(STATE_FILE);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn down(state: &State) -> Result<()> {
    let running = || state.brokers.iter().filter(|broker| broker.runs());
    let gone = || running().next().is_none().then_some(());
    for broker in running() {
        signal_pid(broker.pid, Signal::TERM)?;
    }
    if poll_until(STOP_LIMIT, STOP_POLL, gone).is_none() {
        for broker in running() {
            eprintln!("broker {} of {} still runs after {STOP_LIMIT:?}: killed", broker.id, state.name);
            signal_pid(broker.pid, Signal::KILL)?;
        }
        poll_until(KILL_LIMIT, STOP_POLL, gone).with_context(|| format!("{} can't be killed", state.name))?;
    }
    let path = run_home().join(&state.name).join(STATE_FILE);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    eprintln!("{} is down", state.name);
    Ok(())
}

fn list() -> Result<()> {
    for state in states()? {
        println!("{}  Kafka {}  {}", state.name, state.version, state.bootstrap);
        for broker in &state.brokers {
            let condition = if broker.runs() { "runs" } else { "gone" };
            println!("  broker {}  pid {} {condition}  {}", broker.id, broker.pid, broker.log.display());
        }
    }
    Ok(())
}

fn run_home() -> PathBuf {
    kafka_home().join("run")
}

/// All clusters with a state file, by name.
fn states() -> Result<Vec<State>> {
    let home = run_home();
    if !home.exists() {
        return Ok(Vec::new());
    }
    let mut states = Vec::new();
    for entry in fs::read_dir(&home).with_context(|| format!("read {}", home.display()))? {
        states.extend(read_state(&entry.context("read a directory entry")?.path())?);
    }
    states.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(states)
}

fn read_state(directory: &Path) -> Result<Option<State>> {
    let path = directory.join(STATE_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display())).map(Some)
}

/// A name becomes a directory.
fn check_name(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    ensure!(!name.is_empty() && name.chars().all(plain), "{name:?}: letters, digits, - and _ make a name");
    Ok(())
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_property("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(parse_property("a.b").is_err());
    }

    #[test]
    fn a_name_never_leaves_its_directory() {
        for bad in ["", "..", "a/b", "a b"] {
            assert!(check_name(bad).is_err(), "{bad:?} was taken");
        }
        check_name("east-1").unwrap();
    }

    #[test]
    fn a_pid_given_to_another_process_is_not_a_broker() {
        let own = BrokerState {
            id: 1,
            pid: std::process::id(),
            log: PathBuf::new(),
            properties: PathBuf::from("/nowhere/server.properties"),
        };
        assert!(!own.runs());
    }
}

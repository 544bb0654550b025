//! A cluster of real Apache Kafka brokers on this machine: KRaft, every broker also a controller,
//! plaintext on 127.0.0.1, data in a directory the caller chose.
//!
//! It talks to brokers only to learn whether they answer; it never creates topics or data.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;

use crate::artifacts::{Artifacts, KAFKA_DEFAULT};
use crate::poll_until;
use crate::ports::PortLease;
use crate::process::{Process, Signal, log_tail};
use crate::wire::{Connection, Metadata};

/// A lone broker is up in 4 s on an idle machine; builds beside it on two cores take the rest.
const START_LIMIT: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(100);
/// A broker that starts may accept a connection long before it answers; asked again then.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// A controlled shutdown takes one second; a paused disk more.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// One collector thread and the quick compiler only: brokers of tests live for minutes and share two
/// cores with what is being tested.
const JVM_FRUGAL: [&str; 2] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// Two single-broker clusters, a build and a test must fit beside each other in memory.
const HEAP_ALONE: &str = "-Xmx512m";
/// Three brokers share the load one would have.
const HEAP_IN_A_GROUP: &str = "-Xmx384m";
/// Kafka's default of 128 MiB is allocated at start, a quarter of the heap above.
const CLEANER_BUFFER_BYTES: &str = "16777216";
/// After SIGKILL a broker's id is taken until its session ends (Kafka's default is 9 s).
const SESSION_TIMEOUT_MS: &str = "6000";

/// What to start.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Appears in messages and as the directory's name.
    pub name: String,
    pub version: String,
    pub brokers: u16,
    /// Override the properties written by default.
    pub properties: BTreeMap<String, String>,
    /// Holds one directory a broker; created when missing.
    pub directory: PathBuf,
    /// Broker n listens on this port plus 2(n−1), its controller one above. Free ones by default.
    pub first_port: Option<u16>,
}

impl KafkaConfig {
    /// One broker of the default version, its data in `parent`/`name`.
    pub fn single(name: &str, parent: &Path) -> KafkaConfig {
        KafkaConfig {
            name: name.to_owned(),
            version: KAFKA_DEFAULT.to_owned(),
            brokers: 1,
            properties: BTreeMap::new(),
            directory: parent.join(name),
            first_port: None,
        }
    }

    pub fn version(mut self, version: &str) -> KafkaConfig {
        version.clone_into(&mut self.version);
        self
    }

    pub fn property(mut self, key: &str, value: &str) -> KafkaConfig {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A running cluster. Dropping it kills its brokers.
#[derive(Debug)]
pub struct KafkaCluster {
    config: KafkaConfig,
    artifacts: Artifacts,
    /// Of the brokers; heap, collector and compiler.
    jvm: Vec<String>,
    brokers: BTreeMap<u16, Broker>,
}

#[derive(Debug)]
struct Broker {
    id: u16,
    port: PortLease,
    controller_port: PortLease,
    directory: PathBuf,
    process: Option<Process>,
}

/// What a person, or a later command, needs to know of a running broker.
#[derive(Clone, Debug)]
pub struct BrokerFacts {
    pub id: u16,
    pub pid: u32,
    pub log: PathBuf,
    /// On the command line of the process, so it tells this broker from any other process.
    pub properties: PathBuf,
}

impl KafkaCluster {
    /// Starts the brokers and waits until each of them answers and knows all others.
    pub fn start(config: KafkaConfig) -> Result<KafkaCluster> {
        Self::start_formatted(config, &[])
    }

    /// [`start`](Self::start) with more arguments for `kafka-storage format`, such as SCRAM users.
    pub fn start_formatted(config: KafkaConfig, format_arguments: &[String]) -> Result<KafkaCluster> {
        let heap = if config.brokers == 1 { HEAP_ALONE } else { HEAP_IN_A_GROUP };
        let jvm = std::iter::once(heap).chain(JVM_FRUGAL).map(str::to_owned).collect();
        Self::start_tuned(config, format_arguments, jvm)
    }

    /// [`start_formatted`](Self::start_formatted) with other options for the brokers' Java than the
    /// frugal ones of the tests.
    pub fn start_tuned(
        config: KafkaConfig,
        format_arguments: &[String],
        jvm: Vec<String>,
    ) -> Result<KafkaCluster> {
        ensure!(config.brokers > 0, "a cluster needs a broker");
        let artifacts = Artifacts::ensure(&config.version)?;
        let mut brokers = BTreeMap::new();
        for id in 1..=config.brokers {
            brokers.insert(id, Broker::new(id, &config)?);
        }
        let mut cluster = KafkaCluster { config, artifacts, jvm, brokers };
        let cluster_id = random_cluster_id();
        for id in 1..=cluster.config.brokers {
            cluster.write_properties(id)?;
            cluster.format(id, &cluster_id, format_arguments)?;
            cluster.spawn(id)?;
        }
        let all: Vec<u16> = cluster.brokers.keys().copied().collect();
        for id in &all {
            cluster.wait_ready(*id, &all)?;
        }
        Ok(cluster)
    }

    /// What clients get as `bootstrap.servers`; the same for the cluster's whole life.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.brokers.values().map(|broker| broker.port.address().to_string()).collect();
        addresses.join(",")
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The running brokers.
    pub fn facts(&self) -> Vec<BrokerFacts> {
        let facts = |broker: &Broker| {
            let process = broker.process.as_ref()?;
            Some(BrokerFacts {
                id: broker.id,
                pid: process.pid(),
                log: broker.log(),
                properties: broker.properties(),
            })
        };
        self.brokers.values().filter_map(facts).collect()
    }

    /// SIGKILL: nothing is flushed, no client is told.
    pub fn kill(&mut self, broker: u16) -> Result<()> {
        self.running(broker)?.check_running()?;
        self.take_process(broker)?.kill()
    }

    /// SIGTERM: a controlled shutdown.
    pub fn stop_broker(&mut self, broker: u16) -> Result<()> {
        let mut process = self.take_process(broker)?;
        process.terminate(STOP_LIMIT).map(drop)
    }

    /// Starts a killed or stopped broker on its old data and port, and waits until it answers.
    pub fn restart(&mut self, broker: u16) -> Result<()> {
        ensure!(self.broker(broker)?.process.is_none(), "broker {broker} runs; kill or stop it first");
        self.spawn(broker)?;
        self.wait_ready(broker, &[broker])
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&mut self, broker: u16) -> Result<()> {
        self.running(broker)?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self, broker: u16) -> Result<()> {
        self.running(broker)?.signal(Signal::CONT)
    }

    /// Stops all brokers in order.
    pub fn stop(mut self) -> Result<()> {
        let running: Vec<u16> = self.facts().iter().map(|facts| facts.id).collect();
        running.into_iter().try_for_each(|id| self.stop_broker(id))
    }

    /// Lets the brokers go: they run on when we end.
    pub fn detach(self) {
        self.brokers.into_values().filter_map(|broker| broker.process).for_each(Process::detach);
    }

    fn broker(&mut self, id: u16) -> Result<&mut Broker> {
        let name = &self.config.name;
        self.brokers.get_mut(&id).with_context(|| format!("cluster {name} has no broker {id}"))
    }

    fn running(&mut self, id: u16) -> Result<&mut Process> {
        self.broker(id)?.process.as_mut().with_context(|| format!("broker {id} doesn't run"))
    }

    fn take_process(&mut self, id: u16) -> Result<Process> {
        self.broker(id)?.process.take().with_context(|| format!("broker {id} doesn't run"))
    }

    fn write_properties(&self, id: u16) -> Result<()> {
        let broker = &self.brokers[&id];
        let mut properties = self.default_properties(broker);
        properties.extend(self.config.properties.clone());
        let lines: Vec<String> = properties.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let path = broker.properties();
        fs::write(&path, lines.concat()).with_context(|| format!("write {}", path.display()))
    }

    fn default_properties(&self, broker: &Broker) -> BTreeMap<String, String> {
        let count = self.brokers.len();
        let voter = |broker: &Broker| format!("{}@{}", broker.id, broker.controller_port.address());
        let voters: Vec<String> = self.brokers.values().map(voter).collect();
        let listener = format!("PLAINTEXT://{}", broker.port.address());
        let controller = format!("CONTROLLER://{}", broker.controller_port.address());
        let data = broker.directory.join("data").display().to_string();
        // As production has it: three copies, two of them in sync, where there are three brokers.
        let (copies, in_sync) = (count.min(3).to_string(), count.min(2).to_string());
        [
            ("process.roles", "broker,controller"),
            ("node.id", &broker.id.to_string()),
            ("controller.quorum.voters", &voters.join(",")),
            ("controller.listener.names", "CONTROLLER"),
            ("listeners", &format!("{listener},{controller}")),
            ("advertised.listeners", &listener),
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
            ("log.dirs", &data),
            // A client that asks for a topic too early must see an error, not make the topic.
            ("auto.create.topics.enable", "false"),
            ("broker.session.timeout.ms", SESSION_TIMEOUT_MS),
            ("default.replication.factor", &copies),
            ("group.initial.rebalance.delay.ms", "0"),
            ("log.cleaner.dedupe.buffer.size", CLEANER_BUFFER_BYTES),
            ("offsets.topic.num.partitions", "4"),
            ("offsets.topic.replication.factor", &copies),
            ("transaction.state.log.min.isr", &in_sync),
            ("transaction.state.log.num.partitions", "4"),
            ("transaction.state.log.replication.factor", &copies),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    fn format(&self, id: u16, cluster_id: &str, more: &[String]) -> Result<()> {
        let broker = &self.brokers[&id];
        let output = self
            .java()
            .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
            .arg(broker.properties())
            .args(more)
            .stdin(Stdio::null())
            .output()
            .context("run java; install a JDK of 17 or later")?;
        if !output.status.success() {
            bail!(
                "formatting the storage of broker {id} of {} failed ({}):\n{}{}",
                self.config.name,
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn spawn(&mut self, id: u16) -> Result<()> {
        let mut command = self.java();
        let name = format!("broker {id} of {}", self.config.name);
        let broker = self.broker(id)?;
        command.arg("kafka.Kafka").arg(broker.properties()).current_dir(&broker.directory);
        broker.process = Some(Process::spawn(&name, command, &broker.log())?);
        Ok(())
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command
            .args(&self.jvm)
            .arg("-XX:+ExitOnOutOfMemoryError")
            .args(["showDateTime=true", "dateTimeFormat=HH:mm:ss.SSS", "defaultLogLevel=info"].map(logger))
            // Hundreds of lines at each start that only repeat the properties.
            .args(
                ["log.kafka.server.KafkaConfig=warn", "log.org.apache.kafka.common.config=warn"].map(logger),
            )
            .args(["-cp", &self.artifacts.class_path()]);
        command
    }

    /// Waits until broker `id` answers and lists the brokers `expected`.
    fn wait_ready(&mut self, id: u16, expected: &[u16]) -> Result<()> {
        let broker = self.broker(id)?;
        let address = broker.port.address();
        let process = broker.process.as_mut().context("the broker was just started")?;
        let mut last = None;
        let ready = poll_until(START_LIMIT, START_POLL, || match process.exited() {
            Ok(None) => probe(address, expected).map_err(|error| last = Some(error)).ok().map(Ok),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("it ended with {status}"))),
            Err(error) => Some(Err(error)),
        });
        let error = match ready {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => error,
            None => last.context("it was never asked")?.context(format!("not ready after {START_LIMIT:?}")),
        };
        let name = &self.config.name;
        let tail = log_tail(&self.brokers[&id].log());
        bail!("broker {id} of {name} did not start: {error:#}; end of its log:\n{tail}")
    }
}

impl Broker {
    fn new(id: u16, config: &KafkaConfig) -> Result<Broker> {
        let directory = config.directory.join(format!("broker-{id}"));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let (port, controller_port) = match config.first_port {
            Some(first) => {
                let port = first.checked_add(2 * (id - 1)).filter(|port| *port < u16::MAX);
                let port = port.with_context(|| format!("no ports left above {first}"))?;
                (PortLease::fixed(port)?, PortLease::fixed(port + 1)?)
            }
            None => (PortLease::take()?, PortLease::take()?),
        };
        Ok(Broker { id, port, controller_port, directory, process: None })
    }

    fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    fn properties(&self) -> PathBuf {
        self.directory.join("server.properties")
    }
}

fn logger(setting: &str) -> String {
    format!("-Dorg.slf4j.simpleLogger.{setting}")
}

/// An open port is not enough: the broker must serve requests and be part of its cluster.
fn probe(address: SocketAddr, expected: &[u16]) -> Result<()> {
    let mut connection = Connection::open(address, PROBE_LIMIT)?;
    connection.api_versions()?;
    let metadata = Metadata::fetch(&mut connection, &[])?;
    let known: Vec<i32> = metadata.brokers.iter().map(|broker| broker.id).collect();
    ensure!(
        expected.iter().all(|id| known.contains(&i32::from(*id))),
        "it knows brokers {known:?}, expected {expected:?}"
    );
    Ok(())
}

/// Sixteen random bytes as Kafka writes them (base64 for URLs, 22 characters): two clusters with
/// one id would be taken for one.
fn random_cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = rand::rng();
    // A leading dash would look like a flag; only two bits are left for the last character.
    let mut id = String::from("L");
    id.extend((0..20).map(|_| char::from(ALPHABET[rng.random_range(0..64)])));
    id.push(char::from(ALPHABET[rng.random_range(0..4) * 16]));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_sixteen_bytes_of_base64_and_differ() {
        let ids: Vec<String> = (0..100).map(|_| random_cluster_id()).collect();
        for id in &ids {
            assert_eq!(id.len(), 22);
            assert!("AQgw".contains(&id[21..]), "{id}");
        }
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    }
}

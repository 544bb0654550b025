//! The three systems behind one face: started for one run, each fresh, mirroring one topic.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};
use harness::artifacts::Artifacts;
use harness::node::Node;
use harness::process::{Process, log_tail};

use super::mirror_maker;
use super::plan::{Kind, Road, Shape, System};
use super::stage::Stage;

/// The programs that are compared.
pub struct Programs {
    pub lockstep: PathBuf,
    pub raw_path: PathBuf,
    /// Or why there is none.
    pub mirror_maker: Result<Artifacts>,
}

/// One mirror of one topic.
pub struct Task<'a> {
    /// Tells this run's topics and files from all others'.
    pub number: u32,
    pub system: System,
    pub road: Road,
    pub kind: Kind,
    pub shape: Shape,
    pub topic: &'a str,
    pub partitions: i32,
    /// Of Lockstep's link, as KEY=VALUE.
    pub link_keys: &'a [&'a str],
    /// Of this run alone.
    pub directory: PathBuf,
}

impl Task<'_> {
    /// The topic at the destination.
    pub fn mirror_topic(&self) -> String {
        match self.system {
            System::MirrorMaker => format!("{}.{}", self.alias(), self.topic),
            _ => format!("mirror-{}", self.number),
        }
    }

    /// What MirrorMaker calls the source: it keeps positions under this name, so each run has
    /// another.
    pub fn alias(&self) -> String {
        format!("source{}", self.number)
    }

    /// Topics that the run leaves at the source and at the destination.
    pub fn leftovers(&self) -> (Vec<String>, Vec<String>) {
        let mut at_destination = vec![self.mirror_topic()];
        let mut at_source = Vec::new();
        if self.system == System::MirrorMaker {
            at_destination.extend(mirror_maker::topics_at_destination(&self.alias()));
            at_source.extend(mirror_maker::topics_at_source());
        }
        (at_source, at_destination)
    }
}

/// A running system; dropping it kills it.
pub enum Mirror {
    Lockstep(Box<Node>),
    /// The floor or MirrorMaker.
    Process(Process),
}

impl Mirror {
    /// Starts the system. Lockstep is then an empty node: [`Mirror::configure`] gives it its task.
    pub fn start(task: &Task, stage: &Stage, programs: &Programs) -> Result<Mirror> {
        let (source, destination) = stage.take_road(task.road);
        match task.system {
            System::Lockstep => {
                let node = Node::bootstrap_binary(programs.lockstep.clone(), "node", &task.directory)?;
                Ok(Mirror::Lockstep(Box::new(node)))
            }
            System::Floor | System::FloorJoining => {
                if task.road == Road::Tls {
                    bail!("the floor speaks no TLS");
                }
                stage.destination.client()?.create_topic(&task.mirror_topic(), task.partitions)?;
                let mode = if task.system == System::FloorJoining { "coalesce" } else { "idem" };
                let mut command = Command::new(&programs.raw_path);
                command
                    .args(["copy", "--follow", "--mode", mode])
                    .args(["--source", &source, "--destination", &destination])
                    .args(["--topic", task.topic, "--destination-topic", &task.mirror_topic()])
                    .args(["--partitions", &task.partitions.to_string()]);
                spawn("the floor", command, &task.directory)
            }
            System::MirrorMaker => {
                let artifacts = programs.mirror_maker.as_ref();
                let artifacts = artifacts.map_err(|error| anyhow!("MirrorMaker 2: {error:#}"))?;
                let properties = mirror_maker::properties(task, stage, &source, &destination);
                let command = mirror_maker::command(artifacts, &properties, &task.directory)?;
                spawn("MirrorMaker 2", command, &task.directory)
            }
        }
    }

    /// What a user would do by hand after the start.
    pub fn configure(&self, task: &Task, stage: &Stage) -> Result<()> {
        let Mirror::Lockstep(node) = self else { return Ok(()) };
        let (source, destination) = stage.take_road(task.road);
        let tls = |ca: &Path| format!("security.protocol=SSL,ssl.truststore.location={}", ca.display());
        for (name, bootstrap, ca) in
            [("source", &source, &stage.source.ca), ("destination", &destination, &stage.destination.ca)]
        {
            let keys = tls(ca);
            let mut arguments = vec!["cluster", "create", name, "--bootstrap-server", bootstrap];
            if task.road == Road::Tls {
                arguments.extend(["--config", &keys]);
            }
            node.cli(&arguments)?;
        }
        let mut link = vec!["link", "create", "link", "--source", "source", "--destination", "destination"];
        link.extend(task.link_keys.iter().flat_map(|key| ["--config", key]));
        node.cli(&link)?;
        let topic = task.mirror_topic();
        node.cli(&["mirror", "create", &topic, "--link", "link", "--source-topic", task.topic])?;
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        match self {
            Mirror::Lockstep(node) => node.pid(),
            Mirror::Process(process) => Ok(process.pid()),
        }
    }

    /// What the system itself says when it doesn't do what it should.
    pub fn story(&self, task: &Task) -> String {
        match self {
            Mirror::Lockstep(node) => {
                let topic = task.mirror_topic();
                let told = node.cli(&["mirror", "describe", &topic, "--link", "link"]);
                told.unwrap_or_else(|error| format!("{error:#}"))
            }
            Mirror::Process(process) => log_tail(process.log()),
        }
    }

    pub fn stop(self) -> Result<()> {
        match self {
            Mirror::Lockstep(mut node) => node.kill9(),
            Mirror::Process(mut process) => process.kill(),
        }
    }
}

fn spawn(name: &str, command: Command, directory: &Path) -> Result<Mirror> {
    Ok(Mirror::Process(Process::spawn(name, command, &directory.join("mirror.log"))?))
}

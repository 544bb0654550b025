//! Runs scenes: loads a topic, lets the contenders mirror it in turn, cleans up after each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use harness::workspace_root;
use serde::Deserialize;

use super::measure::{self, Expected, Pids};
use super::mirror::{Mirror, Programs, Task};
use super::outcome::{Copied, Key, Outcome, Probed, Run};
use super::plan::{Contender, Kind, Scene, Shape, System};
use super::proc;
use super::profile::Profiler;
use super::stage::Stage;
use super::stats::percentile;
use crate::exec;

/// Enough to tell MirrorMaker's rate, most of whose runs are its start.
const MIRROR_MAKER_LIMIT: Duration = Duration::from_secs(6);
/// From a system's start until an empty topic is mirrored.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const IDLE_POLL: Duration = Duration::from_millis(50);
/// After that, everything has come to rest.
const REST: Duration = Duration::from_secs(1);
const PROBE_GAP_MS: &str = "10";

/// What all runs share.
pub struct Bench {
    pub stage: Stage,
    pub programs: Programs,
    pub directory: PathBuf,
    pub seed: u64,
    pub probe_records: usize,
    /// No run begins after it.
    pub deadline: Instant,
    /// Runs begun so far.
    pub count: u32,
}

/// What `raw-path load` says it wrote.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Loaded {
    pub records: i64,
    pub raw_bytes: f64,
    stored_bytes: f64,
}

/// What `raw-path probe` says it saw.
#[derive(Debug, Deserialize)]
struct Seen {
    produce_to_ack_ms: Vec<f64>,
    ack_to_visible_ms: Vec<f64>,
}

impl Bench {
    /// Lets the brokers do what they will be measured at; a failure here shows in the runs as well.
    pub fn warm_up(&mut self, scene: &Scene) -> Result<()> {
        self.play(scene, &mut |run| eprintln!("warming up  {}", run.line()))
    }

    /// Every run of a scene, told to `done` as it ends. A run that fails is an outcome; an error is
    /// a stage that can't go on.
    pub fn play(&mut self, scene: &Scene, done: &mut impl FnMut(Run)) -> Result<()> {
        if scene.contenders.is_empty() {
            return Ok(());
        }
        self.count += 1;
        let topic = format!("load-{}", self.count);
        self.stage.source.client()?.create_topic(&topic, scene.partitions)?;
        // Without time for a run there is none for its load; each run then says so.
        let loaded = if self.is_time_up() { Loaded::default() } else { self.load(scene, &topic)? };
        for round in 1..=scene.rounds {
            for contender in turn(&scene.contenders, round) {
                let Contender { system, road } = contender;
                let Scene { part, shape, partitions, .. } = *scene;
                let key = Key { part, shape, partitions, system, road };
                let outcome = self.run(scene, contender, &topic, loaded);
                let outcome = outcome.unwrap_or_else(|error| Outcome::Failed { reason: told(&error) });
                done(Run { key, round, outcome });
                for side in [&self.stage.source, &self.stage.destination] {
                    proc::cpu(side.pid()?).context("a broker is gone")?;
                }
            }
        }
        self.stage.source.client()?.delete_topics(&[topic])
    }

    fn is_time_up(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn load(&self, scene: &Scene, topic: &str) -> Result<Loaded> {
        let Scene { shape, partitions, bytes, .. } = *scene;
        load(&self.programs.raw_path, self.stage.source.plain(), topic, partitions, shape, bytes, self.seed)
    }

    fn run(&mut self, scene: &Scene, of: Contender, topic: &str, loaded: Loaded) -> Result<Outcome> {
        if self.is_time_up() {
            bail!("not begun: the time was up");
        }
        self.count += 1;
        let directory = self.directory.join(format!("run-{}", self.count));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let task = Task {
            number: self.count,
            system: of.system,
            road: of.road,
            kind: scene.kind,
            shape: scene.shape,
            topic,
            partitions: scene.partitions,
            link_keys: &[],
            directory,
        };
        let outcome = self.watch(&task, loaded, scene.limit);
        // Whatever became of the run, the next one finds the stage as this one did.
        let (at_source, at_destination) = task.leftovers();
        self.stage.source.client()?.delete_topics(&at_source)?;
        self.stage.destination.client()?.delete_topics(&at_destination)?;
        fs::remove_dir_all(&task.directory).context("remove the run's directory")?;
        outcome
    }

    /// From the mirror's start to its end.
    fn watch(&self, task: &Task, loaded: Loaded, limit: Duration) -> Result<Outcome> {
        let started = Instant::now();
        let mirror = Mirror::start(task, &self.stage, &self.programs)?;
        let outcome = match task.kind {
            Kind::Probe => self.probe(task, &mirror, loaded).map(Outcome::Probed),
            Kind::Copy | Kind::Profile => {
                let limit = match task.system {
                    System::MirrorMaker => limit.min(MIRROR_MAKER_LIMIT),
                    _ => limit,
                };
                self.copy(task, &mirror, loaded, limit, started).map(Outcome::Copied)
            }
        };
        let outcome = outcome.with_context(|| mirror.story(task));
        let stopped = mirror.stop();
        outcome.and_then(|outcome| stopped.map(|()| outcome))
    }

    fn copy(
        &self,
        task: &Task,
        mirror: &Mirror,
        loaded: Loaded,
        limit: Duration,
        started: Instant,
    ) -> Result<Copied> {
        let pids = Pids {
            mirror: vec![mirror.pid()?],
            source: self.stage.source.pid()?,
            destination: self.stage.destination.pid()?,
        };
        let record_bytes = loaded.raw_bytes / loaded.records as f64;
        let expected = Expected { records: loaded.records, record_bytes, limit };
        let destination = self.stage.destination.client()?;
        let (topic, partitions) = (task.mirror_topic(), task.partitions);
        let pid = mirror.pid()?;
        let profiler = (task.kind == Kind::Profile).then(|| Profiler::attach(pid, &task.directory));
        // Watched from before the mirror has its task: the first records come at once.
        let watcher = std::thread::spawn(move || {
            measure::copy(destination, &topic, partitions, pids, expected, started)
        });
        mirror.configure(task, &self.stage)?;
        let watched = watcher.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
        let mut copied = watched?;
        copied.profile = profiler.map(Profiler::finish).transpose()?;
        Ok(copied)
    }

    fn probe(&self, task: &Task, mirror: &Mirror, loaded: Loaded) -> Result<Probed> {
        mirror.configure(task, &self.stage)?;
        let mut destination = self.stage.destination.client()?;
        let mut source = self.stage.source.client()?;
        // Earlier contenders' probes are in the source as well.
        let wanted = source.records(task.topic, task.partitions)?.max(loaded.records);
        let deadline = Instant::now() + IDLE_LIMIT;
        while destination.records(&task.mirror_topic(), task.partitions)? < wanted {
            if Instant::now() >= deadline {
                bail!("an idle topic was not mirrored within {IDLE_LIMIT:?}");
            }
            std::thread::sleep(IDLE_POLL);
        }
        std::thread::sleep(REST);
        self.probe_once(task, self.probe_records / 5)?;
        let seen = self.probe_once(task, self.probe_records)?;
        let of = |values: &[f64], percent| percentile(values, percent).context("no record was probed");
        Ok(Probed {
            records: seen.ack_to_visible_ms.len(),
            p50_ms: of(&seen.ack_to_visible_ms, 50.0)?,
            p99_ms: of(&seen.ack_to_visible_ms, 99.0)?,
            produce_p50_ms: of(&seen.produce_to_ack_ms, 50.0)?,
            memory_peak_bytes: proc::memory_peak_bytes(mirror.pid()?)?,
        })
    }

    fn probe_once(&self, task: &Task, records: usize) -> Result<Seen> {
        let mut command = Command::new(&self.programs.raw_path);
        command
            .args(["probe", "--source", self.stage.source.plain()])
            .args(["--destination", self.stage.destination.plain()])
            .args(["--topic", task.topic, "--destination-topic", &task.mirror_topic()])
            .args(["--partitions", &task.partitions.to_string()])
            .args(["--records", &records.to_string(), "--gap-ms", PROBE_GAP_MS]);
        answer(&mut command)
    }
}

/// Fills a topic that is there and empty.
pub fn load(
    raw_path: &Path,
    broker: &str,
    topic: &str,
    partitions: i32,
    shape: Shape,
    bytes: u64,
    seed: u64,
) -> Result<Loaded> {
    let mut command = Command::new(raw_path);
    command
        .args(["load", "--broker", broker, "--topic", topic, "--partitions", &partitions.to_string()])
        .args(["--shape", shape.argument(), "--seed", &seed.to_string()])
        // At least a batch, so that a mirror that has it is known to run.
        .args(["--bytes", &bytes.max(1).to_string()]);
    let started = Instant::now();
    let loaded: Loaded = answer(&mut command)?;
    // What the disk still has to do would disturb the first runs.
    exec::capture(&mut Command::new("sync"))?;
    eprintln!(
        "\nloaded {} on {partitions} partitions: {} records, {:.2} GB, {:.2} GB stored, {:.0} s",
        shape.label(),
        loaded.records,
        loaded.raw_bytes / 1e9,
        loaded.stored_bytes / 1e9,
        started.elapsed().as_secs_f64()
    );
    Ok(loaded)
}

/// Every round begins with another contender, so that none always follows the same one.
fn turn(contenders: &[Contender], round: u32) -> Vec<Contender> {
    let mut contenders = contenders.to_vec();
    let first = round as usize % contenders.len().max(1);
    contenders.rotate_left(first);
    contenders
}

/// The report is for others, who have other directories.
pub fn told(error: &Error) -> String {
    format!("{error:#}").replace(&format!("{}/", workspace_root().display()), "")
}

/// Runs a command that prints a line of JSON.
fn answer<T: for<'a> Deserialize<'a>>(command: &mut Command) -> Result<T> {
    let (passed, text) = exec::capture(command)?;
    if !passed {
        bail!("{}", text.trim());
    }
    serde_json::from_str(&text).with_context(|| format!("an unexpected answer: {text}"))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Road;
    use super::*;

    #[test]
    fn each_round_begins_with_another_contender() {
        let of = |system| Contender { system, road: Road::Plain };
        let all = [of(System::Floor), of(System::Lockstep), of(System::MirrorMaker)];
        let firsts: Vec<System> = (1..=3).map(|round| turn(&all, round)[0].system).collect();
        assert_eq!(firsts, [System::Lockstep, System::MirrorMaker, System::Floor]);
    }
}

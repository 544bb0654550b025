//! One run: a mirror that catches up, the client beside it for a while, the mirror alone again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::mirror::{Mirror, Programs, Task};
use super::super::plan::{Kind as TaskKind, Road, Shape, System};
use super::super::proc::{self, Cpu};
use super::super::runner::{Loaded, told};
use super::super::stage::Stage;
use super::client::{self, Whole};
use super::cores;
use super::figures::{Kind, Measured, Outcome, Run, Sample, rate, rates};

pub const CLIENT_CORE: usize = 0;
pub const OTHERS_CORE: usize = 1;
pub const CLIENT_PARTITIONS: i32 = 6;
pub const PARTITIONS: i32 = 8;
pub const BACKLOG: &str = "backlog";
/// Of what the destination takes from the client alone.
const PACE: f64 = 0.3;
/// The client's, and with it the mirror's.
pub const WARM_UP_SECONDS: u64 = 3;
const CAPACITY_SECONDS: u64 = 5;
/// The mirror is watched for so long without the client.
const AFTER_SECONDS: u32 = 8;
/// A JVM that starts beside a broker on one core takes half a minute.
const FIRST_RECORD_LIMIT: Duration = Duration::from_secs(120);
const FIRST_RECORD_POLL: Duration = Duration::from_millis(50);
/// MirrorMaker's code is compiled by use.
const MIRROR_MAKER_WARM_UP: Duration = Duration::from_secs(10);
/// Deleted topics give their space back, and brokers come to rest.
const REST: Duration = Duration::from_secs(2);
const UNGOVERNED: [&str; 1] = ["throttle.client.writes.first=false"];

/// What all runs share.
pub struct Bench {
    pub stage: Stage,
    pub programs: Programs,
    pub directory: PathBuf,
    pub shape: Shape,
    pub backlog: Loaded,
    pub seed: u64,
    pub seconds: u64,
    /// The client's bytes a second.
    pub pace: u64,
    /// Runs begun so far.
    pub count: u32,
}

impl Bench {
    /// What the destination takes from the client alone, in bytes a second.
    pub fn capacity(&mut self) -> Result<f64> {
        self.count += 1;
        let (whole, _) = self.client(None, CAPACITY_SECONDS, &mut || Ok(()))?;
        Ok(whole.bytes / CAPACITY_SECONDS as f64)
    }

    pub fn set_pace(&mut self, capacity: f64) {
        self.pace = (capacity * PACE) as u64;
    }

    /// A run that fails is an outcome; an error is a stage that can't go on.
    pub fn run(&mut self, kind: Kind, round: u32) -> Result<Run> {
        self.count += 1;
        let outcome = match kind {
            Kind::Alone => self.alone(),
            _ => self.beside(kind),
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome::Failed { reason: told(&error) });
        for side in [&self.stage.source, &self.stage.destination] {
            proc::cpu(side.pid()?).context("a broker is gone")?;
        }
        std::thread::sleep(REST);
        Ok(Run { kind, round, outcome })
    }

    fn alone(&self) -> Result<Outcome> {
        let (whole, p99s, samples) = self.measured_client(&mut || self.sample(Watched::NOBODY))?;
        Ok(Outcome::Measured(Box::new(self.figures(whole, p99s, &samples, Vec::new()))))
    }

    fn beside(&self, kind: Kind) -> Result<Outcome> {
        let directory = self.directory.join(format!("run-{}", self.count));
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let task = Task {
            number: self.count,
            system: if kind == Kind::MirrorMaker { System::MirrorMaker } else { System::Lockstep },
            road: Road::Plain,
            kind: TaskKind::Copy,
            shape: self.shape,
            topic: BACKLOG,
            partitions: PARTITIONS,
            link_keys: if kind == Kind::Ungoverned { &UNGOVERNED } else { &[] },
            directory,
        };
        let mirror = Mirror::start(&task, &self.stage, &self.programs)?;
        let outcome = self.watch(&task, &mirror).with_context(|| mirror.story(&task));
        let stopped = mirror.stop();
        // Whatever became of the run, the next one finds the stage as this one did.
        let (at_source, at_destination) = task.leftovers();
        self.stage.source.client()?.delete_topics(&at_source)?;
        self.stage.destination.client()?.delete_topics(&at_destination)?;
        fs::remove_dir_all(&task.directory).context("remove the run's directory")?;
        outcome.and_then(|outcome| stopped.map(|()| outcome))
    }

    fn watch(&self, task: &Task, mirror: &Mirror) -> Result<Outcome> {
        mirror.configure(task, &self.stage)?;
        let topic = task.mirror_topic();
        let watched = Watched { topic: Some(&topic), mirror: Some(mirror.pid()?) };
        self.wait_for_the_first_record(watched)?;
        if task.system == System::MirrorMaker {
            std::thread::sleep(MIRROR_MAKER_WARM_UP);
        }
        let (whole, p99s, samples) = self.measured_client(&mut || self.sample(watched))?;
        if self.has_caught_up(samples.last()) {
            return Ok(Outcome::Void);
        }
        let mut after = vec![self.sample(watched)?];
        let stopped = Instant::now();
        for second in 1..=AFTER_SECONDS {
            let due = stopped + Duration::from_secs(1) * second;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            after.push(self.sample(watched)?);
        }
        after.retain(|sample| !self.has_caught_up(Some(sample)));
        let after = rates(&after, self.record_bytes());
        Ok(Outcome::Measured(Box::new(self.figures(whole, p99s, &samples, after))))
    }

    fn wait_for_the_first_record(&self, watched: Watched) -> Result<()> {
        let started = Instant::now();
        while self.sample(watched)?.mirrored == 0 {
            ensure!(started.elapsed() < FIRST_RECORD_LIMIT, "no record came within {FIRST_RECORD_LIMIT:?}");
            std::thread::sleep(FIRST_RECORD_POLL);
        }
        Ok(())
    }

    fn has_caught_up(&self, sample: Option<&Sample>) -> bool {
        sample.is_some_and(|sample| sample.mirrored >= self.backlog.records)
    }

    fn record_bytes(&self) -> f64 {
        self.backlog.raw_bytes / self.backlog.records as f64
    }

    /// The paced client, its p99 second by second, and what was seen at their ends.
    fn measured_client(
        &self,
        look: &mut impl FnMut() -> Result<Sample>,
    ) -> Result<(Whole, Vec<f64>, Vec<Sample>)> {
        let mut samples = Vec::new();
        let (whole, p99s) = self.client(Some(self.pace), self.seconds, &mut || {
            samples.push(look()?);
            Ok(())
        })?;
        Ok((whole, p99s, samples))
    }

    /// A client with a topic of its own. Told when the warm-up ends, and each second from then on.
    fn client(
        &self,
        pace: Option<u64>,
        seconds: u64,
        ended: &mut impl FnMut() -> Result<()>,
    ) -> Result<(Whole, Vec<f64>)> {
        let topic = format!("clients-{}", self.count);
        let mut destination = self.stage.destination.client()?;
        destination.create_topic(&topic, CLIENT_PARTITIONS)?;
        let mut command = cores::command(CLIENT_CORE, Path::new(&self.programs.raw_path));
        command
            .args(["pace", "--broker", self.stage.destination.plain(), "--topic", &topic])
            .args(["--partitions", &CLIENT_PARTITIONS.to_string(), "--seed", &self.seed.to_string()])
            .args(["--warm-up-seconds", &WARM_UP_SECONDS.to_string(), "--seconds", &seconds.to_string()]);
        if let Some(pace) = pace {
            command.args(["--bytes-per-second", &pace.to_string()]);
        }
        let mut p99s = Vec::new();
        let whole = client::run(&mut command, &mut |second| {
            if second.second >= 0 {
                p99s.push(second.p99_ms);
            }
            if second.second >= -1 { ended() } else { Ok(()) }
        });
        destination.delete_topics(&[topic])?;
        Ok((whole?, p99s))
    }

    fn sample(&self, watched: Watched) -> Result<Sample> {
        let mirrored = match watched.topic {
            Some(topic) => self.stage.destination.client()?.records(topic, PARTITIONS)?,
            None => 0,
        };
        Ok(Sample {
            at: Instant::now(),
            mirrored,
            destination: proc::cpu(self.stage.destination.pid()?)?,
            mirror: watched.mirror.map_or(Ok(Cpu::default()), proc::cpu).context("the mirror")?,
            steal_seconds: proc::steal_seconds()?,
        })
    }

    fn figures(&self, whole: Whole, p99s: Vec<f64>, samples: &[Sample], after: Vec<f64>) -> Measured {
        let (first, last) = (samples[0], samples[samples.len() - 1]);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let by_second = rates(samples, self.record_bytes());
        let has_mirror = last.mirrored > 0;
        Measured {
            p50_ms: whole.p50_ms,
            p99_ms: whole.p99_ms,
            p999_ms: whole.p999_ms,
            max_ms: whole.max_ms,
            mirror_rate: has_mirror.then(|| rate(first, last, self.record_bytes())),
            destination_cpu: last.destination.since(first.destination).seconds() / seconds,
            mirror_cpu: last.mirror.since(first.mirror).seconds() / seconds,
            steal_seconds: last.steal_seconds - first.steal_seconds,
            p99_ms_by_second: p99s,
            mirror_rate_by_second: if has_mirror { by_second } else { Vec::new() },
            mirror_rate_after: after,
        }
    }
}

/// Whom a sample is of.
#[derive(Clone, Copy)]
struct Watched<'a> {
    topic: Option<&'a str>,
    mirror: Option<u32>,
}

impl Watched<'_> {
    const NOBODY: Watched<'static> = Watched { topic: None, mirror: None };
}

//! Two embedded clusters and a fleet between them; whether everything flows, and at what price.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::fleet::Fleet;
use harness::node::Node;
use harness::process::log_tail;

use super::records::Cluster;
use crate::bench::proc;

pub const NODES: usize = 3;
const SOURCE: &str = "east";
const DESTINATION: &str = "west";
const LINK: &str = "link";

/// A fleet that needs longer has failed.
const FLOW_LIMIT: Duration = Duration::from_secs(300);
/// A look at 20,000 log ends costs the embedded brokers some milliseconds.
const FLOW_POLL: Duration = Duration::from_millis(250);
/// Metrics of all partitions cost a node some hundred milliseconds.
const SHOWN_POLL: Duration = Duration::from_secs(1);

pub struct Stage {
    pub source: Cluster,
    pub destination: Cluster,
    pub fleet: Fleet,
    pub directory: PathBuf,
    topics: Vec<(String, i32)>,
}

/// CPU seconds of the nodes together, the source's brokers, the destination's.
type CpuSeconds = [f64; 3];
/// The same by process.
type Used = [BTreeMap<u32, f64>; 3];

/// Something that has begun.
pub struct Step {
    what: String,
    begun: Instant,
    cpu: Used,
}

/// Something after which everything flowed again.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Flowed {
    pub what: String,
    /// Until each mirror partition had what its source had.
    pub flowing_seconds: f64,
    /// Until each was shown as RUNNING without lag.
    pub shown_seconds: f64,
    /// Meanwhile, until everything flowed: nodes that live, source, destination.
    pub cpu_seconds: CpuSeconds,
    pub memory_bytes: u64,
}

/// Something that a node was asked for.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Answer {
    pub what: String,
    pub seconds: f64,
    pub bytes: usize,
}

/// A fleet without anything to do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Rest {
    pub raft_entries_per_minute: f64,
    pub peer_bytes_per_second: f64,
    /// Of one core, by all nodes together.
    pub cpu_percent: f64,
}

impl Stage {
    pub fn start(
        lockstep: PathBuf,
        serve: &Path,
        directory: &Path,
        topics: Vec<(String, i32)>,
    ) -> Result<Stage> {
        let mut source = Cluster::start(SOURCE, serve, directory)?;
        let destination = Cluster::start(DESTINATION, serve, directory)?;
        source.create_topics(&topics)?;
        ensure!(source.look_up(&topics)?, "the source's topics aren't there");
        let fleet = Fleet::found_binary(lockstep, directory, NODES, false)?;
        let any = fleet.any()?;
        for (name, bootstrap) in [(SOURCE, &source.bootstrap), (DESTINATION, &destination.bootstrap)] {
            any.cli(&["cluster", "create", name, "--bootstrap-server", bootstrap])?;
        }
        any.cli(&["link", "create", LINK, "--source", SOURCE, "--destination", DESTINATION])?;
        Ok(Stage { source, destination, fleet, directory: directory.to_path_buf(), topics })
    }

    pub fn create_mirrors(&self) -> Result<()> {
        let any = self.fleet.any()?;
        for (topic, _) in &self.topics {
            any.cli(&["mirror", "create", topic, "--link", LINK])?;
        }
        Ok(())
    }

    pub fn begin(&self, what: &str) -> Result<Step> {
        eprintln!("{what} …");
        Ok(Step { what: what.to_owned(), begun: Instant::now(), cpu: self.cpu_seconds()? })
    }

    /// Until every mirror partition has what its source has, and is shown so.
    pub fn wait_flowing(&mut self, step: Step) -> Result<Flowed> {
        let Step { what, begun, cpu: before } = step;
        let wanted = self.source.ends()?;
        let flowing = loop {
            let there = self.destination.look_up(&self.topics)?;
            let found = if there { self.destination.ends()? } else { Default::default() };
            let behind = wanted.iter().filter(|(key, end)| found.get(*key).is_none_or(|found| found < *end));
            let behind = behind.count();
            if behind == 0 {
                ensure!(found == wanted, "{what}: a mirror is longer than its source");
                break begun.elapsed();
            }
            if begun.elapsed() > FLOW_LIMIT {
                bail!("{what}: {behind} of {} partitions don't flow after {FLOW_LIMIT:?}", wanted.len());
            }
            std::thread::sleep(FLOW_POLL);
        };
        let cpu = self.cpu_seconds()?;
        while self.shown_well()? < wanted.len() {
            if begun.elapsed() > FLOW_LIMIT {
                bail!("{what}: only {} partitions are shown as RUNNING without lag", self.shown_well()?);
            }
            std::thread::sleep(SHOWN_POLL);
        }
        let flowed = Flowed {
            what,
            flowing_seconds: flowing.as_secs_f64(),
            shown_seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: since(&before, &cpu),
            memory_bytes: self.memory_bytes()?,
        };
        eprintln!("{flowed:.1?}");
        Ok(flowed)
    }

    /// Partitions that the nodes which run them show as RUNNING, or as having a lag of zero: the fewer.
    fn shown_well(&self) -> Result<usize> {
        let (mut running, mut without_lag) = (0, 0);
        for node in self.fleet.running() {
            let text = node.get_text("/metrics")?;
            let samples = |name: &'static str| {
                text.lines().filter_map(move |line| {
                    let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
                    Some((labels, value.parse::<f64>().ok()?))
                })
            };
            let of_running = samples("lockstep_mirror_partition_count{")
                .filter(|(labels, _)| labels.contains("state=\"RUNNING\""));
            running += of_running.map(|(_, count)| count as usize).sum::<usize>();
            without_lag += samples("lockstep_mirror_lag_records{").filter(|(_, lag)| *lag == 0.0).count();
        }
        Ok(running.min(without_lag))
    }

    /// Resident memory of all nodes.
    pub fn memory_bytes(&self) -> Result<u64> {
        self.pids()?.into_iter().map(proc::memory_bytes).sum()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.fleet.running().map(Node::pid).collect()
    }

    fn cpu_seconds(&self) -> Result<Used> {
        let of = |pids: Vec<u32>| {
            let used = pids.into_iter().map(|pid| Ok((pid, proc::cpu(pid)?.seconds())));
            used.collect::<Result<BTreeMap<u32, f64>>>()
        };
        Ok([of(self.pids()?)?, of(vec![self.source.pid()])?, of(vec![self.destination.pid()])?])
    }

    /// Of the nodes that run.
    pub fn busiest_pid(&self) -> Result<u32> {
        let [nodes, ..] = self.cpu_seconds()?;
        let busiest = nodes.into_iter().max_by(|one, two| one.1.total_cmp(&two.1));
        Ok(busiest.context("no node runs")?.0)
    }

    /// What operators and their tools ask for, of a node that doesn't lead and so has most to fetch.
    pub fn ask(&self) -> Result<Vec<Answer>> {
        let follower = self.fleet.follower()?;
        let node = self.fleet.running().find(|node| node.name() == follower).context("no follower runs")?;
        let topic = self.topics.first().context("no topic")?.0.as_str();
        let mirrors = format!("/kafka/v3/clusters/{DESTINATION}/links/{LINK}/mirrors");
        let asked = [
            ("every mirror with all its partitions", mirrors.clone()),
            ("one mirror", format!("{mirrors}/{topic}")),
            ("the nodes", "/lockstep/v1/nodes".to_owned()),
            ("metrics", "/metrics".to_owned()),
        ];
        let ask = |(what, path): (&str, String)| {
            let begun = Instant::now();
            let bytes = node.get_text(&path)?.len();
            let answer = Answer { what: what.to_owned(), seconds: begun.elapsed().as_secs_f64(), bytes };
            eprintln!("{answer:.3?}");
            Ok(answer)
        };
        asked.into_iter().map(ask).collect()
    }

    pub fn watch_rest(&self, long: Duration) -> Result<Rest> {
        eprintln!("at rest for {long:?} …");
        self.fleet.wait_settled(NODES)?;
        let (begun, cpu, before) = (Instant::now(), self.cpu_seconds()?, self.counts()?);
        std::thread::sleep(long);
        let (cpu_after, seconds) = (self.cpu_seconds()?, begun.elapsed().as_secs_f64());
        let after = self.counts()?;
        let rest = Rest {
            raft_entries_per_minute: (after.0 - before.0) * 60.0 / seconds,
            peer_bytes_per_second: (after.1 - before.1) / seconds,
            cpu_percent: since(&cpu, &cpu_after)[0] * 100.0 / seconds,
        };
        eprintln!("{rest:.1?}");
        Ok(rest)
    }

    /// The last Raft entry that anybody knows, and bytes that nodes have sent each other.
    fn counts(&self) -> Result<(f64, f64)> {
        let (mut entries, mut bytes) = (0.0f64, 0.0);
        for node in self.fleet.running() {
            let text = node.get_text("/metrics")?;
            for line in text.lines() {
                let value = || line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
                if line.starts_with("lockstep_raft_commit_index{") {
                    entries = entries.max(value().context("a metric without a value")?);
                } else if line.starts_with("lockstep_peer_bytes_total{") && line.contains("\"out\"") {
                    bytes += value().context("a metric without a value")?;
                }
            }
        }
        Ok((entries, bytes))
    }

    /// Every record of both clusters; how many partitions that were.
    pub fn compare(&mut self) -> Result<usize> {
        let (source, destination) = (self.source.contents()?, self.destination.contents()?);
        ensure!(source.len() == destination.len(), "{} and {}", source.len(), destination.len());
        for (key, records) in &source {
            ensure!(destination.get(key) == Some(records), "{key:?} differs between the clusters");
            ensure!(!records.is_empty(), "{key:?} holds nothing");
        }
        Ok(source.len())
    }

    pub fn log_tails(&self) -> String {
        let logs = self.fleet.names().into_iter().map(|name| self.directory.join(name).join("node.log"));
        logs.map(|log| log_tail(&log)).collect::<Vec<_>>().join("\n")
    }
}

/// Of processes that live; one that has begun meanwhile counts whole.
fn since(before: &Used, after: &Used) -> CpuSeconds {
    [0, 1, 2].map(|of| {
        let used = |(pid, seconds): (&u32, &f64)| seconds - before[of].get(pid).copied().unwrap_or_default();
        after[of].iter().map(used).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_takes_nothing_away() {
        let before = [BTreeMap::from([(1, 5.0), (2, 7.0)]), BTreeMap::new(), BTreeMap::from([(9, 1.0)])];
        let after = [BTreeMap::from([(2, 8.0), (3, 2.0)]), BTreeMap::new(), BTreeMap::from([(9, 1.5)])];
        assert_eq!(since(&before, &after), [3.0, 0.0, 0.5]);
    }
}

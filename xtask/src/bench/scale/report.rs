//! The figures as Markdown, with a line of JSON a figure at its end.

use serde::Serialize;

use super::stage::{Answer, Flowed, Rest};
use crate::bench::goals::{Goal, at_most};
use crate::bench::outcome::Profile;
use crate::bench::report::{goals_table, json, profile_body, table};

const KIB_PER_PARTITION_MAX: f64 = 30.0;
const START_SECONDS_MAX: f64 = 60.0;
const MOVE_SECONDS_MAX: f64 = 30.0;
const ENTRIES_PER_MINUTE_MAX: f64 = 60.0;
const KILOBYTES_PER_SECOND_MAX: f64 = 20.0;

pub struct Setting {
    pub commit: String,
    pub started: String,
    pub minutes: f64,
    pub machine: String,
    pub load: String,
    pub partitions: u32,
    pub old: bool,
    pub rest_seconds: u64,
}

/// When it was taken, and what it is.
pub type Profiled = (String, Profile);

#[derive(Default, Serialize)]
pub struct Figures {
    /// Of all nodes together, before there was a mirror.
    pub bare_bytes: u64,
    /// Added to it, once everything ran.
    pub bytes_per_partition: Option<f64>,
    /// The same after a restart of all nodes.
    pub bytes_per_partition_restarted: Option<f64>,
    pub rest: Option<Rest>,
    pub start_seconds: Option<f64>,
    pub move_seconds: Option<f64>,
    pub steps: Vec<Flowed>,
    pub answers: Vec<Answer>,
    /// Partitions of which every record was compared in the end.
    pub compared: usize,
    pub profiles: Vec<Profiled>,
}

pub fn goals(figures: &Figures) -> Vec<Goal> {
    let kib = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1024.0);
    let rest = figures.rest.as_ref();
    let memory = [figures.bytes_per_partition, figures.bytes_per_partition_restarted];
    let memory = memory.into_iter().flatten().reduce(f64::max);
    vec![
        at_most("KiB resident a partition, the fleet together".into(), KIB_PER_PARTITION_MAX, kib(memory)),
        at_most(
            "seconds from the start of all nodes to all partitions flowing".into(),
            START_SECONDS_MAX,
            figures.start_seconds,
        ),
        at_most(
            "seconds from SIGKILL of a node to all partitions flowing".into(),
            MOVE_SECONDS_MAX,
            figures.move_seconds,
        ),
        at_most(
            "Raft entries a minute at rest".into(),
            ENTRIES_PER_MINUTE_MAX,
            rest.map(|rest| rest.raft_entries_per_minute),
        ),
        at_most(
            "KB/s between nodes at rest".into(),
            KILOBYTES_PER_SECOND_MAX,
            rest.map(|rest| rest.peer_bytes_per_second / 1e3),
        ),
    ]
}

pub fn markdown(setting: &Setting, figures: &Figures) -> String {
    let Setting { commit, started, minutes, machine, load, partitions, old, rest_seconds } = setting;
    let age = if *old {
        "two days old: nothing but leases and waits guards their mirrors"
    } else {
        "fresh: brokers guard their mirrors"
    };
    let mut text = format!(
        "# {partitions} mirror partitions on three nodes\n\nCommit {commit}, started {started}, {minutes:.1} \
         minutes, {machine}, load average before {load}.\n\nOne link between two embedded clusters of three \
         brokers, each cluster a process, on the same machine as the nodes. A partition flows when its mirror \
         has a record that was appended to its source after the step had begun, or while all nodes were down. \
         Records are {age}. In the end every record of {} partitions was read from both clusters and compared. Rest was watched \
         for {rest_seconds} s.\n\n## Goals\n\n{}\n\n## Steps\n\n{}\n",
        figures.compared,
        goals_table(&goals(figures)),
        steps_table(&figures.steps),
    );
    text += "\nCPU seconds until everything flowed; those of a node that was killed aren't counted.\n";
    let mib = |bytes: f64| format!("{:.1}", bytes / (1024.0 * 1024.0));
    text += &format!("\nMemory of the three nodes without a mirror: {} MiB.", mib(figures.bare_bytes as f64));
    for (bytes, when) in [
        (figures.bytes_per_partition, "since the mirrors were made"),
        (figures.bytes_per_partition_restarted, "after a restart of all nodes"),
    ] {
        text += &bytes.map_or(String::new(), |b| format!(" A partition adds {:.1} KiB {when}.", b / 1024.0));
    }
    if let Some(rest) = &figures.rest {
        text += &format!(" At rest all nodes together take {:.1} % of a core.", rest.cpu_percent);
    }
    text += &format!("\n\n## Answers of a node that doesn't lead\n\n{}\n", answers_table(&figures.answers));
    for (title, profile) in &figures.profiles {
        text += &format!("\n## {title}\n\n{}", profile_body(profile));
    }
    text + &format!("\n```json\n{}\n```\n", json(figures))
}

fn steps_table(steps: &[Flowed]) -> String {
    let head =
        ["step", "flowing s", "shown s", "nodes CPU-s", "source CPU-s", "destination CPU-s", "nodes MiB"];
    let row = |step: &Flowed| {
        let [nodes, source, destination] = step.cpu_seconds.map(|seconds| format!("{seconds:.1}"));
        vec![
            step.what.clone(),
            format!("{:.1}", step.flowing_seconds),
            format!("{:.1}", step.shown_seconds),
            nodes,
            source,
            destination,
            format!("{:.0}", step.memory_bytes as f64 / (1024.0 * 1024.0)),
        ]
    };
    table(&head, steps.iter().map(row))
}

fn answers_table(answers: &[Answer]) -> String {
    let row = |answer: &Answer| {
        vec![
            answer.what.clone(),
            format!("{:.0}", answer.seconds * 1e3),
            format!("{:.0}", answer.bytes as f64 / 1e3),
        ]
    };
    table(&["asked for", "ms", "KB"], answers.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::goals::Verdict;

    #[test]
    fn the_dearer_of_two_looks_at_memory_counts() {
        let rest = Rest { raft_entries_per_minute: 61.0, peer_bytes_per_second: 19_000.0, cpu_percent: 3.0 };
        let figures = Figures {
            bytes_per_partition: Some(10.0 * 1024.0),
            bytes_per_partition_restarted: Some(31.0 * 1024.0),
            rest: Some(rest),
            start_seconds: Some(59.0),
            ..Figures::default()
        };
        let verdicts: Vec<Verdict> = goals(&figures).into_iter().map(|goal| goal.verdict).collect();
        let [met, missed] = [Verdict::Met, Verdict::Missed];
        assert_eq!(verdicts, [missed, met, Verdict::Unmeasured, missed, met]);
    }
}

//! The report: Markdown with every run as a line of JSON at its end. The tables are what the
//! terminal shows as well.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::goals::{Goal, judge, ratio, reference};
use super::outcome::{Copied, Key, Outcome, Probed, Profile, Run, partitions};
use super::plan::{Part, ROUND_TRIP_MS, Road, System};
use super::stats::median;

/// What the figures hold for.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub commit: String,
    pub started: String,
    pub command: String,
    pub machine: String,
    /// The load average before the start: above a few tenths others worked, too.
    pub load: String,
    pub kafka: String,
    pub mirror_maker: String,
    pub java: String,
    pub rust: String,
    pub seed: u64,
    pub rounds: u32,
}

/// All of it, as far as it is measured.
pub fn markdown(setting: &Setting, runs: &[Run], minutes: f64) -> String {
    let mut text = format!("# Bench of {}\n\n", setting.started);
    for (name, value) in [
        ("commit", &setting.commit),
        ("command", &setting.command),
        ("machine", &setting.machine),
        ("load average before", &setting.load),
        ("brokers", &setting.kafka),
        ("MirrorMaker 2", &setting.mirror_maker),
        ("Java", &setting.java),
        ("Rust", &setting.rust),
    ] {
        text += &format!("- {name}: {value}\n");
    }
    text += &format!("- seed {}, {} rounds, {minutes:.1} minutes\n\n", setting.seed, setting.rounds);
    text += EXPLANATION;
    text += &summary(runs);
    for (key, profile) in profiles(runs) {
        text += &profile_section(key, profile);
    }
    text += "\n## All runs\n\nThe setting, then a line a run.\n\n```json\n";
    for line in std::iter::once(json(setting)).chain(runs.iter().map(json)) {
        text += &format!("{line}\n");
    }
    text + "```\n"
}

const EXPLANATION: &str = "\
Two clusters of one broker each, the mirror and the bench share this machine; so compare within this
report, not with another machine's. The systems take turns on the same topic. A figure is the median
of its rounds, a ratio the median of the ratios within a round. MB and GB are 10⁶ and 10⁹ bytes of
batches before compression. MB/s and CPU time count from the first record seen at the destination to
the last; MirrorMaker's warming up is inside, its start is not. *First* is from the start of the
process to the first record, set-up by the CLI included. *Floor* is the raw-path prototype: the least
work that mirrors at all, without any of the safety. A rate marked with * ended at its time limit
before the last record.
";

/// Medians and goals.
pub fn summary(runs: &[Run]) -> String {
    let mut text = String::new();
    for (part, title) in [
        (Part::Throughput, "Throughput"),
        (Part::Tls, "TLS to both clusters"),
        (Part::Delay, "A long round trip to the source"),
        (Part::Memory, "Memory while catching up"),
        (Part::Profile, "Under the profiler"),
    ] {
        let of_part = keys(runs, part);
        if !of_part.is_empty() {
            text += &format!("\n## {title}\n\n{}\n", copies_table(runs, &of_part));
        }
        if part == Part::Delay && !of_part.is_empty() {
            text += &pipe(runs, &of_part);
        }
    }
    let probes = keys(runs, Part::Latency);
    if !probes.is_empty() {
        text += &format!("\n## Latency at rest, 100 records/s\n\n{}\n", probes_table(runs, &probes));
    }
    let failed = failures(runs);
    if !failed.is_empty() {
        text += &format!("\n## Failed runs\n\n{failed}");
    }
    let goals = judge(runs);
    if !goals.is_empty() {
        text += &format!("\n## Goals\n\n{}\n", goals_table(&goals));
    }
    text
}

pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"unprintable\": \"{error}\"}}"))
}

/// What a part has figures of.
fn keys(runs: &[Run], part: Part) -> Vec<Key> {
    let mut keys = Vec::new();
    for run in runs.iter().filter(|run| run.key.part == part) {
        let failed = matches!(run.outcome, Outcome::Failed { .. });
        if !failed && !keys.contains(&run.key) {
            keys.push(run.key);
        }
    }
    keys.sort_by_key(|key| {
        let Key { shape, partitions, system, road, .. } = *key;
        (shape as u8, partitions, system as u8, road.label())
    });
    keys
}

pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    // A terminal's width must not break Markdown's lines.
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn copies_table(runs: &[Run], keys: &[Key]) -> String {
    let against = keys.iter().find_map(|key| baseline(*key)).map(|(_, name)| format!("to {name}"));
    let mut head = COPY_COLUMNS.to_vec();
    if let Some(against) = &against {
        head.insert(6, against);
        head.insert(5, against);
    }
    table(&head, keys.iter().map(|key| copies_row(runs, *key)))
}

const COPY_COLUMNS: [&str; 11] = [
    "load",
    "partitions",
    "road",
    "system",
    "MB/s",
    "CPU-s/GB",
    "kernel's",
    "source broker",
    "destination broker",
    "peak MiB",
    "first s",
];

/// What a row's figures are divided by, and its name.
fn baseline(key: Key) -> Option<(Key, &'static str)> {
    let lockstep = |road| Key { system: System::Lockstep, road, ..key };
    match key.part {
        Part::Throughput => Some((Key { system: reference(key.shape), ..key }, "floor")),
        Part::Tls => Some((lockstep(Road::Plain), "plain Lockstep")),
        Part::Delay => Some((lockstep(Road::Proxied { round_trip_ms: 0 }), "Lockstep at 0 ms")),
        _ => None,
    }
}

fn copies_row(runs: &[Run], key: Key) -> Vec<String> {
    let copied: Vec<&Copied> = runs.iter().filter(|run| run.key == key).filter_map(Run::copied).collect();
    let of = |value: fn(&Copied) -> f64| {
        let values: Vec<f64> = copied.iter().map(|copied| value(copied)).collect();
        median(&values)
    };
    let cut = if copied.iter().any(|copied| copied.cut) { "*" } else { "" };
    let mut row = vec![
        key.shape.label().to_owned(),
        key.partitions.to_string(),
        key.road.label(),
        key.system.label().to_owned(),
        format!("{}{cut}", number(of(|c| c.megabytes_per_second), 0)),
        number(of(|c| c.mirror_cpu), 2),
        number(of(|c| c.mirror_system_share * 100.0), 0) + " %",
        number(of(|c| c.source_cpu), 2),
        number(of(|c| c.destination_cpu), 2),
        number(of(|c| c.memory_peak_bytes as f64 / (1024.0 * 1024.0)), 0),
        number(of(|c| c.first_record_seconds), 2),
    ];
    if let Some((other, _)) = baseline(key) {
        let against = |value: fn(&Copied) -> f64| match key == other {
            true => String::new(),
            false => number(ratio(runs, key, other, value), 2),
        };
        row.insert(6, against(|c| c.mirror_cpu));
        row.insert(5, against(|c| c.megabytes_per_second));
    }
    row
}

/// What must be under way to fill the pipe, beside what the mirror took.
fn pipe(runs: &[Run], keys: &[Key]) -> String {
    let mut text = String::new();
    let far = Road::Proxied { round_trip_ms: ROUND_TRIP_MS };
    for key in keys.iter().filter(|key| key.system == System::Lockstep && key.road == far) {
        let values = |key: Key, value: fn(&Copied) -> f64| {
            let of_key = runs.iter().filter(|run| run.key == key).filter_map(Run::copied);
            median(&of_key.map(value).collect::<Vec<_>>())
        };
        let near = Key { road: Road::Proxied { round_trip_ms: 0 }, ..*key };
        let full = values(near, |c| c.megabytes_per_second).map(|rate| rate * ROUND_TRIP_MS as f64 / 1e3);
        let held = values(*key, |c| c.megabytes_per_second).map(|rate| rate * ROUND_TRIP_MS as f64 / 1e3);
        text += &format!(
            "\nThe memory bound, {}: at the undelayed rate a round trip of {ROUND_TRIP_MS} ms holds {} MB; \
             at the delayed rate {} MB were under way, of {} MiB resident at the peak.\n",
            partitions(key.partitions),
            number(full, 1),
            number(held, 1),
            number(values(*key, |c| c.memory_peak_bytes as f64 / (1024.0 * 1024.0)), 0)
        );
    }
    text
}

fn probes_table(runs: &[Run], keys: &[Key]) -> String {
    let head = ["system", "road", "p50 ms", "p99 ms", "produce to ack p50 ms", "peak MiB"];
    let row = |key: &Key| {
        let of = |value: fn(&Probed) -> f64| {
            let of_key = runs.iter().filter(|run| run.key == *key).filter_map(Run::probed);
            median(&of_key.map(value).collect::<Vec<_>>())
        };
        vec![
            key.system.label().to_owned(),
            key.road.label(),
            number(of(|p| p.p50_ms), 2),
            number(of(|p| p.p99_ms), 2),
            number(of(|p| p.produce_p50_ms), 2),
            number(of(|p| p.memory_peak_bytes as f64 / (1024.0 * 1024.0)), 0),
        ]
    };
    table(&head, keys.iter().map(row))
}

pub fn goals_table(goals: &[Goal]) -> String {
    let row = |goal: &Goal| {
        let Goal { what, wanted, measured, verdict } = goal.clone();
        vec![what, wanted, measured, verdict.label().to_owned()]
    };
    table(&["goal", "wanted", "measured", ""], goals.iter().map(row))
}

fn failures(runs: &[Run]) -> String {
    let line = |run: &Run| match &run.outcome {
        Outcome::Failed { .. } => Some(format!("    {}\n", run.line().replace('\n', "\n    "))),
        _ => None,
    };
    runs.iter().filter_map(line).collect()
}

fn profiles(runs: &[Run]) -> impl Iterator<Item = (Key, &Profile)> {
    runs.iter()
        .filter(|run| run.round == 1)
        .filter_map(|run| Some((run.key, run.copied()?.profile.as_ref()?)))
}

fn profile_section(key: Key, profile: &Profile) -> String {
    format!("\n## Where Lockstep's CPU time goes: {}\n\n{}", key.place(), profile_body(profile))
}

pub fn profile_body(profile: &Profile) -> String {
    let mut text = format!("Functions: {}.\n\n", profile.source);
    let places: Vec<String> =
        profile.places.iter().map(|(share, place)| format!("{place} {share:.0} %")).collect();
    if !places.is_empty() {
        text += &format!("By place: {}.\n\n", places.join(", "));
    }
    for (share, function) in &profile.functions {
        text += &format!("    {share:5.2} %  {function}\n");
    }
    text += "\nThreads, CPU seconds of the whole life of the process:\n\n";
    let row = |(name, user, system): &(String, f64, f64)| {
        vec![name.clone(), format!("{user:.2}"), format!("{system:.2}")]
    };
    text += &table(&["thread", "program's", "kernel's"], profile.threads.iter().map(row));
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::goals::tests::{copied, key};
    use super::*;

    fn setting() -> Setting {
        Setting {
            commit: "abc".into(),
            started: "2026-01-02T03:04:05Z".into(),
            command: "cargo xtask bench".into(),
            machine: "2 cores".into(),
            load: "0.12".into(),
            kafka: "4.4.0".into(),
            mirror_maker: "4.1.1".into(),
            java: "17".into(),
            rust: "1.95".into(),
            seed: 7,
            rounds: 1,
        }
    }

    fn runs() -> Vec<Run> {
        let own = key(Part::Throughput, System::Lockstep, Road::Plain);
        let floor = Key { system: System::Floor, ..own };
        let gone = Key { system: System::MirrorMaker, ..own };
        let failed = Run { key: gone, round: 1, outcome: Outcome::Failed { reason: "gone\naway".into() } };
        vec![copied(floor, 1, 600.0, 1.0, 50), copied(own, 1, 570.0, 1.5, 64), failed]
    }

    #[test]
    fn a_report_has_medians_ratios_goals_and_every_run() {
        let text = markdown(&setting(), &runs(), 1.5);
        let row = "| 1 KiB records, 256 KiB batches | 16         | plain | Lockstep | 570  | 0.95     | 1.50     \
                   | 1.50     | 50 %     | 1.00          | 1.50               | 64       | 0.25    |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| MISSED"), "{text}");
        assert!(text.contains("FAILED: gone\n    away"), "{text}");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(lines.len(), 1 + runs().len());
        for line in lines {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn a_system_that_always_failed_has_no_row() {
        let text = summary(&runs());
        let rows = text.lines().filter(|line| line.starts_with('|') && line.contains("| plain |"));
        assert_eq!(rows.filter(|row| row.contains("MirrorMaker 2")).count(), 0, "{text}");
        assert!(text.contains("MirrorMaker 2  #1  FAILED"), "{text}");
    }

    #[test]
    fn a_line_of_json_is_flat() {
        let line = json(&runs()[1]);
        for part in ["\"part\":\"throughput\"", "\"system\":\"lockstep\"", "\"outcome\":\"copied\""] {
            assert!(line.contains(part), "{line}");
        }
    }
}

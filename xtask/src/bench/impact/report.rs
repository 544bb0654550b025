//! What was measured, as Markdown.

use super::super::report::{goals_table, json, number, table};
use super::super::stats::median;
use super::figures::{KINDS, Kind, Measured, Outcome, Run, goals, middle, ratio, values};

const EXPLANATION: &str = "\
The destination's broker and the client share one core; the source's broker, the mirror and the bench \
share another. The client sends batches of 16 KiB at even times, whether or not answers have come; its latency counts \
from when a batch was due to its acknowledgement by all replicas. A mirror catches up on the backlog before, \
throughout and after the client's time. MB/s of a mirror are from the destination's log ends. CPU is cores in use. A \
figure is the median of its rounds, a ratio the median of the ratios within a round.";

pub fn markdown(setting: &str, runs: &[Run]) -> String {
    let mut text = format!("# What catching up costs a client\n\n{setting}\n{EXPLANATION}\n\n");
    text += &format!("{}\n\n{}", medians(runs), ratio_of_medians(runs));
    text += &format!("\n## Goals\n\n{}\n", goals_table(&goals(runs)));
    text += &format!("\n## Round by round\n\n{}\n", rounds(runs));
    text += &format!("\n## After the client stopped, MB/s second by second\n\n{}\n", after(runs));
    text += "\n```json\n";
    runs.iter().for_each(|run| text += &format!("{}\n", json(run)));
    text + "```\n"
}

/// What a run tells while others follow.
pub fn line(run: &Run) -> String {
    let name = format!("#{} {:<22}", run.round, run.kind.label());
    match &run.outcome {
        Outcome::Measured(m) => format!(
            "{name} p50 {:.2} p99 {:.2} max {:.1} ms, mirror {} MB/s, destination {:.2} cores",
            m.p50_ms,
            m.p99_ms,
            m.max_ms,
            number(m.mirror_rate, 0),
            m.destination_cpu
        ),
        Outcome::Void => format!("{name} VOID: caught up before the client stopped; give --megabytes more"),
        Outcome::Failed { reason } => format!("{name} FAILED: {reason}"),
    }
}

fn medians(runs: &[Run]) -> String {
    let head = [
        "beside the client",
        "runs",
        "p50 ms",
        "p99 ms",
        "to alone",
        "p99.9 ms",
        "max ms",
        "mirror MB/s",
        "to governor off",
        "destination CPU",
        "mirror CPU",
    ];
    let row = |kind: Kind| {
        let of = |value: fn(&Measured) -> Option<f64>| middle(runs, kind, value);
        vec![
            kind.label().to_owned(),
            values(runs, kind, |m| Some(m.p99_ms)).len().to_string(),
            number(of(|m| Some(m.p50_ms)), 2),
            number(of(|m| Some(m.p99_ms)), 2),
            number(ratio(runs, kind, Kind::Alone, |m| Some(m.p99_ms)), 2),
            number(of(|m| Some(m.p999_ms)), 2),
            number(of(|m| Some(m.max_ms)), 1),
            number(of(|m| m.mirror_rate), 0),
            number(ratio(runs, kind, Kind::Ungoverned, |m| m.mirror_rate), 2),
            number(of(|m| Some(m.destination_cpu)), 2),
            number(of(|m| Some(m.mirror_cpu)), 2),
        ]
    };
    table(&head, KINDS.map(row))
}

fn ratio_of_medians(runs: &[Run]) -> String {
    let p99 = |kind| middle(runs, kind, |m| Some(m.p99_ms));
    let over_alone = |kind| Some(p99(kind)? / p99(Kind::Alone)?);
    let told = KINDS[1..].iter().map(|kind| format!("{} {}", kind.label(), number(over_alone(*kind), 2)));
    let told = told.collect::<Vec<_>>().join("; ");
    let alone = values(runs, Kind::Alone, |m| Some(m.p99_ms));
    let spread = alone.iter().copied().reduce(f64::max).zip(alone.iter().copied().reduce(f64::min));
    let spread = spread.map(|(most, least)| most / least);
    format!(
        "Median p99 over the median one alone: {told}. Alone, the highest p99 of a round is {} times the lowest.\n",
        number(spread, 2)
    )
}

/// p99 and the mirror's rate.
fn rounds(runs: &[Run]) -> String {
    let head: Vec<String> = std::iter::once("round".to_owned())
        .chain(KINDS.iter().flat_map(|kind| {
            let rate = (*kind != Kind::Alone).then(|| format!("{}: MB/s", kind.label()));
            std::iter::once(format!("{}: p99 ms", kind.label())).chain(rate)
        }))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let last = runs.iter().map(|run| run.round).max().unwrap_or(0);
    table(&head, (1..=last).map(|round| row_of_round(runs, round)))
}

fn row_of_round(runs: &[Run], round: u32) -> Vec<String> {
    let mut row = vec![round.to_string()];
    for kind in KINDS {
        let run = runs.iter().find(|run| run.kind == kind && run.round == round);
        let cell = |value: fn(&Measured) -> Option<f64>, digits| match run.map(|run| &run.outcome) {
            Some(Outcome::Measured(measured)) => number(value(measured), digits),
            Some(Outcome::Void) => "void".to_owned(),
            Some(Outcome::Failed { .. }) => "failed".to_owned(),
            None => "–".to_owned(),
        };
        row.push(cell(|m| Some(m.p99_ms), 2));
        if kind != Kind::Alone {
            row.push(cell(|m| m.mirror_rate, 0));
        }
    }
    row
}

fn after(runs: &[Run]) -> String {
    let rates = |run: &Run| run.measured().map_or(0, |measured| measured.mirror_rate_after.len());
    let seconds = runs.iter().map(rates).max().unwrap_or(0);
    let head: Vec<String> = (1..=seconds).map(|second| second.to_string()).collect();
    let head: Vec<&str> = std::iter::once("").chain(head.iter().map(String::as_str)).collect();
    let row = |kind: &Kind| {
        let of = |second: usize| median(&values(runs, *kind, |m| m.mirror_rate_after.get(second).copied()));
        let rates = (0..seconds).map(|second| number(of(second), 0));
        std::iter::once(kind.label().to_owned()).chain(rates).collect()
    };
    table(&head, KINDS[1..].iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run;
    use super::*;

    #[test]
    fn a_report_has_medians_goals_rounds_and_every_run() {
        let runs = [
            run(Kind::Alone, 1, 2.0, 0.0, &[]),
            run(Kind::Governed, 1, 2.4, 80.0, &[100.0, 150.0]),
            run(Kind::Ungoverned, 1, 30.0, 100.0, &[140.0, 150.0]),
            Run { kind: Kind::MirrorMaker, round: 1, outcome: Outcome::Void },
            run(Kind::Alone, 2, 3.0, 0.0, &[]),
        ];
        let text = markdown("", &runs);
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "| Lockstep | 1 | 0.00 | 2.40 | 1.20 | 0.00 | 0.0 | 80 | 0.80 |",
            "Lockstep 0.96; Lockstep, governor off 12.00; MirrorMaker 2 –. Alone, the highest p99 of a round is 1.50",
            "| governor: client's p99 over the one alone | ≤ 1.25 | 1.20 | met |",
            "| 1 | 2.00 | 2.40 | 80 | 30.00 | 100 | void | void |",
            "| 2 | 3.00 | – | – |",
            "| Lockstep | 100 | 150 |",
        ] {
            assert!(squeezed.contains(part), "{part} is not in {text}");
        }
        let lines = text.lines().filter(|line| line.starts_with("{\"kind\":"));
        assert_eq!(lines.count(), runs.len());
    }
}

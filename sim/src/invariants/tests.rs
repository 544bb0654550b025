//! What the invariants of the data plane must see, on logs made by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::observe::PartitionView;
use broker::{Cluster, Endpoint, Settings, TopicConfigs};
use consensus::Applied;

use super::{Invariant, dp_1, dp_2, dp_3, dp_4, dp_5};
use crate::batches::{self, Identity, Record};
use crate::history::History;
use crate::judge::{Logs, Row, Seen, Shown};
use crate::mirrors::Mirrors;
use crate::struck::Struck;

const TOPIC: &str = "orders";

/// A cluster whose one partition holds these batches.
fn cluster(batches: &[&[&str]]) -> Cluster {
    let endpoints = vec![Endpoint { id: 1, host: "broker".to_owned(), port: 9092 }];
    let cluster = Cluster::new(Settings::new("id", endpoints, 1), Arc::new(|| 1_000));
    cluster.with(|state| {
        state.create_topic(TOPIC, 1, 1, TopicConfigs::default());
        let rules = TopicConfigs::default().rules();
        for values in batches {
            let record = |value: &&str| Record {
                timestamp_ms: 1_000,
                key: None,
                value: value.as_bytes().to_vec(),
                headers: Vec::new(),
            };
            let batch = batches::write(&values.iter().map(record).collect::<Vec<_>>(), Identity::NONE);
            let log = &mut state.partition_mut(TOPIC, 0).expect("created").log;
            log.append(&batch, &rules, 0, 1_000).expect("taken");
        }
    });
    cluster
}

/// Which of DP-1, DP-2 and DP-3 a mirror of a source violates.
fn violated(source: &[&[&str]], mirror: &[&[&str]]) -> Vec<&'static str> {
    let (source, destination) = (cluster(source), cluster(mirror));
    let (mirrors, struck, mut history) = (Mirrors::of(TOPIC, TOPIC), Struck::default(), History::default());
    source.with(|state| history.take(state));
    let invariants: [Box<dyn Invariant>; 3] = [
        Box::<dp_1::InOrderImage>::default(),
        Box::<dp_2::NoneTwice>::default(),
        Box::<dp_3::BytesUntouched>::default(),
    ];
    let mut violated = Vec::new();
    source.with(|source| {
        destination.with(|destination| {
            let logs = Logs { source, destination, mirrors: &mirrors, history: &history, struck: &struck };
            for mut invariant in invariants {
                if invariant.see(Seen::Logs(&logs)).is_err() {
                    violated.push(invariant.id());
                }
            }
        });
    });
    violated
}

#[test]
fn an_image_up_to_its_log_end_violates_nothing() {
    let source: &[&[&str]] = &[&["a", "b"], &["c"], &["a"]];
    assert!(violated(source, &[]).is_empty());
    assert!(violated(source, &source[..2]).is_empty());
    assert!(violated(source, source).is_empty(), "the source itself has a record twice");
}

#[test]
fn another_record_or_another_order_is_no_image() {
    let source: &[&[&str]] = &[&["a"], &["b"]];
    assert_eq!(violated(source, &[&["b"]]), ["DP-1", "DP-3"]);
    assert_eq!(violated(source, &[&["b"], &["a"]]), ["DP-1", "DP-3"]);
    assert!(violated(source, &[&["x"]]).contains(&"DP-1"));
}

#[test]
fn a_record_that_appears_more_often_than_at_the_source_is_seen_wherever_it_stands() {
    let found = violated(&[&["a"], &["b"]], &[&["a"], &["b"], &["a"]]);
    assert!(found.contains(&"DP-2"), "{found:?}");
}

#[test]
fn the_same_records_in_other_batches_are_not_the_same_bytes() {
    assert_eq!(violated(&[&["a", "b"]], &[&["a"], &["b"]]), ["DP-3"]);
}

fn row(assignment_epoch: u64, fetched: i64, end: i64) -> Row {
    let view = PartitionView {
        partition: 0,
        state: "RUNNING",
        lag: None,
        lag_ms: None,
        last_source_fetch_offset: Some(fetched),
        source_end_offset: None,
        source_last_stable_offset: None,
        mirror_end_offset: Some(end),
        guarded: None,
        fills_to: None,
        error: None,
        since_ms: 0,
        retry_at_ms: None,
    };
    Row { link: "l".to_owned(), key: (TOPIC.to_owned(), 0), assignment_epoch, view }
}

/// Shows one row after the other, with so many bytes of credit in use.
fn show(invariant: &mut dyn Invariant, rows: &[Row], credit_bytes: usize) -> Result<(), String> {
    rows.chunks(1).try_for_each(|row| show_together(invariant, row, credit_bytes))
}

fn show_together(invariant: &mut dyn Invariant, rows: &[Row], credit_bytes: usize) -> Result<(), String> {
    let source = cluster(&[&["a", "b"], &["c"]]);
    let mut history = History::default();
    source.with(|state| history.take(state));
    let applied = Applied { index: 1, catalog: catalog::Catalog::default() };
    let (mirrors, struck) = (Mirrors::of(TOPIC, TOPIC), Struck::default());
    let credit_in_use = BTreeMap::from([("l".to_owned(), credit_bytes)]);
    invariant.see(Seen::Shown(&Shown {
        applied: &applied,
        rows,
        links: &BTreeMap::new(),
        credit_in_use: &credit_in_use,
        mirrors: &mirrors,
        history: &history,
        struck: &struck,
    }))
}

#[test]
fn a_position_that_goes_back_under_one_assignment_is_seen() {
    let follow = |rows: &[Row]| show(&mut dp_4::NeverBack::default(), rows, 0);
    assert_eq!(follow(&[row(1, 0, 5), row(1, 0, 5), row(1, 0, 6), row(2, 0, 4)]), Ok(()));
    assert!(follow(&[row(1, 0, 5), row(1, 0, 4)]).is_err());
}

#[test]
fn bytes_in_flight_that_the_credit_does_not_count_are_seen() {
    let at =
        |fetched, end, credit_bytes| show(&mut dp_5::WithinCredit, &[row(1, fetched, end)], credit_bytes);
    assert_eq!(at(2, 3, 0), Ok(()), "all is acknowledged");
    assert_eq!(at(2, 0, 4_096), Ok(()));
    assert!(at(2, 0, 100).is_err(), "two batches have more than 100 bytes");
    assert!(at(2, 3, 1 << 30).is_err(), "more than the credit");
    // Two batches of some 70 bytes each.
    let both = |second: (i64, i64)| {
        let rows = [row(1, 2, 0), row(1, second.1, second.0)];
        show_together(&mut dp_5::WithinCredit, &rows, 180)
    };
    assert_eq!(both((0, 2)), Ok(()), "of one source partition, in one frame");
}

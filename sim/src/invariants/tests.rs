//! What the invariants of the data plane must see, on logs made by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::credit::CreditLimits;
use actors::observe::PartitionView;
use broker::{Cluster, Endpoint, Settings, State, TopicConfigs};
use consensus::Applied;

use super::walk::OfEach;
use super::{Invariant, dp_1, dp_2, dp_3, dp_4, dp_5};
use crate::batches::{self, Identity, Record};
use crate::history::History;
use crate::judge::{Logs, Row, Seen, Shown};
use crate::mirrors::Mirrors;
use crate::options::Memory;
use crate::stops::Stopped;
use crate::struck::Struck;

const TOPIC: &str = "orders";

/// A cluster whose one partition holds these batches.
fn cluster(batches: &[&[&str]]) -> Cluster {
    let endpoints = vec![Endpoint { id: 1, host: "broker".to_owned(), port: 9092 }];
    let cluster = Cluster::new(Settings::new("id", endpoints, 1), Arc::new(|| 1_000));
    cluster.with(|state| {
        state.create_topic(TOPIC, 1, 1, TopicConfigs::default());
        batches.iter().for_each(|values| put(state, values));
    });
    cluster
}

fn put(state: &mut State, values: &[&str]) {
    let record = |value: &&str| Record {
        timestamp_ms: 1_000,
        key: None,
        value: value.as_bytes().to_vec(),
        headers: Vec::new(),
    };
    let batch = batches::write(&values.iter().map(record).collect::<Vec<_>>(), Identity::NONE);
    let log = &mut state.partition_mut(TOPIC, 0).expect("created").log;
    log.append(&batch, &TopicConfigs::default().rules(), 0, 1_000).expect("taken");
}

/// So many fillers at the log's end.
fn fill(cluster: &Cluster, offset: i64, count: i32) {
    let filler = kafka::filler::filler_batch(offset, count).readdress(-1, -1, -1);
    let batch = [&filler.head[..], &filler.payload[..]].concat();
    cluster.with(|state| {
        let log = &mut state.partition_mut(TOPIC, 0).expect("created").log;
        log.append(&batch, &TopicConfigs::default().rules(), 0, 1_000).expect("taken");
    });
}

fn append(cluster: &Cluster, values: &[&str]) {
    cluster.with(|state| put(state, values));
}

fn cut(cluster: &Cluster, start: i64) {
    cluster.with(|state| state.partition_mut(TOPIC, 0).expect("created").log.raise_start(start));
}

/// Shows invariants both logs, and returns those that are violated.
fn shown_logs(
    invariants: &mut [Box<dyn Invariant>],
    history: &mut History,
    source: &Cluster,
    mirror: &Cluster,
) -> Vec<&'static str> {
    let (mirrors, struck) = (Mirrors::of(TOPIC, TOPIC), Struck::default());
    source.with(|state| history.take(state));
    source.with(|source| {
        mirror.with(|destination| {
            let (stopped, at) = (Stopped::default(), Duration::ZERO);
            let stopped = &stopped;
            let logs = Logs { source, destination, mirrors: &mirrors, history, struck: &struck, stopped, at };
            let violated = invariants
                .iter_mut()
                .filter_map(|invariant| invariant.see(Seen::Logs(&logs)).is_err().then_some(invariant.id()));
            violated.collect()
        })
    })
}

fn of_images() -> [Box<dyn Invariant>; 4] {
    [
        Box::<OfEach<dp_1::InOrderImage>>::default(),
        Box::<dp_1::NothingCut>::default(),
        Box::<OfEach<dp_2::NoneTwice>>::default(),
        Box::<OfEach<dp_3::BytesUntouched>>::default(),
    ]
}

/// Which of DP-1, DP-2 and DP-3 a mirror of a source violates.
fn violated(source: &[&[&str]], mirror: &[&[&str]]) -> Vec<&'static str> {
    shown_logs(&mut of_images(), &mut History::default(), &cluster(source), &cluster(mirror))
}

#[test]
fn fillers_stand_below_what_the_source_has_lost_and_before_any_record() {
    let source = cluster(&[&["a", "b"], &["c"]]);
    let judge = |mirror: &Cluster| shown_logs(&mut of_images(), &mut History::default(), &source, mirror);
    let (filled, filled_between) = (cluster(&[]), cluster(&[&["a", "b"]]));
    fill(&filled, 0, 2);
    append(&filled, &["c"]);
    fill(&filled_between, 2, 1);
    assert_eq!(judge(&filled), ["DP-1", "DP-3"], "the source has lost nothing");
    cut(&source, 2);
    assert!(judge(&filled).is_empty());
    assert_eq!(judge(&filled_between), ["DP-1", "DP-3"]);
    cut(&source, 3);
    assert_eq!(judge(&filled_between), ["DP-1"], "a record stands before them");
}

#[test]
fn a_mirror_that_loses_records_that_it_held_is_seen() {
    let batches: &[&[&str]] = &[&["a", "b"], &["c"]];
    let (source, mirror, mut history) = (cluster(batches), cluster(batches), History::default());
    let mut invariants = of_images();
    let mut judge = || shown_logs(&mut invariants, &mut history, &source, &mirror);
    assert!(judge().is_empty());
    cut(&source, 2);
    assert!(judge().is_empty(), "the source may lose what it likes");
    cut(&mirror, 2);
    assert_eq!(judge(), ["DP-1"]);
}

#[test]
fn a_log_that_is_shorter_and_has_grown_again_is_judged_anew() {
    let (source, mirror) = (cluster(&[&["a"], &["b"], &["c"]]), cluster(&[&["a"], &["b"]]));
    let (mut invariants, mut history) = (of_images(), History::default());
    let mut judge = |mirror: &Cluster| shown_logs(&mut invariants, &mut history, &source, mirror);
    assert!(judge(&mirror).is_empty());
    mirror.with(|state| state.partition_mut(TOPIC, 0).expect("created").log.truncate(1));
    assert!(judge(&mirror).is_empty());
    append(&mirror, &["b"]);
    assert!(judge(&mirror).is_empty(), "b stands there once");
    append(&mirror, &["b"]);
    assert_eq!(judge(&mirror), ["DP-1", "DP-2", "DP-3"]);
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
        outstanding_bytes: usize::MAX,
        fills_to: None,
        error: None,
        since_ms: 0,
        retry_at_ms: None,
    };
    Row { node: 0, is_owned: true, link: "l".to_owned(), key: (TOPIC.to_owned(), 0), assignment_epoch, view }
}

/// Shows one row after the other, with so many bytes of credit in use.
fn show(
    invariant: &mut dyn Invariant,
    rows: &[Row],
    credit_bytes: usize,
    credit: CreditLimits,
) -> Result<(), String> {
    let memory = Memory { credit, response_bytes_max: 0 };
    let source = cluster(&[&["a", "b"], &["c"]]);
    let mut history = History::default();
    source.with(|state| history.take(state));
    let applied = Applied { index: 1, catalog: catalog::Catalog::default() };
    let (mirrors, struck) = (Mirrors::of(TOPIC, TOPIC), Struck::default());
    let credit_in_use = BTreeMap::from([("l".to_owned(), credit_bytes)]);
    rows.chunks(1).try_for_each(|rows| {
        invariant.see(Seen::Shown(&Shown {
            applied: &applied,
            rows,
            links: &BTreeMap::new(),
            credit_in_use: &credit_in_use,
            memory,
            mirrors: &mirrors,
            history: &history,
            struck: &struck,
        }))
    })
}

#[test]
fn a_position_that_goes_back_under_one_assignment_is_seen() {
    let follow = |rows: &[Row]| show(&mut dp_4::NeverBack::default(), rows, 0, CREDIT);
    assert_eq!(follow(&[row(1, 0, 5), row(1, 0, 5), row(1, 0, 6), row(2, 0, 4)]), Ok(()));
    assert!(follow(&[row(1, 0, 5), row(1, 0, 4)]).is_err());
}

/// Enough for what these tests have in flight.
const CREDIT: CreditLimits = CreditLimits { link_bytes_max: 4_096, partition_bytes_max: 4_096 };

#[test]
fn bytes_in_flight_that_the_credit_does_not_count_are_seen() {
    let at = |fetched, end, counted| show(&mut dp_5::WithinCredit, &[row(1, fetched, end)], counted, CREDIT);
    assert_eq!(at(2, 3, 0), Ok(()), "all is acknowledged");
    assert_eq!(at(2, 0, 4_096), Ok(()));
    assert!(at(2, 0, 100).is_err(), "two batches have more than 100 bytes");
}

#[test]
fn bytes_in_flight_beyond_the_credit_are_seen_whatever_is_counted() {
    let at = |fetched, credit| {
        show(&mut dp_5::WithinCredit, &[row(1, fetched, 0)], usize::MAX, credit).map_err(|why| {
            assert!(why.contains("in flight"), "{why}");
        })
    };
    assert_eq!(at(2, CreditLimits { link_bytes_max: 200, ..CREDIT }), Ok(()));
    assert!(at(2, CreditLimits { link_bytes_max: 100, ..CREDIT }).is_err());
}

//! A mirror topic's life is as `docs/mirror-states.md` says: every status through every event.

use catalog::command::{Move, NewLink, NewMirror, NodeDescription};
use catalog::stop::StoppedPartition;
use catalog::*;

const TABLE: &str = include_str!("../../docs/mirror-states.md");
const NODE: NodeId = NodeId(7);
const PRODUCER: ProducerIdentity = ProducerIdentity { producer_id: 1000, producer_epoch: 3 };
const PARTITIONS: u32 = 2;

fn key() -> MirrorKey {
    MirrorKey { link: LinkId("link-1".into()), topic: "orders".into() }
}

fn try_at(catalog: &mut Catalog, at_ms: i64, action: Action) -> Result<Outcome, Refusal> {
    catalog.apply(Command { at_ms, action })
}

fn does(catalog: &mut Catalog, action: Action) {
    assert_eq!(try_at(catalog, 1, action), Ok(Outcome::Done));
}

fn cluster(name: &str) -> Action {
    let cluster_id = format!("id-{name}").into();
    Action::CreateCluster { name: name.into(), cluster_id, configs: Default::default() }
}

/// A mirror that isn't set up yet, but has owners.
fn pending() -> Catalog {
    let link = NewLink {
        id: key().link,
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: Default::default(),
    };
    let mirror = NewMirror {
        mirror: key(),
        source_topic: "orders".into(),
        source_topic_id: TopicId([1; 16]),
        partitions: PARTITIONS,
        replication_factor: None,
        configs: Default::default(),
    };
    let to = |partition| Move { mirror: key(), partition, node: NODE, expected_epoch: None };
    let (name, version) = ("n1".into(), "1".into());
    let description = NodeDescription { name, address: None, level: fleet::LEVEL, version };
    let mut catalog = Catalog::default();
    for action in [
        Action::RecordStart { node: NODE, description },
        cluster("east"),
        cluster("west"),
        Action::CreateLink(link),
        Action::CreateMirror(mirror),
        Action::Assign { moves: (0..PARTITIONS).map(to).collect() },
    ] {
        does(&mut catalog, action);
    }
    catalog
}

fn failure() -> Failure {
    Failure { error: MirrorError::ForeignWrite, offset: 5, message: "another wrote".into(), at_ms: 9 }
}

fn event(name: &str) -> Action {
    let mirror = key();
    let ends =
        vec![StoppedPartition { records_end: 10, log_end: 11, source_end: Some(12) }; PARTITIONS as usize];
    match name {
        "ready" => Action::MirrorReady { mirror, destination_topic_id: TopicId([2; 16]), producer: PRODUCER },
        "failed" => Action::FailPartition { mirror, partition: 1, assignment_epoch: 1, failure: failure() },
        "set-up failed" => Action::FailMirror { mirror, failure: failure() },
        "pause" => Action::PauseMirror { mirror },
        "resume" => Action::ResumeMirror { mirror },
        "promote" => Action::PromoteMirror { mirror },
        "cancel" => Action::CancelPromotion { mirror },
        "fail over" => Action::FailOverMirror { mirror },
        "caught up" => Action::FenceMirror { mirror, producer: PRODUCER, asked_at_ms: 1 },
        "fenced" => {
            Action::MirrorStopped { mirror, producer: PRODUCER, assignment_epoch: 1, ends, remarks: vec![] }
        }
        "delete" => Action::DeleteMirror { mirror },
        other => panic!("no event '{other}'"),
    }
}

/// A catalog whose mirror has the status.
fn with(status: &str) -> Catalog {
    let mut catalog = pending();
    let path: &[&str] = match status {
        "PENDING_MIRROR" => &[],
        "ACTIVE" => &["ready"],
        "PAUSED" => &["ready", "pause"],
        "FAILED" => &["ready", "failed"],
        "PENDING_STOPPED" => &["ready", "promote"],
        "PENDING_STOPPED, fenced" => &["ready", "fail over"],
        "STOPPED" => &["ready", "fail over", "fenced"],
        other => panic!("no status '{other}'"),
    };
    for name in path {
        does(&mut catalog, event(name));
    }
    assert_eq!(status_of(&catalog), status);
    catalog
}

fn status_of(catalog: &Catalog) -> String {
    let Some(mirror) = catalog.mirror(&key()) else { return "gone".into() };
    let is_fenced = mirror.stop.as_ref().is_some_and(|stop| stop.fenced_at_ms.is_some());
    let fenced = if is_fenced && mirror.status == MirrorStatus::PendingStopped { ", fenced" } else { "" };
    format!("{}{fenced}", mirror.status.name())
}

/// Head and rows of the document's table.
fn table() -> (Vec<&'static str>, Vec<Vec<&'static str>>) {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut lines = TABLE.lines().filter(|line| line.starts_with('|')).map(cells);
    let head = lines.next().expect("a head");
    (head, lines.skip(1).collect())
}

#[test]
fn every_status_takes_every_event_as_the_document_says() {
    let (head, rows) = table();
    assert_eq!((head.len(), rows.len()), (12, 7), "the whole table");
    for row in rows {
        for (event_name, expected) in head.iter().zip(&row).skip(1) {
            let mut catalog = with(row[0]);
            let before = catalog.clone();
            let outcome = try_at(&mut catalog, 5, event(event_name));
            let place = format!("{} × {event_name}: {outcome:?}", row[0]);
            let is_told = status_of(&catalog) != row[0];
            assert_eq!(catalog.events.count - before.events.count, u64::from(is_told), "{place}: told");
            match *expected {
                "–" => assert!(matches!(outcome, Ok(Outcome::Unchanged)) && catalog == before, "{place}"),
                "refused" => {
                    let Err(Refusal::Illegal(message)) = outcome else { panic!("{place}") };
                    assert!(message.starts_with("mirror topic 'orders' "), "{message}");
                    assert_eq!(catalog, before, "{place}");
                }
                "stale" => {
                    assert!(matches!(outcome, Err(Refusal::Stale(_))) && catalog == before, "{place}");
                }
                // A failure of another partition, or of a paused mirror, is kept all the same.
                status if status == row[0] => {
                    assert_eq!(status_of(&catalog), status, "{place}");
                    assert!(outcome.is_ok(), "{place}");
                }
                status => {
                    assert_eq!(outcome, Ok(Outcome::Done), "{place}");
                    assert_eq!(status_of(&catalog), status, "{place}");
                    let since = catalog.mirror(&key()).map_or(5, |mirror| mirror.status_since_ms);
                    let is_same_name =
                        row[0].starts_with("PENDING_STOPPED") && status.starts_with("PENDING_STOPPED");
                    assert_eq!(since, if is_same_name { 1 } else { 5 }, "{place}: when");
                }
            }
        }
    }
}

#[test]
fn a_mirror_that_is_not_set_up_is_not_stopped_even_when_paused() {
    let mut catalog = pending();
    does(&mut catalog, event("pause"));
    for name in ["promote", "fail over"] {
        let refused = try_at(&mut catalog, 5, event(name)).expect_err("nothing to stop");
        assert!(refused.to_string().contains("isn't set up yet"), "{refused}");
    }
}

#[test]
fn a_cancelled_promotion_of_a_paused_mirror_is_paused_again() {
    let mut catalog = with("PAUSED");
    does(&mut catalog, event("promote"));
    assert!(catalog.mirror(&key()).expect("there").is_mirrored(), "it catches up");
    does(&mut catalog, event("cancel"));
    assert_eq!(status_of(&catalog), "PAUSED");
}

#[test]
fn a_failover_takes_a_promotion_over_and_is_final() {
    let mut catalog = with("PENDING_STOPPED");
    does(&mut catalog, event("fail over"));
    let stop = catalog.mirror(&key()).and_then(|mirror| mirror.stop.clone()).expect("stops");
    assert_eq!(stop.kind, catalog::stop::StopKind::FailOver);
    assert!(matches!(try_at(&mut catalog, 5, event("cancel")), Err(Refusal::Illegal(_))));
}

#[test]
fn what_has_stopped_has_no_owners_and_gets_none() {
    let mut catalog = with("STOPPED");
    assert!(catalog.mirror(&key()).expect("kept").partitions.iter().all(|p| p.assignment.is_none()));
    assert_eq!(catalog.fleet.deleted_epoch_max, 1, "assignment epochs go on above it");
    let live = placement::Presence::Live { since: Default::default() };
    let situation = placement::Situation { nodes: [(NODE, live)].into(), ..Default::default() };
    assert_eq!(placement::plan(&catalog, &situation).into_actions().len(), 0);
    does(&mut catalog, Action::DeleteLink { link: key().link });
}

#[test]
fn a_link_whose_mirror_is_about_to_stop_is_not_deleted() {
    let mut catalog = with("PENDING_STOPPED, fenced");
    let refused = try_at(&mut catalog, 5, Action::DeleteLink { link: key().link }).expect_err("in use");
    assert!(refused.to_string().contains("first 'orders'"), "{refused}");
}

/// A node that was held up between the fence of a mirror and its report must not stop another of that name.
#[test]
fn a_late_word_about_a_former_mirror_of_that_name_is_stale() {
    let mut catalog = with("PENDING_STOPPED, fenced");
    let other = ProducerIdentity { producer_id: 999, ..PRODUCER };
    let end = StoppedPartition { records_end: 1, log_end: 2, source_end: None };
    let late = Action::MirrorStopped {
        mirror: key(),
        producer: other,
        assignment_epoch: 1,
        ends: vec![end; 2],
        remarks: vec![],
    };
    assert!(matches!(try_at(&mut catalog, 5, late), Err(Refusal::Stale(_))));
    let short = Action::MirrorStopped {
        mirror: key(),
        producer: PRODUCER,
        assignment_epoch: 1,
        ends: vec![end],
        remarks: vec![],
    };
    assert!(matches!(try_at(&mut catalog, 5, short), Err(Refusal::Stale(_))), "a partition is missing");
}

/// A look at the first promotion says nothing of the second.
#[test]
fn a_promotion_is_not_fenced_by_what_was_seen_of_one_before_it() {
    let mut catalog = with("PENDING_STOPPED");
    does(&mut catalog, event("cancel"));
    assert_eq!(try_at(&mut catalog, 7, event("promote")), Ok(Outcome::Done));
    assert!(matches!(try_at(&mut catalog, 8, event("caught up")), Err(Refusal::Stale(_))));
    assert_eq!(status_of(&catalog), "PENDING_STOPPED");
}

#[test]
fn a_paused_mirror_with_a_failed_partition_is_not_promoted() {
    let mut catalog = with("PAUSED");
    does(&mut catalog, event("failed"));
    let refused = try_at(&mut catalog, 5, event("promote")).expect_err("it can't catch up");
    assert!(refused.to_string().contains("has a failed partition"), "{refused}");
    does(&mut catalog, event("fail over"));
}

/// The one before may have finished, and been lost before that was known: its successor begins again.
#[test]
fn a_mirror_is_not_stopped_by_who_has_lost_it_to_another() {
    let mut catalog = with("PENDING_STOPPED, fenced");
    does(&mut catalog, Action::StartNode { node: NODE, name: "n1".into() });
    let before = catalog.clone();
    assert!(matches!(try_at(&mut catalog, 5, event("fenced")), Err(Refusal::Stale(_))));
    assert_eq!(catalog, before);
}

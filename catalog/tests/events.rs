//! What has happened is kept: every edge with its cause, its time and who asked; bounded; and by every node alike.

mod support;

use std::sync::Arc;

use catalog::command::{Move, NewLink, NewMirror, NodeDescription};
use catalog::events::{
    AskedBy, Cause, EVENTS_MAX, Event, History, LinkChange, MESSAGE_BYTES_MAX, NodeChange, TRANSITIONS_MAX,
    TRANSITIONS_MIN, What,
};
use catalog::stop::{StopKind, StoppedPartition};
use catalog::*;
use support::{NODE, apply, founded};

const OTHER: NodeId = NodeId(8);
const PRODUCER: ProducerIdentity = ProducerIdentity { producer_id: 1000, producer_epoch: 3 };

fn key(topic: &str) -> MirrorKey {
    MirrorKey { link: LinkId("link-1".into()), topic: topic.into() }
}

fn link() -> NewLink {
    NewLink {
        id: LinkId("link-1".into()),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: Default::default(),
    }
}

fn mirror(topic: &str) -> NewMirror {
    NewMirror {
        mirror: key(topic),
        source_topic: topic.into(),
        source_topic_id: TopicId([1; 16]),
        partitions: 2,
        replication_factor: None,
        configs: Default::default(),
    }
}

fn description(name: &str, level: u32) -> NodeDescription {
    NodeDescription { name: name.into(), address: None, level, version: "1.2.3".into() }
}

fn by_person(action: Action) -> Action {
    Action::Asked { through: NODE, action: Box::new(action) }
}

fn done(catalog: &mut Catalog, action: Action) {
    assert_eq!(apply(catalog, action.clone()), Ok(Outcome::Done), "{action:?}");
}

fn with_link() -> Catalog {
    let mut catalog = founded(fleet::LEVEL, &["east", "west"]);
    done(&mut catalog, by_person(Action::CreateLink(link())));
    catalog
}

fn ready(topic: &str) -> Action {
    Action::MirrorReady { mirror: key(topic), destination_topic_id: TopicId([2; 16]), producer: PRODUCER }
}

/// Set up, and all its partitions are node `n`'s.
fn add_mirror(catalog: &mut Catalog, topic: &str) {
    done(catalog, by_person(Action::CreateMirror(mirror(topic))));
    let to = |partition| Move { mirror: key(topic), partition, node: NODE, expected_epoch: None };
    done(catalog, Action::Assign { moves: (0..2).map(to).collect() });
    done(catalog, ready(topic));
}

fn fail(topic: &str, partition: u32, message: &str) -> Action {
    let failure = Failure { error: MirrorError::ForeignWrite, offset: 17, message: message.into(), at_ms: 1 };
    let assignment_epoch = 1;
    Action::FailPartition { mirror: key(topic), partition, assignment_epoch, failure }
}

fn history(catalog: &Catalog, topic: &str) -> History {
    catalog.mirror(&key(topic)).map(|mirror| mirror.history.clone()).unwrap_or_default()
}

/// `ACTIVE > FAILED: FOREIGN_WRITE, Node("n")` of each, oldest first.
fn told(catalog: &Catalog, topic: &str) -> Vec<String> {
    let status = |status: Option<MirrorStatus>| status.map_or("-", MirrorStatus::name);
    let of = history(catalog, topic);
    let of = of.iter().map(|t| {
        let (from, to) = (status(t.step.from), status(t.step.to));
        format!("{from} > {to}: {}, {}", t.step.cause.name(), who(&t.asked_by))
    });
    of.collect()
}

fn who(asked_by: &AskedBy) -> String {
    match asked_by {
        AskedBy::Operator { through } => format!("a person at {}", through.as_deref().unwrap_or("?")),
        AskedBy::Node(name) => format!("node {}", name.as_deref().unwrap_or("?")),
        other => format!("{other:?}"),
    }
}

fn newest(catalog: &Catalog) -> &Event {
    catalog.events.newest.back().expect("an event")
}

#[test]
fn a_mirrors_life_is_told_with_causes_and_who_asked() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "orders");
    let ends = vec![StoppedPartition { records_end: 10, log_end: 11, source_end: Some(12) }; 2];
    let stopped = Action::MirrorStopped {
        mirror: key("orders"),
        producer: PRODUCER,
        assignment_epoch: 1,
        ends,
        remarks: vec![],
    };
    for action in [
        by_person(Action::PauseMirror { mirror: key("orders") }),
        by_person(Action::ResumeMirror { mirror: key("orders") }),
        by_person(Action::PromoteMirror { mirror: key("orders") }),
        by_person(Action::CancelPromotion { mirror: key("orders") }),
        fail("orders", 1, "another wrote"),
        by_person(Action::FailOverMirror { mirror: key("orders") }),
        stopped,
    ] {
        done(&mut catalog, action);
    }
    assert_eq!(
        told(&catalog, "orders"),
        [
            "- > PENDING_MIRROR: CREATE_ASKED, a person at n",
            "PENDING_MIRROR > ACTIVE: SET_UP, node n",
            "ACTIVE > PAUSED: PAUSE_ASKED, a person at n",
            "PAUSED > ACTIVE: RESUME_ASKED, a person at n",
            "ACTIVE > PENDING_STOPPED: PROMOTE_ASKED, a person at n",
            "PENDING_STOPPED > ACTIVE: CANCEL_ASKED, a person at n",
            "ACTIVE > FAILED: FOREIGN_WRITE, node n",
            "FAILED > PENDING_STOPPED: FAILOVER_ASKED, a person at n",
            "PENDING_STOPPED > STOPPED: FAILED_OVER, node n",
        ]
    );
    let last = history(&catalog, "orders").into_iter().next_back().expect("the last");
    assert_eq!(last.step.cause, Cause::Stopped { kind: StopKind::FailOver, lost: Some(4) });
    let failed = history(&catalog, "orders").into_iter().nth(6).expect("the failure");
    let (error, message) = (MirrorError::ForeignWrite, "another wrote".into());
    assert_eq!(failed.step.cause, Cause::Failed { error, partition: Some(1), offset: 17, message });
    assert_eq!((failed.at_ms, newest(&catalog).number), (1, catalog.events.count));
}

#[test]
fn what_links_and_nodes_do_is_told() {
    let mut catalog = with_link();
    let change = |catalog: &Catalog| match &newest(catalog).what {
        What::Link { link, change } => format!("{} on {}: {change:?}", link.name, link.destination),
        What::Node { node, change } => format!("{node}: {change:?}"),
        What::Mirror { topic, .. } => topic.to_string(),
    };
    assert_eq!(change(&catalog), "east-west on west: Created");
    let set = |expected: &[(&str, &str)], configs: &[(&str, &str)]| {
        let map = |entries: &[(&str, &str)]| {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (expected, configs) = (map(expected), map(configs));
        by_person(Action::AlterLinkConfigs { link: link().id, expected, configs })
    };
    let (paused, other) = (("cluster.link.paused", "true"), ("client.id", "x"));
    done(&mut catalog, set(&[], &[paused]));
    assert_eq!(change(&catalog), "east-west on west: Paused");
    let count = catalog.events.count;
    done(&mut catalog, set(&[paused], &[paused, other]));
    assert_eq!(catalog.events.count, count, "neither paused nor resumed");
    done(&mut catalog, set(&[paused, other], &[]));
    assert_eq!(change(&catalog), "east-west on west: Resumed");

    let join = |node, name: &str| Action::AdmitNode {
        node,
        description: description(name, fleet::LEVEL),
        token: None,
    };
    done(&mut catalog, join(OTHER, "m"));
    assert_eq!(change(&catalog), "m: Joined");
    done(&mut catalog, Action::RecordStart { node: OTHER, description: description("m", fleet::LEVEL) });
    assert_eq!(change(&catalog), "m: Started { version: \"1.2.3\" }");
    assert_eq!(who(&newest(&catalog).asked_by), "node m");
    add_mirror(&mut catalog, "orders");
    let assign = |node, epoch| {
        let to = |partition| Move { mirror: key("orders"), partition, node, expected_epoch: Some(epoch) };
        Action::Assign { moves: (0..2).map(to).collect() }
    };
    let count = catalog.events.count;
    done(&mut catalog, assign(NODE, 1));
    assert_eq!(catalog.events.count, count, "they are its own");
    done(&mut catalog, assign(OTHER, 2));
    assert_eq!(change(&catalog), "n: Lost { partitions: 2 }");
    assert_eq!(newest(&catalog).asked_by, AskedBy::Coordinator);
    done(&mut catalog, by_person(Action::SetDuty { node: OTHER, duty: Duty::Drains }));
    assert_eq!(change(&catalog), "m: Drains");
    done(&mut catalog, by_person(Action::SetDuty { node: OTHER, duty: Duty::Mirrors }));
    assert_eq!(change(&catalog), "m: Undrained");
    done(&mut catalog, Action::SetDuty { node: NODE, duty: Duty::Stops });
    assert_eq!((change(&catalog), who(&newest(&catalog).asked_by)), ("n: Stops".into(), "node n".into()));
    // On a node that had been stopped, as recovery does.
    done(&mut catalog, Action::RemoveNode { node: NODE, lost: true });
    assert_eq!(change(&catalog), "n: Removed { lost: true }");
    assert_eq!(newest(&catalog).asked_by, AskedBy::Operator { through: None });
}

#[test]
fn what_is_refused_or_changes_nothing_is_not_told() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "orders");
    done(&mut catalog, fail("orders", 0, "another wrote"));
    let count = catalog.events.count;
    done(&mut catalog, fail("orders", 1, "another wrote"));
    assert!(apply(&mut catalog, by_person(Action::ResumeMirror { mirror: key("nope") })).is_err());
    assert!(apply(&mut catalog, by_person(Action::CreateMirror(mirror("orders")))).is_err());
    assert_eq!(
        apply(&mut catalog, Action::SetDuty { node: NODE, duty: Duty::Mirrors }),
        Ok(Outcome::Unchanged)
    );
    assert_eq!(catalog.events.count, count, "a second failed partition doesn't change the topic's status");
}

#[test]
fn who_asked_is_said_once() {
    let mut catalog = with_link();
    let before = catalog.clone();
    let twice = by_person(by_person(Action::DeleteLink { link: link().id }));
    assert!(matches!(apply(&mut catalog, twice), Err(Refusal::Illegal(_))));
    assert_eq!(catalog, before);
}

#[test]
fn the_newest_are_kept_and_a_mirror_keeps_its_own_whatever_others_do() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "old");
    let quiet = told(&catalog, "old");
    add_mirror(&mut catalog, "busy");
    for _ in 0..EVENTS_MAX {
        done(&mut catalog, by_person(Action::PauseMirror { mirror: key("busy") }));
        done(&mut catalog, by_person(Action::ResumeMirror { mirror: key("busy") }));
    }
    assert_eq!(catalog.events.newest.len(), EVENTS_MAX);
    let (first, last) = (&catalog.events.newest[0], newest(&catalog));
    assert_eq!((first.number, last.number), (last.number - EVENTS_MAX as u64 + 1, catalog.events.count));
    assert_eq!(told(&catalog, "old"), quiet);
    assert_eq!(history(&catalog, "busy").len(), TRANSITIONS_MAX);
    let of_busy = history(&catalog, "busy").into_iter().next_back().expect("the newest");
    assert_eq!(of_busy.number, last.number, "one event, kept in two places");
}

#[test]
fn many_mirrors_share_the_room_and_each_keeps_some() {
    let mut catalog = with_link();
    let topic = |n: usize| format!("t{n}");
    for n in 0..6_000 {
        done(&mut catalog, by_person(Action::CreateMirror(mirror(&topic(n)))));
    }
    let before = codec::encode_catalog(&catalog).len();
    for _ in 0..TRANSITIONS_MAX {
        done(&mut catalog, by_person(Action::PauseMirror { mirror: key("t0") }));
        done(&mut catalog, by_person(Action::ResumeMirror { mirror: key("t0") }));
    }
    assert_eq!(history(&catalog, "t0").len(), TRANSITIONS_MIN);
    assert_eq!(history(&catalog, "t1").len(), 1);
    let grown = codec::encode_catalog(&catalog).len() as i64 - before as i64;
    assert!(grown < 2_000, "{grown} bytes more");
}

#[test]
fn a_message_is_cut_between_characters() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "orders");
    done(&mut catalog, fail("orders", 0, &format!("x{}", "ü".repeat(500))));
    let Some(Cause::Failed { message, .. }) =
        history(&catalog, "orders").into_iter().next_back().map(|t| t.step.cause)
    else {
        panic!("not told")
    };
    assert_eq!((message.len(), message.chars().count()), (MESSAGE_BYTES_MAX - 1, 150));
    let kept = catalog.mirror(&key("orders")).and_then(|m| m.first_failure()).expect("failed").1;
    assert_eq!(kept.message.len(), 1_001, "the partition has it whole");
}

#[test]
fn what_is_deleted_has_no_history_of_its_own_any_more() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "orders");
    add_mirror(&mut catalog, "payments");
    done(&mut catalog, by_person(Action::DeleteMirror { mirror: key("orders") }));
    assert_eq!((told(&catalog, "orders").len(), told(&catalog, "payments").len()), (0, 2));
    let What::Mirror { topic, step, .. } = &newest(&catalog).what else { panic!("of the mirror") };
    assert_eq!((&**topic, step.from, step.to), ("orders", Some(MirrorStatus::Active), None));
    done(&mut catalog, by_person(Action::CreateMirror(mirror("orders"))));
    assert_eq!(told(&catalog, "orders"), ["- > PENDING_MIRROR: CREATE_ASKED, a person at n"]);
    for topic in ["orders", "payments"] {
        done(&mut catalog, by_person(Action::DeleteMirror { mirror: key(topic) }));
    }
    done(&mut catalog, by_person(Action::CreateMirror(mirror("orders"))));
    let link = Arc::make_mut(catalog.links.get_mut(&link().id).expect("the link"));
    Arc::make_mut(link.mirrors.get_mut("orders").expect("the mirror")).status = MirrorStatus::Stopped;
    done(&mut catalog, by_person(Action::DeleteLink { link: key("orders").link }));
    let What::Link { change: LinkChange::Deleted, .. } = newest(&catalog).what else { panic!("deleted") };
}

/// In a rolling upgrade a build of before applies the same commands and keeps nothing: so nobody may.
#[test]
fn nothing_is_kept_until_every_member_knows_how() {
    let mut catalog = founded(5, &["east", "west"]);
    let upgraded = description("m", fleet::LEVEL);
    done(&mut catalog, Action::AdmitNode { node: OTHER, description: upgraded.clone(), token: None });
    done(&mut catalog, Action::RecordStart { node: OTHER, description: upgraded });
    let create = catalog.asked(OTHER, Action::CreateLink(link()));
    assert_eq!(catalog.may_propose(&create), Ok(()), "without who asked");
    done(&mut catalog, create);
    done(&mut catalog, Action::CreateMirror(mirror("orders")));
    let asked =
        Action::Asked { through: OTHER, action: Box::new(Action::DeleteMirror { mirror: key("orders") }) };
    let refused = catalog.may_propose(&asked).expect_err("'n' couldn't read it");
    assert!(refused.to_string().contains("node 'n' runs a version"), "{refused}");
    assert_eq!(catalog.events, Default::default());
    assert!(codec::encode_catalog(&catalog)[0] < 6, "and a snapshot is still one that 'n' can read");

    // The start itself is the last command that finds an older member.
    done(&mut catalog, Action::RecordStart { node: NODE, description: description("n", fleet::LEVEL) });
    assert_eq!(catalog.events, Default::default());
    let delete = catalog.asked(OTHER, Action::DeleteMirror { mirror: key("orders") });
    assert_eq!(catalog.may_propose(&delete), Ok(()));
    done(&mut catalog, delete);
    assert_eq!((catalog.events.count, who(&newest(&catalog).asked_by)), (1, "a person at m".into()));
    let older = Action::RecordStart { node: NODE, description: description("n", 5) };
    assert!(matches!(apply(&mut catalog, older), Err(Refusal::Illegal(_))), "there is no way back");
}

/// Whatever build applies the first commands of a log: before there is a member nothing was agreed on.
#[test]
fn nothing_is_kept_before_there_is_a_member() {
    let mut catalog = Catalog::default();
    done(&mut catalog, Action::RecordStart { node: NODE, description: description("n", 5) });
    assert_eq!(catalog.events, Default::default());
    let mut catalog = Catalog::default();
    done(&mut catalog, Action::RecordStart { node: NODE, description: description("n", fleet::LEVEL) });
    assert_eq!(catalog.events.count, 0);
    done(&mut catalog, Action::RecordStart { node: NODE, description: description("n", fleet::LEVEL) });
    let What::Node { change, .. } = &newest(&catalog).what else { panic!("of a node") };
    assert_eq!(change, &NodeChange::Started { version: "1.2.3".into() });
}

#[test]
fn a_history_outlives_a_snapshot() {
    let mut catalog = with_link();
    add_mirror(&mut catalog, "orders");
    done(&mut catalog, fail("orders", 0, "another wrote"));
    let mut read = codec::decode_catalog(&codec::encode_catalog(&catalog)).expect("readable");
    assert_eq!(read, catalog);
    for catalog in [&mut read, &mut catalog] {
        done(catalog, by_person(Action::DeleteMirror { mirror: key("orders") }));
    }
    assert_eq!(read, catalog, "and goes on alike");
}

//! What is remembered of a link's ACLs, and of its stopped mirrors, a sentence a test.

use catalog::acls::{
    ACL_CHANGES_MAX, ACL_NAME_BYTES_MAX, ACLS_MAX, AclBinding, AclChange, AclRecord, AclState, STOPPED_MAX,
};
use catalog::command::{Move, NewLink, NewMirror, NodeDescription};
use catalog::stop::{StopKind, StoppedPartition};
use catalog::*;

use AclState::{Intended, Withheld, Written};

const NODE: NodeId = NodeId(7);
const PRODUCER: ProducerIdentity = ProducerIdentity { producer_id: 1000, producer_epoch: 3 };

fn link() -> LinkId {
    LinkId("link-1".into())
}

fn key(topic: &str) -> MirrorKey {
    MirrorKey { link: link(), topic: topic.into() }
}

fn acl(name: &str) -> AclBinding {
    AclBinding {
        resource_type: 2,
        pattern_type: 3,
        resource_name: name.into(),
        principal: "User:app".into(),
        host: "*".into(),
        operation: 3,
        permission: 3,
    }
}

fn does(catalog: &mut Catalog, action: Action) {
    catalog.apply(Command { at_ms: 1, action }).expect("taken");
}

fn with_a_link() -> Catalog {
    with_a_link_at_level(fleet::LEVEL)
}

fn with_a_link_at_level(level: u32) -> Catalog {
    let mut catalog = Catalog::default();
    let cluster = |name: &str| Action::CreateCluster {
        name: name.into(),
        cluster_id: format!("id-{name}").into(),
        configs: Default::default(),
    };
    let link = Action::CreateLink(NewLink {
        id: link(),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: Default::default(),
    });
    let description = NodeDescription { name: "n".into(), address: None, level, version: "".into() };
    let start = Action::RecordStart { node: NODE, description };
    for action in [start, cluster("east"), cluster("west"), link] {
        does(&mut catalog, action);
    }
    catalog
}

fn change(acl: &AclBinding, expected: Option<AclState>, state: Option<AclState>) -> AclChange {
    AclChange { acl: acl.clone(), expected, state }
}

fn record(catalog: &mut Catalog, changes: Vec<AclChange>) -> Result<Outcome, Refusal> {
    let action = Action::RecordAcls { link: link(), as_of_ms: None, changes };
    catalog.apply(Command { at_ms: 2, action })
}

fn create(catalog: &mut Catalog, topic: &str) {
    let source_topic_id = TopicId([1; 16]);
    let (mirror, source_topic, partitions) = (key(topic), topic.into(), 1);
    let (replication_factor, configs) = (None, Default::default());
    let mirror = NewMirror { mirror, source_topic, source_topic_id, partitions, replication_factor, configs };
    does(catalog, Action::CreateMirror(mirror));
}

/// A mirror that has stopped.
fn stop(catalog: &mut Catalog, topic: &str, kind: StopKind) {
    create(catalog, topic);
    let mirror = key(topic);
    let to = Move { mirror: mirror.clone(), partition: 0, node: NODE, expected_epoch: None };
    does(catalog, Action::Assign { moves: vec![to] });
    let destination_topic_id = TopicId([2; 16]);
    does(catalog, Action::MirrorReady { mirror: mirror.clone(), destination_topic_id, producer: PRODUCER });
    match kind {
        StopKind::FailOver => does(catalog, Action::FailOverMirror { mirror: mirror.clone() }),
        StopKind::Promote => {
            does(catalog, Action::PromoteMirror { mirror: mirror.clone() });
            does(catalog, Action::FenceMirror { mirror: mirror.clone(), producer: PRODUCER, asked_at_ms: 1 });
        }
    }
    let assignment = catalog.mirror(&mirror).and_then(|mirror| mirror.first_assignment()).expect("assigned");
    let assignment_epoch = assignment.epoch;
    let ends = vec![StoppedPartition { records_end: 1, log_end: 2, source_end: None }];
    let (producer, remarks) = (PRODUCER, Vec::new());
    does(catalog, Action::MirrorStopped { mirror, producer, assignment_epoch, ends, remarks });
}

fn delete(catalog: &mut Catalog, topic: &str) {
    does(catalog, Action::DeleteMirror { mirror: key(topic) });
}

fn recorded(catalog: &Catalog) -> &AclRecord {
    &catalog.acls[&link()]
}

#[test]
fn what_was_written_is_remembered_until_it_is_forgotten_or_its_link_is_gone() {
    let mut catalog = with_a_link();
    let (a, b) = (acl("a"), acl("b"));
    let changes = vec![change(&a, None, Some(Written)), change(&b, None, Some(Withheld))];
    assert_eq!(record(&mut catalog, changes.clone()), Ok(Outcome::Done));
    assert_eq!(record(&mut catalog, changes), Ok(Outcome::Unchanged), "its outcome was lost");
    assert_eq!(recorded(&catalog).written().collect::<Vec<_>>(), [&a]);
    assert_eq!(codec::decode_catalog(&codec::encode_catalog(&catalog)).expect("readable"), catalog);
    assert_eq!(record(&mut catalog, vec![change(&a, Some(Written), None)]), Ok(Outcome::Done));
    assert_eq!(recorded(&catalog).acls.len(), 1);
    assert_eq!(record(&mut catalog, vec![change(&b, Some(Withheld), None)]), Ok(Outcome::Done));
    assert!(catalog.acls.is_empty(), "nothing is left, and a build before this one may follow");
    record(&mut catalog, vec![change(&a, None, Some(Intended))]).expect("taken");
    does(&mut catalog, Action::DeleteLink { link: link() });
    assert!(catalog.acls.is_empty());
    assert!(matches!(record(&mut catalog, Vec::new()), Err(Refusal::NotFound { .. })));
}

#[test]
fn whoever_decided_on_another_state_of_an_acl_is_refused_whole_and_nobody_else_is() {
    let mut catalog = with_a_link();
    record(&mut catalog, vec![change(&acl("a"), None, Some(Written))]).expect("taken");
    let before = catalog.clone();
    for expected in [None, Some(Intended), Some(Withheld)] {
        let changes =
            vec![change(&acl("b"), None, Some(Intended)), change(&acl("a"), expected, Some(Withheld))];
        let refused = record(&mut catalog, changes);
        // It is as was to be expected, or as it is to be.
        assert!(matches!(refused, Err(Refusal::Stale(_))), "{expected:?}: {refused:?}");
    }
    assert_eq!(catalog, before);
    record(&mut catalog, vec![change(&acl("b"), None, Some(Intended))]).expect("of another ACL");
    record(&mut catalog, vec![change(&acl("a"), Some(Written), None)]).expect("decided before that");
}

#[test]
fn a_record_is_bounded_in_all_directions() {
    let mut catalog = with_a_link();
    let written = |range: std::ops::Range<usize>| {
        range.map(|i| change(&acl(&format!("{i}")), None, Some(Written))).collect::<Vec<_>>()
    };
    let refused = |outcome| matches!(outcome, Err(Refusal::Invalid { .. }));
    assert!(refused(record(&mut catalog, written(0..ACL_CHANGES_MAX + 1))));
    let long = acl(&"x".repeat(ACL_NAME_BYTES_MAX + 1));
    assert!(refused(record(&mut catalog, vec![change(&long, None, Some(Written))])));
    for from in (0..ACLS_MAX).step_by(ACL_CHANGES_MAX) {
        assert_eq!(record(&mut catalog, written(from..from + ACL_CHANGES_MAX)), Ok(Outcome::Done));
    }
    let one_more = written(ACLS_MAX..ACLS_MAX + 1);
    assert!(refused(record(&mut catalog, one_more.clone())));
    let one_less = vec![change(&acl("0"), Some(Written), None)];
    assert_eq!(record(&mut catalog, [one_more, one_less].concat()), Ok(Outcome::Done), "one for another");
}

#[test]
fn it_is_remembered_when_the_source_was_read() {
    let mut catalog = with_a_link();
    let at = |catalog: &mut Catalog, as_of_ms, changes| {
        does(catalog, Action::RecordAcls { link: link(), as_of_ms, changes });
    };
    at(&mut catalog, Some(5), Vec::new());
    assert!(catalog.acls.is_empty(), "there is nothing that it would be the age of");
    at(&mut catalog, Some(6), vec![change(&acl("a"), None, Some(Withheld))]);
    at(&mut catalog, None, vec![change(&acl("b"), None, Some(Withheld))]);
    assert_eq!(recorded(&catalog).as_of_ms, 6);
    at(&mut catalog, Some(9), Vec::new());
    assert_eq!(recorded(&catalog).as_of_ms, 9);
}

#[test]
fn a_stopped_mirror_that_is_deleted_stays_known_and_its_acls_are_the_destinations() {
    let mut catalog = with_a_link();
    stop(&mut catalog, "promoted", StopKind::Promote);
    stop(&mut catalog, "failed", StopKind::FailOver);
    create(&mut catalog, "mirrored");
    let prefix = AclBinding { pattern_type: 4, ..acl("promoted") };
    let group = AclBinding { resource_type: 3, ..acl("promoted") };
    let others = [prefix, group, acl("promoted-2")];
    let all = others.iter().chain([&acl("promoted")]).map(|acl| change(acl, None, Some(Written))).collect();
    record(&mut catalog, all).expect("taken");
    for topic in ["promoted", "failed", "mirrored"] {
        delete(&mut catalog, topic);
    }
    let stopped = [("failed".into(), StopKind::FailOver), ("promoted".into(), StopKind::Promote)];
    assert_eq!(recorded(&catalog).stopped, stopped.into());
    let left = recorded(&catalog).acls.keys().cloned().collect::<Vec<_>>();
    let mut expected = others.to_vec();
    expected.sort();
    assert_eq!(left, expected, "of other topics, and of more than this one");
}

#[test]
fn a_topic_that_becomes_a_mirror_again_isnt_a_stopped_one_any_more() {
    let mut catalog = with_a_link();
    stop(&mut catalog, "orders", StopKind::FailOver);
    delete(&mut catalog, "orders");
    assert_eq!(recorded(&catalog).stopped.len(), 1);
    create(&mut catalog, "orders");
    assert!(catalog.acls.is_empty());
}

#[test]
fn names_of_stopped_mirrors_are_bounded_and_the_others_counted() {
    let mut catalog = with_a_link();
    let name = |i: usize| format!("t{i}").into();
    let stopped = (0..STOPPED_MAX).map(|i| (name(i), StopKind::Promote)).collect();
    let full = AclRecord { stopped, ..AclRecord::default() };
    catalog.acls.insert(link(), full.into());
    stop(&mut catalog, "one-more", StopKind::Promote);
    delete(&mut catalog, "one-more");
    let record = recorded(&catalog);
    assert_eq!((record.stopped.len(), record.stopped_unnamed), (STOPPED_MAX, 1));
}

#[test]
fn nothing_is_remembered_as_long_as_a_member_doesnt_know_how() {
    let mut catalog = with_a_link_at_level(4);
    stop(&mut catalog, "orders", StopKind::Promote);
    delete(&mut catalog, "orders");
    assert!(catalog.acls.is_empty());
}

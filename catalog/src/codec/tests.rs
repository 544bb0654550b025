use super::*;
use crate::acls::{AclBinding, AclRecord, AclState};
use crate::command::{Action, Command};
use crate::events::{
    AskedBy, Cause, Event, Events, LinkChange, LinkName, NodeChange, Step, Transition, What,
};
use crate::model::MirrorError;
use crate::stop::StopKind;

#[test]
fn a_catalog_of_the_sixth_version_is_written_and_read() {
    let acl = AclBinding {
        resource_type: 2,
        pattern_type: 3,
        resource_name: "t".into(),
        principal: "User:a".into(),
        host: "*".into(),
        operation: 4,
        permission: 3,
    };
    let record = AclRecord {
        acls: BTreeMap::from([(acl, AclState::Withheld)]),
        stopped: BTreeMap::from([("s".into(), StopKind::FailOver)]),
        stopped_unnamed: 6,
        as_of_ms: 7,
    };
    let acls = BTreeMap::from([(LinkId("l".into()), Arc::new(record))]);
    let catalog = Catalog { acls, ..Catalog::default() };
    let bytes = encode_catalog(&catalog);
    let mut written = vec![6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'l', 1, 2, 3, 1, b't', 6];
    written.extend(b"User:a\x01*");
    written.extend([4, 3, 2, 1, 1, b's', 1, 6, 14]);
    assert_eq!(bytes, written, "as the sixth version wrote it");
    assert_eq!(decode_catalog(&bytes).expect("readable"), catalog);
}

#[test]
fn a_catalog_of_the_seventh_version_is_written_and_read() {
    let step = Step {
        from: Some(MirrorStatus::Active),
        to: Some(MirrorStatus::Failed),
        cause: Cause::Failed {
            error: MirrorError::ForeignWrite,
            partition: Some(2),
            offset: 3,
            message: "w".into(),
        },
    };
    let link = LinkName { name: "n".into(), destination: "d".into() };
    let event = |number, asked_by, what| Arc::new(Event { number, at_ms: 5, asked_by, what });
    let by_node = || AskedBy::Node(Some("m".into()));
    let newest = [
        event(
            1,
            AskedBy::Operator { through: None },
            What::Link { link: link.clone(), change: LinkChange::Paused },
        ),
        event(2, by_node(), What::Mirror { link, topic: "t".into(), step: step.clone() }),
        event(
            3,
            AskedBy::Coordinator,
            What::Node { node: "m".into(), change: NodeChange::Lost { partitions: 4 } },
        ),
    ];
    let transition = Transition { number: 2, at_ms: 5, asked_by: by_node(), step };
    let events = Arc::new(Events { count: 3, newest: newest.into() });
    let mut catalog = Catalog::from(CatalogV3 {
        nodes: BTreeMap::new(),
        clusters: BTreeMap::new(),
        links: BTreeMap::from([(LinkId("l".into()), a_link(&["m", "t"]))]),
        fleet: Fleet::default(),
    });
    catalog.events = events;
    let link = catalog.links.get_mut(&LinkId("l".into())).map(Arc::make_mut).expect("the link");
    link.mirrors.get_mut("t").map(Arc::make_mut).expect("the mirror").history = [transition].into();
    let bytes = encode_catalog(&catalog);
    let step = [1, 1, 1, 3, 9, 6, 1, 2, 6, 1, b'w'];
    let mut written = vec![7, 0, 0, 1, 1, b'l', 1, b'l', 1, b'n', 1, b'w', 0, 1, b'a', 1, b'b', 0, 2];
    for topic in [b'm', b't'] {
        written.extend([1, topic, 1, topic, 1, b's']);
        written.extend([[1; 16], [2; 16]].concat());
        written.extend([0, 0, 2, 14, 1, 10, 2, 0, 1, 0, 0, 0]);
    }
    written.extend([0, 0, 0, 0, 0, 0, 0, 0, 3, 3]);
    written.extend([1, 10, 0, 0, 0, 1, b'n', 1, b'd', 1]);
    written.extend([2, 10, 1, 1, 1, b'm', 1, 1, b'n', 1, b'd', 1, b't']);
    written.extend(step);
    written.extend([3, 10, 2, 2, 1, b'm', 5, 4]);
    written.extend([1, 1, b'l', 1, 1, b't', 1, 2, 10, 1, 1, 1, b'm']);
    written.extend(step);
    assert_eq!(bytes, written, "as the seventh version wrote it");
    assert_eq!(decode_catalog(&bytes).expect("readable"), catalog);
}

/// A build before this one, which stops at it: it would apply what is in it without keeping it.
#[test]
fn a_command_that_somebody_asked_for_is_of_a_newer_kind() {
    let deletion = Action::DeleteCluster { name: "c".into() };
    let bytes = encode(&Command { at_ms: 5, action: deletion.clone() });
    assert_eq!(bytes, [1, 10, 3, 1, b'c']);
    let asked = Action::Asked { through: NodeId(7), action: Box::new(deletion) };
    let asked = Command { at_ms: 5, action: asked };
    let bytes = encode(&asked);
    assert_eq!(bytes, [1, 10, 35, 7, 3, 1, b'c']);
    assert_eq!(decode::<Command>(&bytes).expect("readable"), asked);
    let nested = [vec![1, 10], [35, 7].repeat(1_000_000)].concat();
    decode::<Command>(&nested).expect_err("one within another");
    assert_eq!(decode::<Command>(&bytes).expect("readable still"), asked);
}

/// A build before this one follows in a rolling upgrade.
#[test]
fn a_catalog_without_acls_is_written_as_the_fifth_version_wrote_it_and_read() {
    let forgotten = BTreeMap::from([(LinkId("l".into()), Arc::new(["orders".into()].into()))]);
    let (nodes, clusters, links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let fleet = Fleet::default();
    let bytes = encode_as(5, &CatalogV5 { nodes, clusters, links, fleet, forgotten: forgotten.clone() });
    let mut written = vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'l', 1, 6];
    written.extend(b"orders");
    assert_eq!(bytes, written, "as the fifth version wrote it");
    let read = decode_catalog(&bytes).expect("readable");
    assert_eq!((&read.forgotten, read.acls.len()), (&forgotten, 0));
    assert_eq!(encode_catalog(&read), written);
}

#[test]
fn a_catalog_without_anything_new_is_written_as_the_fourth_version_wrote_it() {
    let nodes = BTreeMap::from([(NodeId(7), Node::of_level_1("n".into(), 3))]);
    let (clusters, links) = (BTreeMap::new(), BTreeMap::new());
    let bytes = encode_as(4, &CatalogV4 { nodes, clusters, links, fleet: Fleet::default() });
    let written = [4, 1, 7, 1, b'n', 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes, written, "as the fourth version wrote it");
    let mut read = decode_catalog(&bytes).expect("readable");
    assert_eq!((read.nodes[&NodeId(7)].starts, read.forgotten.len()), (3, 0));
    assert_eq!(encode_catalog(&read), bytes);
    read.forgotten.insert(LinkId("l".into()), Arc::new(["orders".into()].into()));
    let newer = encode_catalog(&read);
    assert_eq!((newer[0], &newer[newer.len() - 11..]), (5, &b"\x01\x01l\x01\x06orders"[..]));
    assert_eq!(decode_catalog(&newer).expect("readable"), read);
}

fn a_link(topics: &[&str]) -> LinkV3 {
    let mirror = |topic: &&str| MirrorTopicV3 {
        name: (*topic).into(),
        source_topic: "s".into(),
        source_topic_id: TopicId([1; 16]),
        destination_topic_id: TopicId([2; 16]),
        replication_factor: None,
        configs: BTreeMap::new(),
        status: MirrorStatus::Paused,
        status_since_ms: 7,
        producer: Some(ProducerIdentity { producer_id: 5, producer_epoch: 1 }),
        partitions: vec![MirrorPartition::default()],
    };
    LinkV3 {
        id: LinkId("l".into()),
        name: "n".into(),
        destination: "w".into(),
        source: None,
        source_cluster_id: "a".into(),
        destination_cluster_id: "b".into(),
        configs: BTreeMap::new(),
        mirrors: topics.iter().map(|topic| ((*topic).into(), mirror(topic))).collect(),
    }
}

#[test]
fn a_catalog_of_the_third_version_is_read() {
    let old = CatalogV3 {
        nodes: BTreeMap::new(),
        clusters: BTreeMap::new(),
        links: BTreeMap::from([(LinkId("l".into()), a_link(&["m"]))]),
        fleet: Fleet::default(),
    };
    let bytes = encode_as(3, &old);
    let mut written = vec![3, 0, 0, 1, 1, b'l', 1, b'l', 1, b'n', 1, b'w', 0, 1, b'a', 1, b'b', 0, 1];
    written.extend([1, b'm', 1, b'm', 1, b's']);
    written.extend([[1; 16], [2; 16]].concat());
    written.extend([0, 0, 2, 14, 1, 10, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes, written, "as the third version wrote it");
    let read = decode_catalog(&bytes).expect("readable");
    let mirror = &read.links[&LinkId("l".into())].mirrors["m"];
    assert_eq!((mirror.status, mirror.stop.as_ref()), (MirrorStatus::Paused, None));
    assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
}

#[test]
fn a_catalog_of_the_second_version_is_read() {
    let removed = BTreeMap::from([(NodeId(9), 5)]);
    let fleet = FleetV2 {
        id: Some(FleetId("f".into())),
        authorities: Vec::new(),
        join_tokens: BTreeMap::new(),
        removed,
        hand_overs: BTreeMap::new(),
    };
    let (nodes, clusters, links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let bytes = encode_as(2, &CatalogV2 { nodes, clusters, links, fleet });
    assert_eq!(bytes, [2, 0, 0, 0, 1, 1, b'f', 0, 0, 1, 9, 10, 0], "as the second version wrote it");
    let read = decode_catalog(&bytes).expect("readable");
    assert_eq!((read.fleet.removed.get(&NodeId(9)), read.fleet.deleted_epoch_max), (Some(&5), 0));
    assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
}

#[test]
fn a_catalog_of_the_first_version_is_read() {
    let nodes = BTreeMap::from([(NodeId(7), NodeV1 { name: "n".into(), starts: 3 })]);
    let old = CatalogV1 { nodes, clusters: BTreeMap::new(), links: BTreeMap::new() };
    let bytes = encode_as(1, &old);
    assert_eq!(bytes, [1, 1, 7, 1, b'n', 3, 0, 0], "as the first version wrote it");
    let read = decode_catalog(&bytes).expect("readable");
    assert_eq!((read.nodes[&NodeId(7)].starts, read.level()), (3, 1));
    assert_eq!(decode_catalog(&encode_catalog(&read)).expect("readable"), read);
}

#[test]
fn a_newer_version_is_refused_with_its_number() {
    let newer = [CATALOG_VERSION + 1, 0];
    check_catalog_version(&newer).expect_err("newer");
    check_catalog_version(&encode_catalog(&Catalog::default())[..1]).expect("this build's own");
    let refused = decode_catalog(&newer).expect_err("newer");
    assert_eq!(refused.to_string(), "written in format 8, this build reads up to 7: use a newer lockstep");
}

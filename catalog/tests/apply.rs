//! What `apply` promises, a sentence a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::command::{Move, NewLink, NewMirror, NodeDescription, Released};
use catalog::fleet::{Authority, JoinToken};
use catalog::*;
use proptest::prelude::*;

const NODE: NodeId = NodeId(7);

/// What [`placement`] would have done when every member is live.
fn placed(catalog: &Catalog) -> placement::Plan {
    let live = placement::Presence::Live { since: Duration::ZERO };
    let nodes = catalog.nodes.keys().map(|id| (*id, live)).collect();
    placement::plan(catalog, &placement::Situation { nodes, ..Default::default() })
}

fn assign(catalog: &mut Catalog) {
    for action in placed(catalog).into_actions() {
        assert_eq!(catalog.apply(at(2, action)), Ok(Outcome::Done));
    }
}

fn at(at_ms: i64, action: Action) -> Command {
    Command { at_ms, action }
}

fn key(topic: &str) -> MirrorKey {
    MirrorKey { link: LinkId("link-1".into()), topic: topic.into() }
}

fn cluster(name: &str) -> Action {
    Action::CreateCluster {
        name: name.into(),
        cluster_id: format!("id-{name}").into(),
        configs: Default::default(),
    }
}

fn link() -> Action {
    Action::CreateLink(NewLink {
        id: LinkId("link-1".into()),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: Default::default(),
    })
}

fn mirror(topic: &str, partitions: u32) -> Action {
    Action::CreateMirror(NewMirror {
        mirror: key(topic),
        source_topic: topic.into(),
        source_topic_id: TopicId([1; 16]),
        partitions,
        replication_factor: None,
        configs: Default::default(),
    })
}

fn ready(producer_id: i64) -> Action {
    let producer = ProducerIdentity { producer_id, producer_epoch: 0 };
    Action::MirrorReady { mirror: key("orders"), destination_topic_id: TopicId([2; 16]), producer }
}

fn failure(offset: i64) -> Failure {
    Failure { error: MirrorError::ForeignWrite, offset, message: "another producer wrote".into(), at_ms: 9 }
}

/// East and west, one link, `orders` with two partitions, active and assigned to [`NODE`].
fn running() -> Catalog {
    let mut catalog = Catalog::default();
    let start = Action::StartNode { node: NODE, name: "n1".into() };
    for action in [start, cluster("east"), cluster("west"), link(), mirror("orders", 2), ready(1000)] {
        assert_eq!(catalog.apply(at(1, action)), Ok(Outcome::Done));
    }
    assign(&mut catalog);
    catalog
}

fn orders(catalog: &Catalog) -> &MirrorTopic {
    catalog.mirror(&key("orders")).expect("orders")
}

#[test]
fn a_mirror_is_active_once_its_topic_and_producer_are_there() {
    let catalog = running();
    assert_eq!(orders(&catalog).status, MirrorStatus::Active);
    assert_eq!(orders(&catalog).producer.map(|p| p.producer_id), Some(1000));
}

#[test]
fn the_producer_identity_never_changes() {
    let mut catalog = running();
    assert!(matches!(catalog.apply(at(3, ready(1001))), Err(Refusal::Stale(_))));
    assert_eq!(orders(&catalog).producer.map(|p| p.producer_id), Some(1000));
}

#[test]
fn a_first_assignment_is_clean_and_a_restart_makes_it_unclean_under_a_higher_epoch() {
    let mut catalog = running();
    let assignment = |c: &Catalog| orders(c).partitions[1].assignment.clone().expect("assigned");
    assert_eq!(assignment(&catalog), Assignment { node: NODE, epoch: 1, unclean: false });
    catalog.apply(at(3, Action::StartNode { node: NODE, name: "n1".into() })).expect("start");
    assert_eq!(assignment(&catalog), Assignment { node: NODE, epoch: 2, unclean: true });
}

#[test]
fn a_failure_reported_under_an_old_epoch_is_refused() {
    let mut catalog = running();
    catalog.apply(at(3, Action::StartNode { node: NODE, name: "n1".into() })).expect("start");
    let late = Action::FailPartition {
        mirror: key("orders"),
        partition: 0,
        assignment_epoch: 1,
        failure: failure(5),
    };
    assert!(matches!(catalog.apply(at(4, late)), Err(Refusal::Stale(_))));
    assert_eq!(orders(&catalog).status, MirrorStatus::Active);
}

#[test]
fn a_setup_that_fails_late_leaves_a_mirror_that_another_node_has_set_up() {
    let fail = |at_ms| at(at_ms, Action::FailMirror { mirror: key("orders"), failure: failure(0) });
    let mut catalog = running();
    assert!(matches!(catalog.apply(fail(4)), Err(Refusal::Stale(_))));
    assert_eq!(orders(&catalog).status, MirrorStatus::Active);
    catalog.apply(at(5, mirror("events", 1))).expect("another");
    let fail = at(6, Action::FailMirror { mirror: key("events"), failure: failure(0) });
    assert_eq!(catalog.apply(fail), Ok(Outcome::Done));
}

#[test]
fn what_is_said_of_a_deleted_mirror_is_refused_of_one_with_its_name() {
    let mut catalog = running();
    catalog.apply(at(4, Action::DeleteMirror { mirror: key("orders") })).expect("delete");
    for action in [mirror("orders", 2), ready(1001)] {
        catalog.apply(at(5, action)).expect("made anew");
    }
    assign(&mut catalog);
    assert_eq!(orders(&catalog).partitions[0].assignment.as_ref().map(|a| a.epoch), Some(2));
    let late = Action::FailPartition {
        mirror: key("orders"),
        partition: 0,
        assignment_epoch: 1,
        failure: failure(5),
    };
    assert!(matches!(catalog.apply(at(6, late)), Err(Refusal::Stale(_))));
}

#[test]
fn one_failed_partition_marks_the_topic_and_leaves_the_other_running() {
    let mut catalog = running();
    let fail = Action::FailPartition {
        mirror: key("orders"),
        partition: 1,
        assignment_epoch: 1,
        failure: failure(5),
    };
    catalog.apply(at(4, fail)).expect("fail");
    assert_eq!(orders(&catalog).status, MirrorStatus::Failed);
    assert_eq!(orders(&catalog).first_failure().map(|(p, f)| (p, f.offset)), Some((1, 5)));
    assert!(orders(&catalog).partitions[0].failure.is_none());
    catalog.apply(at(5, Action::ResumeMirror { mirror: key("orders") })).expect("resume");
    assert_eq!(orders(&catalog).status, MirrorStatus::Active);
    assert_eq!(orders(&catalog).partitions[1].assignment.as_ref().map(|a| a.epoch), Some(2));
    assert_eq!(orders(&catalog).partitions[0].assignment.as_ref().map(|a| a.epoch), Some(1));
}

#[test]
fn a_plan_is_taken_whole_or_not_at_all() {
    let mut catalog = running();
    catalog.apply(at(3, mirror("clicks", 1))).expect("mirror");
    let plan = placed(&catalog);
    assert_eq!(plan.to_string(), "assign clicks[0] -> 0000000000000007 (new)");
    let mut moves: Vec<_> = plan.assign.into_iter().map(|planned| planned.step).collect();
    moves.push(Move { mirror: key("orders"), partition: 0, node: NODE, expected_epoch: None });
    let before = catalog.clone();
    assert!(matches!(catalog.apply(at(4, Action::Assign { moves })), Err(Refusal::Stale(_))));
    assert_eq!(catalog, before);
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let mut catalog = running();
    let link_id = LinkId("link-1".into());
    assert!(matches!(
        catalog.apply(at(3, Action::DeleteCluster { name: "east".into() })),
        Err(Refusal::InUse { .. })
    ));
    let delete_link = Action::DeleteLink { link: link_id };
    assert!(matches!(catalog.apply(at(3, delete_link.clone())), Err(Refusal::InUse { .. })));
    for action in [Action::DeleteMirror { mirror: key("orders") }, delete_link] {
        assert_eq!(catalog.apply(at(4, action)), Ok(Outcome::Done));
    }
    assert_eq!(catalog.apply(at(5, Action::DeleteCluster { name: "east".into() })), Ok(Outcome::Done));
}

#[test]
fn a_change_of_configs_decided_on_others_is_refused() {
    let mut catalog = running();
    let configs = |value: &str| BTreeMap::from([("client.id".to_owned(), value.to_owned())]);
    let cluster = |expected, configs| Action::UpdateCluster { name: "east".into(), expected, configs };
    let link =
        |expected, configs| Action::AlterLinkConfigs { link: LinkId("link-1".into()), expected, configs };
    for change in [&cluster as &dyn Fn(_, _) -> Action, &link] {
        assert_eq!(catalog.apply(at(3, change(BTreeMap::new(), configs("a")))), Ok(Outcome::Done));
        let before = catalog.clone();
        let late = catalog.apply(at(4, change(BTreeMap::new(), configs("b"))));
        assert!(matches!(late, Err(Refusal::Stale(_))), "{late:?}");
        assert_eq!(catalog, before);
        assert_eq!(catalog.apply(at(5, change(configs("a"), configs("a")))), Ok(Outcome::Unchanged));
    }
    assert_eq!(catalog.clusters["east"].configs, configs("a"));
    assert_eq!(catalog.links[&LinkId("link-1".into())].configs, configs("a"));
}

#[test]
fn two_links_into_one_destination_never_share_a_mirror_topic() {
    let mut catalog = running();
    catalog.apply(at(3, cluster("north"))).expect("cluster");
    let second = NewLink {
        id: LinkId("link-2".into()),
        name: "north-west".into(),
        destination: "west".into(),
        source: Some("north".into()),
        source_cluster_id: "id-north".into(),
        configs: Default::default(),
    };
    catalog.apply(at(3, Action::CreateLink(second))).expect("link");
    let Action::CreateMirror(mut clash) = mirror("orders", 1) else { unreachable!() };
    clash.mirror.link = LinkId("link-2".into());
    assert!(matches!(catalog.apply(at(3, Action::CreateMirror(clash))), Err(Refusal::Exists { .. })));
}

#[test]
fn a_cluster_is_not_linked_to_itself() {
    let mut catalog = Catalog::default();
    catalog.apply(at(1, cluster("west"))).expect("cluster");
    let Action::CreateLink(mut new) = link() else { unreachable!() };
    new.source = Some("west".into());
    new.source_cluster_id = "id-west".into();
    assert!(matches!(catalog.apply(at(1, Action::CreateLink(new))), Err(Refusal::Invalid { .. })));
}

#[test]
fn a_failure_reported_late_leaves_a_paused_mirror_paused() {
    let mut catalog = running();
    catalog.apply(at(4, Action::PauseMirror { mirror: key("orders") })).expect("pause");
    let fail = Action::FailPartition {
        mirror: key("orders"),
        partition: 1,
        assignment_epoch: 1,
        failure: failure(5),
    };
    catalog.apply(at(5, fail)).expect("fail");
    assert_eq!(orders(&catalog).status, MirrorStatus::Paused);
    assert!(orders(&catalog).partitions[1].failure.is_some());
    catalog.apply(at(6, Action::ResumeMirror { mirror: key("orders") })).expect("resume");
    assert_eq!(orders(&catalog).status, MirrorStatus::Active);
}

#[test]
fn a_prefix_only_rises_and_shows_until_its_cut_is_settled() {
    let mut catalog = running();
    let set = |log_start, assignment_epoch| Action::SetPrefix {
        mirror: key("orders"),
        partition: 1,
        assignment_epoch,
        log_start,
    };
    let settle = |log_start| Action::SettlePrefix { mirror: key("orders"), partition: 1, log_start };
    assert!(matches!(catalog.apply(at(3, set(500, 9))), Err(Refusal::Stale(_))), "another epoch");
    assert_eq!(catalog.apply(at(3, set(500, 1))), Ok(Outcome::Done));
    assert_eq!(orders(&catalog).shown_status(), "PENDING_SYNCHRONIZE");
    assert!(matches!(catalog.apply(at(3, set(499, 1))), Err(Refusal::Stale(_))));
    assert_eq!(catalog.apply(at(3, set(600, 1))), Ok(Outcome::Done));
    assert!(matches!(catalog.apply(at(3, settle(500))), Err(Refusal::Stale(_))), "an earlier cut");
    assert_eq!(catalog.apply(at(3, settle(600))), Ok(Outcome::Done));
    assert_eq!(orders(&catalog).shown_status(), "ACTIVE");
}

fn any_action() -> impl Strategy<Value = Action> {
    let action = prop_oneof![2 => any_action_of_level_1(), 3 => any_action_of_level_2()];
    (action, prop::option::of((1u64..5).prop_map(NodeId))).prop_map(|(action, through)| match through {
        Some(through) => Action::Asked { through, action: Box::new(action) },
        None => action,
    })
}

fn any_action_of_level_1() -> impl Strategy<Value = Action> {
    let topic = prop_oneof![Just("orders"), Just("clicks")];
    let name = prop_oneof![Just("east"), Just("west")];
    prop_oneof![
        (1u64..3).prop_map(|n| Action::StartNode { node: NodeId(n), name: format!("old-{n}").into() }),
        name.clone().prop_map(cluster),
        name.prop_map(|n| Action::DeleteCluster { name: n.into() }),
        Just(link()),
        Just(Action::DeleteLink { link: LinkId("link-1".into()) }),
        (topic.clone(), 0u32..4).prop_map(|(t, n)| mirror(t, n)),
        Just(ready(5)),
        (topic.clone(), 0u32..4, 0u64..4).prop_map(|(t, partition, assignment_epoch)| {
            Action::FailPartition { mirror: key(t), partition, assignment_epoch, failure: failure(1) }
        }),
        topic.clone().prop_map(|t| Action::PauseMirror { mirror: key(t) }),
        topic.clone().prop_map(|t| Action::ResumeMirror { mirror: key(t) }),
        topic.clone().prop_map(|t| Action::DeleteMirror { mirror: key(t) }),
        (topic, 0u32..6).prop_map(|(t, partitions)| Action::AddPartitions { mirror: key(t), partitions }),
    ]
}

fn any_action_of_level_2() -> impl Strategy<Value = Action> {
    let node = || (1u64..5).prop_map(NodeId);
    let describe = |(n, level): (u64, u32)| NodeDescription {
        name: format!("n{n}").into(),
        address: (n > 1).then(|| format!("n{n}:1").into()),
        level,
        version: "".into(),
    };
    let level = || prop_oneof![1u32..3, Just(fleet::LEVEL)];
    let description = move || (1u64..5, level()).prop_map(describe);
    let token = || (0u8..3).prop_map(|n| Arc::<str>::from(format!("t{n}")));
    let authority = |n: u8| Authority { certificate: Arc::from([n]), key: Arc::from([n]) };
    let duty = prop_oneof![Just(Duty::Mirrors), Just(Duty::Drains), Just(Duty::Stops)];
    prop_oneof![
        1 => (0u8..3).prop_map(move |n| Action::FoundFleet { fleet: FleetId("f".into()), authority: authority(n) }),
        4 => (node(), description()).prop_map(|(node, description)| Action::RecordStart { node, description }),
        4 => (node(), description(), prop::option::of(token())).prop_map(|(node, description, token)| {
            Action::AdmitNode { node, description, token }
        }),
        4 => (node(), duty).prop_map(|(node, duty)| Action::SetDuty { node, duty }),
        2 => (node(), any::<bool>()).prop_map(|(node, lost)| Action::RemoveNode { node, lost }),
        2 => (token(), -2i64..2).prop_map(|(id, in_ms)| {
            let token = JoinToken { secret: Arc::from([1]), expires_ms: 1 + in_ms, used_by: None };
            Action::IssueToken { id, token }
        }),
        1 => (0u8..3).prop_map(move |n| Action::AddAuthority { authority: authority(n) }),
        1 => (0u8..3).prop_map(move |n| Action::RemoveAuthority { certificate: authority(n).certificate }),
        4 => moves().prop_map(|moves| Action::Assign { moves }),
        8 => moves().prop_map(|moves| Action::HandOver { moves }),
        8 => (node(), any_partition(), 0u64..4, any::<bool>()).prop_map(
            |(node, (mirror, partition), assignment_epoch, in_doubt)| {
                let key = PartitionKey { mirror, partition };
                Action::Release { node, released: vec![Released { key, assignment_epoch, in_doubt }] }
            }
        ),
    ]
}

fn any_partition() -> impl Strategy<Value = (MirrorKey, u32)> {
    (prop_oneof![Just("orders"), Just("clicks")].prop_map(key), 0u32..4)
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = (any_partition(), 1u64..5, prop::option::weighted(0.9, 1u64..4)).prop_map(
        |((mirror, partition), node, expected_epoch)| Move {
            mirror,
            partition,
            node: NodeId(node),
            expected_epoch,
        },
    );
    prop::collection::vec(step, 0..3)
}

fn epochs(catalog: &Catalog) -> BTreeMap<PartitionKey, Option<u64>> {
    let mirrors = catalog.links.values().flat_map(|l| l.mirrors.values().map(move |m| (l.key(&m.name), m)));
    let partitions =
        mirrors.flat_map(|(mirror, m)| (0u32..).zip(&m.partitions).map(move |p| (mirror.clone(), p)));
    partitions
        .map(|(mirror, (partition, p))| {
            (PartitionKey { mirror, partition }, p.assignment.as_ref().map(|a| a.epoch))
        })
        .collect()
}

fn check_fleet(catalog: &Catalog) -> Result<(), TestCaseError> {
    let members = &catalog.nodes;
    let names: BTreeSet<_> = members.values().map(|node| &node.name).collect();
    prop_assert_eq!(names.len(), members.len(), "each has a name of its own");
    prop_assert!(catalog.fleet.removed.keys().all(|id| !members.contains_key(id)));
    prop_assert!(catalog.fleet.authorities.len() <= 2);
    for (key, to) in &catalog.fleet.hand_overs {
        let owner = catalog.owner(key);
        prop_assert!(members.contains_key(to) && owner.is_some() && owner != Some(*to), "{:?}", key);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_commands_never_panic_refusals_change_nothing_and_epochs_only_rise(
        is_running in any::<bool>(),
        actions in prop::collection::vec((any_action(), any::<bool>()), 1..120)
    ) {
        let mut catalog = if is_running { running() } else { Catalog::default() };
        // Also of mirrors that are gone: one that takes the name goes on above them.
        let mut least = BTreeMap::new();
        for (action, place) in actions {
            let command = at(1, action);
            prop_assert_eq!(&codec::decode::<Command>(&codec::encode(&command)).expect("own bytes"), &command);
            let before = catalog.clone();
            match catalog.apply(command) {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Unchanged) | Err(_) => prop_assert_eq!(&catalog, &before),
            }
            if place {
                assign(&mut catalog);
                let takes = |node: &Node| node.duty == Duty::Mirrors;
                prop_assert!(placed(&catalog).assign.is_empty() || !catalog.nodes.values().any(takes));
            }
            let after = epochs(&catalog);
            for (key, epoch) in epochs(&before) {
                let gone = u64::from(!after.contains_key(&key));
                least.insert(key, epoch.map_or(0, |epoch| epoch + gone));
            }
            for (key, epoch) in after.iter().filter_map(|(key, epoch)| Some((key, (*epoch)?))) {
                prop_assert!(epoch >= least.get(key).copied().unwrap_or_default(), "{:?}", key);
            }
            check_fleet(&catalog)?;
            let bytes = codec::encode_catalog(&catalog);
            prop_assert_eq!(&codec::decode_catalog(&bytes).expect("own bytes"), &catalog);
        }
    }

    #[test]
    fn rubbish_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::decode_catalog(&bytes);
        let _ = codec::decode::<Command>(&bytes);
    }
}

/// The bytes of format 1. When this fails, stored catalogs of earlier builds no longer load.
#[test]
fn the_encoding_of_a_command_is_pinned() {
    let command = at(1_700_000_000_000, cluster("east"));
    let bytes = codec::encode(&command);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, PINNED);
    assert_eq!(codec::decode::<Command>(&bytes).expect("decode"), command);
}

const PINNED: &str = "01fd00d0ca9f170300000104656173740769642d6561737400";

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = codec::encode(&Arc::<str>::from("x"));
    bytes[0] = 9;
    let error = codec::decode::<Arc<str>>(&bytes).expect_err("format 9");
    assert_eq!(error.to_string(), "written in format 9, this build reads up to 1: use a newer lockstep");
}

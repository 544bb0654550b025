//! What `apply` promises about fleets of several nodes (commands of level 2), a sentence a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::apply::{JOIN_TOKENS_MAX, REMOVED_MAX};
use catalog::command::{Move, NewLink, NewMirror, NodeDescription, Released};
use catalog::fleet::{Authority, JoinToken, LEVEL};
use catalog::*;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

const EXPIRES_MS: i64 = 1_000;

fn apply(catalog: &mut Catalog, at_ms: i64, action: Action) -> Result<Outcome, Refusal> {
    let before = catalog.clone();
    let applied = catalog.apply(Command { at_ms, action });
    match &applied {
        Ok(Outcome::Done) => assert_ne!(*catalog, before, "done, but nothing changed"),
        Ok(Outcome::Unchanged) | Err(_) => assert_eq!(*catalog, before, "{applied:?}, but something changed"),
    }
    applied
}

fn done(catalog: &mut Catalog, action: Action) {
    assert_eq!(apply(catalog, 1, action), Ok(Outcome::Done));
}

fn description(name: &str) -> NodeDescription {
    let address = Some(format!("{name}:7400").into());
    NodeDescription { name: name.into(), address, level: LEVEL, version: "0.1.0".into() }
}

fn start(node: NodeId, name: &str) -> Action {
    Action::RecordStart { node, description: description(name) }
}

fn admit(node: NodeId, name: &str, token: Option<&str>) -> Action {
    Action::AdmitNode { node, description: description(name), token: token.map(Arc::from) }
}

fn issue(id: &str) -> Action {
    let token = JoinToken { secret: Arc::from([7; 32]), expires_ms: EXPIRES_MS, used_by: None };
    Action::IssueToken { id: id.into(), token }
}

fn duty(node: NodeId, duty: Duty) -> Action {
    Action::SetDuty { node, duty }
}

fn remove(node: NodeId, lost: bool) -> Action {
    Action::RemoveNode { node, lost }
}

fn authority(number: u8) -> Authority {
    Authority { certificate: Arc::from([number]), key: Arc::from([number, number]) }
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey { mirror: MirrorKey { link: LinkId("link-1".into()), topic: "orders".into() }, partition }
}

fn step(partition: u32, node: NodeId, expected_epoch: Option<u64>) -> Move {
    Move { mirror: key(partition).mirror, partition, node, expected_epoch }
}

fn assign(partition: u32, node: NodeId, expected_epoch: Option<u64>) -> Action {
    Action::Assign { moves: vec![step(partition, node, expected_epoch)] }
}

fn hand_over(partition: u32, node: NodeId, epoch: u64) -> Action {
    Action::HandOver { moves: vec![step(partition, node, Some(epoch))] }
}

fn release(node: NodeId, partition: u32, assignment_epoch: u64, in_doubt: bool) -> Action {
    Action::Release { node, released: vec![Released { key: key(partition), assignment_epoch, in_doubt }] }
}

/// Founded by node 1.
fn founded() -> Catalog {
    let mut catalog = Catalog::default();
    done(&mut catalog, start(ONE, "n1"));
    done(&mut catalog, Action::FoundFleet { fleet: FleetId("fleet".into()), authority: authority(1) });
    catalog
}

/// Three members; node 1 owns both partitions of `orders` under assignment epoch 1.
fn three() -> Catalog {
    let mut catalog = founded();
    done(&mut catalog, admit(TWO, "n2", None));
    done(&mut catalog, admit(THREE, "n3", None));
    for name in ["east", "west"] {
        let cluster_id = format!("id-{name}").into();
        done(&mut catalog, Action::CreateCluster { name: name.into(), cluster_id, configs: BTreeMap::new() });
    }
    let link = NewLink {
        id: LinkId("link-1".into()),
        name: "east-west".into(),
        destination: "west".into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: BTreeMap::new(),
    };
    done(&mut catalog, Action::CreateLink(link));
    let mirror = NewMirror {
        mirror: key(0).mirror,
        source_topic: "orders".into(),
        source_topic_id: TopicId([1; 16]),
        partitions: 2,
        replication_factor: None,
        configs: BTreeMap::new(),
    };
    done(&mut catalog, Action::CreateMirror(mirror));
    done(&mut catalog, assign(0, ONE, None));
    done(&mut catalog, assign(1, ONE, None));
    catalog
}

fn assignment(catalog: &Catalog, partition: usize) -> Assignment {
    let mirror = catalog.mirror(&key(0).mirror).expect("orders");
    mirror.partitions[partition].assignment.clone().expect("assigned")
}

fn owned(node: NodeId, epoch: u64, unclean: bool) -> Assignment {
    Assignment { node, epoch, unclean }
}

// Joining and starting.

#[test]
fn a_fleet_is_founded_once() {
    let mut catalog = founded();
    let again = Action::FoundFleet { fleet: FleetId("other".into()), authority: authority(2) };
    assert!(matches!(apply(&mut catalog, 1, again), Err(Refusal::Exists { .. })));
}

#[test]
fn a_join_token_lets_one_node_in() {
    let mut catalog = founded();
    done(&mut catalog, issue("t"));
    done(&mut catalog, admit(TWO, "n2", Some("t")));
    let second = apply(&mut catalog, 1, admit(THREE, "n3", Some("t"))).expect_err("used");
    assert!(second.to_string().starts_with("join token 't' was used already"), "{second}");
    assert!(!catalog.nodes.contains_key(&THREE));
}

#[test]
fn a_node_whose_answer_was_lost_joins_again_with_the_same_token_until_it_expires() {
    let mut catalog = founded();
    done(&mut catalog, issue("t"));
    done(&mut catalog, admit(TWO, "n2", Some("t")));
    let again = || admit(TWO, "n2", Some("t"));
    for at_ms in [2, EXPIRES_MS - 1] {
        assert_eq!(apply(&mut catalog, at_ms, again()), Ok(Outcome::Unchanged));
    }
    let expired = apply(&mut catalog, EXPIRES_MS, again()).expect_err("expired");
    assert!(expired.to_string().contains("has expired; make a new one"), "{expired}");
    done(&mut catalog, issue("fresh"));
    done(&mut catalog, admit(TWO, "n2", Some("fresh")));
    let used = apply(&mut catalog, 1, admit(THREE, "n3", Some("fresh"))).expect_err("used");
    assert!(used.to_string().contains("was used already"), "{used}");
}

#[test]
fn a_token_lets_nobody_in_as_a_member_that_has_started() {
    let mut catalog = founded();
    done(&mut catalog, issue("a"));
    done(&mut catalog, issue("b"));
    done(&mut catalog, admit(TWO, "n2", Some("a")));
    done(&mut catalog, start(TWO, "n2"));
    let refused = apply(&mut catalog, 1, admit(TWO, "n2", Some("b"))).expect_err("a member");
    assert!(refused.to_string().contains("is a member already"), "{refused}");
    assert_eq!(
        apply(&mut catalog, 1, admit(TWO, "n2", Some("a"))),
        Ok(Outcome::Unchanged),
        "the one it used"
    );
    done(&mut catalog, admit(THREE, "n3", Some("b")));
}

#[test]
fn a_build_that_knows_less_than_the_fleet_neither_joins_nor_starts() {
    let mut catalog = founded();
    done(&mut catalog, admit(TWO, "n2", None));
    done(&mut catalog, start(TWO, "n2"));
    let older = |name: &str| NodeDescription { level: LEVEL - 1, ..description(name) };
    let joins = Action::AdmitNode { node: THREE, description: older("n3"), token: None };
    let starts = Action::RecordStart { node: TWO, description: older("n2") };
    for action in [joins, starts] {
        let refused = apply(&mut catalog, 1, action).expect_err("older");
        assert!(refused.to_string().contains("older than what the fleet's members run"), "{refused}");
    }
    assert_eq!(catalog.level(), LEVEL);
}

#[test]
fn an_expired_or_unknown_token_lets_nobody_in() {
    let mut catalog = founded();
    done(&mut catalog, issue("t"));
    let expired = apply(&mut catalog, EXPIRES_MS, admit(TWO, "n2", Some("t"))).expect_err("expired");
    assert!(expired.to_string().contains("has expired; make a new one"), "{expired}");
    assert!(apply(&mut catalog, 1, admit(TWO, "n2", Some("u"))).is_err());
    assert_eq!(apply(&mut catalog, EXPIRES_MS - 1, admit(TWO, "n2", Some("t"))), Ok(Outcome::Done));
}

#[test]
fn a_refused_node_doesnt_use_its_token_up() {
    let mut catalog = founded();
    done(&mut catalog, issue("t"));
    assert!(apply(&mut catalog, 1, admit(TWO, "n1", Some("t"))).is_err(), "the name is taken");
    done(&mut catalog, admit(TWO, "n2", Some("t")));
}

#[test]
fn open_tokens_are_bounded_and_expired_ones_make_room() {
    let mut catalog = founded();
    for number in 0..JOIN_TOKENS_MAX {
        done(&mut catalog, issue(&number.to_string()));
    }
    assert!(matches!(apply(&mut catalog, EXPIRES_MS - 1, issue("more")), Err(Refusal::Illegal(_))));
    assert!(matches!(apply(&mut catalog, 1, issue("0")), Err(Refusal::Exists { .. })));
    let fresh = JoinToken { secret: Arc::from([7; 32]), expires_ms: 2 * EXPIRES_MS, used_by: None };
    let more = Action::IssueToken { id: "more".into(), token: fresh };
    assert_eq!(apply(&mut catalog, EXPIRES_MS, more), Ok(Outcome::Done));
    assert_eq!(catalog.fleet.join_tokens.len(), 1);
}

#[test]
fn no_two_members_have_the_same_name() {
    let mut catalog = founded();
    let taken = apply(&mut catalog, 1, admit(TWO, "n1", None)).expect_err("taken");
    assert_eq!(
        taken.to_string(),
        "a node named 'n1' is a member already (0000000000000001): give this one another --node-name; or, \
         if that one is lost for good, remove it with 'lockstep node remove n1 --lost'"
    );
    done(&mut catalog, admit(TWO, "n2", None));
    assert!(apply(&mut catalog, 1, start(TWO, "n1")).is_err());
    done(&mut catalog, start(TWO, "n2-again"));
    done(&mut catalog, admit(THREE, "n2", None));
}

#[test]
fn only_the_founder_starts_without_having_been_admitted() {
    let mut catalog = founded();
    assert!(matches!(apply(&mut catalog, 1, start(TWO, "n2")), Err(Refusal::NotFound { .. })));
    let by_an_old_build = Action::StartNode { node: TWO, name: "n2".into() };
    assert!(matches!(apply(&mut catalog, 1, by_an_old_build), Err(Refusal::NotFound { .. })));
}

#[test]
fn a_start_records_address_level_and_version_and_counts() {
    let mut catalog = founded();
    done(&mut catalog, admit(TWO, "n2", None));
    assert_eq!(catalog.nodes[&TWO].starts, 0);
    let moved = NodeDescription { address: Some("elsewhere:1".into()), ..description("n2") };
    done(&mut catalog, Action::RecordStart { node: TWO, description: moved });
    assert_eq!(
        (catalog.nodes[&TWO].starts, catalog.nodes[&TWO].address.as_deref()),
        (1, Some("elsewhere:1"))
    );
}

#[test]
fn what_a_starting_node_owns_it_takes_over_from_its_former_process() {
    let mut catalog = three();
    done(&mut catalog, assign(1, TWO, Some(1)));
    done(&mut catalog, start(ONE, "n1"));
    assert_eq!(assignment(&catalog, 0), owned(ONE, 2, true));
    assert_eq!(assignment(&catalog, 1), owned(TWO, 2, true), "another's stays");
}

// Leaving.

#[test]
fn the_id_of_a_removed_node_never_comes_back() {
    let mut catalog = three();
    done(&mut catalog, remove(TWO, false));
    for action in
        [start(TWO, "n2"), admit(TWO, "n2", None), Action::StartNode { node: TWO, name: "n2".into() }]
    {
        let refused = apply(&mut catalog, 1, action).expect_err("removed");
        assert!(refused.to_string().contains("was removed from this fleet"), "{refused}");
    }
    done(&mut catalog, admit(NodeId(9), "n2", None));
}

#[test]
fn a_node_that_owns_partitions_is_removed_only_when_it_is_said_to_be_lost() {
    let mut catalog = three();
    let refused = apply(&mut catalog, 1, remove(ONE, false)).expect_err("in use");
    assert!(refused.to_string().contains("it owns 2 mirror partition(s)"), "{refused}");
    done(&mut catalog, remove(ONE, true));
    assert_eq!(assignment(&catalog, 0), owned(ONE, 1, false), "until the planner gives it to another");
    done(&mut catalog, assign(0, TWO, Some(1)));
    assert_eq!(assignment(&catalog, 0), owned(TWO, 2, true));
}

#[test]
fn the_last_member_is_not_removed() {
    let mut catalog = founded();
    assert!(matches!(apply(&mut catalog, 1, remove(ONE, true)), Err(Refusal::Illegal(_))));
    assert!(matches!(apply(&mut catalog, 1, remove(TWO, true)), Err(Refusal::NotFound { .. })));
}

#[test]
fn removed_ids_are_bounded_and_the_earliest_are_forgotten() {
    let mut catalog = three();
    catalog.fleet.removed =
        (0..REMOVED_MAX as u64).map(|id| (NodeId(1_000 + id), 100 - (id as i64 % 7))).collect();
    let first = NodeId(1_006);
    assert!(catalog.fleet.removed.contains_key(&first));
    assert_eq!(apply(&mut catalog, 500, remove(TWO, false)), Ok(Outcome::Done));
    assert_eq!(catalog.fleet.removed.len(), REMOVED_MAX);
    assert!(!catalog.fleet.removed.contains_key(&first));
    assert_eq!(catalog.fleet.removed.get(&TWO), Some(&500));
}

#[test]
fn draining_survives_a_restart_and_stopping_doesnt() {
    let mut catalog = three();
    done(&mut catalog, duty(TWO, Duty::Drains));
    done(&mut catalog, duty(THREE, Duty::Stops));
    assert_eq!(apply(&mut catalog, 1, duty(TWO, Duty::Drains)), Ok(Outcome::Unchanged));
    done(&mut catalog, start(TWO, "n2"));
    done(&mut catalog, start(THREE, "n3"));
    assert_eq!((catalog.nodes[&TWO].duty, catalog.nodes[&THREE].duty), (Duty::Drains, Duty::Mirrors));
}

#[test]
fn a_node_that_starts_before_it_has_given_all_away_keeps_the_rest() {
    let mut catalog = three();
    done(&mut catalog, duty(ONE, Duty::Stops));
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, start(ONE, "n1"));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
    done(&mut catalog, duty(ONE, Duty::Drains));
    let epoch = assignment(&catalog, 0).epoch;
    done(&mut catalog, hand_over(0, TWO, epoch));
    done(&mut catalog, start(ONE, "n1"));
    assert_eq!(catalog.fleet.hand_overs.len(), 1, "a draining one goes on giving away");
}

#[test]
fn a_duty_is_set_of_members_only() {
    let mut catalog = three();
    assert!(matches!(apply(&mut catalog, 1, duty(NodeId(9), Duty::Drains)), Err(Refusal::NotFound { .. })));
}

// Changing hands.

#[test]
fn a_hand_over_leaves_the_owner_until_it_releases_and_then_the_epoch_rises() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    assert_eq!(assignment(&catalog, 0), owned(ONE, 1, false));
    done(&mut catalog, release(ONE, 0, 1, false));
    assert_eq!(assignment(&catalog, 0), owned(TWO, 2, false), "clean: it was seen to stop");
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
}

#[test]
fn a_release_in_doubt_makes_the_next_owner_wait() {
    let mut catalog = three();
    done(&mut catalog, hand_over(1, TWO, 1));
    done(&mut catalog, release(ONE, 1, 1, true));
    assert_eq!(assignment(&catalog, 1), owned(TWO, 2, true));
}

#[test]
fn a_release_that_was_overtaken_is_ignored_and_holds_no_other_up() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    for late in [release(ONE, 1, 1, false), release(TWO, 0, 1, false), release(ONE, 0, 9, false)] {
        assert_eq!(apply(&mut catalog, 1, late), Ok(Outcome::Unchanged));
    }
    let released = [(1, 1), (7, 1), (0, 1)].map(|(partition, assignment_epoch)| Released {
        key: key(partition),
        assignment_epoch,
        in_doubt: false,
    });
    done(&mut catalog, Action::Release { node: ONE, released: released.to_vec() });
    assert_eq!(assignment(&catalog, 0), owned(TWO, 2, false));
    assert_eq!(assignment(&catalog, 1), owned(ONE, 1, false));
}

#[test]
fn a_release_by_the_process_before_a_restart_is_ignored() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, start(ONE, "n1"));
    assert_eq!(apply(&mut catalog, 1, release(ONE, 0, 1, false)), Ok(Outcome::Unchanged));
    done(&mut catalog, release(ONE, 0, 2, false));
}

#[test]
fn a_release_to_a_member_that_is_gone_leaves_the_owner() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, remove(TWO, false));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new(), "what was to come to it stays");
    assert_eq!(apply(&mut catalog, 1, release(ONE, 0, 1, false)), Ok(Outcome::Unchanged));
    // No command leads here, but nobody may depend on that.
    catalog.fleet.hand_overs.insert(key(0), TWO);
    done(&mut catalog, release(ONE, 0, 2, false));
    assert_eq!(assignment(&catalog, 0), owned(ONE, 3, false));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
}

#[test]
fn an_assignment_cancels_a_hand_over() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, assign(0, THREE, Some(1)));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
    assert_eq!(assignment(&catalog, 0), owned(THREE, 2, true), "the owner before wasn't seen to stop");
    assert_eq!(apply(&mut catalog, 1, release(ONE, 0, 1, false)), Ok(Outcome::Unchanged));
}

#[test]
fn a_hand_over_is_redirected_by_another_and_taken_back_by_one_to_the_owner() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, hand_over(0, THREE, 1));
    assert_eq!(catalog.fleet.hand_overs.get(&key(0)), Some(&THREE));
    assert_eq!(apply(&mut catalog, 1, hand_over(0, THREE, 1)), Ok(Outcome::Unchanged));
    done(&mut catalog, hand_over(0, ONE, 1));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
    assert_eq!(apply(&mut catalog, 1, hand_over(0, ONE, 2)), Ok(Outcome::Unchanged));
}

#[test]
fn a_release_that_arrives_after_its_hand_over_was_called_off_gives_nothing_away() {
    let off: [fn(&mut Catalog); 3] = [
        |catalog| done(catalog, hand_over(0, ONE, 1)),
        |catalog| done(catalog, remove(TWO, false)),
        |catalog| {
            done(catalog, duty(ONE, Duty::Drains));
            done(catalog, duty(ONE, Duty::Mirrors));
        },
    ];
    for call_off in off {
        let mut catalog = three();
        done(&mut catalog, hand_over(0, TWO, 1));
        call_off(&mut catalog);
        assert_eq!(assignment(&catalog, 0), owned(ONE, 2, false), "it runs again, under another epoch");
        done(&mut catalog, hand_over(0, THREE, 2));
        assert_eq!(apply(&mut catalog, 1, release(ONE, 0, 1, false)), Ok(Outcome::Unchanged));
        assert_eq!(assignment(&catalog, 0).node, ONE);
    }
}

#[test]
fn hand_overs_are_taken_whole_or_not_at_all() {
    let mut catalog = three();
    let (good, no_such_epoch) = (step(0, TWO, Some(1)), step(1, TWO, Some(7)));
    let (no_member, no_partition) = (step(1, NodeId(9), Some(1)), step(7, TWO, Some(1)));
    for bad in [no_such_epoch, no_member, no_partition] {
        let moves = vec![good.clone(), bad];
        assert!(matches!(apply(&mut catalog, 1, Action::HandOver { moves }), Err(Refusal::Stale(_))));
    }
}

#[test]
fn what_has_no_owner_is_assigned_and_not_handed_over() {
    let mut catalog = three();
    done(&mut catalog, Action::AddPartitions { mirror: key(0).mirror, partitions: 3 });
    let moves = vec![step(2, TWO, None)];
    assert!(matches!(apply(&mut catalog, 1, Action::HandOver { moves }), Err(Refusal::Illegal(_))));
    done(&mut catalog, assign(2, TWO, None));
    assert_eq!(assignment(&catalog, 2), owned(TWO, 1, false));
}

#[test]
fn a_node_that_leaves_is_no_receiver_any_more_and_one_that_stays_after_all_keeps_its_own() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, hand_over(1, THREE, 1));
    done(&mut catalog, duty(TWO, Duty::Stops));
    assert_eq!(catalog.fleet.hand_overs.keys().collect::<Vec<_>>(), [&key(1)]);
    done(&mut catalog, duty(ONE, Duty::Drains));
    assert_eq!(catalog.fleet.hand_overs.len(), 1, "what it gives away goes on");
    done(&mut catalog, duty(ONE, Duty::Mirrors));
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
}

#[test]
fn a_deleted_mirror_leaves_no_hand_over() {
    let mut catalog = three();
    done(&mut catalog, hand_over(0, TWO, 1));
    done(&mut catalog, Action::DeleteMirror { mirror: key(0).mirror });
    assert_eq!(catalog.fleet.hand_overs, BTreeMap::new());
    assert_eq!(apply(&mut catalog, 1, release(ONE, 0, 1, false)), Ok(Outcome::Unchanged));
}

// Trust.

#[test]
fn the_last_authority_added_signs_two_are_trusted_and_the_old_one_can_go() {
    let mut catalog = founded();
    let remove = |number: u8| Action::RemoveAuthority { certificate: authority(number).certificate };
    assert!(matches!(apply(&mut catalog, 1, remove(1)), Err(Refusal::Illegal(_))), "never the last one");
    done(&mut catalog, Action::AddAuthority { authority: authority(2) });
    assert_eq!(catalog.fleet.authorities.last(), Some(&authority(2)));
    let third = Action::AddAuthority { authority: authority(3) };
    assert!(matches!(apply(&mut catalog, 1, third), Err(Refusal::Illegal(_))));
    assert!(matches!(apply(&mut catalog, 1, remove(2)), Err(Refusal::Illegal(_))), "it signs");
    assert!(matches!(apply(&mut catalog, 1, remove(9)), Err(Refusal::NotFound { .. })));
    done(&mut catalog, remove(1));
    assert_eq!(catalog.fleet.authorities, [authority(2)]);
}

#[test]
fn an_authority_is_added_once() {
    let mut catalog = founded();
    let again = Action::AddAuthority { authority: authority(1) };
    assert!(matches!(apply(&mut catalog, 1, again), Err(Refusal::Exists { .. })));
}

#[test]
fn neither_keys_nor_secrets_are_printed() {
    let mut catalog = founded();
    done(&mut catalog, issue("t"));
    let printed = format!("{catalog:?}");
    assert!(!printed.contains("secret") && !printed.contains("key:"), "{printed}");
    assert!(!printed.contains("7, 7"), "{printed}");
}

// Levels.

#[test]
fn a_command_is_proposed_only_when_every_member_knows_its_level() {
    let mut catalog = three();
    let level_1 = Action::Assign { moves: Vec::new() };
    assert_eq!((level_1.level(), duty(ONE, Duty::Drains).level()), (1, 2));
    assert_eq!(catalog.may_propose(&duty(ONE, Duty::Drains)), Ok(()));
    // It hasn't started since the others were upgraded.
    catalog.nodes.get_mut(&TWO).expect("a member").level = 1;
    assert_eq!(catalog.level(), 1);
    assert_eq!(catalog.may_propose(&level_1), Ok(()));
    let refused = catalog.may_propose(&duty(ONE, Duty::Drains)).expect_err("n2 is old");
    assert!(refused.to_string().contains("node 'n2' runs a version of lockstep that doesn't know this yet"));
    assert!(catalog.may_propose(&start(TWO, "n2")).is_err(), "node 1 would have to apply it too");
}

#[test]
fn a_fleet_of_one_learns_of_its_own_upgrade() {
    let mut catalog = Catalog::default();
    assert_eq!(catalog.may_propose(&start(ONE, "n1")), Ok(()), "an empty one too");
    done(&mut catalog, Action::StartNode { node: ONE, name: "n1".into() });
    assert_eq!(catalog.level(), 1);
    assert!(catalog.may_propose(&issue("t")).is_err());
    assert!(catalog.may_propose(&start(TWO, "n2")).is_err());
    assert_eq!(catalog.may_propose(&start(ONE, "n1")), Ok(()));
    done(&mut catalog, start(ONE, "n1"));
    assert_eq!(catalog.level(), LEVEL);
    assert_eq!(catalog.may_propose(&issue("t")), Ok(()));
}

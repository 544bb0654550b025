//! Membership alone, without brokers: nodes join, are cut off and found again, move and are removed, and
//! one becomes the whole fleet when no other answers; their certificate authority is changed.

use std::time::Duration;

use serde_json::Value;
use tests::fleet::Fleet;
use tests::poll_until;

/// It asks a member, is told, and stops.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
const SEEN_LIMIT: Duration = Duration::from_secs(20);
/// Members look every second.
const RENEWED_UNLESS_WAITING: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(100);

#[test]
fn members_are_missed_found_again_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::found(directory.path(), 3, true).unwrap();
    let leader = fleet.raft_leader().unwrap();
    fleet.isolate(&leader).unwrap();
    let other = fleet.other_than(&leader).expect("two run on");
    let replaced = poll_until(SEEN_LIMIT, POLL, || {
        let members = fleet.members_told_by(&other).ok()?;
        let missed = members.iter().any(|member| member.name == leader && !member.live);
        let led = members.iter().any(|member| member.raft_role == "LEADER" && member.name != leader);
        (missed && led).then_some(())
    });
    assert!(replaced.is_some(), "{:?}", fleet.members_told_by(&other));
    fleet.heal();
    fleet.wait_settled(3).unwrap();

    let moved = fleet.raft_leader().unwrap();
    fleet.kill(&moved).unwrap();
    fleet.move_address(&moved).unwrap();
    fleet.restart(&moved).unwrap();
    fleet.wait_settled(3).unwrap();

    let removed = fleet.follower().unwrap();
    fleet.any().unwrap().cli(&["node", "drain", &removed, "--wait=10s"]).unwrap();
    assert_eq!(fleet.member(&removed).unwrap().duty, "DRAINS");
    fleet.stop(&removed).unwrap();
    fleet.any().unwrap().cli(&["node", "remove", &removed, "--yes"]).unwrap();
    fleet.wait_settled(2).unwrap();
    let mut node = fleet.forget(&removed).unwrap();
    assert!(!node.start_and_end(TOLD_LIMIT).unwrap().success());
    assert!(node.log_text().unwrap().contains("was removed from its fleet"));

    fleet.add("node-4").unwrap();
    fleet.wait_settled(3).unwrap();
    fleet.end().unwrap();
}

#[test]
fn a_node_becomes_the_whole_fleet_only_when_no_other_answers() {
    let directory = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::found(directory.path(), 3, true).unwrap();
    let left = fleet.follower().unwrap();
    let others: Vec<String> = fleet.names().into_iter().filter(|name| *name != left).collect();
    fleet.stop(&left).unwrap();
    let node = fleet.node(&left).unwrap();
    let data = node.data().to_str().unwrap().to_owned();
    let recover = ["node", "recover", "--data-dir", &data, "--yes"];
    let refused = node.cli(&recover).unwrap_err().to_string();
    assert!(refused.contains("2 of 2 other members answered; nothing was changed"), "{refused}");
    fleet.kill(&others[0]).unwrap();
    let refused = fleet.node(&left).unwrap().cli(&recover).unwrap_err().to_string();
    assert!(refused.contains("1 of 2 other members answered"), "{refused}");
    assert!(refused.contains(&format!("asked node {} ", others[1])), "{refused}");
    // Nothing was changed: it is a member as before.
    fleet.restart(&left).unwrap();
    fleet.restart(&others[0]).unwrap();
    fleet.wait_settled(3).unwrap();

    fleet.stop(&left).unwrap();
    others.iter().for_each(|name| fleet.kill(name).unwrap());
    fleet.node(&left).unwrap().cli(&recover).unwrap();
    fleet.restart(&left).unwrap();
    others.iter().for_each(|name| drop(fleet.forget(name).unwrap()));
    let members = fleet.wait_settled(1).unwrap();
    assert_eq!(members.iter().map(|member| &member.name).collect::<Vec<_>>(), [&left]);
    fleet.end().unwrap();
}

/// Whom the authority has signed for, and of whom that isn't known.
fn signed_for(fleet: &Fleet, id: &str) -> [Vec<String>; 2] {
    let list = fleet.any().and_then(|node| node.get_json("/lockstep/v1/authorities")).expect("authorities");
    let mut rows = list["data"].as_array().expect("rows").iter();
    let row = rows.find(|row| row["authority_id"] == *id).expect("that authority");
    ["held_by", "not_known_of"].map(|field| {
        let names = row[field].as_array().expect("names").iter();
        let mut names: Vec<String> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    })
}

#[test]
fn the_authority_is_changed_while_members_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::found(directory.path(), 3, false).unwrap();
    let list = fleet.any().unwrap().cli(&["node", "authority", "list", "-o", "json"]).unwrap();
    let old = serde_json::from_str::<Value>(&list).unwrap()[0]["authority_id"].as_str().unwrap().to_owned();
    let remove = ["node", "authority", "remove", &old, "--yes"];
    let refused = fleet.any().unwrap().cli(&remove).unwrap_err().to_string();
    assert!(refused.contains("lockstep node authority rotate"), "{refused}");

    // One that is away mustn't be left behind.
    let away = fleet.follower().unwrap();
    fleet.kill(&away).unwrap();
    let made = fleet.any().unwrap().cli(&["node", "authority", "rotate", "--yes"]).unwrap();
    let new = made.trim().to_owned();
    let others: Vec<String> = fleet.names().into_iter().filter(|name| *name != away).collect();
    std::thread::sleep(RENEWED_UNLESS_WAITING);
    assert_eq!(signed_for(&fleet, &old), [others, vec![away.clone()]]);
    let refused = fleet.any().unwrap().cli(&remove).unwrap_err().to_string();
    assert!(refused.contains(&format!("node '{away}' doesn't answer")), "{refused}");
    // So is one that comes in meanwhile, with a certificate of the new one.
    fleet.add("node-4").unwrap();
    let has_it = poll_until(SEEN_LIMIT, POLL, || (signed_for(&fleet, &new)[0] == ["node-4"]).then_some(()));
    assert!(
        has_it.is_some(),
        "{:?}, {:?} of the old one",
        signed_for(&fleet, &new),
        signed_for(&fleet, &old)
    );
    fleet.restart(&away).unwrap();
    let renewed =
        poll_until(SEEN_LIMIT, POLL, || (signed_for(&fleet, &new)[0] == fleet.names()).then_some(()));
    assert!(renewed.is_some(), "{:?}", signed_for(&fleet, &old));
    fleet.wait_settled(4).unwrap();

    fleet.any().unwrap().cli(&remove).unwrap();
    fleet.wait_settled(4).unwrap();
    fleet.add("node-5").unwrap();
    for name in [&away, "node-4"] {
        fleet.kill(name).unwrap();
        fleet.restart(name).unwrap();
    }
    for name in fleet.names() {
        let all = || fleet.members_told_by(&name).unwrap();
        let sees_all = poll_until(SEEN_LIMIT, POLL, || {
            let all = all();
            (all.len() == 5 && all.iter().all(|member| member.live)).then_some(())
        });
        assert!(sees_all.is_some(), "as {name} sees it: {:?}", all());
        let log = fleet.node(&name).unwrap().log_text().unwrap();
        assert!(!log.contains("can't be renewed"), "{log}");
    }
    let list = fleet.any().unwrap().cli(&["node", "authority", "list"]).unwrap();
    assert!(list.contains(&new) && !list.contains(&old), "{list}");
    fleet.end().unwrap();
}

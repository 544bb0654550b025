//! Membership alone, without brokers: nodes join, are cut off and found again, move and are removed.

use std::time::Duration;

use tests::fleet::Fleet;
use tests::poll_until;

/// It asks a member, is told, and stops.
const TOLD_LIMIT: Duration = Duration::from_secs(30);
const SEEN_LIMIT: Duration = Duration::from_secs(20);
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

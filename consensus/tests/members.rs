//! Coming in, voting, leaving; a node that waits; one that was removed.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use catalog::{Action, NodeId, Refusal};
use consensus::{Consensus, MemberError, OpenError, Options, SubmitError};
use support::disk::Disk;
use support::fleet::{Fleet, MS};
use support::{SECOND, action, catalog, options};
use tempfile::TempDir;
use tokio::time::sleep;

fn ids(nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
    nodes.into_iter().collect()
}

#[tokio::test]
async fn a_node_that_waits_keeps_its_identity_however_often_it_starts() {
    let dir = TempDir::new().expect("a directory");
    let first = Consensus::enter(options(dir.path())).await.expect("it waits");
    let (id, status) = (first.node_id(), first.status());
    assert_eq!((status.leader, status.voters, status.stopped), (None, vec![], None));
    first.shutdown().await;
    for _ in 0..2 {
        let again = Consensus::enter(options(dir.path())).await.expect("it waits");
        assert_eq!(again.node_id(), id);
        again.shutdown().await;
        let opened = Consensus::open(options(dir.path())).await.expect("it waits");
        assert_eq!(opened.node_id(), id);
        opened.shutdown().await;
    }
    let refused = Consensus::bootstrap(options(dir.path())).await.err().expect("refused");
    assert!(matches!(refused, OpenError::Waiting { .. }), "{refused:?}");
    assert!(refused.to_string().contains("--join"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_disk_is_another_node() {
    let options = || Options::new(Path::new("memory"), "same-name");
    let one = Consensus::enter_on(Disk::default(), options()).await.expect("it waits");
    let other = Consensus::enter_on(Disk::default(), options()).await.expect("it waits");
    assert_ne!(one.node_id(), other.node_id(), "so the lost one's votes are never given again");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_starts_no_election_and_disturbs_nobody() {
    let mut fleet = Fleet::of(3, 1).await;
    let before = fleet.leader().await.status();
    let waiting = fleet.wait_to_join().await;
    sleep(5 * SECOND).await;
    let number = fleet.number_of(waiting);
    assert_eq!(fleet.nodes[number].get().status().term, 0);
    fleet.kill(number).await;
    fleet.start(number).await;
    let leader = fleet.leader().await;
    assert_eq!(leader.status().term, before.term);
    leader.add_learner(waiting).await.expect("added");
    fleet
        .until("it has caught up", |fleet| {
            fleet.led().is_some_and(|leader| leader.members().caught_up.contains(&waiting))
        })
        .await;
    fleet.until_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_told_apart_until_it_votes() {
    let mut fleet = Fleet::founded(1).await;
    let founder = fleet.nodes[0].id;
    let learner = fleet.admit().await;
    let leader = fleet.leader().await;
    let members = leader.members();
    assert_eq!((members.voters, members.learners), (ids([founder]), ids([learner])));
    assert_eq!(members.caught_up, ids([founder, learner]));
    assert_eq!(members.raft_leader, Some(founder));
    assert!(fleet.nodes[1].get().members().caught_up.is_empty(), "only the Raft leader knows");
    leader.add_learner(learner).await.expect("it is one already");
    leader.set_voters(ids([founder, learner])).await.expect("set");
    assert_eq!(leader.members().voters, ids([founder, learner]));
    leader.set_voters(ids([founder])).await.expect("set");
    assert_eq!(leader.members().learners, ids([learner]), "who doesn't vote any more learns");
    leader.remove(learner).await.expect("removed");
    assert!(leader.members().learners.is_empty());
    leader.remove(learner).await.expect("it is gone already");
}

#[tokio::test(start_paused = true)]
async fn changes_that_would_harm_are_refused() {
    let mut fleet = Fleet::of(3, 1).await;
    let waiting = fleet.wait_to_join().await;
    let leader = fleet.leader().await;
    let follower = fleet.nodes[fleet.a_follower().await].get();
    let all = leader.members().voters;
    let me = leader.node_id();

    let not_leader = Err(MemberError::NotLeader { leader: Some(me) });
    assert_eq!(follower.add_learner(waiting).await, not_leader);
    assert_eq!(follower.set_voters(all.clone()).await, not_leader);
    assert_eq!(follower.remove(me).await, not_leader);

    let with_waiting: BTreeSet<NodeId> = all.iter().copied().chain([waiting]).collect();
    assert_eq!(leader.set_voters(with_waiting).await, Err(MemberError::NotCaughtUp(waiting)));
    assert_eq!(leader.set_voters(BTreeSet::new()).await, Err(MemberError::NoVoters));
    let without_me = all.iter().copied().filter(|id| *id != me).collect();
    assert_eq!(leader.set_voters(without_me).await, Err(MemberError::Leads));
    assert_eq!(leader.remove(me).await, Err(MemberError::Leads));
    assert_eq!(leader.members().voters, all);
}

#[tokio::test(start_paused = true)]
async fn of_two_changes_at_once_one_is_refused() {
    let mut fleet = Fleet::of(3, 1).await;
    let (one, two) = (fleet.wait_to_join().await, fleet.wait_to_join().await);
    let leader = fleet.leader().await;
    let outcomes = tokio::join!(leader.add_learner(one), leader.add_learner(two));
    assert_eq!(outcomes, (Ok(()), Err(MemberError::InProgress)));
    leader.add_learner(two).await.expect("now it may");
    assert_eq!(leader.members().learners, ids([one, two]));
}

#[tokio::test(start_paused = true)]
async fn a_change_without_a_quorum_ends_in_doubt_and_in_time() {
    let mut fleet = Fleet::of(3, 1).await;
    let waiting = fleet.wait_to_join().await;
    let leader = fleet.leader().await.clone();
    fleet.net.isolate(leader.node_id());
    let started = tokio::time::Instant::now();
    assert_eq!(leader.add_learner(waiting).await, Err(MemberError::Deadline));
    assert!(started.elapsed() <= 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_voters_that_its_raft_leader_did_not_finish_is_finished_by_the_next() {
    for seed in 0..10 {
        let mut fleet = Fleet::of(3, seed).await;
        let one = fleet.admit().await;
        let two = fleet.admit().await;
        let leader = fleet.leader().await.clone();
        let old = leader.members().voters;
        let goal = ids([leader.node_id(), one, two]);
        let change = {
            let (leader, goal) = (leader.clone(), goal.clone());
            tokio::spawn(async move { leader.set_voters(goal).await })
        };
        // Somewhere in the change: both commits take some 20 ms.
        sleep(u32::try_from(seed).expect("small") * MS).await;
        let number = fleet.number_of(leader.node_id());
        fleet.kill(number).await;
        let _ = change.await;
        fleet.leader().await;
        fleet.start(number).await;
        sleep(3 * SECOND).await;
        let members = fleet.leader().await.members();
        assert!(members.voters == goal || members.voters == old, "seed {seed}: {members:?}");
        // All that vote at all, while voters change too.
        let voters = ids(fleet.leader().await.status().voters);
        assert_eq!(voters, members.voters, "seed {seed}: a change is still under way");
    }
}

fn is_refused(removed: &Result<catalog::Outcome, SubmitError>) -> bool {
    matches!(removed, Err(SubmitError::Refused(Refusal::Illegal(words))) if words.contains("node-0' votes"))
}

/// As the coordinator does it; the sets are the planner's.
#[tokio::test(start_paused = true)]
async fn the_only_voter_is_removed_once_the_other_votes() {
    let mut fleet = Fleet::founded(1).await;
    let founder = fleet.nodes[0].id;
    let other = fleet.admit().await;
    let leader = fleet.leader().await.clone();
    let remove = Action::RemoveNode { node: founder, lost: false };
    assert!(is_refused(&leader.submit(remove.clone()).await), "it alone votes");
    let asked = Action::Asked { through: other, action: Box::new(remove.clone()) };
    assert!(is_refused(&leader.submit(asked).await), "whoever asks for it");
    assert!(is_refused(&fleet.nodes[1].get().submit(remove.clone()).await), "whoever is asked");
    leader.set_voters(ids([founder, other])).await.expect("set");
    assert!(is_refused(&leader.submit(remove.clone()).await), "of two both are needed");
    assert_eq!(leader.set_voters(ids([other])).await, Err(MemberError::Leads));
    assert_eq!(leader.yield_leadership().await, Some(other));
    let next = fleet.nodes[1].get().clone();
    next.set_voters(ids([other])).await.expect("set");
    next.submit(remove).await.expect("removed");
    next.remove(founder).await.expect("left out");
    fleet.kill(0).await;
    next.submit(action(1)).await.expect("it goes on alone");
}

#[tokio::test(start_paused = true)]
async fn a_voter_is_not_removed_while_the_others_are_no_majority() {
    let mut fleet = Fleet::of(3, 1).await;
    let leader = fleet.leader().await.clone();
    let (down, stays) = (fleet.a_follower().await, leader.node_id());
    let drained =
        fleet.nodes.iter().map(|node| node.id).find(|id| *id != stays && *id != fleet.nodes[down].id);
    let drained = Action::RemoveNode { node: drained.expect("the third"), lost: true };
    fleet.kill(down).await;
    sleep(2 * SECOND).await;
    let refused = leader.submit(drained.clone()).await;
    assert!(matches!(refused, Err(SubmitError::Refused(Refusal::Illegal(_)))), "{refused:?}");
    fleet.start(down).await;
    sleep(2 * SECOND).await;
    fleet.leader().await.submit(drained).await.expect("now it may");
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_is_refused_and_knows_it() {
    let fleet = Fleet::of(3, 1).await;
    let leader = fleet.leader().await;
    let number = fleet.a_follower().await;
    let gone = fleet.nodes[number].id;
    leader.submit(Action::RemoveNode { node: gone, lost: true }).await.expect("removed");
    leader.remove(gone).await.expect("removed");
    assert_eq!(leader.members().voters.len(), 2);
    let before = leader.status();
    sleep(10 * SECOND).await;
    assert!(fleet.nodes[number].get().status().removed, "it asked for votes and was told");
    assert_eq!(fleet.leader().await.status().term, before.term);
    assert_eq!(leader.add_learner(gone).await, Err(MemberError::Removed(gone)));
    leader.submit(action(1)).await.expect("the others go on");
    assert!(!leader.status().removed);
    assert_eq!(catalog(leader).fleet.removed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_learner_that_was_removed_while_it_was_away_is_told_when_it_is_back() {
    let mut fleet = Fleet::of(3, 1).await;
    let gone = fleet.admit().await;
    let number = fleet.number_of(gone);
    fleet.kill(number).await;
    let leader = fleet.leader().await.clone();
    leader.submit(Action::RemoveNode { node: gone, lost: true }).await.expect("removed");
    leader.remove(gone).await.expect("removed");
    fleet.start(number).await;
    sleep(10 * SECOND).await;
    assert!(fleet.nodes[number].get().status().removed, "nobody calls it, so it asks");
    assert_eq!(fleet.leader().await.status().term, leader.status().term);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_removed_before_it_heard_of_any_voter_asks_the_members_that_it_knows() {
    let mut fleet = Fleet::of(3, 1).await;
    let gone = fleet.wait_to_join().await;
    let number = fleet.number_of(gone);
    assert!(fleet.nodes[number].get().status().voters.is_empty(), "nothing was sent to it");
    let leader = fleet.leader().await.clone();
    leader.submit(Action::RemoveNode { node: gone, lost: true }).await.expect("removed");
    sleep(10 * SECOND).await;
    assert!(fleet.nodes[number].get().status().removed, "nobody calls it, so it asks");
}

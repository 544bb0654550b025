//! What the planner of voters promises, a sentence a test.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog::command::NodeDescription;
use catalog::placement::{Presence, Situation};
use catalog::voters::{self, Change, LOST_FOR_GOOD, Members};
use catalog::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Group {
    catalog: Catalog,
    situation: Situation,
    members: Members,
}

fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().map(|id| NodeId(*id)).collect()
}

fn set_voters(nodes: &[u64]) -> Option<Change> {
    Some(Change::SetVoters(ids(nodes)))
}

impl Group {
    /// So many live members from id 1, of which these vote; the first of them is the Raft leader.
    fn of(nodes: u64, voters: &[u64]) -> Self {
        let members = Members {
            raft_leader: voters.first().map(|id| NodeId(*id)),
            voters: ids(voters),
            learners: (1..=nodes).map(NodeId).filter(|id| !voters.contains(&id.0)).collect(),
            caught_up: (1..=nodes).map(NodeId).collect(),
        };
        let now = Duration::from_secs(1_000);
        let mut group = Self {
            catalog: Catalog::default(),
            situation: Situation { now, ..Situation::default() },
            members,
        };
        for node in 1..=nodes {
            group.admit(node);
        }
        group
    }

    fn done(&mut self, action: Action) {
        self.catalog.apply(Command { at_ms: 1, action }).expect("applied");
    }

    fn admit(&mut self, node: u64) {
        let (name, version) = (format!("n{node}").into(), "".into());
        let description = NodeDescription { name, address: None, level: fleet::LEVEL, version };
        let node = NodeId(node);
        self.done(match self.catalog.nodes.is_empty() {
            true => Action::RecordStart { node, description },
            false => Action::AdmitNode { node, description, token: None },
        });
        self.situation.nodes.insert(node, Presence::Live { since: Duration::ZERO });
    }

    fn lost(&mut self, node: u64, ago: Duration) {
        let since = self.situation.now - ago;
        self.situation.nodes.insert(NodeId(node), Presence::Lost { since });
    }

    fn duty(&mut self, node: u64, duty: Duty) {
        self.done(Action::SetDuty { node: NodeId(node), duty });
    }

    fn remove(&mut self, node: u64) {
        self.done(Action::RemoveNode { node: NodeId(node), lost: true });
    }

    fn plan(&self) -> Option<Change> {
        voters::plan(&self.catalog, &self.situation, &self.members)
    }

    /// As Raft does: who doesn't vote any more learns; who is live and learns catches up.
    fn change(&mut self, change: Change) {
        let members = &mut self.members;
        match change {
            Change::AddLearner(id) => {
                assert!(!members.voters.contains(&id), "a voter isn't added");
                assert!(members.learners.insert(id), "a learner isn't added twice");
            }
            Change::SetVoters(voters) => {
                let everybody: BTreeSet<_> = members.voters.union(&members.learners).copied().collect();
                assert!(voters.is_subset(&everybody), "only who learns may vote");
                members.learners = everybody.difference(&voters).copied().collect();
                members.voters = voters;
                if members.raft_leader.is_some_and(|id| !members.voters.contains(&id)) {
                    members.raft_leader = None;
                }
            }
            Change::Remove(id) => assert!(members.learners.remove(&id), "only a learner is removed"),
        }
        let live = members.learners.iter().filter(|id| self.situation.is_live(**id));
        members.caught_up = members.voters.iter().chain(live).copied().collect();
    }

    fn settle(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(change) = self.plan() {
            changes.push(change.clone());
            assert!(changes.len() <= 40, "no end: {changes:?}");
            self.change(change);
        }
        changes
    }

    fn has_live_majority(&self) -> bool {
        let live = self.members.voters.iter().filter(|id| self.is_live(**id)).count();
        live > self.members.voters.len() / 2
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.catalog.fleet.removed.contains_key(&id)
    }

    fn is_live(&self, id: NodeId) -> bool {
        self.members.raft_leader == Some(id) || self.situation.is_live(id)
    }
}

#[test]
fn one_and_two_members_have_one_voter_three_and_four_have_three_more_have_five() {
    assert_eq!((0..=9).map(voters::wanted).collect::<Vec<_>>(), [1, 1, 1, 3, 3, 5, 5, 5, 5, 5]);
    for (nodes, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
        let mut group = Group::of(nodes, &[1]);
        group.settle();
        assert_eq!(group.members.voters.len(), voters, "of {nodes}");
        assert_eq!(group.members.learners.len() + voters, nodes as usize);
    }
}

#[test]
fn a_fleet_grows_by_learners_that_vote_once_they_have_caught_up() {
    let mut group = Group::of(1, &[1]);
    assert_eq!(group.plan(), None);
    group.admit(2);
    group.admit(3);
    assert_eq!(group.plan(), Some(Change::AddLearner(NodeId(2))));
    group.change(Change::AddLearner(NodeId(2)));
    assert_eq!(group.plan(), Some(Change::AddLearner(NodeId(3))));
    group.change(Change::AddLearner(NodeId(3)));
    group.members.caught_up = ids(&[1, 2]);
    assert_eq!(group.plan(), None, "never two voters, and 3 isn't fit yet");
    group.members.caught_up = ids(&[1, 2, 3]);
    assert_eq!(group.plan(), set_voters(&[1, 2, 3]));
}

#[test]
fn voters_stay_when_others_come() {
    let mut group = Group::of(4, &[4, 2, 3]);
    assert_eq!(group.plan(), None);
    group.admit(5);
    group.settle();
    assert_eq!(group.members.voters, ids(&[1, 2, 3, 4, 5]));
    group.admit(6);
    assert_eq!(group.settle(), [Change::AddLearner(NodeId(6))]);
}

#[test]
fn a_lost_voter_is_replaced_after_a_minute_by_a_live_learner_that_has_caught_up() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.lost(3, LOST_FOR_GOOD - Duration::from_millis(1));
    assert_eq!(group.plan(), None);
    group.lost(3, LOST_FOR_GOOD);
    assert_eq!(group.plan(), set_voters(&[1, 2, 4]));
    group.members.caught_up = ids(&[1, 2, 3]);
    assert_eq!(group.plan(), None, "4 isn't fit to vote");
    group.members.caught_up = ids(&[1, 2, 3, 4]);
    group.lost(4, Duration::ZERO);
    assert_eq!(group.plan(), None, "4 isn't live");
}

#[test]
fn a_quorum_never_shrinks_because_voters_are_lost() {
    let mut group = Group::of(5, &[1, 2, 3, 4, 5]);
    group.lost(4, 10 * LOST_FOR_GOOD);
    group.lost(5, 10 * LOST_FOR_GOOD);
    assert_eq!(group.plan(), None);
    group.remove(5);
    assert_eq!(group.settle(), [Change::SetVoters(ids(&[1, 2, 3])), Change::Remove(NodeId(5))]);
}

#[test]
fn a_lost_voter_that_comes_back_after_it_was_replaced_learns() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.lost(3, LOST_FOR_GOOD);
    group.settle();
    group.situation.nodes.insert(NodeId(3), Presence::Live { since: group.situation.now });
    assert_eq!(group.settle(), []);
    assert_eq!(group.members.learners, ids(&[3]));
}

#[test]
fn a_removed_voter_is_replaced_and_then_leaves_raft() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.remove(2);
    assert_eq!(group.settle(), [Change::SetVoters(ids(&[1, 3, 4])), Change::Remove(NodeId(2))]);
}

#[test]
fn of_two_that_are_left_the_raft_leader_votes() {
    let mut group = Group::of(3, &[3, 1, 2]);
    group.remove(1);
    assert_eq!(group.settle(), [Change::SetVoters(ids(&[3])), Change::Remove(NodeId(1))]);
}

#[test]
fn a_removed_voter_keeps_its_place_for_a_member_that_is_catching_up() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.members.caught_up = ids(&[1, 2, 3]);
    group.remove(3);
    assert_eq!(group.plan(), None);
    group.members.caught_up = ids(&[1, 2, 4]);
    assert_eq!(group.plan(), set_voters(&[1, 2, 4]));
}

#[test]
fn a_draining_voter_is_replaced_if_another_can_vote_and_stays_otherwise() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.duty(1, Duty::Drains);
    assert_eq!(group.plan(), set_voters(&[2, 3, 4]), "the Raft leader too");
    group.duty(4, Duty::Drains);
    assert_eq!(group.plan(), None);
    let mut group = Group::of(3, &[1, 2, 3]);
    group.duty(2, Duty::Drains);
    assert_eq!(group.plan(), None);
}

#[test]
fn the_only_voter_gives_its_vote_to_the_other_by_way_of_both() {
    let mut group = Group::of(2, &[1]);
    group.duty(1, Duty::Drains);
    assert_eq!(group.plan(), set_voters(&[1, 2]), "so that there is one to lead after it");
    group.members.caught_up = ids(&[1]);
    assert_eq!(group.plan(), None, "2 isn't fit to vote");
    group.members.caught_up = ids(&[1, 2]);
    group.members.voters = ids(&[1, 2]);
    group.members.learners.clear();
    assert_eq!(group.plan(), set_voters(&[2]), "which its consensus takes as: let 2 lead");
    group.lost(2, Duration::ZERO);
    assert_eq!(group.plan(), None, "2 couldn't lead");
    group.situation.nodes.insert(NodeId(2), Presence::Live { since: Duration::ZERO });
    group.members.raft_leader = Some(NodeId(2));
    assert_eq!(group.settle(), [Change::SetVoters(ids(&[2]))]);
    group.remove(1);
    assert_eq!(group.settle(), [Change::Remove(NodeId(1))]);
}

#[test]
fn voters_of_whom_none_is_to_stay_make_room_by_way_of_a_set_with_somebody_to_lead_it() {
    let mut group = Group::of(8, &[1, 2, 3]);
    for node in 1..=3 {
        group.duty(node, Duty::Drains);
    }
    assert_eq!(group.plan(), set_voters(&[1, 4, 5, 6, 7, 8]), "else 1, 2 and 3 would lead in turns");
    group.change(Change::SetVoters(ids(&[1, 4, 5, 6, 7, 8])));
    assert_eq!(group.plan(), set_voters(&[4, 5, 6, 7, 8]));
}

#[test]
fn a_node_that_stops_for_a_restart_stays_a_voter_and_isnt_made_one() {
    let mut group = Group::of(4, &[1, 2, 3]);
    group.duty(2, Duty::Stops);
    assert_eq!(group.plan(), None);
    group.duty(4, Duty::Stops);
    group.lost(3, LOST_FOR_GOOD);
    assert_eq!(group.plan(), None);
}

#[test]
fn nobody_is_asked_to_leave_a_set_without_a_live_majority() {
    let mut group = Group::of(4, &[1, 2, 3, 4]);
    group.lost(2, Duration::ZERO);
    group.lost(3, Duration::ZERO);
    group.remove(4);
    assert_eq!(group.plan(), None, "of 1, 2 and 3 only 1 is live");
}

#[test]
fn a_founder_that_the_catalog_doesnt_know_yet_stays_alone_in_raft() {
    let mut group = Group::of(0, &[1]);
    assert_eq!(group.plan(), None);
    group.members.learners = ids(&[2]);
    assert_eq!(group.plan(), None, "Raft's membership may be newer than the catalog");
}

#[test]
fn a_member_that_may_not_answer_is_added_last() {
    let mut group = Group::of(1, &[1]);
    for node in 2..=4 {
        group.admit(node);
    }
    group.lost(2, Duration::ZERO);
    group.situation.nodes.remove(&NodeId(3));
    let added = [4, 3, 2].map(|id| Change::AddLearner(NodeId(id)));
    assert_eq!(group.settle(), added);
}

#[derive(Clone, Debug)]
struct Any {
    votes: bool,
    learns: bool,
    caught_up: bool,
    is_removed: bool,
    duty: Duty,
    /// None: unknown. Live, or lost for so many seconds.
    presence: Option<Result<(), u64>>,
}

fn any_node() -> impl Strategy<Value = Any> {
    let duty = prop_oneof![3 => Just(Duty::Mirrors), 1 => Just(Duty::Drains), 1 => Just(Duty::Stops)];
    let presence =
        prop_oneof![5 => Just(Some(Ok(()))), 2 => (0u64..200).prop_map(|s| Some(Err(s))), 1 => Just(None)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    (flags, duty, presence).prop_map(|((votes, learns, caught_up, is_removed), duty, presence)| Any {
        votes,
        learns,
        caught_up,
        is_removed,
        duty,
        presence,
    })
}

/// Member 1 is live and the Raft leader at first. It is removed only if the others can do without it, as
/// consensus sees to.
fn any_group() -> impl Strategy<Value = Group> {
    (prop::collection::vec(any_node(), 0..9), any_node()).prop_map(|(nodes, first)| {
        let mut group = Group::of(1 + nodes.len() as u64, &[1]);
        group.members.learners.clear();
        for (id, node) in (2..).zip(nodes) {
            if node.votes {
                group.members.voters.insert(NodeId(id));
            } else if node.learns {
                group.members.learners.insert(NodeId(id));
            }
            if !node.caught_up {
                group.members.caught_up.remove(&NodeId(id));
            }
            group.duty(id, node.duty);
            match node.presence {
                Some(Ok(())) => {}
                Some(Err(seconds)) => group.lost(id, Duration::from_secs(seconds)),
                None => drop(group.situation.nodes.remove(&NodeId(id))),
            }
            if node.is_removed {
                group.remove(id);
            }
        }
        group.duty(1, first.duty);
        let stays = |id: &&NodeId| id.0 != 1 && group.situation.is_live(**id) && !group.is_removed(**id);
        let others = group.members.voters.iter().filter(stays);
        if first.is_removed
            && group.catalog.nodes.len() > 1
            && others.count() > group.members.voters.len() / 2
        {
            group.remove(1);
        }
        group
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn from_any_state_the_plan_ends_in_an_odd_number_of_members_by_way_of_live_majorities(
        mut group in any_group()
    ) {
        let began_live = group.has_live_majority();
        let mut changes = 0;
        loop {
            // Live learners catch up in time.
            group.members.caught_up.extend(group.members.learners.iter().filter(|id| group.situation.is_live(**id)));
            let Some(change) = group.plan() else {
                if group.lose_for_good() { continue } else { break }
            };
            changes += 1;
            prop_assert!(changes <= 20, "no end");
            if let Change::SetVoters(voters) = &change {
                let leads = group.members.raft_leader.expect("one leads");
                if !voters.contains(&leads) {
                    let next = group.successor(leads);
                    prop_assert!(next.is_some(), "nobody is to lead: {:?}", group);
                    group.members.raft_leader = next;
                    continue;
                }
                let is_transient = voters.len() % 2 == 0 && group.is_to_go(leads);
                prop_assert!(voters.len() % 2 == 1 || is_transient, "{:?}", voters);
                prop_assert!(voters.len() <= voters::VOTERS_MAX + usize::from(is_transient), "{:?}", voters);
                for added in voters.difference(&group.members.voters) {
                    prop_assert!(group.members.caught_up.contains(added) && group.situation.is_live(*added));
                }
            }
            group.change(change);
            prop_assert!(group.has_live_majority() || !began_live);
        }
        if began_live {
            let removed = |id: &NodeId| group.is_removed(*id);
            let members = &group.members;
            prop_assert!(members.voters.len() % 2 == 1 || !group.could_replace(), "{:?}", group);
            prop_assert!(!members.voters.iter().any(removed) || !group.could_replace(), "{:?}", group);
            prop_assert!(!members.learners.iter().any(removed));
            let known: BTreeSet<_> = members.voters.union(&members.learners).copied().collect();
            prop_assert!(group.catalog.nodes.keys().all(|id| known.contains(id)));
        }
    }
}

impl Group {
    /// To whom the Raft leader hands over: as consensus chooses.
    fn successor(&self, leads: NodeId) -> Option<NodeId> {
        let others = self.members.voters.iter().filter(|id| **id != leads && self.situation.is_live(**id));
        others.copied().max_by_key(|id| {
            let duty = self.catalog.nodes.get(id).map(|node| node.duty);
            (duty == Some(Duty::Mirrors), duty.is_some(), *id)
        })
    }

    /// In time whoever is away is. False if they are already.
    fn lose_for_good(&mut self) -> bool {
        let before = self.situation.clone();
        let away: Vec<u64> =
            self.catalog.nodes.keys().filter(|id| !self.is_live(**id)).map(|id| id.0).collect();
        for id in away {
            self.lost(id, LOST_FOR_GOOD);
        }
        self.situation != before
    }

    fn is_to_go(&self, id: NodeId) -> bool {
        self.catalog.nodes.get(&id).is_none_or(|node| node.duty == Duty::Drains)
    }

    /// Whether so many members as should vote could answer.
    fn could_replace(&self) -> bool {
        let live = self.catalog.nodes.keys().filter(|id| self.is_live(**id)).count();
        live >= voters::wanted(self.catalog.nodes.len())
    }
}

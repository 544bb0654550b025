//! When this node may stand for election, and the signs of life of a Raft leader.
//!
//! openraft has no pre-vote: a node that was cut off would raise the term over and over, and unseat
//! a healthy Raft leader when it comes back. So its own timer is off (but for a group of one), and a
//! node first asks the voters whether they would vote for it. They wouldn't while they hear a Raft
//! leader, or when they hold more of the log. Asking changes nothing. A node without a vote that hears
//! no Raft leader asks as well, every member that it knows, and never stands: if it was removed while it was
//! away, nobody calls it, and it is told so; if it has moved, it is found.
//!
//! [`step`] and [`carried`] decide; [`run`] looks, asks and acts. It never votes.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::{BasicNode, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::handle::Inner;
use crate::network::wire::{Answer, Request};
use crate::raft::LogId;

/// A group of one needs nobody's vote; something else may have changed.
const LOOK_ALONE: Duration = Duration::from_secs(1);

/// What this node sees of its group.
#[derive(Debug)]
struct View {
    me: u64,
    /// One set of voters, or two while they change.
    voters: Vec<BTreeSet<u64>>,
    others: bool,
    leads: bool,
    /// Since a Raft leader was heard or a vote was given.
    silent: Duration,
    /// The silence is that of a Raft leader, not of a candidate.
    led: bool,
    last: Option<LogId>,
}

impl View {
    /// The only voter.
    fn alone(&self) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|voters| voters.iter().eq([&self.me]))
    }

    fn everyone_who_votes(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().copied().collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    /// So long voters stay with a Raft leader that they heard.
    lease: Duration,
    /// So long a candidate may take to gather its votes.
    voting: Duration,
    /// Drawn anew each time, so that two seldom stand at once.
    stagger: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// openraft elects the only voter by itself.
    LetElect,
    ShowLife,
    /// Nothing to do for so long.
    Wait(Duration),
    AskForVotes,
    /// As if for votes, to be noticed.
    ShowUp,
}

fn step(view: &View, timing: Timing) -> Step {
    if view.alone() && !(view.leads && view.others) {
        return Step::LetElect;
    }
    if view.leads {
        return Step::ShowLife;
    }
    let votes = view.voters.iter().any(|voters| voters.contains(&view.me));
    let patience = timing.stagger + if view.led || !votes { timing.lease } else { timing.voting };
    match patience.checked_sub(view.silent) {
        Some(left) if !left.is_zero() => Step::Wait(left),
        _ if votes => Step::AskForVotes,
        _ => Step::ShowUp,
    }
}

/// Whether these votes win: a majority of each set of voters.
fn carried(voters: &[BTreeSet<u64>], votes: &BTreeSet<u64>) -> bool {
    voters.iter().all(|set| set.intersection(votes).count() > set.len() / 2)
}

/// Runs until consensus stops or its last handle is gone.
pub(crate) async fn run(inner: Weak<Inner>) {
    let started = Instant::now();
    let mut stagger = None;
    let Some((mut metrics, mut server)) =
        inner.upgrade().map(|inner| (inner.raft.metrics(), inner.raft.server_metrics()))
    else {
        return;
    };
    loop {
        let Some(inner) = inner.upgrade() else { return };
        server.mark_unchanged();
        let drawn = *stagger.get_or_insert_with(|| inner.stagger());
        let Some(view) = inner.view(started).await else { return };
        note_quorum(&inner, &mut metrics);
        let step = step(&view, inner.timing(drawn));
        inner.raft.runtime_config().elect(view.alone());
        let wait = match step {
            Step::LetElect => LOOK_ALONE,
            Step::ShowLife => {
                let Some(Ok(())) = inner.unless_closing(inner.raft.trigger().heartbeat()).await else {
                    return;
                };
                if view.voters.len() > 1 {
                    // Not waited for: it takes votes, and those take heartbeats.
                    tokio::spawn(inner.clone().finish_change());
                }
                inner.heartbeat
            }
            Step::Wait(wait) => wait,
            Step::AskForVotes => {
                if inner.ask_for_votes(&view).await {
                    stagger = None;
                    let Some(Ok(())) = inner.unless_closing(inner.raft.trigger().elect()).await else {
                        return;
                    };
                }
                inner.heartbeat
            }
            Step::ShowUp => {
                let mut asked = inner.ask(&view, &inner.everyone(&view));
                while asked.join_next().await.is_some() {}
                inner.lease
            }
        };
        // Holding on to it would keep a group alive that nobody uses any more.
        drop(inner);
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// openraft says how long ago a majority answered, as of when it said so.
fn note_quorum(inner: &Inner, metrics: &mut watch::Receiver<RaftMetrics<u64, BasicNode>>) {
    if metrics.has_changed().unwrap_or(false) {
        let since = metrics.borrow_and_update().millis_since_quorum_ack;
        inner.note_quorum(since.map(Duration::from_millis));
    }
}

impl Inner {
    fn timing(&self, stagger: Duration) -> Timing {
        Timing { lease: self.lease, voting: self.voting, stagger }
    }

    /// Up to one heartbeat.
    fn stagger(&self) -> Duration {
        let share = (self.entropy)() >> 32;
        self.heartbeat.mul_f64(share as f64 / f64::from(u32::MAX))
    }

    async fn view(&self, started: Instant) -> Option<View> {
        let me = self.identity.node_id;
        let last = self.last_log();
        let view = self.raft.with_raft_state(move |state| {
            let members = state.membership_state.effective().membership();
            let heard = state.vote_last_modified().map_or(started, |at| at.max(started));
            View {
                me,
                voters: members.get_joint_config().clone(),
                others: members.nodes().any(|(id, _)| *id != me),
                leads: state.server_state == ServerState::Leader,
                silent: heard.elapsed(),
                led: state.vote_ref().is_committed(),
                last,
            }
        });
        self.unless_closing(view).await?.ok()
    }

    async fn ask_for_votes(self: &Arc<Self>, view: &View) -> bool {
        let mut votes = BTreeSet::from([view.me]);
        let mut asked = self.ask(view, &view.everyone_who_votes());
        while !carried(&view.voters, &votes) {
            match asked.join_next().await {
                Some(answer) => votes.extend(answer.ok().flatten()),
                None => return false,
            }
        }
        true
    }

    /// Voters may not be known: to a learner that nothing was sent to yet.
    fn everyone(&self, view: &View) -> BTreeSet<u64> {
        let members = self.calls.members().into_iter().map(|node| node.0);
        view.everyone_who_votes().into_iter().chain(members).collect()
    }

    /// Asks each of them but this node; those that would vote for it are named.
    fn ask(self: &Arc<Self>, view: &View, whom: &BTreeSet<u64>) -> JoinSet<Option<u64>> {
        let mut asked = JoinSet::new();
        for id in whom.iter().copied().filter(|id| *id != view.me) {
            let (calls, last, within) = (self.calls.clone(), view.last, self.append_timeout);
            asked.spawn(async move {
                let answer = calls.call(id, &Request::WouldVote { last }, within).await;
                matches!(answer, Ok(Answer::WouldVote(true))).then_some(id)
            });
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn timing() -> Timing {
        Timing { lease: 700 * MS, voting: 500 * MS, stagger: 50 * MS }
    }

    fn view(voters: &[&[u64]]) -> View {
        View {
            me: 1,
            voters: voters.iter().map(|set| set.iter().copied().collect()).collect(),
            others: true,
            leads: false,
            silent: Duration::ZERO,
            led: true,
            last: None,
        }
    }

    #[test]
    fn votes_are_asked_for_after_the_raft_leaders_lease_and_never_before() {
        let silent = |ms| step(&View { silent: ms * MS, ..view(&[&[1, 2, 3]]) }, timing());
        assert_eq!(silent(0), Step::Wait(750 * MS));
        assert_eq!(silent(749), Step::Wait(MS));
        assert_eq!(silent(750), Step::AskForVotes);
    }

    #[test]
    fn a_candidate_that_gathered_too_few_votes_is_given_less_time() {
        let view = View { silent: 550 * MS, led: false, ..view(&[&[1, 2, 3]]) };
        assert_eq!(step(&view, timing()), Step::AskForVotes);
    }

    #[test]
    fn whoever_has_no_vote_never_stands_but_asks_when_it_hears_nobody() {
        assert_eq!(step(&view(&[]), timing()), Step::Wait(750 * MS), "it waits to be added");
        for led in [true, false] {
            let silent = |ms| step(&View { silent: ms * MS, led, ..view(&[&[2, 3, 4]]) }, timing());
            assert_eq!(silent(700), Step::Wait(50 * MS));
            assert_eq!(silent(60_000), Step::ShowUp);
        }
    }

    #[test]
    fn a_raft_leader_shows_that_it_lives_also_to_learners_only() {
        assert_eq!(step(&View { leads: true, ..view(&[&[1, 2, 3]]) }, timing()), Step::ShowLife);
        assert_eq!(step(&View { leads: true, ..view(&[&[1]]) }, timing()), Step::ShowLife);
        assert_eq!(step(&View { leads: true, others: false, ..view(&[&[1]]) }, timing()), Step::LetElect);
    }

    #[test]
    fn while_voters_change_a_majority_of_both_sets_is_needed() {
        let sets = |sets: &[&[u64]]| view(sets).voters;
        let votes = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        assert!(carried(&sets(&[&[1, 2, 3]]), &votes(&[1, 2])));
        assert!(!carried(&sets(&[&[1, 2, 3]]), &votes(&[1, 4])));
        assert!(!carried(&sets(&[&[1, 2, 3, 4]]), &votes(&[1, 2])));
        assert!(!carried(&sets(&[&[1, 2, 3], &[1, 4, 5]]), &votes(&[1, 2])));
        assert!(carried(&sets(&[&[1, 2, 3], &[1, 4, 5]]), &votes(&[1, 2, 4])));
    }
}

//! Any node takes commands and reads; the Raft leader proposes them, once or not at all.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use catalog::{Action, Outcome, Refusal};
use consensus::{Consensus, SubmitError};
use support::SECOND;
use support::chance::Chance;
use support::fleet::{Fleet, MS};
use tokio::time::{Instant, sleep};

fn create(name: &str) -> Action {
    Action::CreateCluster { name: name.into(), cluster_id: name.into(), configs: BTreeMap::new() }
}

fn holds(consensus: &Consensus, name: &str) -> bool {
    consensus.watch().borrow().catalog.clusters.contains_key(name)
}

#[tokio::test(start_paused = true)]
async fn whoever_submits_on_any_node_reads_it_there_at_once() {
    let fleet = Fleet::of(3, 1).await;
    for (number, node) in fleet.running().enumerate() {
        let name = format!("c{number}");
        assert_eq!(node.submit(create(&name)).await.expect("submit"), Outcome::Done);
        assert!(holds(node, &name), "applied where it was asked");
        let refused = node.submit(create(&name)).await;
        assert!(matches!(refused, Err(SubmitError::Refused(Refusal::Exists { .. }))), "{refused:?}");
        for reader in fleet.running() {
            assert!(reader.read().await.expect("read").catalog.clusters.contains_key(&*name));
        }
    }
    fleet.until_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_learner_takes_commands_too() {
    let mut fleet = Fleet::of(3, 1).await;
    let learner = fleet.admit().await;
    let learner = fleet.nodes[fleet.number_of(learner)].get();
    learner.submit(create("c")).await.expect("submit");
    assert!(holds(learner, "c"));
    assert!(learner.read().await.expect("read").catalog.clusters.contains_key("c"));
}

#[tokio::test(start_paused = true)]
async fn the_raft_leader_proposes_nothing_that_a_member_does_not_know() {
    let fleet = Fleet::of(3, 1).await;
    // Of the first level, as before a fleet is founded.
    let admit = Action::StartNode { node: catalog::NodeId(7), name: "node-7".into() };
    fleet.leader().await.submit(admit).await.expect("admitted");
    let follower = fleet.nodes[fleet.a_follower().await].get();
    let before = fleet.leader().await.status().last_applied;
    let of_level_2 = Action::SetDuty { node: follower.node_id(), duty: catalog::Duty::Drains };
    let refused = follower.submit(of_level_2).await.expect_err("refused").to_string();
    assert!(refused.contains("'node-7'") && refused.contains("upgrade it first"), "{refused}");
    assert_eq!(fleet.leader().await.status().last_applied, before, "nothing was proposed");
    follower.submit(create("c")).await.expect("what all know passes");
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_a_raft_leader_says_that_nothing_was_proposed() {
    let mut fleet = Fleet::of(3, 1).await;
    let follower = fleet.a_follower().await;
    let numbers: Vec<usize> = (0..3).filter(|number| *number != follower).collect();
    for number in numbers {
        fleet.kill(number).await;
    }
    let node = fleet.nodes[follower].get();
    // Until it has noticed, what was sent to the Raft leader is in doubt.
    sleep(SECOND).await;
    let started = Instant::now();
    let refused = node.submit(create("c")).await;
    assert!(started.elapsed() <= 5 * SECOND, "{:?}", started.elapsed());
    assert!(matches!(refused, Err(SubmitError::NoLeader { .. })), "{refused:?}");
    let read = node.read().await;
    assert!(matches!(read, Err(SubmitError::NoLeader { .. })), "{read:?}");
}

/// What a client was told about a command: only these three.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<String>,
    surely_not: BTreeSet<String>,
    in_doubt: BTreeSet<String>,
}

impl Told {
    /// Whether the node goes on.
    fn note(&mut self, name: String, outcome: Result<Outcome, SubmitError>) -> bool {
        let goes_on = !matches!(outcome, Err(SubmitError::Stopped));
        match outcome {
            Ok(Outcome::Done) => self.acknowledged.insert(name),
            Err(SubmitError::NoLeader { .. }) => self.surely_not.insert(name),
            Err(SubmitError::Deadline | SubmitError::Stopped) => self.in_doubt.insert(name),
            // Each name is used once: a second application would be refused.
            other => panic!("{name}: {other:?}"),
        };
        goes_on
    }
}

async fn client(node: Consensus, number: usize, told: Arc<Mutex<Told>>) {
    for n in 0.. {
        let name = format!("n{number}-{n}");
        let outcome = node.submit(create(&name)).await;
        if !told.lock().expect("no panic while held").note(name, outcome) {
            return;
        }
        sleep(3 * MS).await;
    }
}

/// Clients on all nodes while Raft leaders are killed, cut off and told to hand over, and messages
/// get lost. Nothing acknowledged is missing (CT-6), nothing refused is there, nothing is there twice.
async fn under_fire(size: usize, seed: u64) {
    let mut fleet = Fleet::with(size, seed, 60, 20).await;
    let mut chance = Chance::new(seed ^ 0xf1e1d);
    let told = Arc::new(Mutex::new(Told::default()));
    let spawn = |fleet: &Fleet, number: usize, told: &Arc<Mutex<Told>>, round: usize| {
        let name = number + round * 100;
        tokio::spawn(client(fleet.nodes[number].get().clone(), name, told.clone()))
    };
    let mut clients: Vec<_> = (0..size).map(|number| spawn(&fleet, number, &told, 0)).collect();
    fleet.net.lose(2);
    for round in 1..=6 {
        sleep((200 + u32::try_from(chance.below(1_500)).expect("small")) * MS).await;
        let leader = fleet.leader().await.clone();
        let victim = match chance.below(3) {
            0 => fleet.a_follower().await,
            _ => fleet.number_of(leader.node_id()),
        };
        match chance.below(3) {
            0 => {
                fleet.kill(victim).await;
                sleep(u32::try_from(chance.below(3_000)).expect("small") * MS).await;
                fleet.start(victim).await;
                clients.push(spawn(&fleet, victim, &told, round));
            }
            1 => {
                fleet.net.isolate(fleet.nodes[victim].id);
                sleep(u32::try_from(chance.below(4_000)).expect("small") * MS).await;
                fleet.net.heal();
            }
            _ => drop(leader.yield_leadership().await),
        }
    }
    fleet.net.lose(0);
    fleet.leader().await;
    sleep(6 * SECOND).await;
    for client in clients {
        client.abort();
        let _ = client.await;
    }
    fleet.leader().await.submit(create("last")).await.expect("submit");
    fleet.until_equal().await;

    let applied: BTreeSet<String> = {
        let watch = fleet.leader().await.watch();
        watch.borrow().catalog.clusters.keys().map(ToString::to_string).collect()
    };
    let told = told.lock().expect("no panic while held");
    let missing: Vec<_> = told.acknowledged.difference(&applied).collect();
    assert!(missing.is_empty(), "seed {seed}: acknowledged and lost: {missing:?}");
    let lied: Vec<_> = told.surely_not.intersection(&applied).collect();
    assert!(lied.is_empty(), "seed {seed}: applied though surely not proposed: {lied:?}");
    assert!(told.acknowledged.len() > 200, "seed {seed}: {} acknowledged", told.acknowledged.len());
    println!(
        "seed {seed}, {size} nodes: {} acknowledged, {} surely not proposed, {} in doubt of which {} applied",
        told.acknowledged.len(),
        told.surely_not.len(),
        told.in_doubt.len(),
        told.in_doubt.intersection(&applied).count()
    );
}

#[tokio::test(start_paused = true)]
async fn commands_are_applied_once_or_reported_in_doubt_whatever_happens_to_raft_leaders_of_three() {
    for seed in 0..2 {
        under_fire(3, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn commands_are_applied_once_or_reported_in_doubt_whatever_happens_to_raft_leaders_of_five() {
    for seed in 0..1 {
        under_fire(5, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_before_all_nodes_died_at_once_is_read_as_soon_as_anything_is() {
    for seed in 1..=10 {
        let mut fleet = Fleet::of(3, seed).await;
        fleet.leader().await.submit(create("acknowledged")).await.expect("submit");
        for number in 0..3 {
            fleet.kill(number).await;
        }
        for number in 0..3 {
            fleet.start(number).await;
        }
        for node in fleet.running() {
            // Whoever can't answer yet says so.
            if let Ok(read) = node.read().await {
                assert!(
                    read.catalog.clusters.contains_key("acknowledged"),
                    "seed {seed}: read {}",
                    read.index
                );
            }
        }
    }
}

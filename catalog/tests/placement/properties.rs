//! What holds for any fleet.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog::placement::{self, MOVES_MAX, Planned, count_spread};
use catalog::*;
use proptest::prelude::*;

use crate::world::{World, mirror, of};

#[derive(Clone, Debug)]
struct Any {
    nodes: u64,
    /// For each topic its partitions: owner and rate.
    topics: Vec<Vec<(u64, u64)>>,
}

/// Rates as they are: most partitions idle or slow, some fast.
fn any_rate() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 4 => 0u64..100_000, 2 => 100_000u64..2_000_000, 1 => 2_000_000u64..50_000_000]
}

fn any_fleet() -> impl Strategy<Value = Any> {
    (2u64..7).prop_flat_map(|nodes| {
        // Owner 0: none yet.
        let partition = (0..=nodes, any_rate());
        let topics = prop::collection::vec(prop::collection::vec(partition, 1..60), 1..6);
        topics.prop_map(move |topics| Any { nodes, topics })
    })
}

fn world(any: &Any) -> World {
    let mut world = World::of(any.nodes);
    for (index, partitions) in any.topics.iter().enumerate() {
        let topic = format!("t{index}");
        world.topic(&topic, partitions.len() as u32);
        for (partition, (owner, rate)) in (0u32..).zip(partitions) {
            if *owner > 0 {
                world.put(&topic, partition, *owner);
            }
            world.rate(&topic, partition, *rate);
        }
    }
    world
}

#[derive(Clone, Debug)]
enum Event {
    Lost(u64),
    Unknown(u64),
    Live(u64),
    Duty(u64, Duty),
    Removed(u64),
    Rate(u32, u64),
    Passes(u64),
    Topic(u8),
}

fn any_event() -> impl Strategy<Value = Event> {
    let node = 1u64..7;
    let duty = prop_oneof![2 => Just(Duty::Mirrors), 1 => Just(Duty::Drains), 1 => Just(Duty::Stops)];
    prop_oneof![
        2 => node.clone().prop_map(Event::Lost),
        1 => node.clone().prop_map(Event::Unknown),
        3 => node.clone().prop_map(Event::Live),
        3 => (node.clone(), duty).prop_map(|(node, duty)| Event::Duty(node, duty)),
        1 => node.prop_map(Event::Removed),
        2 => (0u32..60, any_rate()).prop_map(|(partition, rate)| Event::Rate(partition, rate)),
        4 => (50u64..3_000).prop_map(Event::Passes),
        1 => any::<u8>().prop_map(Event::Topic),
    ]
}

fn happen(world: &mut World, event: Event) {
    let is_member = |world: &World, node| world.catalog.nodes.contains_key(&NodeId(node));
    match event {
        Event::Lost(node) => world.lost(node),
        Event::Unknown(node) => world.unknown(node),
        Event::Live(node) => world.live(node),
        Event::Duty(node, duty) if is_member(world, node) => world.duty(node, duty),
        Event::Removed(node) if is_member(world, node) && world.catalog.nodes.len() > 1 => {
            world.done(Action::RemoveNode { node: NodeId(node), lost: true });
        }
        Event::Rate(partition, rate) => world.rate("t0", partition, rate),
        Event::Passes(ms) => world.pass(Duration::from_millis(ms)),
        Event::Topic(number) if world.catalog.mirror(&mirror(&format!("x{number}"))).is_none() => {
            world.topic(&format!("x{number}"), u32::from(number) + 1);
        }
        Event::Duty(..) | Event::Removed(_) | Event::Topic(_) => {}
    }
}

fn check(world: &World, planned: &Planned) -> Result<(), TestCaseError> {
    let key = of(&planned.step);
    let owner = world.catalog.owner(&key);
    let fits = world.situation.is_live(planned.step.node)
        && world.catalog.nodes.get(&planned.step.node).is_some_and(|node| node.duty == Duty::Mirrors);
    let is_taken_back = owner == Some(planned.step.node) && world.catalog.fleet.hand_overs.contains_key(&key);
    prop_assert!(fits || is_taken_back, "{:?}", planned);
    Ok(())
}

fn keys(planned: &[Planned]) -> BTreeSet<PartitionKey> {
    planned.iter().map(|p| of(&p.step)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn following_plans_ends_with_even_counts_and_no_node_much_busier_than_it_must_be(any in any_fleet()) {
        let mut world = world(&any);
        let total: usize = any.topics.iter().map(Vec::len).sum();
        let plans = world.settle();
        prop_assert!(plans <= 20 + 10 * total, "{} plans for {} partitions", plans, total);
        prop_assert!(world.plan().is_empty());
        let counts = world.counts();
        let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
        prop_assert!(spread <= count_spread(total, counts.len()), "{:?}", counts);
        prop_assert_eq!(counts.iter().sum::<usize>(), total);

        let rates = world.node_rates();
        let mean = rates.iter().sum::<u64>() / any.nodes;
        let largest = any.topics.iter().flatten().map(|(_, rate)| *rate).max().unwrap_or(0);
        let busiest = *rates.iter().max().unwrap_or(&0);
        let tolerated = mean + (mean / 4).max(1024 * 1024) + largest;
        prop_assert!(busiest <= tolerated, "{:?}, the largest partition {}", rates, largest);
    }

    #[test]
    fn the_loss_of_a_node_moves_only_what_it_had(any in any_fleet(), lost in 1u64..7) {
        let lost = 1 + (lost - 1) % any.nodes;
        let mut world = world(&any);
        world.settle();
        let owners = world.owners();
        let its: BTreeSet<_> =
            owners.iter().filter(|(_, owner)| owner.0 == lost).map(|(key, _)| key.clone()).collect();
        world.lost(lost);
        let plan = world.plan();
        prop_assert_eq!(keys(&plan.assign), its);
        prop_assert!(plan.hand_over.is_empty(), "{}", plan);
        prop_assert!(plan.assign.iter().all(|p| p.step.node.0 != lost));
    }

    #[test]
    fn at_equal_rates_nothing_follows_from_a_loss(any in any_fleet(), lost in 1u64..7) {
        let lost = 1 + (lost - 1) % any.nodes;
        let mut world = world(&any);
        world.situation.rates.clear();
        world.settle();
        let its = world.catalog.owned_by(NodeId(lost));
        world.changes.clear();
        world.lost(lost);
        world.settle();
        prop_assert_eq!(world.changes.len(), its);
    }

    #[test]
    fn equal_inputs_give_equal_plans(any in any_fleet()) {
        let one = world(&any);
        let catalog = codec::decode_catalog(&codec::encode_catalog(&one.catalog)).expect("own bytes");
        prop_assert_eq!(placement::plan(&catalog, &one.situation), one.plan());
    }

    #[test]
    fn whatever_happens_a_plan_is_taken_and_once_all_is_well_everything_runs_and_is_even(
        any in any_fleet(), events in prop::collection::vec(any_event(), 1..80)
    ) {
        let mut world = world(&any);
        for event in events {
            happen(&mut world, event);
            let plan = world.plan();
            prop_assert!(plan.assign.len() + plan.hand_over.len() <= MOVES_MAX);
            for planned in plan.assign.iter().chain(&plan.hand_over) {
                check(&world, planned)?;
            }
            world.propose(plan);
        }
        let nodes: Vec<_> = world.catalog.nodes.keys().map(|id| id.0).collect();
        for node in nodes {
            world.live(node);
            world.duty(node, Duty::Mirrors);
        }
        world.settle();
        let owners = world.owners();
        let mirrors = world.catalog.links.values().flat_map(|link| link.mirrors.values());
        prop_assert_eq!(owners.len(), mirrors.map(|m| m.partitions.len()).sum::<usize>());
        let counts = world.counts();
        let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
        prop_assert!(spread <= count_spread(owners.len(), counts.len()), "{:?}", counts);
    }
}

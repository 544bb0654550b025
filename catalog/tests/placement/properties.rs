//! What holds for any fleet.

use std::collections::BTreeSet;

use catalog::placement::{self, Planned, REST, count_spread};
use catalog::*;
use proptest::prelude::*;

use crate::world::{World, of};

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

fn keys(planned: &[Planned]) -> BTreeSet<PartitionKey> {
    planned.iter().map(|p| of(&p.step)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

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
}

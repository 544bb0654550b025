//! How long a plan takes for 50,000 partitions on 10 nodes: `cargo run --release -p catalog --example plan_speed`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use catalog::command::{NewLink, NewMirror, NodeDescription};
use catalog::placement::{self, Plan, Presence, Situation};
use catalog::{Action, Catalog, Command, Duty, LinkId, MirrorKey, NodeId, PartitionKey, TopicId};

const NODES: u64 = 10;
const LINKS: u32 = 5;
const TOPICS_PER_LINK: u32 = 200;
const PARTITIONS_PER_TOPIC: u32 = 50;
const RUNS: usize = 20;

fn main() {
    let (mut catalog, mut situation) = fleet();
    println!("{} partitions, {NODES} nodes; the slowest of {RUNS} plans each", situation.rates.len());
    timed("all new", &catalog, &situation);
    settle(&mut catalog, &mut situation);
    timed("at rest", &catalog, &situation);

    let mut lost = situation.clone();
    lost.nodes.insert(NodeId(3), Presence::Lost { since: lost.now });
    timed("a node lost", &catalog, &lost);

    let mut stops = catalog.clone();
    apply(&mut stops, Action::SetDuty { node: NodeId(3), duty: Duty::Stops });
    timed("a node stops", &stops, &situation);

    let mut joined = catalog.clone();
    apply(&mut joined, admit(NODES + 1));
    let mut with_another = situation.clone();
    with_another.nodes.insert(NodeId(NODES + 1), Presence::Live { since: Duration::ZERO });
    timed("a node joined", &joined, &with_another);

    let mut jumped = situation.clone();
    for (key, rate) in &mut jumped.rates {
        *rate *= if catalog.owner(key) == Some(NodeId(1)) { 10 } else { 1 };
    }
    timed("a node busy", &catalog, &jumped);
}

fn timed(what: &str, catalog: &Catalog, situation: &Situation) {
    let mut slowest = Duration::ZERO;
    let mut plan = Plan::default();
    for _ in 0..RUNS {
        let began = Instant::now();
        plan = placement::plan(catalog, situation);
        slowest = slowest.max(began.elapsed());
    }
    println!(
        "{what:>14}: {slowest:>8.1?}, {} to assign, {} to hand over",
        plan.assign.len(),
        plan.hand_over.len()
    );
}

fn settle(catalog: &mut Catalog, situation: &mut Situation) {
    loop {
        let plan = placement::plan(catalog, situation);
        if plan.assign.is_empty() {
            return;
        }
        let assign = Plan { hand_over: Vec::new(), ..plan };
        for action in assign.into_actions() {
            apply(catalog, action);
        }
    }
}

fn apply(catalog: &mut Catalog, action: Action) {
    if let Err(refused) = catalog.apply(Command { at_ms: 1, action }) {
        panic!("{refused}");
    }
}

fn admit(node: u64) -> Action {
    let (name, version) = (format!("n{node}").into(), "".into());
    let description = NodeDescription { name, address: None, level: catalog::fleet::LEVEL, version };
    match node {
        1 => Action::RecordStart { node: NodeId(node), description },
        _ => Action::AdmitNode { node: NodeId(node), description, token: None },
    }
}

fn fleet() -> (Catalog, Situation) {
    let mut catalog = Catalog::default();
    let mut situation = Situation { now: Duration::from_secs(3_600), ..Situation::default() };
    for node in 1..=NODES {
        apply(&mut catalog, admit(node));
        situation.nodes.insert(NodeId(node), Presence::Live { since: Duration::ZERO });
    }
    for name in ["east", "west"] {
        let cluster_id = format!("id-{name}").into();
        apply(
            &mut catalog,
            Action::CreateCluster { name: name.into(), cluster_id, configs: BTreeMap::new() },
        );
    }
    for link in 0..LINKS {
        let id = LinkId(format!("link-{link}-of-the-fleet-").into());
        apply(
            &mut catalog,
            Action::CreateLink(NewLink {
                id: id.clone(),
                name: format!("east-west-{link}").into(),
                destination: "west".into(),
                source: Some("east".into()),
                source_cluster_id: "id-east".into(),
                configs: BTreeMap::new(),
            }),
        );
        for topic in 0..TOPICS_PER_LINK {
            let topic = format!("shop.orders.{link}.{topic}");
            let mirror = MirrorKey { link: id.clone(), topic: topic.as_str().into() };
            for partition in 0..PARTITIONS_PER_TOPIC {
                // A few carry much, most little: 64 KB/s down to nothing.
                let rate = 65_536 / u64::from(1 + (partition * 7 + link) % PARTITIONS_PER_TOPIC);
                situation.rates.insert(PartitionKey { mirror: mirror.clone(), partition }, rate);
            }
            let (source_topic, source_topic_id) = (topic.as_str().into(), TopicId([1; 16]));
            let (partitions, configs) = (PARTITIONS_PER_TOPIC, BTreeMap::new());
            let new = NewMirror {
                mirror,
                source_topic,
                source_topic_id,
                partitions,
                replication_factor: None,
                configs,
            };
            apply(&mut catalog, Action::CreateMirror(new));
        }
    }
    (catalog, situation)
}

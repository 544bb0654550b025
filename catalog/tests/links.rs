//! How many links may lead to one cluster.

use std::collections::BTreeMap;

use catalog::command::{NewLink, NodeDescription};
use catalog::*;

/// A fleet of one, of that level, and three clusters.
fn catalog(level: u32) -> Catalog {
    let mut catalog = Catalog::default();
    let description = NodeDescription { name: "n".into(), address: None, level, version: "0".into() };
    let cluster = |name: &str| Action::CreateCluster {
        name: name.into(),
        cluster_id: format!("id-{name}").into(),
        configs: BTreeMap::new(),
    };
    let started = Action::RecordStart { node: NodeId(7), description };
    for action in [started, cluster("east"), cluster("west"), cluster("south")] {
        assert_eq!(apply(&mut catalog, action), Ok(Outcome::Done));
    }
    catalog
}

fn apply(catalog: &mut Catalog, action: Action) -> Result<Outcome, Refusal> {
    catalog.apply(Command { at_ms: 1, action })
}

fn link(catalog: &mut Catalog, number: usize, destination: &str) -> Result<Outcome, Refusal> {
    let id = format!("{destination}-{number}");
    let new = NewLink {
        id: LinkId(id.as_str().into()),
        name: id.into(),
        destination: destination.into(),
        source: Some("east".into()),
        source_cluster_id: "id-east".into(),
        configs: BTreeMap::new(),
    };
    apply(catalog, Action::CreateLink(new))
}

#[test]
fn ten_links_lead_to_a_cluster_and_the_eleventh_when_its_limit_is_raised() {
    let mut catalog = catalog(fleet::LEVEL);
    for number in 1..=10 {
        assert_eq!(link(&mut catalog, number, "west"), Ok(Outcome::Done));
    }
    let told = link(&mut catalog, 11, "west").expect_err("too many").to_string();
    assert_eq!(
        told,
        "cluster 'west' is the destination of 10 links already, and 10 are allowed: raise its cluster.links.max \
         (lockstep cluster update west --config cluster.links.max=N)"
    );
    assert_eq!(link(&mut catalog, 1, "south"), Ok(Outcome::Done), "each cluster counts its own");
    let configs = BTreeMap::from([(Cluster::LINKS_MAX_KEY.to_owned(), "11".to_owned())]);
    let raised = Action::UpdateCluster { name: "west".into(), expected: BTreeMap::new(), configs };
    assert_eq!(apply(&mut catalog, raised), Ok(Outcome::Done));
    assert_eq!(link(&mut catalog, 11, "west"), Ok(Outcome::Done));
    assert!(link(&mut catalog, 12, "west").is_err());
}

#[test]
fn a_fleet_with_members_that_do_not_count_takes_any_number() {
    let mut catalog = catalog(3);
    for number in 1..=12 {
        assert_eq!(link(&mut catalog, number, "west"), Ok(Outcome::Done));
    }
}

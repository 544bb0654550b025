//! How many links may lead to one cluster.

mod support;

use std::collections::BTreeMap;

use catalog::command::NewLink;
use catalog::*;
use support::{apply, founded};

fn catalog(level: u32) -> Catalog {
    founded(level, &["east", "west", "south"])
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

//! A fleet of one, as tests begin with it.

use std::collections::BTreeMap;

use catalog::command::NodeDescription;
use catalog::*;

pub const NODE: NodeId = NodeId(7);

pub fn apply(catalog: &mut Catalog, action: Action) -> Result<Outcome, Refusal> {
    catalog.apply(Command { at_ms: 1, action })
}

/// Its node `n` runs a build of that level; these clusters are registered, with `id-NAME` as their ids.
pub fn founded(level: u32, clusters: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    let description = NodeDescription { name: "n".into(), address: None, level, version: "0".into() };
    let cluster = |name: &&str| Action::CreateCluster {
        name: (*name).into(),
        cluster_id: format!("id-{name}").into(),
        configs: BTreeMap::new(),
    };
    let started = Action::RecordStart { node: NODE, description };
    for action in std::iter::once(started).chain(clusters.iter().map(cluster)) {
        assert_eq!(apply(&mut catalog, action), Ok(Outcome::Done));
    }
    catalog
}

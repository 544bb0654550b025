//! `lockstep status`: the fleet at a glance.

use clap::Args;

use super::Remote;
use super::client::{typed, typed_all};
use super::failure::Failure;
use super::output::{self, known};
use crate::api::types::{FleetBody, LinkRow};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lockstep status --url http://node-1:7780,http://node-2:7780")]
pub struct StatusCommand {
    #[command(flatten)]
    remote: Remote,
}

impl StatusCommand {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.remote.client();
        let mut found = client.get("/lockstep/v1/fleet")?;
        let fleet: FleetBody = typed(&found)?;
        let links = client.list("/kafka/v3/clusters/-/links")?;
        let link_rows: Vec<LinkRow> = typed_all(&links)?;
        found["link_list"] = links.into();
        output::show(self.remote.output, &found, || show(&fleet, &link_rows))
    }
}

fn show(fleet: &FleetBody, links: &[LinkRow]) -> String {
    let mut fields = vec![
        ("Asked", format!("{} ({}), version {}", fleet.node_name, fleet.node_id, fleet.version)),
        ("Raft leader", known(fleet.raft_leader.as_ref())),
        ("Raft term", fleet.raft_term.to_string()),
        ("Applied index", fleet.applied_index.to_string()),
        ("Clusters", fleet.clusters.to_string()),
        ("Mirror topics", format!("{} ({} partitions)", fleet.mirror_topics, fleet.mirror_partitions)),
    ];
    fields.extend(fleet.stopped.clone().map(|reason| ("Stopped", reason)));
    let nodes = fleet.nodes.iter().map(|node| {
        let (id, state) = (node.node_id.clone(), node.state.clone());
        vec![node.name.clone(), id, state, node.raft_role.clone(), node.assignments.to_string()]
    });
    let nodes = output::table(&["NODE", "ID", "STATE", "RAFT", "MIRROR PARTITIONS"], nodes);
    let links = links.iter().map(|link| {
        let (name, to) = (link.link_name.clone(), link.destination_cluster.clone());
        let counts = link.category_counts.iter().map(|c| format!("{} {}", c.count, c.state_category));
        vec![name, to, link.link_state.clone(), counts.collect::<Vec<_>>().join(", ")]
    });
    let links = output::table(&["LINK", "CLUSTER", "STATE", "MIRROR TOPICS"], links);
    format!("{}\n\n{nodes}\n\n{links}", output::fields(&fields))
}

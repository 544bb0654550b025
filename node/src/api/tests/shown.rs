//! Rows: what was observed is shown, what wasn't stays unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::observe::PartitionView;
use catalog::model::MirrorPartition;
use catalog::{
    Assignment, Catalog, Cluster, Failure, Link, LinkId, MirrorError, MirrorStatus, MirrorTopic, Node,
    NodeId, TopicId,
};
use serde_json::json;

use crate::api::rows;
use crate::api::secrets::HIDDEN;
use crate::api::types::MirrorRow;
use crate::status::Seen;
use crate::status::seen::{Answer, SeenLink, SeenMirror};

fn running(partition: u32) -> PartitionView {
    PartitionView {
        partition,
        state: "RUNNING",
        lag: Some(3),
        lag_ms: Some(20),
        last_source_fetch_offset: Some(9),
        source_end_offset: Some(13),
        source_last_stable_offset: Some(13),
        mirror_end_offset: Some(10),
        outstanding_bytes: 0,
        guarded: Some(true),
        fills_to: None,
        error: None,
        since_ms: 1_500,
        retry_at_ms: None,
    }
}

/// Partition 0 is observed, 1 is not, 2 has failed.
fn shown(link: Option<SeenLink>) -> MirrorRow {
    let owned = MirrorPartition {
        assignment: Some(Assignment { node: NodeId(1), epoch: 1, unclean: false }),
        ..MirrorPartition::default()
    };
    let failure =
        Failure { error: MirrorError::ForeignWrite, offset: 7, message: "not ours".into(), at_ms: 0 };
    let failed = MirrorPartition { failure: Some(failure), ..owned.clone() };
    let mirror = MirrorTopic {
        name: "orders".into(),
        source_topic: "orders".into(),
        source_topic_id: TopicId::NONE,
        destination_topic_id: TopicId::NONE,
        replication_factor: None,
        configs: BTreeMap::new(),
        status: MirrorStatus::Active,
        status_since_ms: 5,
        producer: None,
        stop: None,
        partitions: vec![owned.clone(), owned, failed],
        history: Default::default(),
    };
    let parent = Link {
        id: LinkId("id".into()),
        name: "east-west".into(),
        destination: "west".into(),
        source: None,
        source_cluster_id: "e".into(),
        destination_cluster_id: "w".into(),
        configs: BTreeMap::new(),
        mirrors: BTreeMap::new(),
    };
    let mut catalog = Catalog::default();
    catalog.nodes.insert(NodeId(1), Node::of_level_1("node-1".into(), 1));
    let partitions = vec![rows::observed(running(0))];
    let waiting_for = Some("a topic".to_owned());
    let mut seen = Seen::default();
    let mirrors = vec![(parent.key(&mirror.name), SeenMirror { partitions, waiting_for })];
    let links = link.map(|link| (parent.id.clone(), link)).into_iter().collect();
    seen.add(NodeId(1), None, Answer { links, mirrors, trust: None });
    // What a node remembers of a partition that isn't its own is past.
    let partitions = vec![rows::observed(running(1))];
    let mirrors = vec![(parent.key(&mirror.name), SeenMirror { partitions, waiting_for: None })];
    seen.add(NodeId(2), None, Answer { links: Vec::new(), mirrors, trust: None });
    rows::mirror(&catalog, &parent, &mirror, &seen).body
}

#[test]
fn what_a_silent_node_runs_is_unknown_with_the_reason() {
    let mut seen = Seen::default();
    seen.silent.insert(NodeId(1), "no answer".into());
    let mut catalog = Catalog::default();
    catalog.nodes.insert(NodeId(1), Node::of_level_1("node-1".into(), 1));
    assert_eq!(seen.silence(&catalog, NodeId(1)).as_deref(), Some("node node-1 doesn't answer: no answer"));
    assert_eq!(seen.silence(&catalog, NodeId(2)), None);
}

#[test]
fn of_what_several_nodes_see_of_a_link_the_worst_is_shown_with_who_sees_it() {
    let link = |state: &str, message: Option<&str>| SeenLink {
        state: state.into(),
        error_message: message.map(Into::into),
        ..SeenLink::default()
    };
    let id = LinkId("id".into());
    let answer = |link| Answer { links: vec![(id.clone(), link)], mirrors: Vec::new(), trust: None };
    let mut seen = Seen::default();
    seen.add(NodeId(1), Some("a"), answer(link("ACTIVE", None)));
    seen.add(NodeId(2), Some("b"), answer(link("UNAVAILABLE", Some("source: cut off"))));
    seen.add(NodeId(3), Some("c"), answer(link("ACTIVE", None)));
    let shown = seen.link(&id).expect("seen");
    assert_eq!(
        (shown.state.as_str(), shown.error_message.as_deref()),
        ("UNAVAILABLE", Some("source: cut off (seen by node b)"))
    );
}

#[test]
fn a_partition_is_shown_as_observed_and_unknown_otherwise() {
    let rows = serde_json::to_value(shown(None).mirror_lags).expect("JSON");
    let expected = json!({
        "partition": 0, "lag": 3, "last_source_fetch_offset": 9, "lag_ms": 20, "source_end_offset": 13,
        "source_last_stable_offset": 13, "mirror_end_offset": 10, "node": "node-1", "state": "RUNNING",
        "guarded": true, "unclean": false, "fills_to": null, "error": null, "error_message": null,
        "since": "1970-01-01T00:00:01.500Z", "retry_at": null,
    });
    assert_eq!(rows[0], expected);
    assert_eq!((&rows[1]["state"], &rows[1]["lag"]), (&json!("UNKNOWN"), &json!(null)));
    assert_eq!((&rows[2]["state"], &rows[2]["error"]), (&json!("FAILED"), &json!("FOREIGN_WRITE")));
}

#[test]
fn a_mirror_shows_its_first_failure_and_waits_only_while_pending() {
    let row = shown(None);
    assert_eq!(row.mirror_topic_error, "FOREIGN_WRITE");
    assert_eq!(row.mirror_topic_error_message.as_deref(), Some("partition 2 at offset 7: not ours"));
    assert_eq!(row.waiting_for, None);
}

#[test]
fn mirrors_of_a_failed_link_or_without_a_source_show_it() {
    let view = |state: &str, source_available| SeenLink {
        state: state.into(),
        source_available,
        ..SeenLink::default()
    };
    assert_eq!(shown(Some(view("FAILED", false))).mirror_status, "LINK_FAILED");
    assert_eq!(shown(Some(view("UNAVAILABLE", false))).mirror_status, "SOURCE_UNAVAILABLE");
    // It is the destination that doesn't answer.
    assert_eq!(shown(Some(view("UNAVAILABLE", true))).mirror_status, "ACTIVE");
}

#[test]
fn a_clusters_secrets_are_never_shown() {
    let secret = [("sasl.password", "hunter2"), ("sasl.jaas.config", "file:/run/jaas")];
    let cluster = Cluster {
        name: "east".into(),
        cluster_id: "e".into(),
        configs: secret.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
    };
    let row = rows::cluster(&Arc::new(cluster), "ACTIVE", None).body;
    let values: Vec<&str> = row.configs.iter().map(|c| c.value.as_str()).collect();
    assert_eq!(values, ["file:/run/jaas", HIDDEN]);
}

//! A link goes with its mirrors when that is asked for, and only when each of them has STOPPED.

use std::time::Duration;

use catalog::command::Move;
use catalog::stop::StoppedPartition;
use catalog::{Action, Link, MirrorStatus, ProducerIdentity};
use serde_json::json;

use super::super::error::STILL_STOPPING;
use super::super::link_deletion::forced;
use super::{LINKS, MIRRORS, Node};

const FORCED: &str = "/kafka/v3/clusters/west/links/east-west?force=true";
const PRODUCER: ProducerIdentity = ProducerIdentity { producer_id: 1, producer_epoch: 0 };

impl Node {
    fn link(&self) -> Link {
        Link::clone(self.catalog().link_on("west", "east-west").expect("link"))
    }

    fn status(&self, topic: &str) -> Option<MirrorStatus> {
        Some(self.catalog().link_on("west", "east-west")?.mirrors.get(topic)?.status)
    }

    /// A mirror that is set up and this node's.
    async fn add_running(&self, topic: &str) {
        if topic != "orders" {
            self.post(MIRRORS, json!({"source_topic_name": topic})).await;
        }
        let (mirror, node) = (self.link().key(&topic.into()), self.api.consensus.node_id());
        let to = |partition| Move { mirror: mirror.clone(), partition, node, expected_epoch: None };
        let assign = Action::Assign { moves: (0..2).map(to).collect() };
        self.api.consensus.submit(assign).await.expect("assigned");
        self.mirror_is_ready(topic).await;
    }

    /// As the data plane does once a mirror is to stop and its fence stands.
    async fn fence_stands(&self, topic: &str) {
        while !self.link().mirrors[topic].is_fenced() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let end = StoppedPartition { records_end: 7, log_end: 8, source_end: None };
        let mirror = self.link().key(&topic.into());
        let epoch = self.catalog().mirror(&mirror).and_then(|m| Some(m.first_assignment()?.epoch));
        let stopped = Action::MirrorStopped {
            mirror,
            producer: PRODUCER,
            assignment_epoch: epoch.expect("an owner"),
            ends: vec![end; 2],
            remarks: vec![],
        };
        self.api.consensus.submit(stopped).await.expect("stopped");
    }
}

#[tokio::test]
async fn a_link_goes_once_its_mirrors_have_stopped() {
    let node = Node::with_mirror().await;
    for topic in ["orders", "payments"] {
        node.add_running(topic).await;
    }
    node.post(&format!("{MIRRORS}:promote"), json!({"mirror_topic_names": ["payments"]})).await;
    let stops = async {
        node.fence_stands("orders").await;
        assert!(node.catalog().link_on("west", "east-west").is_some(), "one is still on its way");
        node.fence_stands("payments").await;
    };
    let (reply, ()) = tokio::join!(node.delete(FORCED), stops);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.body["category_counts"], json!([{"state_category": "STOPPED", "count": 2}]));
    assert_eq!(node.get(&format!("{LINKS}/east-west")).await.status, 404);
    let events = node.get("/lockstep/v1/events?link=east-west").await;
    let rows = events.body["data"].as_array().expect("a list");
    assert_eq!(rows[0]["kind"], "LINK_DELETED");
    assert_eq!(rows.iter().filter(|row| row["cause"] == "FAILED_OVER").count(), 2, "the promoted one, too");
}

#[tokio::test]
async fn what_has_not_stopped_in_time_keeps_the_link_and_is_named() {
    let node = Node::with_mirror().await;
    for topic in ["orders", "payments"] {
        node.add_running(topic).await;
    }
    let limit = Duration::from_millis(300);
    let link = node.link();
    let (refused, ()) = tokio::join!(forced(&node.api, &link, limit), node.fence_stands("payments"));
    let error = refused.expect_err("orders hasn't");
    assert_eq!((error.status.as_u16(), error.code), (409, STILL_STOPPING));
    let words =
        "link 'east-west' stays: not STOPPED within 0 s are 'orders' (PENDING_STOPPED); what has begun";
    assert!(error.message.starts_with(words), "{}", error.message);
    assert_eq!(node.status("payments"), Some(MirrorStatus::Stopped));
    // Repeated, it goes on from there.
    let (reply, ()) = tokio::join!(node.delete(FORCED), node.fence_stands("orders"));
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn a_mirror_that_isnt_set_up_is_forgotten_with_its_link() {
    let node = Node::with_mirror().await;
    let reply = node.delete(FORCED).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(node.catalog().links.is_empty());
}

#[tokio::test]
async fn what_a_forced_deletion_would_do_is_said_and_nothing_done() {
    let node = Node::with_mirror().await;
    node.post(MIRRORS, json!({"source_topic_name": "payments"})).await;
    node.mirror_is_ready("orders").await;
    let before = node.catalog();
    let reply = node.delete(&format!("{FORCED}&validate_only=true")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.body["warnings"],
        json!([
            "mirror topic 'orders' would be failed over with what it has",
            "mirror topic 'payments' isn't set up and would be forgotten",
        ])
    );
    assert_eq!(node.catalog(), before);
    let missing = node.delete(&format!("{LINKS}/nope?force=true")).await;
    assert_eq!(missing.error(), (404, 40_404, "there is no link 'nope' on cluster 'west'"));
}

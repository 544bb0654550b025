//! What has happened is shown: newest first, by link, topic or node, page by page.

use catalog::{Action, Command, Failure, MirrorError};
use serde_json::{Value, json};

use super::super::events::rows;
use super::{LINKS, MIRRORS, Node, Reply};

const EVENTS: &str = "/lockstep/v1/events";

/// `kind from>to cause by` of each.
fn told(reply: &Reply) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let row = |row: &Value| {
        let [kind, from, to, cause, asked_by, asked_at] =
            ["kind", "from", "to", "cause", "asked_by", "asked_at"].map(|field| text(&row[field]));
        format!("{kind} {from}>{to} {cause} {asked_by} {asked_at}")
    };
    reply.body["data"].as_array().expect("a list").iter().map(row).collect()
}

async fn fail(node: &Node, topic: &str) {
    let failure = Failure {
        error: MirrorError::SourceTopicIdChanged,
        offset: 0,
        message: "the topic was recreated".into(),
        at_ms: 1,
    };
    let catalog = node.catalog();
    let mirror = catalog.link_on("west", "east-west").expect("link").key(&topic.into());
    node.api.consensus.submit(Action::FailMirror { mirror, failure }).await.expect("failed");
}

#[tokio::test]
async fn what_happened_is_listed_newest_first_with_who_asked() {
    let node = Node::with_mirror().await;
    node.mirror_is_ready("orders").await;
    node.post(&format!("{MIRRORS}:pause"), json!({"mirror_topic_names": ["orders"]})).await;
    let reply = node.get(EVENTS).await;
    assert_eq!(
        told(&reply),
        [
            "MIRROR_CHANGED ACTIVE>PAUSED PAUSE_ASKED OPERATOR node-1",
            // Nobody owns a partition of it here.
            "MIRROR_CHANGED PENDING_MIRROR>ACTIVE SET_UP NODE -",
            "MIRROR_CREATED ->PENDING_MIRROR CREATE_ASKED OPERATOR node-1",
            "LINK_CREATED ->- - OPERATOR node-1",
        ]
    );
    let first = &reply.body["data"][0];
    assert_eq!([&first["cluster"], &first["link"], &first["topic"]], ["west", "east-west", "orders"]);
    let shown = node.get(&format!("{MIRRORS}/orders")).await;
    assert_eq!(first["time_ms"], shown.body["state_time_ms"], "one time");

    let page = node.get(&format!("{EVENTS}?link=east-west&page_size=3")).await;
    assert_eq!(told(&page).len(), 3);
    node.post(&format!("{MIRRORS}:resume"), json!({"mirror_topic_names": ["orders"]})).await;
    let next = node.get(page.body["metadata"]["next"].as_str().expect("a page more")).await;
    assert_eq!(told(&next), ["LINK_CREATED ->- - OPERATOR node-1"], "whatever came meanwhile");
    assert_eq!(next.body["metadata"]["next"], Value::Null);
}

#[tokio::test]
async fn events_are_picked_by_what_they_are_about() {
    let node = Node::with_mirror().await;
    node.post(MIRRORS, json!({"source_topic_name": "payments"})).await;
    node.post("/lockstep/v1/nodes/node-1:drain", Value::Null).await;
    for (query, count) in [
        ("topic=orders", 1),
        ("topic=orders&link=east-west&cluster=west", 1),
        ("topic=orders&link=other", 0),
        ("cluster=east", 0),
        ("cluster=id-west", 3),
        ("cluster=-&link=-", 4),
        ("link=east-west", 3),
        ("node=node-1", 1),
        ("node=node-2", 0),
    ] {
        let reply = node.get(&format!("{EVENTS}?{query}")).await;
        assert_eq!(told(&reply).len(), count, "{query}: {reply:?}");
    }
    let drained = node.get(&format!("{EVENTS}?node=node-1")).await;
    assert_eq!(told(&drained), ["NODE_DRAINS ->- - OPERATOR node-1"]);
    let reply = node.get(&format!("{EVENTS}?page_size=0")).await;
    assert_eq!(reply.error(), (400, 40_002, "page_size: must be 1 to 1000"));
}

#[tokio::test]
async fn a_topics_own_history_is_shown_when_others_have_pushed_it_out() {
    let node = Node::with_mirror().await;
    node.post(MIRRORS, json!({"source_topic_name": "busy"})).await;
    let mut catalog = node.catalog();
    let busy = catalog.link_on("west", "east-west").expect("link").key(&"busy".into());
    for _ in 0..catalog::events::EVENTS_MAX {
        for action in
            [Action::PauseMirror { mirror: busy.clone() }, Action::ResumeMirror { mirror: busy.clone() }]
        {
            catalog.apply(Command { at_ms: 5, action }).expect("taken");
        }
    }
    let count = |query: Value| rows(&catalog, &serde_json::from_value(query).expect("a query")).len();
    assert_eq!(count(json!({})), catalog::events::EVENTS_MAX);
    assert_eq!(count(json!({"topic": "orders"})), 1);
    assert_eq!(count(json!({"topic": "busy"})), catalog::events::EVENTS_MAX, "each once");
}

#[tokio::test]
async fn failures_that_are_remembered_are_transition_errors_when_asked_for() {
    let node = Node::with_mirror().await;
    fail(&node, "orders").await;
    node.post(&format!("{MIRRORS}:resume"), json!({"mirror_topic_names": ["orders"]})).await;
    let shown = node.get(&format!("{MIRRORS}/orders")).await;
    assert_eq!(shown.body["mirror_state_transition_errors"], json!([]));
    let shown = node.get(&format!("{MIRRORS}/orders?include_state_transition_errors=true")).await;
    let errors = shown.body["mirror_state_transition_errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["error_code"], "SOURCE_TOPIC_ID_CHANGED");
    assert_eq!(errors[0]["error_message"], "the topic was recreated");
    assert!(errors[0]["time_ms"].as_i64() > Some(1_700_000_000_000), "when it was recorded: {errors:?}");
}

#[tokio::test]
async fn what_is_deleted_is_still_told_of() {
    let node = Node::with_mirror().await;
    assert_eq!(node.delete(&format!("{MIRRORS}/orders")).await.status, 200);
    assert_eq!(node.delete(&format!("{LINKS}/east-west")).await.status, 200);
    let reply = node.get(&format!("{EVENTS}?link=east-west&page_size=2")).await;
    assert_eq!(
        told(&reply),
        [
            "LINK_DELETED ->- - OPERATOR node-1",
            "MIRROR_DELETED PENDING_MIRROR>- DELETE_ASKED OPERATOR node-1",
        ]
    );
}

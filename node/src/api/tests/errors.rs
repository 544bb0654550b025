//! Everything that can be wrong with a request: the answer names it, and nothing has changed.

use axum::body::Body;
use axum::http::Request;
use consensus::SubmitError;
use serde_json::{Value, json};

use super::{CLUSTERS, LINKS, MIRRORS, Node};
use crate::api::error::{ApiError, IN_DOUBT};
use crate::api::extract::BODY_BYTES_MAX;

/// Posts, and expects this answer and an unchanged catalog.
async fn refused(node: &Node, path: &str, body: Value, status: u16, code: u64, message: &str) {
    let before = node.catalog();
    let reply = node.post(path, body).await;
    assert_eq!(reply.error(), (status, code, message), "{path}");
    assert_eq!(node.catalog(), before, "{path} changed something");
}

fn bootstrap(value: &str) -> Value {
    json!([{"name": "bootstrap.servers", "value": value}])
}

fn source() -> Value {
    json!([{"name": "source.cluster", "value": "east"}])
}

#[tokio::test]
async fn a_body_that_cant_be_read_is_named_by_field() {
    let node = Node::start().await;
    for (body, message) in [
        (
            json!({"name": "a", "cofigs": []}),
            "cofigs: unknown field `cofigs`, expected one of `name`, `configs`, `cluster_id`",
        ),
        (json!({"name": 5}), "name: wrong type, expected a string"),
        (json!({"name": "a", "configs": {}}), "configs: wrong type, expected a sequence"),
        (
            json!({"name": "a", "configs": [{"name": "sasl.password", "value": 12345}]}),
            "configs[0].value: wrong type, expected a string",
        ),
        (json!({"configs": []}), "the body: missing field `name`"),
        (json!([]), "the body: must be a JSON object"),
    ] {
        let reply = node.post(CLUSTERS, body).await;
        let (status, code, found) = reply.error();
        let found = found.split(" at line ").next().expect("text");
        let expected = message;
        assert_eq!((status, code), (400, 40_002));
        assert_eq!(found, expected);
    }
    for (text, start) in
        [("", "the body is empty"), ("{\"name\":", "name: EOF"), ("{\"name\":\"a\"} x", "the body: trailing")]
    {
        let reply = node.post_text(CLUSTERS, "application/json", text.into()).await;
        let (status, code, found) = reply.error();
        assert_eq!((status, code), (400, 40_002));
        assert!(found.starts_with(start), "{found}");
    }
}

#[tokio::test]
async fn http_itself_is_answered_in_the_same_shape() {
    let node = Node::start().await;
    let reply = node.post_text(CLUSTERS, "text/plain", "{}".into()).await;
    let message =
        "Content-Type: must be application/json, not 'text/plain'; send the header with the JSON body";
    assert_eq!(reply.error(), (415, 415, message));

    let reply = node.post_text(CLUSTERS, "application/json", "x".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!(reply.error(), (413, 413, "the body is larger than 1048576 bytes; send less at a time"));

    let reply = node.get("/kafka/v3/nothing").await;
    let message = "nothing is at /kafka/v3/nothing; check the path against the API's description";
    assert_eq!(reply.error(), (404, 404, message));
    assert_eq!(node.post(&format!("{LINKS}/x/mirrors:promote"), json!({})).await.error().0, 404);

    let reply = node.send(Request::put(CLUSTERS).body(Body::empty())).await;
    assert_eq!(
        reply.error(),
        (405, 405, "PUT is not a method of /lockstep/v1/clusters; the Allow header lists them")
    );
    assert_eq!(reply.headers["allow"], "GET,HEAD,POST");

    let reply = node.get("/lockstep/v1/clusters/%FF").await;
    let (status, code, message) = reply.error();
    assert!((status, code) == (400, 40_002) && message.starts_with("path: "), "{message}");
}

#[tokio::test]
async fn query_parameters_are_known_and_typed() {
    let node = Node::with_mirror().await;
    for (path, message) in [
        ("/lockstep/v1/fleet?x=1", "query: x: unknown parameter `x`, there are no fields"),
        (
            "/kafka/v3/clusters/west/links/east-west?include_task=true",
            "query: include_task: unknown parameter `include_task`, expected `include_tasks`",
        ),
        ("/kafka/v3/clusters/west/links?page_size=lots", "query: page_size: invalid digit found in string"),
        ("/kafka/v3/clusters/west/links?page_size=0", "page_size: must be 1 to 1000"),
        ("/kafka/v3/clusters/west/links?page_size=1&page_size=2", "query: duplicate parameter `page_size`"),
    ] {
        assert_eq!(node.get(path).await.error(), (400, 40_002, message));
    }
    let reply = node.get(&format!("{MIRRORS}?mirror_status=dead")).await;
    let (status, code, message) = reply.error();
    assert_eq!((status, code), (400, 40_002));
    assert!(
        message.starts_with("mirror_status: 'DEAD' is not a mirror status; one of ACTIVE, "),
        "{message}"
    );
}

#[tokio::test]
async fn a_cluster_that_cant_be_registered_says_why() {
    let node = Node::with_mirror().await;
    let cases = [
        (
            json!({"name": "a b", "configs": bootstrap("c:1")}),
            400,
            40_002,
            "name: must be 1 to 200 of the characters a-z A-Z 0-9 . _ -",
        ),
        (
            json!({"name": "-", "configs": bootstrap("c:1")}),
            400,
            40_002,
            "name: '-' is reserved; choose another name",
        ),
        (
            json!({"name": "c"}),
            400,
            40_002,
            "bootstrap.servers: required: host:port, or several separated by commas",
        ),
        (
            json!({"name": "c", "configs": bootstrap("away:1")}),
            400,
            40_002,
            "bootstrap.servers: cluster 'c' can't be used: connection refused",
        ),
        (
            json!({"name": "c", "configs": bootstrap("c:1"), "cluster_id": "other"}),
            400,
            40_002,
            "cluster_id: the brokers answer as Kafka cluster 'id-c', not 'other'",
        ),
        (json!({"name": "east", "configs": bootstrap("c:1")}), 409, 40_902, "cluster 'east' exists already"),
    ];
    for (body, status, code, message) in cases {
        refused(&node, CLUSTERS, body, status, code, message).await;
    }
    let unasked = format!("{CLUSTERS}?validate_cluster=false");
    let body = json!({"name": "c", "configs": bootstrap("c:1")});
    refused(&node, &unasked, body, 400, 40_002, "cluster_id: required when the brokers aren't asked").await;
    assert_eq!(node.get("/lockstep/v1/clusters/nope").await.error().0, 404);
    let used = node.delete("/lockstep/v1/clusters/east").await;
    let message = "cluster 'east' is still in use: link 'east-west' on 'west'; delete the link first";
    assert_eq!(used.error(), (409, 409, message));
}

#[tokio::test]
async fn a_link_that_cant_be_created_says_why() {
    let node = Node::with_mirror().await;
    let named = format!("{LINKS}?link_name=l");
    let with = |name: &str, value: &str| {
        let mut configs = source();
        configs.as_array_mut().expect("list").push(json!({"name": name, "value": value}));
        json!({"configs": configs})
    };
    let missing = "link_name: required: the new link's name, as a query parameter";
    refused(&node, LINKS, json!({"configs": source()}), 400, 40_002, missing).await;
    let nearest = "consumer.offset.sync.enabled: is not a configuration key of a link; \
                   did you mean 'consumer.offset.sync.enable'?";
    refused(&node, &named, with("consumer.offset.sync.enabled", "true"), 400, 40_002, nearest).await;
    let not_yet = "gap.fill: this version doesn't support it yet; leave it out";
    refused(&node, &named, with("gap.fill", "auto"), 400, 40_002, not_yet).await;
    let other = "source_cluster_id: the brokers answer as Kafka cluster 'id-east', not 'x'";
    let body = json!({"configs": source(), "source_cluster_id": "x"});
    refused(&node, &named, body, 400, 40_002, other).await;
    let unregistered = "source.cluster: cluster 'south' isn't registered; register it first";
    let body = json!({"configs": [{"name": "source.cluster", "value": "south"}]});
    refused(&node, &named, body, 400, 40_002, unregistered).await;
    let away = "bootstrap.servers: cluster 'source' can't be used: connection refused";
    refused(&node, &named, json!({"configs": bootstrap("away:1")}), 400, 40_002, away).await;
    let same = "source_cluster_id: source and destination are the same Kafka cluster (id-west)";
    refused(&node, &named, json!({"configs": bootstrap("west:1")}), 400, 40_002, same).await;
    let exists = format!("{LINKS}?link_name=east-west");
    refused(&node, &exists, json!({"configs": source()}), 409, 40_902, "link 'east-west' exists already")
        .await;
    let nowhere = "/kafka/v3/clusters/south/links?link_name=l";
    let message = "there is no cluster 'south'; register it with POST /lockstep/v1/clusters first";
    refused(&node, nowhere, json!({"configs": source()}), 404, 404, message).await;

    let message = "there is no link 'nope' on cluster 'west'";
    assert_eq!(node.get(&format!("{LINKS}/nope")).await.error(), (404, 40_404, message));
    let message = "link 'east-west' is still in use: 1 mirror topic(s) not STOPPED, first 'orders'; promote, fail over or delete them first";
    assert_eq!(node.delete(&format!("{LINKS}/east-west")).await.error(), (409, 409, message));
}

#[tokio::test]
async fn a_mirror_that_cant_be_created_says_why() {
    let node = Node::with_mirror().await;
    let topic_rule = "source_topic_name: must be a Kafka topic name: 1 to 249 of the characters \
                      a-z A-Z 0-9 . _ -, and neither '.' nor '..'";
    for (body, status, code, message) in [
        (json!({"source_topic_name": ".."}), 400, 40_002, topic_rule),
        (json!({"source_topic_name": "t".repeat(250)}), 400, 40_002, topic_rule),
        (
            json!({"source_topic_name": "t", "replication_factor": 0}),
            400,
            40_002,
            "replication_factor: must be at least 1; leave it out for the destination's default",
        ),
        (
            json!({"source_topic_name": "missing"}),
            404,
            40_403,
            "topic 'missing' doesn't exist on the source of link 'east-west'",
        ),
        (
            json!({"source_topic_name": "orders"}),
            409,
            40_902,
            "mirror topic (link 'east-west') 'orders' exists already",
        ),
        (
            json!({"source_topic_name": "full"}),
            409,
            40_902,
            "topic 'full' exists on cluster 'west': it isn't empty",
        ),
        (
            json!({"source_topic_name": "away"}),
            503,
            503,
            "the source of link 'east-west' can't be used: connection refused",
        ),
    ] {
        refused(&node, MIRRORS, body.clone(), status, code, message).await;
        refused(&node, &format!("{MIRRORS}?validate_only=true"), body, status, code, message).await;
    }
    let message = "link 'east-west' has no mirror topic 'nope'";
    assert_eq!(node.get(&format!("{MIRRORS}/nope")).await.error(), (404, 40_403, message));
    assert_eq!(node.delete(&format!("{MIRRORS}/nope")).await.error(), (404, 40_403, message));
    let reply = node.delete(&format!("{MIRRORS}/orders?delete_topic=true")).await;
    let message = "delete_topic: the mirror has no topic of its own yet, so none is deleted; delete the mirror \
                   alone";
    assert_eq!(reply.error(), (400, 40_002, message));
    assert_eq!(node.get(&format!("{MIRRORS}/orders")).await.status, 200);
}

#[tokio::test]
async fn actions_need_topics() {
    let node = Node::with_mirror().await;
    let pause = format!("{MIRRORS}:pause");
    let either = "mirror_topic_names: give either it or mirror_topic_name_pattern";
    refused(&node, &pause, json!({}), 400, 40_002, either).await;
    let both = json!({"mirror_topic_names": ["a"], "mirror_topic_name_pattern": "a"});
    refused(&node, &pause, both, 400, 40_002, either).await;
    let none = "mirror_topic_names: name at least one mirror topic";
    refused(&node, &pause, json!({"mirror_topic_names": []}), 400, 40_002, none).await;
    for pattern in ["(", "a)|(b"] {
        let reply = node.post(&pause, json!({"mirror_topic_name_pattern": pattern})).await;
        let (status, code, message) = reply.error();
        assert_eq!((status, code), (400, 40_002));
        assert!(message.starts_with("mirror_topic_name_pattern: regex parse error"), "{message}");
    }
}

#[test]
fn what_surely_was_not_done_is_told_from_what_may_have_been() {
    let code = |error: SubmitError| ApiError::from(error).code;
    assert_eq!(code(SubmitError::NoLeader { leader: None }), 503);
    assert_eq!([SubmitError::Deadline, SubmitError::Stopped].map(code), [IN_DOUBT; 2]);
}

#[tokio::test]
async fn without_consensus_changes_are_answered_503_and_reads_go_on() {
    let node = Node::with_mirror().await;
    node.api.consensus.shutdown().await;
    let reply = node.delete(&format!("{MIRRORS}/orders")).await;
    assert_eq!(reply.error(), (503, u64::from(IN_DOUBT), "consensus on this node has stopped"));
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(
        node.post(&format!("{MIRRORS}:pause"), json!({"mirror_topic_names": ["orders"]})).await.status,
        503
    );
    assert_eq!(node.get(&format!("{MIRRORS}/orders")).await.status, 200);
    assert_eq!(node.get("/healthz").await.status, 200);
    let ready = node.get("/readyz").await;
    let message = "consensus on this node no longer runs: shut down; restart the node";
    assert_eq!(ready.error(), (503, 503, message));
}

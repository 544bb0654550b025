//! What works: clusters, links, mirror topics, and what is done to them.

use serde_json::{Value, json};

use super::{CLUSTERS, LINKS, MIRRORS, Node};

#[tokio::test]
async fn a_cluster_lives_from_registration_to_deletion() {
    let node = Node::start().await;
    let made = node.create_cluster("east").await;
    assert_eq!((made.status, &made.body["cluster_id"]), (201, &json!("id-east")));
    assert_eq!(made.body["metadata"]["self"], "/lockstep/v1/clusters/east");
    let away = json!({
        "name": "away", "cluster_id": "id-away",
        "configs": [{"name": "bootstrap.servers", "value": "away:1"}, {"name": "acks", "value": "all"}],
    });
    let made = node.post(&format!("{CLUSTERS}?validate_cluster=false"), away).await;
    assert_eq!(made.body["warnings"], json!(["acks: has no effect here and was left out"]));

    let listed = node.get(CLUSTERS).await.body;
    let states: Vec<_> =
        listed["data"].as_array().expect("list").iter().map(|c| (&c["name"], &c["state"])).collect();
    assert_eq!(states, [(&json!("away"), &json!("UNAVAILABLE")), (&json!("east"), &json!("ACTIVE"))]);
    // By Kafka's id as well.
    assert_eq!(node.get("/lockstep/v1/clusters/id-east").await.body["name"], "east");

    let tried = node.delete("/lockstep/v1/clusters/east?validate_only=true").await;
    assert_eq!(tried.status, 200);
    assert_eq!(node.delete("/lockstep/v1/clusters/east").await.status, 200);
    assert_eq!(node.get("/lockstep/v1/clusters/east").await.status, 404);
}

#[tokio::test]
async fn a_link_has_an_id_a_source_and_a_configuration() {
    let node = Node::with_mirror().await;
    let link = node.get(&format!("{LINKS}/east-west?include_tasks=true")).await.body;
    let id = link["cluster_link_id"].as_str().expect("id");
    assert!(id.len() == 22 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{id}");
    assert_eq!(link["source_cluster_id"], "id-east");
    assert_eq!(link["destination_cluster_id"], "id-west");
    assert_eq!(link["topic_names"], json!(["orders"]));
    assert_eq!(link["category_counts"], json!([{"state_category": "PENDING_MIRROR", "count": 1}]));
    assert_eq!(link["tasks"].as_array().map(Vec::len), Some(4));

    let configs = node.get(&format!("{LINKS}/east-west/configs")).await.body;
    let value = |name: &str| {
        let rows = configs["data"].as_array().expect("list");
        let row = rows.iter().find(|row| row["name"] == name).expect("key");
        (row["value"].clone(), row["source"].clone())
    };
    assert_eq!(value("source.cluster"), (json!("east"), json!("DYNAMIC_CLUSTER_LINK_CONFIG")));
    assert_eq!(value("metadata.max.age.ms"), (json!("5000"), json!("DEFAULT_CONFIG")));
}

#[tokio::test]
async fn links_of_all_clusters_are_listed_under_a_dash() {
    let node = Node::with_mirror().await;
    assert_eq!(node.create_cluster("south").await.status, 201);
    let path = "/kafka/v3/clusters/south/links?link_name=east-west";
    let body = json!({"configs": [{"name": "bootstrap.servers", "value": "east:9092"}]});
    assert_eq!(node.post(path, body).await.status, 201);
    let listed = node.get("/kafka/v3/clusters/-/links").await.body;
    let on: Vec<&Value> =
        listed["data"].as_array().expect("list").iter().map(|l| &l["destination_cluster"]).collect();
    assert_eq!(on, ["south", "west"]);
    let page = node.get("/kafka/v3/clusters/-/links?page_size=1").await.body;
    let next = page["metadata"]["next"].as_str().expect("another page");
    let page = node.get(next).await.body;
    assert_eq!(
        (&page["data"][0]["destination_cluster"], &page["metadata"]["next"]),
        (&json!("west"), &Value::Null)
    );
}

#[tokio::test]
async fn asking_whether_it_could_be_done_changes_nothing() {
    let node = Node::with_mirror().await;
    let before = node.catalog();
    let plan = node.post(&format!("{MIRRORS}?validate_only=true"), json!({"source_topic_name": "t"})).await;
    assert_eq!(plan.status, 200);
    assert_eq!((&plan.body["offsets_to_fill"], &plan.body["offsets_to_mirror"]), (&json!(5), &json!(30)));
    assert_eq!(plan.body["configs"], json!([{"name": "compression.type", "value": "producer"}]));
    let link = json!({"configs": [{"name": "source.cluster", "value": "east"}]});
    assert_eq!(node.post(&format!("{LINKS}?link_name=l&validate_only=true"), link).await.status, 200);
    assert_eq!(node.delete(&format!("{MIRRORS}/orders?validate_only=true")).await.status, 200);
    let pause = format!("{MIRRORS}:pause?validate_only=true");
    assert_eq!(node.post(&pause, json!({"mirror_topic_names": ["orders"]})).await.status, 200);
    assert_eq!(node.catalog(), before);
}

#[tokio::test]
async fn one_topics_failure_is_a_row_and_stops_no_other() {
    let node = Node::with_mirror().await;
    let made = node.post(MIRRORS, json!({"source_topic_name": "orders", "mirror_topic_name": "copy"})).await;
    assert_eq!(made.status, 201);
    let names = json!({"mirror_topic_names": ["nope", "orders", "orders"]});
    let paused = node.post(&format!("{MIRRORS}:pause"), names).await;
    let rows: Vec<_> = paused.body["data"]
        .as_array()
        .expect("list")
        .iter()
        .map(|r| (r["mirror_topic_name"].clone(), r["error_code"].clone()))
        .collect();
    assert_eq!(rows, [(json!("nope"), json!(40_403)), (json!("orders"), Value::Null)]);
    let listed = node.get(&format!("{MIRRORS}?mirror_status=paused")).await.body;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));

    // A pattern must match whole names.
    let matching = async |pattern: &str| {
        let reply =
            node.post(&format!("{MIRRORS}:resume"), json!({"mirror_topic_name_pattern": pattern})).await;
        reply.body["data"].as_array().map(Vec::len)
    };
    assert_eq!(matching("order").await, Some(0));
    assert_eq!(matching("order.*|copy").await, Some(2));
    let all = node.get("/kafka/v3/clusters/-/links/-/mirrors").await.body;
    let statuses: Vec<&Value> =
        all["data"].as_array().expect("list").iter().map(|m| &m["mirror_status"]).collect();
    assert_eq!(statuses, ["PENDING_MIRROR", "PENDING_MIRROR"]);
}

#[tokio::test]
async fn a_deleted_mirror_frees_its_link() {
    let node = Node::with_mirror().await;
    assert_eq!(node.delete(&format!("{MIRRORS}/orders")).await.status, 200);
    assert_eq!(node.get(&format!("{MIRRORS}/orders")).await.status, 404);
    assert_eq!(node.delete(&format!("{LINKS}/east-west")).await.status, 200);
    assert_eq!(node.delete("/lockstep/v1/clusters/east").await.status, 200);
}

#[tokio::test]
async fn a_mirrors_topic_is_deleted_with_it_or_stays_with_a_reason() {
    let node = Node::with_mirror().await;
    let kept = json!({"source_topic_name": "orders", "mirror_topic_name": "kept"});
    assert_eq!(node.post(MIRRORS, kept).await.status, 201);
    for topic in ["orders", "kept"] {
        node.mirror_is_ready(topic).await;
    }
    let fate = |reply: &super::Reply| {
        let body = &reply.body;
        (
            reply.status,
            body["topic_deleted"] == true,
            body["error_code"].clone(),
            body["error_message"].clone(),
        )
    };
    let tried = node.delete(&format!("{MIRRORS}/orders?delete_topic=true&validate_only=true")).await;
    assert_eq!(fate(&tried), (200, false, Value::Null, Value::Null));
    assert_eq!(node.get(&format!("{MIRRORS}/orders")).await.status, 200);
    let deleted = node.delete(&format!("{MIRRORS}/orders?delete_topic=true")).await;
    assert_eq!(fate(&deleted), (200, true, Value::Null, Value::Null));
    let stays = node.delete(&format!("{MIRRORS}/kept?delete_topic=true")).await;
    let message = json!("topic 'kept' stays on cluster 'west': grant DELETE on it");
    assert_eq!(fate(&stays), (200, false, json!(409), message));
    for topic in ["orders", "kept"] {
        assert_eq!(node.get(&format!("{MIRRORS}/{topic}")).await.status, 404, "forgotten: {topic}");
    }
}

#[tokio::test]
async fn a_member_is_shown_drained_and_guarded_against_removal() {
    let node = Node::with_mirror().await;
    const NODES: &str = "/lockstep/v1/nodes";
    assert_eq!(node.get(NODES).await.body["data"][0]["name"], "node-1");
    // By its id as well.
    let id = node.get(NODES).await.body["data"][0]["node_id"].as_str().expect("an id").to_owned();
    assert_eq!(node.get(&format!("{NODES}/{id}")).await.body["name"], "node-1");
    let nobody = node.get(&format!("{NODES}/nobody")).await;
    assert_eq!(nobody.error().0, 404);
    let refused = node.post(&format!("{NODES}/node-1:drian"), json!({})).await;
    assert_eq!(refused.error(), (400, 40_002, "path: 'node-1:drian' must end in :drain or :undrain"));
    let lost = node.delete(&format!("{NODES}/node-1?lost=true")).await;
    let message = "node 'node-1' answers, so it isn't lost: drain it, then remove it";
    assert_eq!(lost.error(), (409, 409, message));
    let last = node.delete(&format!("{NODES}/node-1")).await;
    assert!(last.error().2.contains("is the last of its fleet"), "{last:?}");
}

#[tokio::test]
async fn a_join_token_lives_as_long_as_was_asked_and_is_shown_once() {
    let node = Node::start().await;
    for wrong in [0, 700_000] {
        let refused = node.post("/lockstep/v1/join-tokens", json!({"expires_in_seconds": wrong})).await;
        assert_eq!(refused.error(), (400, 40_002, "expires_in_seconds: must be 1 to 604800"));
    }
    let made = node.post("/lockstep/v1/join-tokens", json!({})).await;
    assert_eq!((made.status, &made.body["addresses"]), (201, &json!(["a:1"])));
    let token = peers::Token::parse(made.body["token"].as_str().expect("a token")).expect("a token");
    let held = node.catalog().fleet.join_tokens[&token.id].clone();
    assert_eq!(held.secret, token.secret);
}

#[tokio::test]
async fn the_fleet_and_its_gauges_are_shown() {
    let node = Node::with_mirror().await;
    let fleet = node.get("/lockstep/v1/fleet").await.body;
    assert_eq!(fleet["raft_leader"], "node-1");
    let row = &fleet["nodes"][0];
    assert_eq!(
        (&row["raft_role"], &row["state"], &row["duty"]),
        (&json!("LEADER"), &json!("LIVE"), &json!("MIRRORS"))
    );
    assert_eq!((&fleet["links"], &fleet["mirror_partitions"]), (&json!(1), &json!(2)));
    let metrics = node.get("/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = metrics.body.as_str().expect("text");
    for line in [
        "# TYPE lockstep_link_count gauge",
        "lockstep_link_count{state=\"UNKNOWN\"} 1",
        "lockstep_mirror_topic_count{link=\"east-west\",cluster=\"west\",state=\"PENDING_MIRROR\"} 1",
        "lockstep_mirror_partition_count{link=\"east-west\",cluster=\"west\",state=\"PENDING\"} 2",
        "lockstep_mirror_lag_known{link=\"east-west\",cluster=\"west\",topic=\"orders\",partition=\"1\"} 0",
        "lockstep_link_task_count{link=\"east-west\",cluster=\"west\",task=\"AclSync\",state=\"NOT_CONFIGURED\"} 1",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_resident_memory_bytes gauge",
        "lockstep_raft_leader{node=\"node-1\"} 1",
        "lockstep_assignments{node=\"node-1\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("lockstep_mirror_lag_records"), "a lag that isn't known has no series:\n{text}");
}

//! Configurations that are changed: what stands afterwards, what is refused, what is asked first.

use serde_json::{Value, json};

use super::{LINKS, Node, Reply};

const CONFIGS: &str = "/kafka/v3/clusters/west/links/east-west/configs";
const ALTER: &str = "/kafka/v3/clusters/west/links/east-west/configs:alter";
const EAST: &str = "/lockstep/v1/clusters/east";

async fn alter(node: &Node, query: &str, data: Value) -> Reply {
    node.put(&format!("{ALTER}{query}"), json!({ "data": data })).await
}

/// What the link itself has set.
fn own(node: &Node) -> Vec<String> {
    let catalog = node.catalog();
    let link = catalog.link_on("west", "east-west").expect("link");
    link.configs.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn row(reply: &Reply) -> (&Value, &Value, &Value) {
    (&reply.body["value"], &reply.body["source"], &reply.body["read_only"])
}

#[tokio::test]
async fn one_key_is_set_shown_and_set_back() {
    let node = Node::with_mirror().await;
    let path = format!("{CONFIGS}/replica.fetch.wait.max.ms");
    let by_default = (&json!("500"), &json!("DEFAULT_CONFIG"), &json!(false));
    assert_eq!(row(&node.get(&path).await), by_default);
    assert_eq!(node.put(&format!("{path}?validate_only=true"), json!({"value": "100"})).await.status, 204);
    assert_eq!(row(&node.get(&path).await), by_default);
    assert_eq!(node.put(&path, json!({"value": "100"})).await.status, 204);
    let set = (&json!("100"), &json!("DYNAMIC_CLUSTER_LINK_CONFIG"), &json!(false));
    assert_eq!(row(&node.get(&path).await), set);
    assert_eq!(node.delete(&path).await.status, 204);
    assert_eq!(row(&node.get(&path).await), by_default);
    assert_eq!(row(&node.get(&format!("{CONFIGS}/source.cluster")).await).2, &json!(true));
}

#[tokio::test]
async fn an_alter_is_made_whole_or_not_at_all() {
    let node = Node::with_mirror().await;
    let changes = json!([
        {"name": "metadata.max.age.ms", "value": "1000", "operation": "SET"},
        {"name": "availability.check.ms", "value": "2000"},
        {"name": "replica.fetch.min.bytes", "operation": "DELETE"},
        {"name": "acks", "value": "all"},
    ]);
    let before = node.catalog();
    let tried = alter(&node, "?validate_only=true", changes.clone()).await;
    assert_eq!(node.catalog(), before);
    let done = alter(&node, "", changes).await;
    assert_eq!((tried.status, done.status), (200, 200));
    assert_eq!(tried.body["data"], done.body["data"]);
    let rows: Vec<_> =
        done.body["data"].as_array().expect("rows").iter().map(|r| (&r["name"], &r["value"])).collect();
    let expected = [
        ("availability.check.ms", "2000"),
        ("metadata.max.age.ms", "1000"),
        ("replica.fetch.min.bytes", "1"),
    ];
    assert_eq!(
        rows,
        expected
            .map(|(name, value)| (json!(name), json!(value)))
            .iter()
            .map(|(n, v)| (n, v))
            .collect::<Vec<_>>()
    );
    assert_eq!(done.body["warnings"], json!(["acks: has no effect here and was left out"]));
    assert_eq!(own(&node), ["availability.check.ms=2000", "metadata.max.age.ms=1000"]);

    let half = json!([
        {"name": "metadata.max.age.ms", "value": "2000"},
        {"name": "replica.fetch.min.bytes", "value": "none"},
    ]);
    let message = "replica.fetch.min.bytes: must be a whole number, 1 to 2147483647";
    assert_eq!(alter(&node, "", half).await.error(), (400, 40_002, message));
    assert_eq!(own(&node), ["availability.check.ms=2000", "metadata.max.age.ms=1000"]);
}

#[tokio::test]
async fn what_cant_be_altered_is_named() {
    let node = Node::with_mirror().await;
    let before = node.catalog();
    let immutable = "source.cluster: can't be changed on a link that exists; create another link";
    let unknown =
        "metadata.maxage.ms: is not a configuration key of a link; did you mean 'metadata.max.age.ms'?";
    for (change, message) in [
        (json!({"name": "source.cluster", "value": "west"}), immutable),
        (json!({"name": "metadata.maxage.ms", "value": "1"}), unknown),
        (
            json!({"name": "gap.fill", "value": "auto"}),
            "gap.fill: this version doesn't support it yet; leave it out",
        ),
    ] {
        assert_eq!(alter(&node, "", json!([change])).await.error(), (400, 40_002, message));
    }
    let reply = alter(&node, "", json!([{"name": "client.id", "value": "x", "operation": "APPEND"}])).await;
    let (status, code, message) = reply.error();
    assert_eq!((status, code), (400, 40_002));
    assert!(
        message.starts_with("data[0].operation: unknown variant `APPEND`, expected `SET` or `DELETE`"),
        "{message}"
    );

    assert_eq!(node.get(&format!("{CONFIGS}/metadata.maxage.ms")).await.error(), (404, 404, unknown));
    let unset = "link 'east-west' doesn't set 'sasl.mechanism', which has no default";
    assert_eq!(node.get(&format!("{CONFIGS}/sasl.mechanism")).await.error(), (404, 404, unset));
    let no_effect = node.put(&format!("{CONFIGS}/acks"), json!({"value": "all"})).await;
    assert_eq!(no_effect.error(), (400, 40_002, "acks: has no effect here"));
    let reply = node.put(&format!("{LINKS}/nope/configs:alter"), json!({"data": []})).await;
    assert_eq!(reply.error().1, 40_404);
    assert_eq!(node.catalog(), before);
}

#[tokio::test]
async fn a_links_own_source_is_asked_before_it_is_reached_anew() {
    let node = Node::with_mirror().await;
    let body = json!({"configs": [{"name": "bootstrap.servers", "value": "north:9092"}]});
    assert_eq!(node.post(&format!("{LINKS}?link_name=own"), body).await.status, 201);
    let path = format!("{LINKS}/own/configs/bootstrap.servers");
    let set =
        async |value: &str, query: &str| node.put(&format!("{path}{query}"), json!({ "value": value })).await;
    let other = "bootstrap.servers: the brokers answer as Kafka cluster 'id-south', not 'id-north'";
    assert_eq!(set("south:9092", "").await.error(), (400, 40_002, other));
    let away = "bootstrap.servers: cluster 'source' can't be used: connection refused";
    assert_eq!(set("away:1", "").await.error(), (400, 40_002, away));
    assert_eq!(node.get(&path).await.body["value"], "north:9092");
    assert_eq!(set("north-2:9092", "").await.status, 204);
    assert_eq!(set("away:1", "?validate_link=false").await.status, 204);
    assert_eq!(node.get(&path).await.body["value"], "away:1");
    let gone = "bootstrap.servers: the link's source is reached there; set it to other brokers instead";
    assert_eq!(node.delete(&path).await.error(), (400, 40_002, gone));
}

#[tokio::test]
async fn a_cluster_is_asked_before_it_is_reached_anew() {
    let node = Node::with_mirror().await;
    let set = |name: &str, value: &str| json!({"configs": [{"name": name, "value": value}]});
    let servers = |node: &Node| node.catalog().clusters["east"].configs["bootstrap.servers"].clone();
    let before = node.catalog();
    let other = "bootstrap.servers: the brokers answer as Kafka cluster 'id-west', not 'id-east'";
    let refused = node.patch(EAST, set("bootstrap.servers", "west:9092")).await;
    assert_eq!(refused.error(), (400, 40_002, other));
    let away = "bootstrap.servers: cluster 'east' can't be used: connection refused";
    assert_eq!(node.patch(EAST, set("bootstrap.servers", "away:1")).await.error(), (400, 40_002, away));
    let nearest = "client.ip: is not a configuration key of a cluster; did you mean 'client.id'?";
    assert_eq!(node.patch(EAST, set("client.ip", "x")).await.error(), (400, 40_002, nearest));
    let secret = node.patch(EAST, set("sasl.password", "hunter2")).await;
    assert!(!secret.error().2.contains("hunter2"), "{secret:?}");
    let tried =
        node.patch(&format!("{EAST}?validate_only=true"), set("bootstrap.servers", "east-2:9092")).await;
    assert_eq!(tried.body["configs"], json!([{"name": "bootstrap.servers", "value": "east-2:9092"}]));
    assert_eq!(node.catalog(), before);

    let done = node.patch(EAST, set("bootstrap.servers", "east-2:9092")).await;
    assert_eq!(
        (done.status, &done.body["state"], servers(&node).as_str()),
        (200, &json!("ACTIVE"), "east-2:9092")
    );
    let done =
        node.patch(&format!("{EAST}?validate_cluster=false"), set("bootstrap.servers", "away:1")).await;
    assert_eq!(
        (done.status, &done.body["state"], servers(&node).as_str()),
        (200, &json!("UNKNOWN"), "away:1")
    );
    assert_eq!(node.patch("/lockstep/v1/clusters/nope", set("client.id", "x")).await.status, 404);
}

#[tokio::test]
async fn a_dry_run_of_acl_keys_says_what_they_would_do() {
    let node = Node::with_mirror().await;
    let mode = || json!([{"name": "acl.sync.mode", "value": "mirror"}]);
    let tried = alter(&node, "?validate_only=true", mode()).await;
    assert_eq!((tried.status, &tried.body["warnings"]), (200, &json!(["what mirror would do"])));
    assert!(own(&node).is_empty());
    assert_eq!(alter(&node, "", mode()).await.body["warnings"], Value::Null);
    let others = json!([{"name": "metadata.max.age.ms", "value": "1000"}]);
    assert_eq!(alter(&node, "?validate_only=true", others).await.body["warnings"], Value::Null);
}
